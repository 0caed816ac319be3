package codec

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/parquet-go/parquet-go"

	"github.com/penstock/penstock/internal/pipeline"
)

// column is one column of the layout. set puts the value with an index into an event; -1: no value.
type column struct {
	name string
	node parquet.Node
	set  func(e *pipeline.Event, from *pageValues, i int, a *arena)
}

func textColumn(name string, node parquet.Node, of func(e *pipeline.Event) *[]byte) column {
	var last []byte
	return column{name, node, func(e *pipeline.Event, from *pageValues, i int, a *arena) {
		switch {
		case i < 0:
		case from.lasting:
			*of(e) = from.textAt(i)
			a.kept += int64(len(*of(e))) // who copies it must not run out of memory
		default:
			last = a.keepSame(from.textAt(i), last)
			*of(e) = last
		}
	}}
}

func numberColumn(name string, node parquet.Node, missing int64, set func(e *pipeline.Event, v int64)) column {
	return column{name, node, func(e *pipeline.Event, from *pageValues, i int, _ *arena) {
		if i < 0 {
			set(e, missing)
		} else {
			set(e, int64(from.numbers[i]))
		}
	}}
}

// columns is the layout, sorted by name, as Parquet groups are.
func columns() []column {
	ms, text := parquet.Timestamp(parquet.Millisecond), parquet.String()
	return []column{
		textColumn("context", parquet.JSON(), func(e *pipeline.Event) *[]byte { return &e.Context }),
		{"event_id", parquet.UUID(), func(e *pipeline.Event, from *pageValues, i int, _ *arena) {
			if i >= 0 {
				e.ID = from.ids[i]
			}
		}},
		textColumn("name", text, func(e *pipeline.Event) *[]byte { return &e.Name }),
		textColumn("project", text, func(e *pipeline.Event) *[]byte { return &e.Project }),
		textColumn("properties", parquet.JSON(), func(e *pipeline.Event) *[]byte { return &e.Properties }),
		numberColumn("received_at", ms, 0, func(e *pipeline.Event, v int64) { e.ReceivedAt = v }),
		textColumn("receiver", text, func(e *pipeline.Event) *[]byte { return &e.Receiver }),
		numberColumn("seq", parquet.Uint(64), 0, func(e *pipeline.Event, v int64) { e.Seq = uint64(v) }),
		textColumn("session_id", text, func(e *pipeline.Event) *[]byte { return &e.SessionID }),
		numberColumn("timestamp", parquet.Optional(ms), pipeline.NoTime,
			func(e *pipeline.Event, v int64) { e.Timestamp = v }),
		textColumn("user_id", text, func(e *pipeline.Event) *[]byte { return &e.UserID }),
	}
}

// typedGroup is the group of typed columns. SchemaVersion 1 has none.
const typedGroup = "typed"

// The file's metadata has a checksum of the typed columns' paths and types. Names are data here, and the footer has no
// checksum. The metadata key says how the columns are named.
const (
	typedKey  = "penstock.columns" // columnName, since SchemaVersion 3
	typedKey2 = "penstock.typed"   // SchemaVersion 2: the plain path
)

// typedSum is the checksum of the typed columns. It does not depend on their order.
func typedSum(columns []*pipeline.Typed) string {
	var lines []string
	for _, t := range columns {
		lines = append(lines, fmt.Sprintf("%d %s\n", t.Kind, t.Path))
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return hex.EncodeToString(sum[:8])
}

// schema is the layout including the typed columns.
func schema(typed []*pipeline.Typed) *parquet.Schema {
	g := parquet.Group{}
	for _, c := range columns() {
		g[c.name] = c.node
	}
	if len(typed) > 0 {
		t := parquet.Group{}
		for i := range typed {
			t[typedName(typed, i)] = parquet.Optional(typedNode(typed[i].Kind))
		}
		g[typedGroup] = t
	}
	return parquet.NewSchema("event", g)
}

func typedNode(k pipeline.TypedKind) parquet.Node {
	switch k {
	case pipeline.TypedBool:
		return parquet.Leaf(parquet.BooleanType)
	case pipeline.TypedInt:
		return parquet.Int(64)
	case pipeline.TypedFloat:
		return parquet.Leaf(parquet.DoubleType)
	}
	return parquet.String()
}

type parquetDecoder struct {
	file     *parquet.File
	cols     []column
	groups   []parquet.RowGroup // not yet read
	left     int64              // rows left in the current group
	readers  []columnReader
	bulk     int              // index in readers of the largest column
	rows     []pipeline.Event // read ahead
	next     int              // index in rows of the first event not yet returned
	peek     int              // most rows to read ahead
	sampling bool             // peek stays as it is
	arena    arena
	row      uint32 // number of the next event

	typed   []*pipeline.Typed // values of the rows read ahead
	leaves  []int             // their columns in the file
	starts  []int             // for each, its first value not yet returned
	given   []*pipeline.Typed
	sizes   []int // size of each row with its values, in bytes
	merger  *merger
	scratch []byte
}

var (
	errTruncated = errors.New("the column is shorter than its row group")
	// In a dictionary, a few bytes can stand for any number of large values.
	errTooLarge = fmt.Errorf("the values of at most %d rows take more than %d bytes", maxPeek, int64(maxOpen))
)

// guard turns a panic into an error. A damaged file can lead parquet-go beyond a slice even where checkColumn found
// nothing, and one bad object must not end the process.
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
	d := &parquetDecoder{file: f, cols: columns(), groups: f.RowGroups(), peek: samplePeek}
	var open openPages
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
			return nil, fmt.Errorf("open parquet: two columns are named %q", c.name)
		}
		if err := checkColumn(f, r, size, stands, &open); err != nil {
			return nil, fmt.Errorf("open parquet: column %q: %w", c.name, err)
		}
	}
	if err := d.openTyped(f, r, size, &open); err != nil {
		return nil, fmt.Errorf("open parquet: %w", err)
	}
	return d, nil
}

// openTyped finds the typed columns, if the file has any.
func (p *parquetDecoder) openTyped(f *parquet.File, r io.ReaderAt, size int64, open *openPages) error {
	group := f.Root().Column(typedGroup)
	sum, written := f.Lookup(typedKey)
	sum2, written2 := f.Lookup(typedKey2)
	pathOf := columnPath
	if written2 {
		sum, pathOf = sum2, func(name string) (string, error) { return name, nil }
	}
	if group == nil && !written && !written2 {
		return nil // SchemaVersion 1, or no frequent values
	}
	if group == nil || written == written2 {
		return fmt.Errorf("its columns of %q are not those that were written", typedGroup)
	}
	for _, c := range group.Columns() {
		if !c.Leaf() || !c.Optional() || c.MaxDefinitionLevel() != 1 || c.MaxRepetitionLevel() != 0 {
			return fmt.Errorf("column %q in %q is not an optional value", c.Name(), typedGroup)
		}
		if err := checkColumn(f, r, size, c, open); err != nil {
			return fmt.Errorf("column %q in %q: %w", c.Name(), typedGroup, err)
		}
		t := new(pipeline.Typed)
		switch c.Type().Kind() {
		case parquet.Boolean:
			t.Kind = pipeline.TypedBool
		case parquet.Int64:
			t.Kind = pipeline.TypedInt
		case parquet.Double:
			t.Kind = pipeline.TypedFloat
		case parquet.ByteArray:
			t.Kind = pipeline.TypedText
		default:
			return fmt.Errorf("column %q in %q is %s", c.Name(), typedGroup, c.Type())
		}
		var err error
		if t.Path, err = pathOf(strings.TrimSuffix(c.Name(), typeSuffix[t.Kind])); err != nil {
			return err
		}
		p.typed = append(p.typed, t)
		p.leaves = append(p.leaves, c.Index())
	}
	if sum != typedSum(p.typed) {
		return fmt.Errorf("its columns of %q are not those that were written", typedGroup)
	}
	p.starts = make([]int, len(p.typed))
	p.merger = newMerger(p.typed)
	return nil
}

// stored reports whether a column can be read as one of ours. Strings need not be marked as strings; a time must have
// the right unit.
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

// At most maxPeek rows are read at once, and about peekBytes of values. A loader sorts rows by time. The more of them
// it gets at once, the fewer sorted runs it merges.
const (
	maxPeek   = 2 << 10
	minPeek   = 64
	peekBytes = 1 << 20
)

// samplePeek is how many rows are read at once for a sample. It decides which rows are in the sample, and so at which
// rows loaders cut an object. Never change it: loaders of two versions may work on one object.
const samplePeek = 512

func (p *parquetDecoder) Decode(dst []pipeline.Event, limit Limit) (events []pipeline.Event, err error) {
	events = dst // after a panic
	from, bytes := len(dst), 0
	defer guard(&err)
	for len(dst) == from || len(dst)-from < limit.Rows {
		if err := p.ahead(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return dst[:from], err
		}
		e := p.rows[p.next]
		e.Row = p.row
		if len(p.typed) > 0 {
			p.scratch = p.merger.merge(p.scratch[:0], Document(e.Properties), p.typed, p.starts, uint32(p.next))
			e.Properties = p.arena.keep(p.scratch)
		}
		p.next++
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

// ahead reads ahead until there is a row to return.
func (p *parquetDecoder) ahead() error {
	if p.next < len(p.rows) {
		return nil
	}
	return p.fill()
}

// DecodeTyped returns the rows that were read ahead, up to the limit.
func (p *parquetDecoder) DecodeTyped(dst []pipeline.Event, limit Limit) (events []pipeline.Event,
	typed []*pipeline.Typed, bytes int, err error) {
	events = dst // after a panic
	defer guard(&err)
	if err := p.ahead(); err != nil {
		return dst, nil, 0, err
	}
	first := p.next
	for p.next < len(p.rows) && p.next-first < limit.Rows && (bytes < limit.Bytes || p.next == first) {
		e := p.rows[p.next]
		e.Row = p.row
		bytes += p.sizes[p.next]
		p.next++
		p.row++
		dst = append(dst, e)
	}
	p.given = p.given[:0]
	for c, t := range p.typed {
		p.given = append(p.given, t.Slice(uint32(first), uint32(p.next)))
		for ; p.starts[c] < len(t.Rows) && t.Rows[p.starts[c]] < uint32(p.next); p.starts[c]++ {
		}
	}
	return dst, p.given, bytes, nil
}

// sampleParts is the number of places in a row group that a sample comes from.
const sampleParts = 8

// sample reads rows from several places of the first row group.
func (p *parquetDecoder) sample(limit Limit) (events []pipeline.Event, err error) {
	defer guard(&err)
	p.sampling, p.peek = true, samplePeek
	part := Limit{Rows: limit.Rows / sampleParts, Bytes: limit.Bytes / sampleParts}
	between := int64(-1)
	for range sampleParts {
		if events, err = p.Decode(events, part); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if between < 0 {
			between = max(0, p.left/(sampleParts-1)-samplePeek)
		}
		if err := p.pass(min(between, p.left)); err != nil {
			return nil, err
		}
	}
	return events, nil
}

// pass skips the rows that were read ahead, and more rows of the row group.
func (p *parquetDecoder) pass(rows int64) error {
	p.row += uint32(len(p.rows)-p.next) + uint32(rows)
	p.rows, p.next = p.rows[:0], 0
	for i := range p.readers {
		if err := p.readers[i].pass(rows); err != nil {
			return fmt.Errorf("read parquet: %w", err)
		}
	}
	p.left -= rows
	return nil
}

// fill reads the next rows, column by column. It stops at the end of the current page of properties, so large events
// are read a few at a time.
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
	n := min(p.left, int64(p.peek), p.readers[p.bulk].left)
	p.rows, p.next = slices.Grow(p.rows[:0], int(n))[:n], 0
	clear(p.rows)
	p.arena.kept = 0
	for c := range p.cols {
		if err := p.readers[c].read(p.rows, p.cols[c].set, &p.arena); err != nil {
			p.rows = p.rows[:0]
			return fmt.Errorf("read parquet column %s: %w", p.cols[c].name, err)
		}
	}
	p.sizes = slices.Grow(p.sizes[:0], int(n))[:n]
	for i := range p.rows {
		p.sizes[i] = p.rows[i].Size()
	}
	for c, t := range p.typed {
		t.Reset()
		p.starts[c] = 0
		if err := p.readers[len(p.cols)+c].readTyped(t, p.sizes, &p.arena); err != nil {
			p.rows = p.rows[:0]
			return fmt.Errorf("read parquet column %s.%s: %w", typedGroup, t.Path, err)
		}
	}
	p.left -= n
	if !p.sampling {
		bytes := 0
		for _, size := range p.sizes {
			bytes += size
		}
		p.peek = min(max(peekBytes/max(bytes/int(n), 1), minPeek), maxPeek)
	}
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
	for _, leaf := range p.leaves {
		p.readers = append(p.readers, columnReader{pages: chunks[leaf].Pages()})
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
