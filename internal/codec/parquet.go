package codec

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"github.com/penstock/penstock/internal/pipeline"
)

const (
	// A row group is bounded, for the default is not, and both writer and
	// readers hold one in memory.
	groupRows  = 128 << 10
	groupBytes = 64 << 20 // of events as they are in memory

	// partRows and partBytes bound what goes into the columns at a time. A page
	// ends between two parts only, and readers hold whole pages.
	partRows  = 4 << 10
	partBytes = 256 << 10
)

// column is one column of the layout: how it is stored, and how it is taken
// from an event and given back to one.
type column struct {
	name string
	node parquet.Node
	get  func(e *pipeline.Event) parquet.Value
	set  func(e *pipeline.Event, v parquet.Value, a *arena)
}

func textColumn(name string, of func(e *pipeline.Event) *[]byte) column {
	var last []byte
	return column{name, parquet.Encoded(parquet.String(), &parquet.RLEDictionary),
		func(e *pipeline.Event) parquet.Value { return parquet.ByteArrayValue(*of(e)) },
		func(e *pipeline.Event, v parquet.Value, a *arena) {
			last = a.keepSame(v.ByteArray(), last)
			*of(e) = last
		},
	}
}

func documentColumn(name string, node parquet.Node, of func(e *pipeline.Event) *[]byte) column {
	var last []byte
	return column{name, node,
		func(e *pipeline.Event) parquet.Value { return parquet.ByteArrayValue(document(*of(e))) },
		func(e *pipeline.Event, v parquet.Value, a *arena) {
			last = a.keepSame(v.ByteArray(), last)
			*of(e) = last
		},
	}
}

// columns is the layout, in the order of names: Parquet groups have no other.
func columns() []column {
	ms := func() parquet.Node {
		return parquet.Encoded(parquet.Timestamp(parquet.Millisecond), &parquet.DeltaBinaryPacked)
	}
	return []column{
		documentColumn("context", parquet.Encoded(parquet.JSON(), &parquet.RLEDictionary),
			func(e *pipeline.Event) *[]byte { return &e.Context }),
		{"event_id", parquet.UUID(),
			func(e *pipeline.Event) parquet.Value { return parquet.FixedLenByteArrayValue(e.ID[:]) },
			func(e *pipeline.Event, v parquet.Value, _ *arena) { copy(e.ID[:], v.ByteArray()) }},
		textColumn("name", func(e *pipeline.Event) *[]byte { return &e.Name }),
		textColumn("project", func(e *pipeline.Event) *[]byte { return &e.Project }),
		// Properties hardly repeat: a dictionary of them would only cost.
		documentColumn("properties", parquet.Encoded(parquet.JSON(), &parquet.Plain),
			func(e *pipeline.Event) *[]byte { return &e.Properties }),
		{"received_at", ms(),
			func(e *pipeline.Event) parquet.Value { return parquet.Int64Value(e.ReceivedAt) },
			func(e *pipeline.Event, v parquet.Value, _ *arena) { e.ReceivedAt = v.Int64() }},
		textColumn("receiver", func(e *pipeline.Event) *[]byte { return &e.Receiver }),
		{"seq", parquet.Encoded(parquet.Uint(64), &parquet.DeltaBinaryPacked),
			func(e *pipeline.Event) parquet.Value { return parquet.Int64Value(int64(e.Seq)) },
			func(e *pipeline.Event, v parquet.Value, _ *arena) { e.Seq = v.Uint64() }},
		textColumn("session_id", func(e *pipeline.Event) *[]byte { return &e.SessionID }),
		{"timestamp", parquet.Optional(ms()),
			func(e *pipeline.Event) parquet.Value {
				if e.Timestamp == pipeline.NoTime {
					return parquet.NullValue().Level(0, 0, 0)
				}
				return parquet.Int64Value(e.Timestamp).Level(0, 1, 0)
			},
			func(e *pipeline.Event, v parquet.Value, _ *arena) {
				if e.Timestamp = pipeline.NoTime; !v.IsNull() {
					e.Timestamp = v.Int64()
				}
			}},
		textColumn("user_id", func(e *pipeline.Event) *[]byte { return &e.UserID }),
	}
}

func schema(cols []column) *parquet.Schema {
	g := parquet.Group{}
	for _, c := range cols {
		g[c.name] = parquet.Compressed(c.node, &zstd.Codec{Level: zstd.SpeedFastest})
	}
	return parquet.NewSchema("event", g)
}

type parquetEncoder struct {
	w        *parquet.GenericWriter[any]
	cols     []column
	receiver []byte
	values   []parquet.Value
	rows     int64 // all
	group    int64 // rows of the group being written
	bytes    int64 // of it, in memory
}

func newParquetEncoder(w io.Writer, receiver string) *parquetEncoder {
	cols := columns()
	return &parquetEncoder{
		w: parquet.NewGenericWriter[any](w, schema(cols), parquet.MaxRowsPerRowGroup(groupRows), parquet.CreatedBy("penstock", "1", ""),
			// Statistics hold whole values: documents would stand in every page's
			// header and in the footer again.
			parquet.DataPageStatistics(false), parquet.SkipPageBounds("properties"), parquet.SkipPageBounds("context")),
		cols:     cols,
		receiver: []byte(receiver),
	}
}

func (p *parquetEncoder) Encode(events []pipeline.Event) error {
	for len(events) > 0 {
		n := p.part(events)
		if err := p.encode(events[:n]); err != nil {
			return fmt.Errorf("write parquet: %w", err)
		}
		events = events[n:]
	}
	return nil
}

// part is how many of events go into the columns at once.
func (p *parquetEncoder) part(events []pipeline.Event) int {
	most, bytes := int(min(int64(len(events)), groupRows-p.group, partRows)), 0
	for i := range most {
		if bytes += events[i].Size(); bytes >= partBytes {
			return i + 1
		}
	}
	return most
}

func (p *parquetEncoder) encode(events []pipeline.Event) error {
	for i := range events {
		events[i].Receiver = p.receiver
		p.bytes += int64(events[i].Size())
	}
	writers := p.w.ColumnWriters()
	for c := range p.cols {
		p.values = p.values[:0]
		for i := range events {
			p.values = append(p.values, p.cols[c].get(&events[i]))
		}
		if _, err := writers[c].WriteRowValues(p.values); err != nil {
			return fmt.Errorf("column %s: %w", p.cols[c].name, err)
		}
	}
	p.rows += int64(len(events))
	p.group += int64(len(events))
	if p.group == groupRows || p.bytes >= groupBytes {
		p.group, p.bytes = 0, 0
		return p.w.Flush()
	}
	return nil
}

// Close writes the footer and checks that it counts what was written.
func (p *parquetEncoder) Close() error {
	if err := p.w.Close(); err != nil {
		return fmt.Errorf("close parquet: %w", err)
	}
	if n := p.w.File().NumRows(); n != p.rows {
		return fmt.Errorf("close parquet: the footer counts %d rows, %d were written", n, p.rows)
	}
	return nil
}

type parquetDecoder struct {
	file    *parquet.File
	cols    []column
	groups  []parquet.RowGroup // not yet begun
	left    int64              // rows of the current group
	readers []columnReader
	bulk    int // of readers, the one of the largest column
	values  []parquet.Value
	rows    []pipeline.Event // read ahead
	next    int              // of rows, the first not yet given away
	arena   arena
	row     uint32 // of the next event
}

var errTruncated = errors.New("the column is shorter than its row group")

// guard turns a panic into an error: what a file says of itself can lead
// parquet-go out of a slice's bounds even where checkColumn found nothing, and
// one bad object must not end the process.
func guard(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("read parquet: the file is damaged (%v)", r)
	}
}

func openParquet(r io.ReaderAt, size int64) (*parquet.File, error) {
	if err := checkFooter(r, size); err != nil {
		return nil, err
	}
	f, err := parquet.OpenFile(r, size, parquet.SkipBloomFilters(true), parquet.SkipPageIndex(true))
	if err != nil {
		return nil, err
	}
	var rows int64
	for _, g := range f.RowGroups() {
		rows += g.NumRows()
		if n := g.NumRows(); n < 0 {
			return nil, fmt.Errorf("a row group of %d rows", n)
		}
	}
	if rows != f.NumRows() {
		return nil, fmt.Errorf("the row groups have %d rows, the footer counts %d", rows, f.NumRows())
	}
	return f, nil
}

func newParquetDecoder(r io.ReaderAt, size int64) (_ *parquetDecoder, err error) {
	defer guard(&err)
	f, err := openParquet(r, size)
	if err != nil {
		return nil, fmt.Errorf("open parquet: %w", err)
	}
	d := &parquetDecoder{file: f, cols: columns(), groups: f.RowGroups(), values: make([]parquet.Value, peek)}
	for i, c := range d.cols {
		if c.name == "properties" {
			d.bulk = i
		}
		leaf, ok := f.Schema().Lookup(c.name)
		if !ok {
			return nil, fmt.Errorf("open parquet: no column %q", c.name)
		}
		if have, want := leaf.Node.Type(), c.node.Type(); !stored(have, want) || leaf.MaxRepetitionLevel > 0 {
			return nil, fmt.Errorf("open parquet: column %q is %s, want %s", c.name, have, want)
		}
		stands := f.Root().Column(c.name)
		if stands.Index() != leaf.ColumnIndex {
			return nil, fmt.Errorf("open parquet: column %q is there twice", c.name)
		}
		if err := checkColumn(f, r, size, stands); err != nil {
			return nil, fmt.Errorf("open parquet: column %q: %w", c.name, err)
		}
	}
	return d, nil
}

// stored tells whether a column can be read as one of ours. Strings may be
// marked as such or not; the unit of a time must be right.
func stored(have, want parquet.Type) bool {
	if have.Kind() != want.Kind() {
		return false
	}
	switch want.Kind() {
	case parquet.ByteArray:
		return true
	case parquet.FixedLenByteArray:
		return have.Length() == want.Length()
	}
	return have.String() == want.String()
}

// peek is how many rows are read at once, at most.
const peek = 512

func (p *parquetDecoder) Decode(dst []pipeline.Event, limit Limit) (events []pipeline.Event, err error) {
	events = dst // for a panic
	from, bytes := len(dst), 0
	defer guard(&err)
	for len(dst) == from || len(dst)-from < limit.Rows {
		if p.next == len(p.rows) {
			if err := p.fill(); err == io.EOF {
				break
			} else if err != nil {
				return dst[:from], err
			}
		}
		e := p.rows[p.next]
		p.next++
		e.Row = p.row
		p.row++
		dst = append(dst, e)
		if bytes += e.Size(); bytes >= limit.Bytes {
			break
		}
	}
	if len(dst) == from {
		return dst, io.EOF
	}
	return dst, nil
}

// fill reads the next few rows, column by column: no more than the current
// page of properties has, so that large events are read few at a time.
func (p *parquetDecoder) fill() error {
	for p.left == 0 {
		if len(p.groups) == 0 {
			return io.EOF
		}
		p.begin(p.groups[0])
		p.groups = p.groups[1:]
	}
	if err := p.readers[p.bulk].load(); err != nil {
		return fmt.Errorf("read parquet column %s: %w", p.cols[p.bulk].name, err)
	}
	n := min(p.left, peek, p.readers[p.bulk].left)
	p.rows, p.next = slices.Grow(p.rows[:0], peek)[:n], 0
	clear(p.rows)
	for c := range p.cols {
		if err := p.readers[c].read(p.rows, p.values, p.cols[c].set, &p.arena); err != nil {
			p.rows = p.rows[:0]
			return fmt.Errorf("read parquet column %s: %w", p.cols[c].name, err)
		}
	}
	p.left -= n
	return nil
}

func (p *parquetDecoder) begin(g parquet.RowGroup) {
	p.closeReaders()
	p.left = g.NumRows()
	chunks := g.ColumnChunks()
	p.readers = p.readers[:0]
	for _, c := range p.cols {
		leaf, _ := p.file.Schema().Lookup(c.name)
		p.readers = append(p.readers, columnReader{pages: chunks[leaf.ColumnIndex].Pages()})
	}
}

func (p *parquetDecoder) closeReaders() {
	for i := range p.readers {
		p.readers[i].close()
	}
}

func (p *parquetDecoder) Close() (err error) {
	defer guard(&err)
	p.closeReaders()
	return nil
}

// columnReader reads one column of a row group, page by page.
type columnReader struct {
	pages parquet.Pages
	page  parquet.Page
	from  parquet.ValueReader
	left  int64 // values of page
}

// load makes sure that there is a value to be read.
func (r *columnReader) load() error {
	for r.left == 0 {
		r.release()
		page, err := r.pages.ReadPage()
		if err == io.EOF {
			return errTruncated
		}
		if err != nil {
			return err
		}
		r.page, r.from, r.left = page, page.Values(), page.NumValues()
	}
	return nil
}

func (r *columnReader) read(events []pipeline.Event, values []parquet.Value, set func(*pipeline.Event, parquet.Value, *arena), a *arena) error {
	for len(events) > 0 {
		if err := r.load(); err != nil {
			return err
		}
		n, err := r.from.ReadValues(values[:min(int64(len(values)), int64(len(events)), r.left)])
		for i, v := range values[:n] {
			set(&events[i], v, a)
		}
		events = events[n:]
		r.left -= int64(n)
		if err == io.EOF && r.left > 0 {
			return errTruncated
		} else if err != nil && err != io.EOF {
			return err
		} else if n == 0 {
			return io.ErrNoProgress
		}
	}
	return nil
}

// release gives the page's memory back: values taken from it are copies by now.
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
