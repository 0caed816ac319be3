package clickhouse

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// Block is the rows of one insert, taken apart into columns as they come, so
// that nobody holds the events themselves. Append, then Insert once.
type Block struct {
	db            *DB
	table, object string
	generation    uint32
	*columns
}

// columns are those of an insert. They are used again for the next one.
type columns struct {
	text bool // they cannot be sent: the server must parse the events' text
	n    int

	ids                         []pipeline.UUID
	projects, names, receivers  repeated
	times, identities, received []int64 // ms
	sessions, users             texts
	seqs                        []uint64
	rows                        []uint32
	properties, contexts        jsonColumn
}

// keepCells is up to which size, in values of JSON columns, columns are used
// again, and keepColumns how many.
const (
	keepCells   = 64 << 20
	keepColumns = 2
)

// NewBlock begins a block of an object's rows for a table.
func (db *DB) NewBlock(ctx context.Context, table, object string, generation uint32) (*Block, error) {
	columnar, err := db.columnar(ctx, table)
	if err != nil {
		return nil, fmt.Errorf("insert into %s: %w", table, err)
	}
	b := &Block{db: db, table: table, object: object, generation: generation, columns: db.natives.take()}
	b.text = !columnar
	return b, nil
}

// Append adds rows, all of one day of received_at, with the values of their
// properties that are in columns already.
func (b *Block) Append(events []pipeline.Event, typed []*pipeline.Typed) {
	if !b.text && b.append(events, typed) != nil {
		b.text = true
	}
}

// Insert sends the block under a deduplication token, rows in the order of the
// table's key: to sort and permute JSON columns costs the server more than all
// the rest (3.5 against 1.2 CPU seconds per million events). again gives the same events
// once more, for a server that must have their text.
func (b *Block) Insert(ctx context.Context, token string, again iter.Seq2[[]pipeline.Event, error]) error {
	ctx, cancel := context.WithTimeout(ctx, b.db.opts.Timeout)
	defer cancel()
	if !b.text {
		err := b.db.insertColumns(ctx, b.table, token, b.object, b.generation, b.columns)
		b.db.natives.keep(b.columns)
		// What is refused for its data is tried as text: somebody may have given the
		// column another type, which the server makes of text and not of columns.
		if err == nil || retry.ClassOf(err) == retry.Outage {
			return err
		}
	}
	return b.db.insertText(ctx, b.table, token, b.object, b.generation, again)
}

// take gives columns that were used before, or new ones.
func (n *natives) take() *columns {
	n.mu.Lock()
	defer n.mu.Unlock()
	if last := len(n.columns) - 1; last >= 0 {
		c := n.columns[last]
		n.columns = n.columns[:last]
		return c
	}
	return new(columns)
}

// keep lets the columns be used again, if they are of a usual size.
func (n *natives) keep(c *columns) {
	if c.n*(len(c.properties.root.paths)+len(c.contexts.root.paths)) > keepCells {
		return
	}
	c.reset()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.columns) < keepColumns {
		n.columns = append(n.columns, c)
	}
}

func (c *columns) reset() {
	c.n = 0
	c.ids, c.times, c.identities, c.received, c.seqs, c.rows = c.ids[:0], c.times[:0], c.identities[:0], c.received[:0], c.seqs[:0], c.rows[:0]
	c.sessions.reset()
	c.users.reset()
	c.projects, c.names, c.receivers = repeated{}, repeated{}, repeated{}
	c.properties.reset()
	c.contexts.reset()
}

// append takes events apart. errNotColumnar: their text must be sent.
func (c *columns) append(events []pipeline.Event, typed []*pipeline.Typed) error {
	if err := c.properties.appendAll(events, typed); err != nil {
		return err
	}
	for i := range events {
		e := &events[i]
		if err := c.contexts.append(e.Context); err != nil {
			return err
		}
		at, identity := e.Timestamp, e.Timestamp
		if e.Timestamp == pipeline.NoTime {
			at, identity = e.ReceivedAt, 0
		}
		c.ids = append(c.ids, e.ID)
		c.projects.add(e.Project)
		c.names.add(e.Name)
		c.receivers.add(e.Receiver)
		c.times = append(c.times, at)
		c.identities = append(c.identities, identity)
		c.received = append(c.received, e.ReceivedAt)
		c.sessions.add(e.SessionID)
		c.users.add(e.UserID)
		c.seqs = append(c.seqs, e.Seq)
		c.rows = append(c.rows, e.Row)
		c.n++
	}
	if c.n*(len(c.properties.root.paths)+len(c.contexts.root.paths)) > maxCells {
		return errNotColumnar
	}
	return nil
}

// repeated is a column of few values that come often.
type repeated struct {
	values [][]byte
	index  map[string]uint32
	of     []uint32 // each row's value
}

func (r *repeated) add(b []byte) {
	if n := len(r.of); n > 0 && bytes.Equal(r.values[r.of[n-1]], b) {
		r.of = append(r.of, r.of[n-1])
		return
	}
	i, ok := r.index[string(b)]
	if !ok {
		if r.index == nil {
			r.index = map[string]uint32{}
		}
		i = uint32(len(r.values))
		r.values = append(r.values, bytes.Clone(b))
		r.index[string(b)] = i
	}
	r.of = append(r.of, i)
}

// ranks are the values' places in their order.
func (r *repeated) ranks() []uint32 {
	order := make([]uint32, len(r.values))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return bytes.Compare(r.values[a], r.values[b]) })
	ranks := make([]uint32, len(order))
	for at, i := range order {
		ranks[i] = uint32(at)
	}
	return ranks
}

// texts is a column of strings, each with its length before it, as they are sent.
type texts struct {
	data []byte
	ends []uint32
}

func (t *texts) add(b []byte) {
	t.data = binary.AppendUvarint(t.data, uint64(len(b)))
	t.data = append(t.data, b...)
	t.ends = append(t.ends, uint32(len(t.data)))
}

func (t *texts) reset() { t.data, t.ends = t.data[:0], t.ends[:0] }

// order is that of the table's key: (project, name, identity_time, event_id).
// The server sorts a UUID by its second half first.
func (c *columns) order() []uint32 {
	type key struct {
		group  uint64
		time   int64
		lo, hi uint64
		row    uint32
	}
	keys := make([]key, c.n)
	projects, names := c.projects.ranks(), c.names.ranks()
	for i := range keys {
		keys[i] = key{uint64(projects[c.projects.of[i]])<<32 | uint64(names[c.names.of[i]]), c.identities[i],
			binary.BigEndian.Uint64(c.ids[i][8:]), binary.BigEndian.Uint64(c.ids[i][:8]), uint32(i)}
	}
	slices.SortFunc(keys, func(a, b key) int {
		if a.group != b.group {
			return cmp.Compare(a.group, b.group)
		}
		if a.time != b.time {
			return cmp.Compare(a.time, b.time)
		}
		if a.lo != b.lo {
			return cmp.Compare(a.lo, b.lo)
		}
		if a.hi != b.hi {
			return cmp.Compare(a.hi, b.hi)
		}
		return cmp.Compare(a.row, b.row)
	})
	order := make([]uint32, c.n)
	for i := range keys {
		order[i] = keys[i].row
	}
	return order
}

// sink is where columns are written to, a part at a time.
type sink struct {
	b     *proto.Buffer
	flush func()
	scratch
}

// scratch is memory for what one column needs while it is written.
type scratch struct{ at, starts []uint32 }

// sinkBytes is how much is gathered before it is sent.
const sinkBytes = 256 << 10

// room sends what is there if that is enough.
func (s *sink) room() {
	if len(s.b.Buf) >= sinkBytes {
		s.flush()
	}
}

// write writes bytes that lie together.
func (s *sink) write(data []byte) {
	for len(data) > 0 {
		n := min(len(data), sinkBytes)
		s.b.Buf = append(s.b.Buf, data[:n]...)
		data = data[n:]
		s.room()
	}
}

// column is one that is written in an order of rows.
type column struct {
	kind  proto.ColumnType
	rows  int
	state func(b *proto.Buffer)
	to    func(s *sink)
}

func (c *column) Type() proto.ColumnType { return c.kind }
func (c *column) Rows() int              { return c.rows }

func (c *column) EncodeState(b *proto.Buffer) {
	if c.state != nil {
		c.state(b)
	}
}

func (c *column) EncodeColumn(b *proto.Buffer) { c.to(&sink{b: b, flush: func() {}}) }

// WriteColumn sends as it goes. A write that fails breaks the connection, which
// whoever writes next is told.
func (c *column) WriteColumn(w *proto.Writer) {
	w.ChainBuffer(func(b *proto.Buffer) { c.to(&sink{b: b, flush: func() { w.Flush() }}) })
}

// fixed is a column of numbers.
func fixed[T any](kind proto.ColumnType, values []T, order []uint32, put func(b []byte, v T) []byte) *column {
	return &column{kind: kind, rows: len(order), to: func(s *sink) {
		for _, row := range order {
			s.b.Buf = put(s.b.Buf, values[row])
			s.room()
		}
	}}
}

func putUUID(b []byte, u pipeline.UUID) []byte {
	b = binary.LittleEndian.AppendUint64(b, binary.BigEndian.Uint64(u[:8]))
	return binary.LittleEndian.AppendUint64(b, binary.BigEndian.Uint64(u[8:]))
}

func putTime(b []byte, ms int64) []byte { return binary.LittleEndian.AppendUint64(b, uint64(ms)) }

func (t *texts) column(order []uint32) *column {
	return &column{kind: proto.ColumnTypeString, rows: len(order), to: func(s *sink) {
		for _, row := range order {
			from := uint32(0)
			if row > 0 {
				from = t.ends[row-1]
			}
			s.b.Buf = append(s.b.Buf, t.data[from:t.ends[row]]...)
			s.room()
		}
	}}
}

// column writes LowCardinality(String): the values, then for each row a key of
// 1, 2 or 4 bytes. The bits of its head say: additional keys, a dictionary of
// the block's own, and which of the three sizes (0, 1, 2).
func (r *repeated) column(order []uint32) *column {
	size := 0
	switch n := len(r.values); {
	case n > 1<<16:
		size = 2
	case n > 1<<8:
		size = 1
	}
	return &column{kind: "LowCardinality(String)", rows: len(order),
		state: func(b *proto.Buffer) { b.PutUInt64(1) },
		to: func(s *sink) {
			s.b.PutUInt64(1<<9 | 1<<10 | uint64(size))
			s.b.PutUInt64(uint64(len(r.values)))
			for _, v := range r.values {
				s.b.Buf = appendBytes(s.b.Buf, v)
				s.room()
			}
			s.b.PutUInt64(uint64(len(order)))
			for _, row := range order {
				switch k := r.of[row]; size {
				case 0:
					s.b.Buf = append(s.b.Buf, byte(k))
				case 1:
					s.b.Buf = binary.LittleEndian.AppendUint16(s.b.Buf, uint16(k))
				default:
					s.b.Buf = binary.LittleEndian.AppendUint32(s.b.Buf, k)
				}
				s.room()
			}
		}}
}

func (c *jsonColumn) column(order []uint32) *column {
	return &column{kind: "JSON", rows: len(order),
		state: func(b *proto.Buffer) { b.Buf = c.root.head(b.Buf) },
		to:    func(s *sink) { c.root.write(s, order) }}
}

// input is the columns under the names of insertColumns.
func (c *columns) input(object string, generation uint32) proto.Input {
	order := c.order()
	time := proto.ColumnType("DateTime64(3, 'UTC')")
	objects := repeated{values: [][]byte{[]byte(object)}, of: make([]uint32, c.n)}
	u32 := func(b []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(b, v) }
	return proto.Input{
		{Name: "event_id", Data: fixed(proto.ColumnTypeUUID, c.ids, order, putUUID)},
		{Name: "project", Data: c.projects.column(order)}, {Name: "name", Data: c.names.column(order)},
		{Name: "timestamp", Data: fixed(time, c.times, order, putTime)}, {Name: "identity_time", Data: fixed(time, c.identities, order, putTime)},
		{Name: "received_at", Data: fixed(time, c.received, order, putTime)},
		{Name: "session_id", Data: c.sessions.column(order)}, {Name: "user_id", Data: c.users.column(order)}, {Name: "receiver", Data: c.receivers.column(order)},
		{Name: "seq", Data: fixed(proto.ColumnTypeUInt64, c.seqs, order, func(b []byte, v uint64) []byte { return binary.LittleEndian.AppendUint64(b, v) })},
		{Name: "properties", Data: c.properties.column(order)}, {Name: "context", Data: c.contexts.column(order)},
		{Name: "object", Data: objects.column(order)}, {Name: "object_row", Data: fixed(proto.ColumnTypeUInt32, c.rows, order, u32)},
		{Name: "generation", Data: &column{kind: proto.ColumnTypeUInt32, rows: c.n, to: func(s *sink) {
			for range c.n {
				s.b.Buf = u32(s.b.Buf, generation)
				s.room()
			}
		}}},
	}
}

// insertColumns sends a block whose JSON the server need not parse.
func (db *DB) insertColumns(ctx context.Context, table, token, object string, generation uint32, c *columns) error {
	conn, err := db.native(ctx)
	if err != nil {
		return fmt.Errorf("insert into %s: %w", table, err)
	}
	var settings []ch.Setting
	for k, v := range insertSettings(token) {
		text, ok := v.(string)
		if !ok {
			text = strconv.Itoa(v.(int))
		}
		settings = append(settings, ch.Setting{Key: k, Value: text, Important: true})
	}
	err = conn.Do(ctx, ch.Query{Body: "INSERT INTO " + quoteName(table) + " (" + insertColumns + ") VALUES", Input: c.input(object, generation), Settings: settings})
	db.done(conn, err)
	if err != nil {
		return fmt.Errorf("insert: %w", classInsert(err))
	}
	return nil
}

// ChunkRows is how many rows like these a block may have, so that neither it
// nor what the server makes of it grows with the number of paths.
func (db *DB) ChunkRows(sample []pipeline.Event, most int) int {
	c := new(columns)
	if err := c.append(sample, nil); err != nil && !errors.Is(err, errNotColumnar) {
		return most
	}
	return min(most, max(chunkCells/max(1, len(c.properties.root.paths)+len(c.contexts.root.paths)), minChunk))
}

// chunkCells is of how many values a block of usual size has room, minChunk
// how many rows it may have at least.
const (
	chunkCells = 32 << 20
	minChunk   = 64 << 10
)
