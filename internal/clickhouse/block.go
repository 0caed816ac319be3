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

// Columns of up to so many paths, types of one path, and values of JSON columns
// are used again; keepColumns is how many of them are kept.
const (
	keepPaths   = 1 << 10
	keepTypes   = 16
	keepParts   = 8 * keepPaths
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
		if err == nil || !textMayHelp(err) {
			return err
		}
	}
	return b.db.insertText(ctx, b.table, token, b.object, b.generation, again)
}

// textMayHelp tells whether rows that were refused in columns may be taken as
// text. Text loses types, so it is for what the data are refused for, and never for
// a server that cannot write its files.
func textMayHelp(err error) bool {
	return retry.ClassOf(err) != retry.Outage && !slices.Contains(fileCodes, int32(retry.CodeOf(err)))
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

// keep lets the columns be used again, if they are of a usual size: paths and
// types that were there once stay, and there is an end to both.
func (n *natives) keep(c *columns) {
	paths := slices.Concat(c.properties.root.paths, c.contexts.root.paths)
	all, parts, cells := c.properties.size.paths+c.contexts.size.paths, c.properties.size.parts+c.contexts.size.parts, c.properties.size.cells+c.contexts.size.cells
	if all > keepPaths || parts > keepParts || max(c.n*len(paths), cells) > keepCells || slices.ContainsFunc(paths, func(d *dynamic) bool { return len(d.types) > keepTypes }) {
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
	// Project, name and time in one number, which is sorted many times as fast as
	// what it stands for. Where they do not fit, all of it is compared.
	const timeBits = 43 // to the year 2248
	type key struct {
		at  uint64
		row uint32
	}
	keys := make([]key, c.n)
	projects, names := c.projects.ranks(), c.names.ranks()
	fits := len(projects)*len(names) < 1<<(64-timeBits)
	for i := range keys {
		group := uint64(projects[c.projects.of[i]])*uint64(len(names)) + uint64(names[c.names.of[i]])
		fits = fits && uint64(c.identities[i]) < 1<<timeBits
		keys[i] = key{group<<timeBits | uint64(c.identities[i]), uint32(i)}
	}
	rest := func(a, b key) int {
		x, y := &c.ids[a.row], &c.ids[b.row]
		return cmp.Or(cmp.Compare(binary.BigEndian.Uint64(x[8:]), binary.BigEndian.Uint64(y[8:])), cmp.Compare(binary.BigEndian.Uint64(x[:8]), binary.BigEndian.Uint64(y[:8])), cmp.Compare(a.row, b.row))
	}
	if fits {
		slices.SortFunc(keys, func(a, b key) int { return cmp.Compare(a.at, b.at) })
		for from := 0; from < len(keys); {
			to := from + 1
			for to < len(keys) && keys[to].at == keys[from].at {
				to++
			}
			slices.SortFunc(keys[from:to], rest)
			from = to
		}
	} else {
		slices.SortFunc(keys, func(a, b key) int {
			return cmp.Or(cmp.Compare(projects[c.projects.of[a.row]], projects[c.projects.of[b.row]]), cmp.Compare(names[c.names.of[a.row]], names[c.names.of[b.row]]),
				cmp.Compare(c.identities[a.row], c.identities[b.row]), rest(a, b))
		})
	}
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

// reserve gives room for n bytes, which must all be written; n is of usual size.
func (s *sink) reserve(n int) []byte {
	from := len(s.b.Buf)
	s.b.Buf = slices.Grow(s.b.Buf, n)[:from+n]
	return s.b.Buf[from:]
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

// parts cuts an order into parts that fit into the sink.
func parts(order []uint32) iter.Seq[[]uint32] { return slices.Chunk(order, sinkBytes/16) }

// wide is a column of numbers of 64 bits, narrow one of 32.
func wide[T int64 | uint64](kind proto.ColumnType, values []T, order []uint32) *column {
	return &column{kind: kind, rows: len(order), to: func(s *sink) {
		for part := range parts(order) {
			b := s.reserve(8 * len(part))
			for i, row := range part {
				binary.LittleEndian.PutUint64(b[8*i:], uint64(values[row]))
			}
			s.room()
		}
	}}
}

func narrow(values []uint32, order []uint32) *column {
	return &column{kind: proto.ColumnTypeUInt32, rows: len(order), to: func(s *sink) {
		for part := range parts(order) {
			b := s.reserve(4 * len(part))
			for i, row := range part {
				binary.LittleEndian.PutUint32(b[4*i:], values[row])
			}
			s.room()
		}
	}}
}

func uuids(values []pipeline.UUID, order []uint32) *column {
	return &column{kind: proto.ColumnTypeUUID, rows: len(order), to: func(s *sink) {
		for part := range parts(order) {
			b := s.reserve(16 * len(part))
			for i, row := range part {
				u := &values[row]
				binary.LittleEndian.PutUint64(b[16*i:], binary.BigEndian.Uint64(u[:8]))
				binary.LittleEndian.PutUint64(b[16*i+8:], binary.BigEndian.Uint64(u[8:]))
			}
			s.room()
		}
	}}
}

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
	return proto.Input{
		{Name: "event_id", Data: uuids(c.ids, order)},
		{Name: "project", Data: c.projects.column(order)}, {Name: "name", Data: c.names.column(order)},
		{Name: "timestamp", Data: wide(time, c.times, order)}, {Name: "identity_time", Data: wide(time, c.identities, order)},
		{Name: "received_at", Data: wide(time, c.received, order)},
		{Name: "session_id", Data: c.sessions.column(order)}, {Name: "user_id", Data: c.users.column(order)}, {Name: "receiver", Data: c.receivers.column(order)},
		{Name: "seq", Data: wide(proto.ColumnTypeUInt64, c.seqs, order)},
		{Name: "properties", Data: c.properties.column(order)}, {Name: "context", Data: c.contexts.column(order)},
		{Name: "object", Data: objects.column(order)}, {Name: "object_row", Data: narrow(c.rows, order)},
		{Name: "generation", Data: narrow([]uint32{generation}, make([]uint32, c.n))},
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
	return min(most, max(chunkCells/max(1, len(c.properties.root.paths)+len(c.contexts.root.paths)), MinChunk))
}

// chunkCells is of how many values of JSON columns a block of usual size has room.
const chunkCells = 32 << 20

// MinChunk is how many rows ChunkRows lets any block have.
const MinChunk = 64 << 10
