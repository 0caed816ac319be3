// Package tokenbucket limits what is taken in a time. Unlike golang.org/x/time/rate, a bucket can go into debt (what is
// known only after it was used still counts), gives back, takes its rate anew at every call, and has no lock of its
// own: its owners decide about several buckets under one lock.
package tokenbucket

import (
	"math"
	"time"
)

// Rate is how much may be taken a second, and how much at once after a pause.
type Rate struct{ PerSecond, Burst float64 } // PerSecond 0: nothing refills

// Bucket is filled by time and emptied by what is taken. The zero value is full.
type Bucket struct {
	left float64 // below 0: a debt
	last time.Time
}

func (b *Bucket) fill(r Rate, now time.Time) {
	if b.last.IsZero() {
		b.left = r.Burst
	}
	b.left = min(r.Burst, b.left+now.Sub(b.last).Seconds()*r.PerSecond)
	b.last = now
}

// Level is what is left; below 0 it is a debt.
func (b *Bucket) Level(r Rate, now time.Time) float64 {
	b.fill(r, now)
	return b.left
}

// Wait returns how long it takes until n fit in; 0: they do. More than the burst fits into a full bucket.
func (b *Bucket) Wait(r Rate, n float64, now time.Time) time.Duration {
	b.fill(r, now)
	const rounding = 1e-6
	missing := min(n, r.Burst) - b.left
	if missing < rounding {
		return 0
	}
	return time.Duration(math.Ceil(missing / r.PerSecond * float64(time.Second)))
}

// Take takes n, whether they are left or not.
func (b *Bucket) Take(n float64) { b.left -= n }

// TakeDownTo takes n if at least floor is left after it, and reports whether it did.
func (b *Bucket) TakeDownTo(r Rate, n, floor float64, now time.Time) bool {
	b.fill(r, now)
	if b.left-n < floor {
		return false
	}
	b.left -= n
	return true
}

// Spend takes n, but leaves no larger debt than floor, or than there is.
func (b *Bucket) Spend(r Rate, n, floor float64, now time.Time) {
	b.fill(r, now)
	b.left = max(b.left-n, min(b.left, floor))
}

// GiveBack undoes a Take. What is beyond the burst is lost at the next fill.
func (b *Bucket) GiveBack(n float64) { b.left += n }
