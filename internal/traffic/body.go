package traffic

import (
	"strconv"
	"time"
)

// Body is an NDJSON body that is made once and sent many times, each time with
// other ids and times, so that a load generator costs little.
type Body struct {
	text   []byte
	starts []int // where each event begins
	lags   []int // ms from each event to its request
}

// NewBody makes a body of that number of the generator's events.
func NewBody(g *Generator, events int) *Body {
	b := &Body{}
	for range events {
		b.starts = append(b.starts, len(b.text))
		b.lags = append(b.lags, g.rnd.IntN(maxLag))
		b.text = append(g.Append(b.text), '\n')
	}
	return b
}

// oddNumber has an inverse modulo 2⁴⁸: it maps no two numbers to one.
const oddNumber = 0x9e3779b97f4a7c15

// Events is how many it has.
func (b *Body) Events() int { return len(b.starts) }

// Len is its length in bytes, always the same.
func (b *Body) Len() int { return len(b.text) }

// Append writes the body behind dst as it is sent now. The events' ids end in
// the numbers from first on, of which the low 48 bits count, each turned into
// another that looks random: so no two events of a run have the same id if no two
// have the same number, and no compressor finds that they are numbered.
func (b *Body) Append(dst []byte, first uint64, now time.Time) []byte {
	from := len(dst)
	dst = append(dst, b.text...)
	ms := now.UnixMilli()
	for i, start := range b.starts {
		at := from + start + len(eventHead) + idLen
		number := (first + uint64(i)) * oddNumber
		for d := range 12 {
			dst[at-1-d] = "0123456789abcdef"[number>>(4*d)&15]
		}
		at += len(eventTime)
		strconv.AppendInt(dst[:at], ms-int64(b.lags[i]), 10) // 13 digits until the year 2286
	}
	return dst
}
