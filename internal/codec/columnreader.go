package codec

import (
	"bytes"
	"errors"
	"io"
	"math"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding"

	"github.com/penstock/penstock/internal/pipeline"
)

// columnReader reads one column of a row group, page by page, from parquet-go's decoded buffers. parquet-go's own
// Values are 24 bytes each; making them took a third of the time to read an object. If a damaged page has fewer values
// than its header says, an index is out of range; guard turns that panic into an error.
type columnReader struct {
	pages  parquet.Pages
	page   parquet.Page
	levels []byte  // one for each row of the page, 0: no value; nil: all rows have a value
	index  []int32 // dictionary entry of each value; nil: the page does not use the dictionary
	values pageValues
	row    int   // next row of the page
	next   int   // value of that row, or of the next row with one
	left   int64 // rows left in the page
}

// pageValues are the values of a page or a dictionary, in one of these fields.
type pageValues struct {
	numbers []uint64
	floats  []float64
	bools   []byte // bits
	ids     [][16]byte
	text    []byte
	ends    []uint32 // ends of the texts, after the start of the first one

	lasting bool // texts of a dictionary: nothing overwrites them, so events may share their memory
}

func (v *pageValues) textAt(i int) []byte {
	from, to := v.ends[i], v.ends[i+1]
	return v.text[from:to:to]
}

func (v *pageValues) set(data encoding.Values) {
	*v = pageValues{}
	switch data.Kind() {
	case encoding.Int64:
		v.numbers = data.Uint64()
	case encoding.Double:
		v.floats = data.Double()
	case encoding.Boolean:
		v.bools = data.Boolean()
	case encoding.FixedLenByteArray:
		v.ids = data.Uint128()
	case encoding.ByteArray:
		v.text, v.ends = data.ByteArray()
	}
}

// load loads pages until there is a row to read.
func (r *columnReader) load() error {
	for r.left == 0 {
		r.release()
		page, err := r.pages.ReadPage()
		if errors.Is(err, io.EOF) {
			return errTruncated
		}
		if err != nil {
			return err
		}
		r.page, r.row, r.next, r.left = page, 0, 0, page.NumValues()
		r.levels, r.index = page.DefinitionLevels(), nil
		data := page.Data()
		if dictionary := page.Dictionary(); dictionary != nil {
			r.index = data.Int32()
			data = dictionary.Page().Data()
		}
		r.values.set(data)
		r.values.lasting = r.index != nil
	}
	return nil
}

// take returns the index of the next row's value, -1: none.
func (r *columnReader) take() int {
	row := r.row
	r.row++
	if r.levels != nil && r.levels[row] == 0 {
		return -1
	}
	i := r.next
	r.next++
	if r.index != nil {
		return int(r.index[i])
	}
	return i
}

// pass skips rows.
func (r *columnReader) pass(rows int64) error {
	for rows > 0 {
		if err := r.load(); err != nil {
			return err
		}
		n := int(min(r.left, rows))
		if r.levels == nil {
			r.next += n
		} else {
			r.next += bytes.Count(r.levels[r.row:r.row+n], []byte{1})
		}
		r.row += n
		r.left -= int64(n)
		rows -= int64(n)
	}
	return nil
}

func (r *columnReader) read(events []pipeline.Event, set func(*pipeline.Event, *pageValues, int, *arena),
	a *arena) error {
	for len(events) > 0 {
		if err := r.load(); err != nil {
			return err
		}
		n := min(r.left, int64(len(events)))
		for i := range events[:n] {
			if set(&events[i], &r.values, r.take(), a); a.kept > maxOpen {
				return errTooLarge
			}
		}
		events = events[n:]
		r.left -= n
	}
	return nil
}

// readTyped reads a value for each row, and adds the values' sizes to the rows' sizes.
func (r *columnReader) readTyped(t *pipeline.Typed, sizes []int, a *arena) error {
	for row := 0; row < len(sizes); {
		if err := r.load(); err != nil {
			return err
		}
		end := row + int(min(r.left, int64(len(sizes)-row)))
		r.left -= int64(end - row)
		for row = r.skip(row, end); row < end; row = r.skip(row+1, end) {
			i := r.take()
			t.Rows = append(t.Rows, uint32(row))
			sizes[row] += 8
			switch t.Kind {
			case pipeline.TypedText:
				b := r.values.textAt(i)
				if a.kept += int64(len(b)); a.kept > maxOpen {
					return errTooLarge
				}
				t.Text = append(t.Text, b...)
				t.Ends = append(t.Ends, uint32(len(t.Text)))
				sizes[row] += len(b)
			case pipeline.TypedBool:
				t.Bits = append(t.Bits, uint64(r.values.bools[i/8]>>(i%8)&1))
			case pipeline.TypedInt:
				t.Bits = append(t.Bits, r.values.numbers[i])
			default:
				t.Bits = append(t.Bits, math.Float64bits(r.values.floats[i]))
			}
		}
	}
	return nil
}

// skip skips rows without a value. It returns the first row with a value, or end.
func (r *columnReader) skip(row, end int) int {
	if r.levels == nil || row == end || r.levels[r.row] != 0 {
		return row
	}
	n := bytes.IndexByte(r.levels[r.row:r.row+end-row], 1)
	if n < 0 {
		n = end - row
	}
	r.row += n
	return row + n
}

// release releases the page's memory. Values read from it have been copied.
func (r *columnReader) release() {
	if r.page != nil {
		parquet.Release(r.page)
		r.page = nil
	}
}

func (r *columnReader) close() {
	r.release()
	r.pages.Close()
}
