package codec

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/parquet-go/parquet-go"

	"github.com/penstock/penstock/internal/pipeline"
)

const (
	// A row group is bounded, for the default is not, and both writer and
	// readers hold one in memory.
	groupRows  = 128 << 10
	groupBytes = 64 << 20 // of events as they are in memory
	groupCells = 8 << 20  // values of typed columns, nulls as well: each takes some bytes until its page is written

	// Documents repeat each other over long distances, and a page is compressed
	// alone: with 4 MiB, LLM calls come to half of what they do with 256 KiB.
	pageBytes = 4 << 20

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

// textColumn is stored in a dictionary if its values in the sample repeat often.
func textColumn(name string, sample []pipeline.Event, of func(e *pipeline.Event) *[]byte) column {
	var last []byte
	distinct := map[string]struct{}{}
	for i := range sample {
		distinct[string(*of(&sample[i]))] = struct{}{}
	}
	node := parquet.String()
	if len(distinct)*4 <= len(sample) || len(distinct) <= 1 {
		node = parquet.Encoded(node, &parquet.RLEDictionary)
	}
	return column{name, node,
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
func columns(sample []pipeline.Event) []column {
	ms := func() parquet.Node {
		return parquet.Encoded(parquet.Timestamp(parquet.Millisecond), &parquet.DeltaBinaryPacked)
	}
	return []column{
		documentColumn("context", parquet.Encoded(parquet.JSON(), &parquet.RLEDictionary),
			func(e *pipeline.Event) *[]byte { return &e.Context }),
		{"event_id", parquet.UUID(),
			func(e *pipeline.Event) parquet.Value { return parquet.FixedLenByteArrayValue(e.ID[:]) },
			func(e *pipeline.Event, v parquet.Value, _ *arena) { copy(e.ID[:], v.ByteArray()) }},
		textColumn("name", sample, func(e *pipeline.Event) *[]byte { return &e.Name }),
		textColumn("project", sample, func(e *pipeline.Event) *[]byte { return &e.Project }),
		// Properties hardly repeat: a dictionary of them would only cost.
		documentColumn("properties", parquet.Encoded(parquet.JSON(), &parquet.Plain),
			func(e *pipeline.Event) *[]byte { return &e.Properties }),
		{"received_at", ms(),
			func(e *pipeline.Event) parquet.Value { return parquet.Int64Value(e.ReceivedAt) },
			func(e *pipeline.Event, v parquet.Value, _ *arena) { e.ReceivedAt = v.Int64() }},
		textColumn("receiver", sample, func(e *pipeline.Event) *[]byte { return &e.Receiver }),
		{"seq", parquet.Encoded(parquet.Uint(64), &parquet.DeltaBinaryPacked),
			func(e *pipeline.Event) parquet.Value { return parquet.Int64Value(int64(e.Seq)) },
			func(e *pipeline.Event, v parquet.Value, _ *arena) { e.Seq = v.Uint64() }},
		textColumn("session_id", sample, func(e *pipeline.Event) *[]byte { return &e.SessionID }),
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
		textColumn("user_id", sample, func(e *pipeline.Event) *[]byte { return &e.UserID }),
	}
}

// typedGroup holds the typed columns; SchemaVersion 1 has none.
const typedGroup = "typed"

// The file's metadata has a sum of the typed columns' paths and types: names are
// data here, and the footer has no checksum. Its key says how columns are named.
const (
	typedKey  = "penstock.columns" // columnName, since SchemaVersion 3
	typedKey2 = "penstock.typed"   // SchemaVersion 2: by the path as it is
)

// typedSum is the same for the same columns in any order.
func typedSum(columns []*pipeline.Typed) string {
	var lines []string
	for _, t := range columns {
		lines = append(lines, fmt.Sprintf("%d %s\n", t.Kind, t.Path))
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return hex.EncodeToString(sum[:8])
}

func (s *Encoders) schema(cols []column, typed []*pipeline.Typed) *parquet.Schema {
	// Text that is in no dictionary is worth more work: ids come to half,
	// documents to nine tenths.
	zip := func(n parquet.Node) parquet.Node {
		if n.Type().Kind() == parquet.ByteArray && n.Encoding() != &parquet.RLEDictionary {
			return parquet.Compressed(n, s.better)
		}
		return parquet.Compressed(n, s.fast)
	}
	g := parquet.Group{}
	for _, c := range cols {
		g[c.name] = zip(c.node)
	}
	if len(typed) > 0 {
		t := parquet.Group{}
		for i := range typed {
			t[typedName(typed, i)] = parquet.Optional(zip(typedNode(typed[i])))
		}
		g[typedGroup] = t
	}
	return parquet.NewSchema("event", g)
}

// typedNode is how values are stored, by those of the sample: what repeats, in
// a dictionary.
func typedNode(t *pipeline.Typed) parquet.Node {
	switch t.Kind {
	case pipeline.TypedBool:
		return parquet.Leaf(parquet.BooleanType)
	case pipeline.TypedInt:
		return parquet.Encoded(parquet.Int(64), &parquet.DeltaBinaryPacked)
	case pipeline.TypedFloat:
		if distinct := len(uniques(t.Bits)); distinct*4 <= len(t.Bits)*3 {
			return parquet.Encoded(parquet.Leaf(parquet.DoubleType), &parquet.RLEDictionary)
		}
		return parquet.Leaf(parquet.DoubleType) // its bytes repeat more than those of a split stream
	}
	distinct := map[string]struct{}{}
	for i := range t.Ends {
		distinct[string(t.String(i))] = struct{}{}
	}
	if len(distinct)*2 <= len(t.Ends) {
		return parquet.Encoded(parquet.String(), &parquet.RLEDictionary)
	}
	return parquet.String()
}

func uniques(bits []uint64) map[uint64]struct{} {
	m := map[uint64]struct{}{}
	for _, b := range bits {
		m[b] = struct{}{}
	}
	return m
}

type parquetEncoder struct {
	of       *Encoders
	out      io.Writer
	w        *parquet.GenericWriter[any] // nil while the sample is gathered
	cols     []column
	at       []int // of each column of cols, then of each typed one, among the file's
	shred    shredder
	sample   []pipeline.Event
	sampled  int // bytes
	kept     arena
	receiver []byte
	whole    [][]byte // the properties of the events being encoded
	values   []parquet.Value
	rows     int64 // all
	group    int64 // rows of the group being written
	bytes    int64 // of it, in memory
}

func newParquetEncoder(w io.Writer, receiver string, of *Encoders) *parquetEncoder {
	return &parquetEncoder{of: of, out: w, receiver: []byte(receiver)}
}

func (p *parquetEncoder) Encode(events []pipeline.Event) error {
	if p.w == nil {
		for i := range events {
			e := events[i]
			for _, f := range []*[]byte{&e.Project, &e.Name, &e.SessionID, &e.UserID, &e.Properties, &e.Context} {
				*f = p.kept.keep(*f)
			}
			p.sample = append(p.sample, e)
			p.sampled += e.Size()
		}
		if len(p.sample) < sampleRows && p.sampled < sampleBytes {
			return nil
		}
		return p.begin()
	}
	for len(events) > 0 {
		n := p.part(events)
		if err := p.encode(events[:n]); err != nil {
			return fmt.Errorf("write parquet: %w", err)
		}
		events = events[n:]
	}
	return nil
}

// begin decides by the sample which columns there are, and writes it.
func (p *parquetEncoder) begin() error {
	for i := range p.sample {
		p.shred.look(document(p.sample[i].Properties))
	}
	p.shred.choose()
	for i := range p.sample { // the encodings are chosen by the values
		p.shred.shred(document(p.sample[i].Properties), uint32(i))
	}
	p.cols = columns(p.sample)
	typed := p.shred.columns
	layout := p.of.schema(p.cols, typed)
	options := []parquet.WriterOption{layout, parquet.MaxRowsPerRowGroup(groupRows), parquet.PageBufferSize(pageBytes),
		parquet.CreatedBy("penstock", "3", ""), parquet.DictionaryMaxBytes(1 << 20),
		// Statistics hold whole values: documents would stand in every page's
		// header and in the footer again.
		parquet.DataPageStatistics(false), parquet.SkipPageBounds("properties"), parquet.SkipPageBounds("context"),
		parquet.SkipPageBounds("receiver"), parquet.SkipPageBounds("session_id"), parquet.SkipPageBounds("user_id")}
	var paths [][]string
	for _, c := range p.cols {
		paths = append(paths, []string{c.name})
	}
	for i, t := range typed {
		path := []string{typedGroup, typedName(typed, i)}
		if paths = append(paths, path); t.Kind == pipeline.TypedText {
			options = append(options, parquet.SkipPageBounds(path...))
		}
	}
	for _, path := range paths {
		leaf, ok := layout.Lookup(path...)
		if !ok {
			return fmt.Errorf("write parquet: no column %q", path)
		}
		p.at = append(p.at, leaf.ColumnIndex)
	}
	if len(typed) > 0 {
		options = append(options, parquet.KeyValueMetadata(typedKey, typedSum(typed)))
	}
	p.shred.reset()
	p.w = parquet.NewGenericWriter[any](p.out, options...)
	sample := p.sample
	p.sample = nil
	err := p.Encode(sample)
	p.kept = arena{}
	return err
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
	p.shred.reset()
	p.whole = p.whole[:0]
	for i := range events {
		e := &events[i]
		e.Receiver = p.receiver
		p.bytes += int64(e.Size())
		p.whole = append(p.whole, e.Properties)
		e.Properties = p.shred.shred(document(e.Properties), uint32(i))
	}
	defer func() {
		for i := range events {
			events[i].Properties = p.whole[i] // they are the caller's
		}
	}()
	writers := p.w.ColumnWriters()
	for c := range p.cols {
		p.values = p.values[:0]
		for i := range events {
			p.values = append(p.values, p.cols[c].get(&events[i]))
		}
		if _, err := writers[p.at[c]].WriteRowValues(p.values); err != nil {
			return fmt.Errorf("column %s: %w", p.cols[c].name, err)
		}
	}
	for c, t := range p.shred.columns {
		p.values = typedValues(p.values[:0], t, len(events))
		if _, err := writers[p.at[len(p.cols)+c]].WriteRowValues(p.values); err != nil {
			return fmt.Errorf("column %s: %w", t.Path, err)
		}
	}
	p.rows += int64(len(events))
	p.group += int64(len(events))
	if p.group == groupRows || p.bytes >= groupBytes || p.group*int64(len(p.shred.columns)) >= groupCells {
		p.group, p.bytes = 0, 0
		return p.w.Flush()
	}
	return nil
}

// typedValues are a column's values for n rows, with nulls where there is none.
func typedValues(values []parquet.Value, t *pipeline.Typed, n int) []parquet.Value {
	values = slices.Grow(values, n)[:n]
	if len(t.Rows) < n {
		none := parquet.NullValue().Level(0, 0, 0)
		for i := range values {
			values[i] = none
		}
	}
	for i, row := range t.Rows {
		switch t.Kind {
		case pipeline.TypedText:
			values[row] = parquet.ByteArrayValue(t.String(i)).Level(0, 1, 0)
		case pipeline.TypedBool:
			values[row] = parquet.BooleanValue(t.Bits[i] != 0).Level(0, 1, 0)
		case pipeline.TypedInt:
			values[row] = parquet.Int64Value(int64(t.Bits[i])).Level(0, 1, 0)
		default:
			values[row] = parquet.DoubleValue(math.Float64frombits(t.Bits[i])).Level(0, 1, 0)
		}
	}
	return values
}

// Close writes the footer and checks that it counts what was written.
func (p *parquetEncoder) Close() error {
	if p.w == nil {
		if err := p.begin(); err != nil {
			return err
		}
	}
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

	typed   []*pipeline.Typed // values of the rows that are read ahead
	leaves  []int             // their columns in the file
	starts  []int             // of each, the first value that was not yet given away
	given   []*pipeline.Typed
	sizes   []int // of the rows, in bytes, with their values
	merger  *merger
	scratch []byte
}

var (
	errTruncated = errors.New("the column is shorter than its row group")
	// A dictionary lets few bytes stand for any number of large values.
	errTooLarge = fmt.Errorf("the values of at most %d rows take more than %d bytes", peek, int64(maxOpen))
)

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
	d := &parquetDecoder{file: f, cols: columns(nil), groups: f.RowGroups(), values: make([]parquet.Value, peek)}
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
			return nil, fmt.Errorf("open parquet: column %q is there twice", c.name)
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

// openTyped finds the typed columns, if there are any.
func (p *parquetDecoder) openTyped(f *parquet.File, r io.ReaderAt, size int64, open *openPages) error {
	group := f.Root().Column(typedGroup)
	sum, written := f.Lookup(typedKey)
	sum2, written2 := f.Lookup(typedKey2)
	pathOf := columnPath
	if written2 {
		sum, pathOf = sum2, func(name string) (string, error) { return name, nil }
	}
	if group == nil && !written && !written2 {
		return nil // SchemaVersion 1, or no value occurs often
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
		if err := p.ahead(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return dst[:from], err
		}
		e := p.rows[p.next]
		e.Row = p.row
		if len(p.typed) > 0 {
			p.scratch = p.merger.merge(p.scratch[:0], document(e.Properties), p.typed, p.starts, uint32(p.next))
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

// ahead makes sure that there is a row to be given away.
func (p *parquetDecoder) ahead() error {
	if p.next < len(p.rows) {
		return nil
	}
	return p.fill()
}

// DecodeTyped gives what was read ahead, as far as the limit allows.
func (p *parquetDecoder) DecodeTyped(dst []pipeline.Event, limit Limit) (events []pipeline.Event,
	typed []*pipeline.Typed, bytes int, err error) {
	events = dst // for a panic
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
	p.arena.kept = 0
	for c := range p.cols {
		if err := p.readers[c].read(p.rows, p.values, p.cols[c].set, &p.arena); err != nil {
			p.rows = p.rows[:0]
			return fmt.Errorf("read parquet column %s: %w", p.cols[c].name, err)
		}
	}
	p.sizes = slices.Grow(p.sizes[:0], peek)[:n]
	for i := range p.rows {
		p.sizes[i] = p.rows[i].Size()
	}
	for c, t := range p.typed {
		t.Reset()
		p.starts[c] = 0
		if err := p.readers[len(p.cols)+c].readTyped(t, p.sizes, p.values, &p.arena); err != nil {
			p.rows = p.rows[:0]
			return fmt.Errorf("read parquet column %s.%s: %w", typedGroup, t.Path, err)
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
		if errors.Is(err, io.EOF) {
			return errTruncated
		}
		if err != nil {
			return err
		}
		r.page, r.from, r.left = page, page.Values(), page.NumValues()
	}
	return nil
}

func (r *columnReader) read(events []pipeline.Event, values []parquet.Value,
	set func(*pipeline.Event, parquet.Value, *arena), a *arena) error {
	for len(events) > 0 {
		if err := r.load(); err != nil {
			return err
		}
		n, err := r.from.ReadValues(values[:min(int64(len(values)), int64(len(events)), r.left)])
		for i, v := range values[:n] {
			if set(&events[i], v, a); a.kept > maxOpen {
				return errTooLarge
			}
		}
		events = events[n:]
		r.left -= int64(n)
		if errors.Is(err, io.EOF) && r.left > 0 {
			return errTruncated
		} else if err != nil && !errors.Is(err, io.EOF) {
			return err
		} else if n == 0 {
			return io.ErrNoProgress
		}
	}
	return nil
}

// readTyped reads a value for each row, and adds their sizes to those of the rows.
func (r *columnReader) readTyped(t *pipeline.Typed, sizes []int, values []parquet.Value, a *arena) error {
	for row := 0; row < len(sizes); {
		if err := r.load(); err != nil {
			return err
		}
		n, err := r.from.ReadValues(values[:min(int64(len(values)), int64(len(sizes)-row), r.left)])
		for i := range values[:n] {
			v := &values[i]
			if v.IsNull() {
				continue
			}
			t.Rows = append(t.Rows, uint32(row+i))
			sizes[row+i] += 8
			switch t.Kind {
			case pipeline.TypedText:
				b := v.ByteArray()
				if a.kept += int64(len(b)); a.kept > maxOpen {
					return errTooLarge
				}
				t.Text = append(t.Text, b...)
				t.Ends = append(t.Ends, uint32(len(t.Text)))
				sizes[row+i] += len(b)
			case pipeline.TypedBool:
				bit := uint64(0)
				if v.Boolean() {
					bit = 1
				}
				t.Bits = append(t.Bits, bit)
			case pipeline.TypedInt:
				t.Bits = append(t.Bits, v.Uint64())
			default:
				t.Bits = append(t.Bits, math.Float64bits(v.Double()))
			}
		}
		row += n
		r.left -= int64(n)
		if errors.Is(err, io.EOF) && r.left > 0 {
			return errTruncated
		} else if err != nil && !errors.Is(err, io.EOF) {
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
