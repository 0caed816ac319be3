// Package native builds blocks of rows in ClickHouse's native format, JSON
// columns included, and sends them. The server need not parse their JSON.
package native

import (
	"math"
	"math/bits"
	"slices"

	"github.com/penstock/penstock/internal/pipeline"
)

// Block is the rows of one insert. It splits rows into columns as they are appended. Its memory can be reused: see
// Client.Block.
type Block struct {
	types Types
	n     int

	key                  pipeline.Sorter
	receivers            pipeline.Repeated
	times, received      []int64 // ms
	sessions, users      texts
	seqs                 []uint64
	rows                 []uint32
	every                []uint32 // 0, 1, 2 and so on
	arranged             []uint32 // reused
	properties, contexts jsonColumn

	text                         bool // these columns hold the JSON as text
	propertiesText, contextsText texts
}

// Types are the types of a table's JSON columns: JSON or JSON(max_dynamic_paths=N). The server would convert a column
// of another type through text.
type Types struct{ Properties, Context string }

// NewBlock returns an empty block.
func NewBlock(types Types) *Block {
	return &Block{types: types, properties: newJSON(types.Properties), contexts: newJSON(types.Context)}
}

// Columns are the names of a block's columns, in order.
const Columns = "event_id, project, name, timestamp, identity_time, received_at, session_id, user_id, receiver, seq, " +
	"properties, context, object, object_row, generation"

// Append splits events into columns. typed holds property values that the events' text lacks. pick are the indexes of
// the events to append, ascending; nil: all. After ErrNotColumnar the block is unusable.
func (b *Block) Append(events []pipeline.Event, typed []*pipeline.Typed, pick []uint32) error {
	if pick == nil {
		b.every = everyPlace(b.every, len(events))
		pick = b.every
	}
	pick = b.arrange(events, pick)
	err := b.properties.appendAll(events, typed, pick)
	for _, i := range pick {
		if err != nil {
			break
		}
		err = b.contexts.append(events[i].Context)
	}
	b.append(events, pick) // after an error too: Survey needs every row that has properties
	return err
}

// arrange returns the picked events roughly in the order of their time, the order of arrival within it. An object has
// them by name and arrival. Rows of a name are sorted by time when the block is written; if they already stand in long
// ascending runs, their values come from few places in memory at a time.
func (b *Block) arrange(events []pipeline.Event, pick []uint32) []uint32 {
	first, last, ascending := int64(math.MaxInt64), int64(math.MinInt64), true
	for _, i := range pick {
		at := events[i].IdentityTime()
		ascending = ascending && at >= last
		first, last = min(first, at), max(last, at)
	}
	if ascending {
		return pick
	}
	var next [256]uint32
	shift := max(0, bits.Len64(uint64(last-first))-8)
	bucket := func(i uint32) uint64 { return uint64(events[i].IdentityTime()-first) >> shift }
	for _, i := range pick {
		next[bucket(i)]++
	}
	from := uint32(0)
	for k, n := range next {
		next[k] = from
		from += n
	}
	b.arranged = slices.Grow(b.arranged[:0], len(pick))[:len(pick)]
	for _, i := range pick {
		to := &next[bucket(i)]
		b.arranged[*to] = i
		*to++
	}
	return b.arranged
}

// everyPlace returns the numbers from 0 up to n, in reused memory.
func everyPlace(used []uint32, n int) []uint32 {
	for i := len(used); i < n; i++ {
		used = append(used, uint32(i))
	}
	return used[:n:cap(used)]
}

// AppendText appends events whose JSON the server must parse. A block holds only one kind of rows.
func (b *Block) AppendText(events []pipeline.Event) {
	b.text = true
	for i := range events {
		b.propertiesText.add(events[i].Properties)
		b.contextsText.add(events[i].Context)
	}
	b.every = everyPlace(b.every, len(events))
	b.append(events, b.every)
}

// append appends all but the JSON. Texts have a loop for each column: they come from anywhere in a dictionary, and
// while the processor waits for the memory of one, it can ask for the next ones.
func (b *Block) append(events []pipeline.Event, pick []uint32) {
	for _, i := range pick {
		b.sessions.add(events[i].SessionID)
	}
	for _, i := range pick {
		b.users.add(events[i].UserID)
	}
	for _, i := range pick {
		e := &events[i]
		b.key.Add(e)
		b.receivers.Add(e.Receiver)
		b.times = append(b.times, e.Time())
		b.received = append(b.received, e.ReceivedAt)
		b.seqs = append(b.seqs, e.Seq)
		b.rows = append(b.rows, e.Row)
	}
	b.n += len(pick)
}

// Rows returns the number of rows.
func (b *Block) Rows() int { return b.n }

// Paths returns the number of paths of the block's JSON.
func (b *Block) Paths() int { return len(b.properties.root.paths) + len(b.contexts.root.paths) }

// Columns returns the block as rows of an object, sorted by the table's key.
func (b *Block) Columns(object string, generation uint32) []Column {
	order := b.key.Order()
	const time = "DateTime64(3, 'UTC')"
	objects := pipeline.Repeated{Values: [][]byte{[]byte(object)}, Of: make([]uint32, b.n)}
	properties, contexts := b.properties.column("properties", order), b.contexts.column("context", order)
	if b.text {
		properties, contexts = b.propertiesText.column("properties", "", order), b.contextsText.column("context", "", order)
	}
	return []Column{
		uuids("event_id", b.key.IDs, order),
		repeated("project", &b.key.Projects, order),
		repeated("name", &b.key.Names, order),
		wide("timestamp", time, b.times, order),
		wide("identity_time", time, b.key.Times, order),
		wide("received_at", time, b.received, order),
		b.sessions.column("session_id", "String", order),
		b.users.column("user_id", "String", order),
		repeated("receiver", &b.receivers, order),
		wide("seq", "UInt64", b.seqs, order),
		properties,
		contexts,
		repeated("object", &objects, order),
		narrow("object_row", b.rows, order),
		narrow("generation", []uint32{generation}, make([]uint32, b.n)),
	}
}

// A block's memory is reused if it has at most this many paths, types of one path, parts, and values of JSON columns.
const (
	keepPaths = 1 << 10
	keepTypes = 16
	keepParts = 8 * keepPaths
	keepCells = 64 << 20
)

// reusable reports whether the block has a usual size. A reused block keeps paths and types of earlier rows.
func (b *Block) reusable() bool {
	p, x := &b.properties.size, &b.contexts.size
	paths := slices.Concat(b.properties.root.paths, b.contexts.root.paths)
	return p.paths+x.paths <= keepPaths && p.parts+x.parts <= keepParts && p.cells+x.cells <= keepCells &&
		!slices.ContainsFunc(paths, func(d *dynamic) bool { return len(d.types) > keepTypes })
}

// Reset removes all rows and keeps the memory.
func (b *Block) Reset() {
	b.n, b.text = 0, false
	b.propertiesText.reset()
	b.contextsText.reset()
	b.key.Reset()
	b.receivers.Reset()
	b.seqs, b.rows, b.times, b.received = b.seqs[:0], b.rows[:0], b.times[:0], b.received[:0]
	b.sessions.reset()
	b.users.reset()
	b.properties.reset()
	b.contexts.reset()
}
