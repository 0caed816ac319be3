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
)

// column is one column of the layout: how it is stored, and how it is taken
// from an event and given back to one.
type column struct {
	name string
	node parquet.Node
	get  func(e *pipeline.Event) parquet.Value
	set  func(e *pipeline.Event, v parquet.Value, a *arena)
}

func bytesColumn(name string, node parquet.Node, of func(e *pipeline.Event) *[]byte) column {
	return column{name, node,
		func(e *pipeline.Event) parquet.Value { return parquet.ByteArrayValue(*of(e)) },
		func(e *pipeline.Event, v parquet.Value, a *arena) { *of(e) = a.keep(v.ByteArray()) },
	}
}

// columns is the layout, in the order of names: Parquet groups have no other.
func columns() []column {
	text := func() parquet.Node { return parquet.Encoded(parquet.String(), &parquet.RLEDictionary) }
	// Documents hardly repeat: a dictionary of them would only cost.
	document := func() parquet.Node { return parquet.Encoded(parquet.JSON(), &parquet.Plain) }
	ms := func() parquet.Node {
		return parquet.Encoded(parquet.Timestamp(parquet.Millisecond), &parquet.DeltaBinaryPacked)
	}
	return []column{
		bytesColumn("context", parquet.Encoded(parquet.JSON(), &parquet.RLEDictionary),
			func(e *pipeline.Event) *[]byte { return &e.Context }),
		{"event_id", parquet.UUID(),
			func(e *pipeline.Event) parquet.Value { return parquet.FixedLenByteArrayValue(e.ID[:]) },
			func(e *pipeline.Event, v parquet.Value, _ *arena) { copy(e.ID[:], v.ByteArray()) }},
		bytesColumn("name", text(), func(e *pipeline.Event) *[]byte { return &e.Name }),
		bytesColumn("project", text(), func(e *pipeline.Event) *[]byte { return &e.Project }),
		bytesColumn("properties", document(), func(e *pipeline.Event) *[]byte { return &e.Properties }),
		{"received_at", ms(),
			func(e *pipeline.Event) parquet.Value { return parquet.Int64Value(e.ReceivedAt) },
			func(e *pipeline.Event, v parquet.Value, _ *arena) { e.ReceivedAt = v.Int64() }},
		bytesColumn("receiver", text(), func(e *pipeline.Event) *[]byte { return &e.Receiver }),
		{"seq", parquet.Encoded(parquet.Uint(64), &parquet.DeltaBinaryPacked),
			func(e *pipeline.Event) parquet.Value { return parquet.Int64Value(int64(e.Seq)) },
			func(e *pipeline.Event, v parquet.Value, _ *arena) { e.Seq = v.Uint64() }},
		bytesColumn("session_id", text(), func(e *pipeline.Event) *[]byte { return &e.SessionID }),
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
		bytesColumn("user_id", text(), func(e *pipeline.Event) *[]byte { return &e.UserID }),
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
	w        *parquet.Writer
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
		w:        parquet.NewWriter(w, schema(cols), parquet.MaxRowsPerRowGroup(groupRows), parquet.CreatedBy("penstock", "1", "")),
		cols:     cols,
		receiver: []byte(receiver),
	}
}

func (p *parquetEncoder) Encode(events []pipeline.Event) error {
	for len(events) > 0 {
		n := int(min(int64(len(events)), groupRows-p.group))
		if err := p.encode(events[:n]); err != nil {
			return fmt.Errorf("write parquet: %w", err)
		}
		events = events[n:]
	}
	return nil
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
	rows    []pipeline.Event // read ahead
	next    int              // of rows, the first not yet given away
	arena   arena
}

var errTruncated = errors.New("a column is shorter than its row group")

func newParquetDecoder(r io.ReaderAt, size int64) (*parquetDecoder, error) {
	f, err := parquet.OpenFile(r, size, parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, fmt.Errorf("open parquet: %w", err)
	}
	cols := columns()
	for _, c := range cols {
		leaf, ok := f.Schema().Lookup(c.name)
		if !ok {
			return nil, fmt.Errorf("open parquet: no column %q", c.name)
		}
		if want := c.node.Type().Kind(); leaf.Node.Type().Kind() != want || leaf.MaxRepetitionLevel > 0 {
			return nil, fmt.Errorf("open parquet: column %q is %s, want %s", c.name, leaf.Node.Type(), want)
		}
	}
	return &parquetDecoder{file: f, cols: cols, groups: f.RowGroups()}, nil
}

// peek is how many rows are read before their sizes are known: few, since one
// may be large.
const peek = 64

func (p *parquetDecoder) Decode(dst []pipeline.Event, limit Limit) ([]pipeline.Event, error) {
	from, bytes := len(dst), 0
	if p.arena = p.arena[:0]; p.next < len(p.rows) {
		p.arena = nil // rows read ahead are still in it
	}
	for len(dst)-from < limit.Rows {
		if p.next == len(p.rows) {
			if err := p.fill(); err == io.EOF {
				break
			} else if err != nil {
				return dst[:from], err
			}
		}
		e := p.rows[p.next]
		p.next++
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

// fill reads the next few rows, column by column.
func (p *parquetDecoder) fill() error {
	for p.left == 0 {
		if len(p.groups) == 0 {
			return io.EOF
		}
		p.begin(p.groups[0])
		p.groups = p.groups[1:]
	}
	n := min(p.left, peek)
	p.rows, p.next = slices.Grow(p.rows[:0], peek)[:n], 0
	clear(p.rows)
	for c := range p.cols {
		if err := p.readers[c].read(p.rows, p.cols[c].set, &p.arena); err != nil {
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
		p.readers = append(p.readers, columnReader{pages: chunks[leaf.ColumnIndex].Pages(), values: make([]parquet.Value, 1024)})
	}
}

func (p *parquetDecoder) closeReaders() {
	for i := range p.readers {
		p.readers[i].close()
	}
}

func (p *parquetDecoder) Close() error {
	p.closeReaders()
	return nil
}

// columnReader reads one column of a row group, page by page.
type columnReader struct {
	pages  parquet.Pages
	page   parquet.Page
	from   parquet.ValueReader
	values []parquet.Value
}

func (r *columnReader) read(events []pipeline.Event, set func(*pipeline.Event, parquet.Value, *arena), a *arena) error {
	for len(events) > 0 {
		if r.page == nil {
			page, err := r.pages.ReadPage()
			if err == io.EOF {
				return errTruncated
			}
			if err != nil {
				return err
			}
			r.page, r.from = page, page.Values()
		}
		n, err := r.from.ReadValues(r.values[:min(len(r.values), len(events))])
		for i, v := range r.values[:n] {
			set(&events[i], v, a)
		}
		events = events[n:]
		if err == io.EOF {
			parquet.Release(r.page)
			r.page = nil
		} else if err != nil {
			return err
		} else if n == 0 {
			return io.ErrNoProgress
		}
	}
	return nil
}

func (r *columnReader) close() {
	if r.page != nil {
		parquet.Release(r.page)
		r.page = nil
	}
	r.pages.Close()
}
