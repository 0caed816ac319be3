package receiver

import (
	"sync"
	"time"
)

// What is kept of clients that nobody knows: so many seconds' worth at once,
// and for a record's other fields as much as they may take, in bytes.
const (
	anonymousBurst  = 16
	anonymousRecord = 1 << 10
)

// budget is a number of bytes that refills with time.
type budget struct {
	rate int64 // bytes a second; 0: there are none

	mu   sync.Mutex
	left float64
	last time.Time
}

func newBudget(rate int64) *budget {
	return &budget{rate: rate, left: float64(rate * anonymousBurst), last: time.Now()}
}

// take takes n bytes; false: there are not so many now.
func (b *budget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.left = min(float64(b.rate*anonymousBurst), b.left+now.Sub(b.last).Seconds()*float64(b.rate))
	b.last = now
	if b.rate == 0 || b.left < float64(n) {
		return false
	}
	b.left -= float64(n)
	return true
}
