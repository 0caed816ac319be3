package native

import (
	"encoding/binary"
	"iter"
	"slices"

	"github.com/penstock/penstock/internal/pipeline"
)

// Column is a column of a block. It is encoded while it is sent, so its values are never copied as a whole.
type Column struct {
	Name string
	Type string // empty: that of the table's column, which is JSON or String
	Rows int

	state func(b []byte) []byte // appends what precedes the values; nil: nothing
	write func(s *sink)         // writes the values
}

// sink buffers a column's bytes and sends them in parts.
type sink struct {
	buf   []byte
	flush func(b []byte) []byte // sends b; returns an empty buffer
	scratch
}

// scratch is memory used while one column is written.
type scratch struct {
	at, starts []uint32
	index      []byte
}

// sinkBytes is the size of a sink's buffer, in bytes.
const sinkBytes = 256 << 10

// room sends the buffer if it is full.
func (s *sink) room() {
	if len(s.buf) >= sinkBytes {
		s.buf = s.flush(s.buf)
	}
}

// bytes writes data of any length.
func (s *sink) bytes(data []byte) {
	for len(data) > 0 {
		n := min(len(data), sinkBytes)
		s.buf = append(s.buf, data[:n]...)
		data = data[n:]
		s.room()
	}
}

// reserve returns n bytes of the buffer. The caller overwrites all of them; n is
// at most sinkBytes.
func (s *sink) reserve(n int) []byte {
	from := len(s.buf)
	s.buf = slices.Grow(s.buf, n)[:from+n]
	return s.buf[from:]
}

func (s *sink) uint64(v uint64) { s.buf = binary.LittleEndian.AppendUint64(s.buf, v) }

// parts cuts rows into parts that fit into the sink.
func parts(rows []uint32) iter.Seq[[]uint32] { return slices.Chunk(rows, sinkBytes/16) }

// wide is a column of 64-bit numbers, with rows in the given order.
func wide[T int64 | uint64](name, kind string, values []T, order []uint32) Column {
	return Column{Name: name, Type: kind, Rows: len(order), write: func(s *sink) {
		for part := range parts(order) {
			b := s.reserve(8 * len(part))
			for i, row := range part {
				binary.LittleEndian.PutUint64(b[8*i:], uint64(values[row]))
			}
			s.room()
		}
	}}
}

// narrow is a column of UInt32.
func narrow(name string, values []uint32, order []uint32) Column {
	return Column{Name: name, Type: "UInt32", Rows: len(order), write: func(s *sink) {
		for part := range parts(order) {
			b := s.reserve(4 * len(part))
			for i, row := range part {
				binary.LittleEndian.PutUint32(b[4*i:], values[row])
			}
			s.room()
		}
	}}
}

// uuids is a column of UUID: two little-endian numbers of 64 bits.
func uuids(name string, values []pipeline.UUID, order []uint32) Column {
	return Column{Name: name, Type: "UUID", Rows: len(order), write: func(s *sink) {
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

// texts is a column of strings as they are sent: each after its length.
type texts struct {
	data []byte
	ends []uint32
}

func (t *texts) add(b []byte) {
	t.data = appendBytes(t.data, b)
	t.ends = append(t.ends, uint32(len(t.data)))
}

func (t *texts) reset() { t.data, t.ends = t.data[:0], t.ends[:0] }

func (t *texts) column(name, kind string, order []uint32) Column {
	return Column{Name: name, Type: kind, Rows: len(order), write: func(s *sink) {
		for _, row := range order {
			from := uint32(0)
			if row > 0 {
				from = t.ends[row-1]
			}
			s.buf = append(s.buf, t.data[from:t.ends[row]]...)
			s.room()
		}
	}}
}

// repeated writes LowCardinality(String): a head, the values, and a key of 1, 2 or 4 bytes for each row. The head's
// bits say that the block has additional keys and its own dictionary, and the size of the keys (0, 1, 2).
func repeated(name string, r *pipeline.Repeated, order []uint32) Column {
	size := 0
	switch n := len(r.Values); {
	case n > 1<<16:
		size = 2
	case n > 1<<8:
		size = 1
	}
	return Column{Name: name, Type: "LowCardinality(String)", Rows: len(order),
		state: func(b []byte) []byte { return binary.LittleEndian.AppendUint64(b, 1) },
		write: func(s *sink) {
			s.uint64(1<<9 | 1<<10 | uint64(size))
			s.uint64(uint64(len(r.Values)))
			for _, v := range r.Values {
				s.buf = appendBytes(s.buf, v)
				s.room()
			}
			s.uint64(uint64(len(order)))
			for _, row := range order {
				switch k := r.Of[row]; size {
				case 0:
					s.buf = append(s.buf, byte(k))
				case 1:
					s.buf = binary.LittleEndian.AppendUint16(s.buf, uint16(k))
				default:
					s.buf = binary.LittleEndian.AppendUint32(s.buf, k)
				}
				s.room()
			}
		}}
}
