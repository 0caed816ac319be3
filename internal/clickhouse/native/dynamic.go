package native

import (
	"encoding/binary"
	"slices"

	"github.com/penstock/penstock/internal/jsonscan"
)

// dynamic is a column of values of any type.
type dynamic struct {
	path   string
	depth  nesting
	size   *extent
	index  []byte   // type of each row so far; null: no value
	rows   []uint32 // if sparse: the rows that have a value, and index has their types
	sparse bool
	top    bool // not within an array
	types  []*typed
	at     []uint32 // see locate
	cursor cursor
}

const null = 255

// typed is the values of one type.
type typed struct {
	name    string
	n       int
	data    []byte
	array   bool
	nulls   []byte      // for an array's elements; nil: not nullable
	element *typed      // for an array of one type
	dynamic *dynamic    // for an array of several types
	objects *jsonObject // for an array of objects
	count   int         // elements so far

	code   []byte   // see locate
	starts []uint32 // see locate
}

// of returns the values of a type, and its index.
func (d *dynamic) of(name string) (*typed, byte, error) {
	for i, t := range d.types {
		if t.name == name {
			return t, byte(i), nil
		}
	}
	if len(d.types) == null-1 {
		return nil, 0, ErrNotColumnar
	}
	if err := d.size.part(); err != nil {
		return nil, 0, err
	}
	t := newTyped(name, d.depth, d.size)
	d.types = append(d.types, t)
	return t, byte(len(d.types) - 1), nil
}

// A path that few rows have becomes sparse: sparseBytes for each value cost less than a byte for each row.
const (
	sparseFrom  = 1 << 10 // rows
	sparseBytes = 5
)

// put gives a row a value of type i. Values of one type arrive in the order of rows.
func (d *dynamic) put(row int, i byte) error {
	if d.sparse {
		return d.putSparse(row, i)
	}
	if row < len(d.index) {
		if d.index[row] != null {
			return ErrNotColumnar // the document has the path twice
		}
		d.index[row] = i
		return nil
	}
	if d.size.cells += row + 1 - len(d.index); d.size.cells > maxCells {
		return ErrNotColumnar
	}
	gap := row - len(d.index)
	d.index = append(appendNulls(d.index, gap), i)
	if gap > sparseBytes && row >= sparseFrom && d.top && d.values() < row/(4*sparseBytes) {
		d.makeSparse()
	}
	return nil
}

// nulls is 64 index bytes of rows without a value.
const nulls = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"

func appendNulls(index []byte, n int) []byte {
	for n > len(nulls) {
		index = append(index, nulls...)
		n -= len(nulls)
	}
	return append(index, nulls[:n]...)
}

// putRun gives a type to rows that follow each other.
func (d *dynamic) putRun(row, n int, i byte) error {
	for end := row + n; row < end; row++ {
		if err := d.put(row, i); err != nil {
			return err
		}
		if rest := end - row - 1; !d.sparse && len(d.index) == row+1 {
			if d.size.cells += rest; d.size.cells > maxCells {
				return ErrNotColumnar
			}
			from := len(d.index)
			d.index = slices.Grow(d.index, rest)[:from+rest]
			for k := range d.index[from:] {
				d.index[from+k] = i
			}
			return nil
		}
	}
	return nil
}

func (d *dynamic) putSparse(row int, i byte) error {
	if n := len(d.rows); n > 0 && int(d.rows[n-1]) >= row {
		return ErrNotColumnar // the document has the path twice
	}
	if d.size.cells += sparseBytes; d.size.cells > maxCells {
		return ErrNotColumnar
	}
	d.rows, d.index = append(d.rows, uint32(row)), append(d.index, i)
	return nil
}

func (d *dynamic) makeSparse() {
	d.sparse = true
	d.size.cells -= len(d.index)
	var kinds []byte
	for row, kind := range d.index {
		if kind != null {
			d.rows, kinds = append(d.rows, uint32(row)), append(kinds, kind)
		}
	}
	d.index = kinds
	d.size.cells += sparseBytes * len(kinds)
}

// row returns the row of an element of index.
func (d *dynamic) row(i int) int {
	if d.sparse {
		return int(d.rows[i])
	}
	return i
}

// full returns the type of each row, in reused memory if the path is sparse.
func (d *dynamic) full(used []byte) []byte {
	if !d.sparse || len(d.rows) == 0 {
		return d.index
	}
	n := int(d.rows[len(d.rows)-1]) + 1
	used = slices.Grow(used[:0], n)[:n]
	for i := range used {
		used[i] = null
	}
	for i, kind := range d.index {
		used[d.rows[i]] = kind
	}
	return used
}

// add reads a value that is not null.
func (d *dynamic) add(p *jsonscan.Walker, row int) error {
	if d.cursor.batch != nil {
		if err := d.copyTyped(row); err != nil {
			return err
		}
	}
	if p.Peek() == '{' { // an object among values of other types
		if d.depth.full() {
			return ErrNotColumnar // the server has the same limit
		}
		t, i, err := d.of(objectType(d.depth))
		if err != nil {
			return err
		}
		if err := d.put(row, i); err != nil {
			return err
		}
		t.n++
		return t.objects.add(p, t.n-1)
	}
	v, err := p.Value()
	if err != nil {
		return err
	}
	name := typeName(v.Kind)
	if v.Kind == jsonscan.ArrayValue {
		if name, _, err = arrayType(v.Raw, d.depth); err != nil {
			return err
		}
	}
	t, i, err := d.of(name)
	if err != nil {
		return err
	}
	if err := d.put(row, i); err != nil {
		return err
	}
	return t.add(v)
}

// used reports whether there is any value. A reused block may have paths and types without rows.
func (d *dynamic) used() bool {
	return slices.ContainsFunc(d.types, (*typed).used)
}

func (t *typed) used() bool { return t.n > 0 }

func (d *dynamic) head(b []byte) []byte {
	n := 0
	for _, t := range d.types {
		if t.used() {
			n++
		}
	}
	b = binary.LittleEndian.AppendUint64(b, 3)
	b = binary.AppendUvarint(b, uint64(n))
	for _, t := range d.types {
		if t.used() {
			b = appendString(b, t.name)
		}
	}
	for _, t := range d.types {
		if t.used() {
			b = t.head(b)
		}
	}
	return b
}

func (d *dynamic) write(s *sink, rows []uint32) {
	var as [256]byte // index of each type among the types in use
	var picked [256][]uint32
	var count [256]uint32
	index := d.full(s.index)
	if d.sparse {
		s.index = index
	}
	used := byte(0)
	for i, t := range d.types {
		if as[i] = used; t.used() {
			used++
			picked[i] = make([]uint32, 0, t.n)
		}
	}
	as[null] = used
	if used == 1 && len(d.types) == 1 && d.types[0].n == len(index) && len(index) == len(rows) {
		s.bytes(make([]byte, len(rows)))
		d.types[0].write(s, rows)
		return
	}
	// The index of each row's value among the values of its type.
	at := slices.Grow(s.at[:0], len(index))[:len(index)]
	s.at = at
	for row, t := range index {
		at[row] = count[t]
		count[t]++
	}
	for part := range parts(rows) {
		b := s.reserve(len(part))
		for i, row := range part {
			t := byte(null)
			if int(row) < len(index) {
				t = index[row]
			}
			b[i] = as[t]
			if t != null {
				picked[t] = append(picked[t], at[row])
			}
		}
		s.room()
	}
	for i, t := range d.types {
		if t.used() {
			t.write(s, picked[i])
		}
	}
}

func (d *dynamic) reset() {
	d.index, d.rows, d.sparse = emptied(d.index), d.rows[:0], false
	for _, t := range d.types {
		t.reset()
	}
}
