package admission

import (
	"sync"
	"time"

	"github.com/penstock/penstock/internal/tokenbucket"
)

const (
	// BudgetSeconds is how many seconds of a budget's rate may be taken at once.
	BudgetSeconds = 16
	// LowestRefill is the lowest rate, in bytes a second, at which debts are paid off.
	LowestRefill = 16 << 10
)

// Budget is a number of bytes that refills with time. All strangers share one: bytes that they send, bytes that these
// decompress to, and failure records come out of it.
type Budget struct {
	rate int64 // bytes a second; 0: no failure record is kept
	debt int64 // bytes that may be read on credit

	mu   sync.Mutex
	left tokenbucket.Bucket
}

func (b *Budget) refill() tokenbucket.Rate {
	return tokenbucket.Rate{PerSecond: float64(max(b.rate, LowestRefill)), Burst: float64(b.rate * BudgetSeconds)}
}

// Left is what can be spent now, in bytes. A negative value is a debt.
func (b *Budget) Left() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left.Level(b.refill(), time.Now())
}

// Take takes n bytes that are kept if they are left. It reports whether they were.
func (b *Budget) Take(n int64) bool { return b.takeTo(n, 0) }

// borrow takes n bytes that are only read, on credit if need be.
func (b *Budget) borrow(n int64) bool { return b.takeTo(n, -b.debt) }

func (b *Budget) takeTo(n, floor int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left.TakeDownTo(b.refill(), float64(n), float64(floor), time.Now())
}

// Spend takes n bytes that were read already, as far as the debt may grow.
func (b *Budget) Spend(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left.Spend(b.refill(), float64(n), float64(-b.debt), time.Now())
}

func (b *Budget) giveBack(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left.GiveBack(float64(n))
}
