package app

import (
	"log/slog"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// Limits of the roles' heaps, in bytes, for the garbage collector. Other memory of the process comes on top. A lower
// limit of a container counts, less a tenth. If GOMEMLIMIT is set, it applies instead.
const (
	receiveMemory = 164 << 20
	loadMemory    = 342 << 20
)

// aloneMemory is the kernel's limit for a process that loads a suspicious object. It is more than an object of a
// receiver can need.
const aloneMemory = 2 << 30

// aloneLimit leaves a tenth of a container's memory to the parent process.
func aloneLimit() uint64 {
	limit := uint64(aloneMemory)
	if container, err := memlimit.FromCgroup(); err == nil {
		limit = min(limit, container/10*9)
	}
	return limit
}

// containerLimit is nine tenths of the container's memory.
func containerLimit() int64 {
	if container, err := memlimit.FromCgroup(); err == nil && container < math.MaxInt64 {
		return int64(container / 10 * 9)
	}
	return math.MaxInt64
}

// limitMemory sets the soft limit of the heap. Beyond it Go collects more often, with up to half of the CPU, but never
// fails.
func limitMemory(most uint64, log *slog.Logger) (limited bool) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return false
	}
	limit := min(int64(most), containerLimit())
	debug.SetMemoryLimit(limit)
	log.Debug("memory limit", "bytes", limit)
	return true
}

// fillMemory lets the heap grow to its limit before a collection, unless GOGC is set. A receiver's live heap is small.
// By Go's default, which collects at twice of it, collections used a seventh or more of the CPU of small requests.
func fillMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(-1)
		least := debug.SetMemoryLimit(-1)
		limit := &roomyLimit{least: least, now: least, most: max(least, min(least+moreMemory, containerLimit()))}
		limit.tune()
	}
}

const (
	// moreMemory is how far a limit may be raised while live data is near it, in bytes.
	moreMemory = 32 << 20
	// leastRoom is what may be allocated between two collections, in bytes, if the limit allows it.
	leastRoom = 32 << 20
)

// roomyLimit raises the memory limit while many requests of hundreds of KiB keep live data near it. Otherwise one
// collection follows the other, and such requests take 1.4 times the CPU.
type roomyLimit struct{ least, now, most int64 }

// tune sets the limit after each collection from now on, until somebody else sets it.
func (l *roomyLimit) tune() {
	if debug.SetMemoryLimit(-1) != l.now {
		return
	}
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/goal:bytes"}}
	metrics.Read(samples)
	if next := l.next(int64(samples[0].Value.Uint64()), int64(samples[1].Value.Uint64())); next != l.now {
		l.now = next
		debug.SetMemoryLimit(next)
	}
	runtime.AddCleanup(&roomyLimit{}, (*roomyLimit).tune, l) // runs when the next collection finds it unused
}

// next is the limit that leaves room between live data and the next collection. Collections begin at goal.
func (l *roomyLimit) next(live, goal int64) int64 {
	return min(max(l.now+leastRoom-(goal-live), l.least), l.most)
}
