package codec

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/penstock/penstock/internal/pipeline"
)

// scratch is memory that the chunks of an object share, one at a time.
type scratch struct {
	order []uint32 // rows of the row group in the order of the file

	arranged bitmap // argument of the last arrange, which returned values and present
	present  bitmap
	values   []uint32
	before   []uint32 // values before each word of arranged

	keys, spare []pipeline.SortKey
	ranks       []uint32 // place of each entry of the dictionary among the sorted ones
	other       []uint32 // like order
	counts      []uint32

	index []int32
	ints  []int64
	bytes []byte
	ends  []uint32

	collector collector

	front, data, packed []byte
	header              bytes.Buffer
	pack                packers
}

// unordered begins a row group in the order of arrival.
func (s *scratch) unordered(rows int) {
	s.order, s.present, s.arranged = resized(s.order, rows), resized(s.present, (rows+63)/64), nil
	for i := range s.order {
		s.order[i] = uint32(i)
	}
}

// orderBy sorts the order by the values of a chunk that has a dictionary. Rows with equal values keep their order.
func (s *scratch) orderBy(c *chunk) {
	sorted := c.dict.sorted(c.form, s)
	if len(sorted) < 2 {
		return
	}
	s.ranks = ranks(sorted, s.ranks)
	s.counts = resized(s.counts, len(sorted)+1)
	clear(s.counts)
	for i := range uint32(c.n) {
		s.counts[s.ranks[c.numbers.at(i)]+1]++
	}
	for i := range sorted {
		s.counts[i+1] += s.counts[i]
	}
	s.other = resized(s.other, len(s.order))
	for _, row := range s.order {
		to := &s.counts[s.ranks[c.numbers.at(row)]]
		s.other[*to] = row
		*to++
	}
	s.order, s.other = s.other, s.order
}

func resized[T any](used []T, n int) []T {
	if cap(used) < n {
		return make([]T, n)
	}
	return used[:n]
}

// arrange returns the indexes of the values in row group order, and which of its rows have a value. rows are those with
// a value, in the order of arrival.
func (s *scratch) arrange(rows bitmap) (values []uint32, present bitmap) {
	if s.arranged != nil && slices.Equal(rows, s.arranged) { // many columns have values in the same rows
		return s.values, s.present
	}
	s.arranged, s.before = rows, s.before[:0]
	n := 0
	for _, word := range rows {
		s.before = append(s.before, uint32(n))
		n += bits.OnesCount64(word)
	}
	clear(s.present)
	s.values = s.values[:0]
	for at, row := range s.order {
		if int(row/64) < len(rows) && rows.has(int(row)) {
			s.present[at/64] |= 1 << (at % 64)
			below := rows[row/64] & (1<<(row%64) - 1)
			s.values = append(s.values, s.before[row/64]+uint32(bits.OnesCount64(below)))
		}
	}
	return s.values, s.present
}

// bitmap has a bit for each row: it has a value. nil: all have one.
type bitmap []uint64

func (b bitmap) has(row int) bool { return b[row/64]>>(row%64)&1 == 1 }

// set sets the bit of a row. Rows behind the last one have none.
func (b *bitmap) set(row int) {
	for len(*b) <= row/64 {
		*b = append(*b, 0)
	}
	(*b)[row/64] |= 1 << (row % 64)
}

func (b bitmap) clear(row int) { b[row/64] &^= 1 << (row % 64) }

// behind returns the row behind the n-th value that begins with row from.
func (b bitmap) behind(from, n int) int {
	if b == nil {
		return from + n
	}
	word := b[from/64] >> (from % 64) << (from % 64)
	at := from / 64
	for ; bits.OnesCount64(word) < n; word = b[at] {
		n -= bits.OnesCount64(word)
		at++
	}
	for ; n > 1; n-- {
		word &= word - 1
	}
	return 64*at + bits.TrailingZeros64(word) + 1
}

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
