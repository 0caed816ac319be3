package load

import (
	"math/bits"
	"time"
)

// Histogram counts durations in buckets that are at most 0.8 % wide, so that
// millions of them cost a fixed 58 KiB. It is for one goroutine.
type Histogram struct {
	counts [buckets]uint64
	n      uint64
	max    time.Duration
}

// A duration below 2^(subBits+1) ns has a bucket of its own; beyond, each power
// of two is cut into 2^subBits buckets.
const (
	subBits = 7
	buckets = (64 - subBits) << subBits
)

func bucketOf(d time.Duration) int {
	v := uint64(max(0, d))
	shift := max(0, bits.Len64(v)-subBits-1)
	return shift<<subBits + int(v>>shift)
}

// ceiling is the longest duration of a bucket.
func ceiling(bucket int) time.Duration {
	shift := max(0, bucket>>subBits-1)
	return time.Duration(uint64(bucket-shift<<subBits+1)<<shift - 1)
}

// Record counts one duration; a negative one as 0.
func (h *Histogram) Record(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.n++
	h.max = max(h.max, d)
}

// Add counts all that other has counted.
func (h *Histogram) Add(other *Histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.n += other.n
	h.max = max(h.max, other.max)
}

// Count is how many were recorded.
func (h *Histogram) Count() uint64 { return h.n }

// Max is the longest, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile is a duration that the share q of all does not exceed: at most 0.8 %
// too long. Of none it is 0.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.n))
	if float64(rank) < q*float64(h.n) || rank == 0 {
		rank++
	}
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen >= rank && n > 0 {
			return min(ceiling(i), h.max)
		}
	}
	return h.max
}
