package codec

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"github.com/penstock/penstock/internal/pipeline"
)

const (
	// Bounds of a row group. The default has none, and writer and readers hold a whole row group in memory.
	groupRows  = 256 << 10
	groupBytes = 160 << 20 // size of the events in memory
	groupCells = 8 << 20   // values of typed columns including nulls: each takes some bytes until its page is written

	// Documents repeat each other over long distances, and each page is compressed alone. Compared with pages of 256 KiB,
	// 4 MiB halve the size of LLM calls.
	pageBytes = 4 << 20
	pageRows  = 32 << 10 // values other than null; a reader decodes a page of each column at once

	// groupHeld bounds the values of a row group as the chunks hold them. They are held until the last row arrives,
	// because only then are the order and the dictionaries known. The sum is taken at intervals, not for each event.
	// A dictionary costs less an event in a large row group. Documents gain nothing, because their pages are smaller.
	groupHeld      = 32 << 20
	groupDocuments = 2 * pageBytes
	partRows       = 4 << 10
	partBytes      = 256 << 10
)

// largeEvent is a mean event size, in bytes. Above it, a row group keeps the order of arrival. Large events that arrive
// together often repeat each other, like the turns of a conversation, and few rows need no sorting. Their documents are
// compressed faster.
const largeEvent = 2 << 10

// A dictionary of texts or numbers pays if at most this share of them are distinct.
const (
	repeatedText   = 0.5
	repeatedNumber = 0.6
)

// maxLookups is the most distinct values that are looked up one by one; see collector.
const maxLookups = 8 << 10

// maxSpare bounds the buffers that the chunks of one object leave to those of the next, in bytes. They have grown by
// quarters.
const maxSpare = groupHeld + groupHeld/4

// maxDictionary is the largest dictionary in a file, in bytes.
const maxDictionary = 1 << 20

// parquetEncoder sorts the rows of a row group by project and name, the first columns of the table's key. So a loader
// collects values from few places, and equal paths are adjacent. Events of one name stay in the order of arrival:
// sorted by time, they would take 1.2 bytes more each for `seq` and `received_at`.
type parquetEncoder struct {
	of *Encoders
	sink
	file     format.FileMetaData
	receiver []byte

	sample  []pipeline.Event
	sampled int // bytes
	kept    arena

	shred    shredder
	chunks   []*chunk // in the order of the file; nil while the sample is gathered
	used     []*chunk // of an earlier object, to reuse their buffers
	envelope envelope
	scratch  scratch
	row      int   // next row of the row group
	bytes    int64 // size of its events in a reader's memory
	part     int   // bytes since the last sum of the values
}

// envelope is the columns that every object has.
type envelope struct {
	context, id, name, project, properties, received, receiver, seq, session, time, user *chunk
}

func newParquetEncoder(w io.Writer, receiver string, of *Encoders) *parquetEncoder {
	p := &parquetEncoder{of: of, sink: sink{out: w}, receiver: []byte(receiver)}
	if old := of.takeSpare(); old != nil {
		p.used, p.scratch = old.chunks, old.scratch
	} else {
		p.scratch = scratch{collector: newCollector()}
	}
	return p
}

func (p *parquetEncoder) Encode(events []pipeline.Event) error {
	for i := range events {
		if p.chunks == nil {
			p.gather(events[i])
			if len(p.sample) < sampleRows && p.sampled < sampleBytes {
				continue
			}
			if err := p.begin(); err != nil {
				return fmt.Errorf("write parquet: %w", err)
			}
		} else {
			p.add(&events[i])
		}
		if err := p.check(); err != nil {
			return fmt.Errorf("write parquet: %w", err)
		}
	}
	return nil
}

// gather adds an event to the sample.
func (p *parquetEncoder) gather(e pipeline.Event) {
	for _, f := range []*[]byte{&e.Project, &e.Name, &e.SessionID, &e.UserID, &e.Properties, &e.Context} {
		*f = p.kept.keep(*f)
	}
	p.sample = append(p.sample, e)
	p.sampled += e.Size()
}

// begin chooses columns and encodings from the sample.
func (p *parquetEncoder) begin() error {
	for i := range p.sample {
		p.shred.look(Document(p.sample[i].Properties))
	}
	p.shred.choose()
	p.chunks = append(p.envelope.make(), p.shred.chunks...)
	typed := p.shred.columns
	layout := schema(typed)
	if err := p.describe(layout, typed); err != nil {
		return err
	}
	for i, c := range p.shred.chunks {
		c.path = []string{typedGroup, typedName(typed, i)}
	}
	at := func(c *chunk) int {
		leaf, _ := layout.Lookup(c.path...)
		return leaf.ColumnIndex
	}
	slices.SortFunc(p.chunks, func(a, b *chunk) int { return at(a) - at(b) })
	p.reuse()
	for i := range p.sample {
		p.add(&p.sample[i])
	}
	if err := p.settle(); err != nil {
		return err
	}
	p.sample, p.kept = nil, arena{}
	return nil
}

// reuse takes over the memory of an earlier object's columns. Most objects have the same columns.
func (p *parquetEncoder) reuse() {
	used := map[string]*chunk{}
	for _, c := range p.used {
		used[c.name()] = c
	}
	p.used = nil
	spare := 0
	for _, c := range p.chunks {
		if old := used[c.name()]; old != nil && old.form == c.form && spare+old.spare() <= maxSpare {
			spare += old.spare()
			c.reuse(old)
		}
	}
}

// make makes the chunks. The sample decides which keep their dictionary.
func (e *envelope) make() (all []*chunk) {
	add := func(name string, c chunk) *chunk {
		c.path = []string{name}
		all = append(all, &c)
		return &c
	}
	text := func(name string, bounded bool, repeats float64) *chunk {
		return add(name, chunk{form: formText, dict: newDictionary(true), bounded: bounded, repeats: repeats})
	}
	*e = envelope{
		context: add("context", chunk{form: formDocument, dict: newDictionary(true), repeats: 1}),
		id:      add("event_id", chunk{form: formID, bounded: true}),
		name:    text("name", true, 1),
		project: text("project", true, 1),
		// Properties rarely repeat, so a dictionary would only cost. Bounds of documents and ids would be whole values, and
		// nobody filters by them.
		properties: add("properties", chunk{form: formDocument}),
		received:   add("received_at", chunk{form: formInt, bounded: true}),
		receiver:   text("receiver", false, 1),
		seq:        add("seq", chunk{form: formUint, bounded: true}),
		session:    text("session_id", false, repeatedText),
		// If many events arrive in a second, clients' times repeat, but neighbours differ by up to the delay of requests.
		time: add("timestamp", chunk{form: formInt, optional: true, bounded: true, dict: newDictionary(false),
			repeats: repeatedNumber}),
		user: text("user_id", false, repeatedText),
	}
	return all
}

// settle drops the dictionaries that do not pay for the values of the sample. The rows are sorted by dictionaries of
// name and project, so these stay.
func (p *parquetEncoder) settle() error {
	rows := max(p.row, 1)
	held := p.held()
	for _, c := range p.chunks {
		if c.dict != nil {
			held -= c.dict.size() // it grows less than the others, or is dropped
		}
	}
	documents := p.envelope.properties.size() + p.envelope.context.size()
	groups := min(groupRows/rows, groupHeld/max(held, 1), groupDocuments/max(documents, 1)) // samples in a row group
	for _, c := range p.chunks {
		if c.repeats < 1 {
			if err := c.settle(c.n*max(groups, 1), &p.scratch); err != nil {
				return err
			}
		}
	}
	return nil
}

// describe begins the footer. parquet-go derives its schema from the layout.
func (p *parquetEncoder) describe(layout *parquet.Schema, typed []*pipeline.Typed) error {
	empty := parquet.NewGenericWriter[any](io.Discard, layout)
	if err := empty.Close(); err != nil {
		return err
	}
	described := empty.File().Metadata()
	p.file = format.FileMetaData{Version: described.Version, Schema: described.Schema,
		ColumnOrders: described.ColumnOrders, CreatedBy: "penstock version 3(build )"}
	if len(typed) > 0 {
		p.file.KeyValueMetadata = []format.KeyValue{{Key: typedKey, Value: typedSum(typed)}}
	}
	return p.write([]byte(parquetMagic))
}

const parquetMagic = "PAR1"

// sink is where an object goes.
type sink struct {
	out     io.Writer
	written int64 // bytes
}

func (s *sink) write(b []byte) error {
	n, err := s.out.Write(b)
	s.written += int64(n)
	return err
}

// add adds an event to the columns.
func (p *parquetEncoder) add(e *pipeline.Event) {
	row, to := p.row, &p.envelope
	to.context.addBytes(row, Document(e.Context))
	to.id.addBytes(row, e.ID[:])
	to.name.addBytes(row, e.Name)
	to.project.addBytes(row, e.Project)
	to.properties.addBytes(row, p.shred.shred(Document(e.Properties), row))
	to.received.addBits(row, uint64(e.ReceivedAt))
	to.receiver.addBytes(row, p.receiver)
	to.seq.addBits(row, e.Seq)
	to.session.addBytes(row, e.SessionID)
	if e.Timestamp != pipeline.NoTime {
		to.time.addBits(row, uint64(e.Timestamp))
	}
	to.user.addBytes(row, e.UserID)

	p.row++
	p.bytes += int64(e.Size())
	p.part += e.Size()
}

// check ends the row group if it is full.
func (p *parquetEncoder) check() error {
	full := p.row == groupRows || p.bytes >= groupBytes || p.row*len(p.shred.chunks) >= groupCells
	if !full && (p.part >= partBytes || p.row%partRows == 0) {
		p.part = 0
		full = p.held() >= groupHeld || p.envelope.properties.size()+p.envelope.context.size() >= groupDocuments
	}
	if full {
		return p.flush()
	}
	return nil
}

// held returns the memory of the row group's values, in bytes.
func (p *parquetEncoder) held() (bytes int) {
	for _, c := range p.chunks {
		bytes += c.size()
	}
	return bytes
}

// flush ends the row group.
func (p *parquetEncoder) flush() error {
	if p.row == 0 {
		return nil
	}
	g := format.RowGroup{NumRows: int64(p.row), FileOffset: p.written, Ordinal: int16(len(p.file.RowGroups)),
		Columns: make([]format.ColumnChunk, len(p.chunks))}
	p.order()
	for i, c := range p.chunks {
		if err := c.finish(&p.scratch, &p.sink); err != nil {
			return fmt.Errorf("column %s: %w", c.name(), err)
		}
		g.Columns[i].MetaData = c.meta
		g.TotalByteSize += c.meta.TotalUncompressedSize
		g.TotalCompressedSize += c.meta.TotalCompressedSize
		c.reset()
	}
	p.file.RowGroups = append(p.file.RowGroups, g)
	p.file.NumRows += g.NumRows
	p.row, p.bytes, p.part = 0, 0, 0
	return nil
}

// order chooses the order of the row group's rows, and how texts are compressed.
func (p *parquetEncoder) order() {
	s := &p.scratch
	s.unordered(p.row)
	small := p.bytes <= largeEvent*int64(p.row)
	s.pack.choose(small)
	if small {
		s.orderBy(p.envelope.name)
		s.orderBy(p.envelope.project)
	}
}

// Close writes the remaining rows and the footer.
func (p *parquetEncoder) Close() error {
	if p.chunks == nil {
		if err := p.begin(); err != nil {
			return fmt.Errorf("write parquet: %w", err)
		}
	}
	if err := p.flush(); err != nil {
		return fmt.Errorf("write parquet: %w", err)
	}
	footer := &p.scratch.header
	footer.Reset()
	if err := thrift.NewEncoder(new(thrift.CompactProtocol).NewWriter(footer)).Encode(&p.file); err != nil {
		return fmt.Errorf("close parquet: %w", err)
	}
	end := binary.LittleEndian.AppendUint32(footer.AvailableBuffer(), uint32(footer.Len()))
	footer.Write(append(end, parquetMagic...))
	if err := p.write(footer.Bytes()); err != nil {
		return fmt.Errorf("close parquet: %w", err)
	}
	p.of.addSpare(&parquetEncoder{chunks: p.chunks, scratch: p.scratch})
	return nil
}
