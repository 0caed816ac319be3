package codec

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// scratch is memory that the chunks of an object share, one at a time.
type scratch struct {
	order []uint32 // rows of the row group in the order of the file
	place []uint32 // position of each row in order

	present bitmap
	values  []uint32
	slots   []uint32

	index []int32
	ints  []int64
	bytes []byte
	ends  []uint32

	front, data, packed, dictionary []byte
	header                          bytes.Buffer
}

// setOrder sets the row order of the next row group.
func (s *scratch) setOrder(order []uint32) {
	s.order, s.place, s.slots = order, resized(s.place, len(order)), resized(s.slots, len(order))
	s.present = resized(s.present, (len(order)+63)/64)
	for at, row := range order {
		s.place[row] = uint32(at)
	}
}

func resized[T any](used []T, n int) []T {
	if cap(used) < n {
		return make([]T, n)
	}
	return used[:n]
}

// arrange returns the indexes of the values in row group order, and which of its rows have a value. rows are those with
// a value.
func (s *scratch) arrange(rows []uint32) (values []uint32, present bitmap) {
	clear(s.present)
	for i, row := range rows {
		at := s.place[row]
		s.present[at/64] |= 1 << (at % 64)
		s.slots[at] = uint32(i)
	}
	s.values = s.values[:0]
	for i, word := range s.present {
		for ; word != 0; word &= word - 1 {
			s.values = append(s.values, s.slots[64*i+bits.TrailingZeros64(word)])
		}
	}
	return s.values, s.present
}

// bitmap has a bit for each row: it has a value. nil: all have one.
type bitmap []uint64

func (b bitmap) has(row int) bool { return b[row/64]>>(row%64)&1 == 1 }

// eight returns the bits of eight rows from from on. Bits beyond to are 0.
func (b bitmap) eight(from, to int) byte {
	word := b[from/64] >> (from % 64)
	if from%64 > 56 && from/64+1 < len(b) {
		word |= b[from/64+1] << (64 - from%64)
	}
	if to-from < 8 {
		word &= 1<<(to-from) - 1
	}
	return byte(word)
}

// appendLevels appends the bits of rows as Parquet's one-bit definition levels: runs of equal levels, and plain groups
// of eight between them.
func (b bitmap) appendLevels(to []byte, first, end int) []byte {
	if b == nil {
		return append(binary.AppendUvarint(to, uint64(end-first)<<1), 1)
	}
	for first < end {
		run := first
		level := b.eight(run, end)
		if level == 0 || level == 0xff {
			for run < end && b.eight(run, end) == level {
				run += 8
			}
			run = min(run, end)
			to = append(binary.AppendUvarint(to, uint64(run-first)<<1), level&1)
			first = run
			continue
		}
		for run < end && level != 0 && level != 0xff {
			if run += 8; run < end {
				level = b.eight(run, end)
			}
		}
		groups := (run - first) / 8
		to = binary.AppendUvarint(to, uint64(groups)<<1|1)
		for ; groups > 0; groups-- {
			to = append(to, b.eight(first, end))
			first += 8
		}
	}
	return to
}
