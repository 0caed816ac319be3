package app

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestRoomyLimit(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct{ now, live, goal, want int64 }{
		{164, 60, 145, 164},  // usual
		{164, 113, 145, 164}, // just enough
		{164, 133, 145, 184},
		{164, 145, 145, 196},
		{164, 170, 145, 196}, // no more than that
		{184, 133, 165, 184},
		{184, 120, 165, 171}, // less live data
		{196, 60, 177, 164},
	} {
		l := roomyLimit{least: 164 * mib, now: c.now * mib, most: 196 * mib}
		if got := l.next(c.live*mib, c.goal*mib); got != c.want*mib {
			t.Errorf("limit %d, %d live, the next collection at %d: a limit of %d MiB, want %d", c.now, c.live, c.goal,
				got/mib, c.want)
		}
	}
}

// The limit follows live data up and down, until somebody else sets it.
func TestRoomyLimitFollows(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	runtime.GC()
	const least, most = 256 << 20, 320 << 20
	debug.SetMemoryLimit(least)
	(&roomyLimit{least: least, now: least, most: most}).tune()
	collectUntil := func(done func(limit int64) bool) {
		for !done(debug.SetMemoryLimit(-1)) {
			runtime.GC()
			runtime.Gosched()
		}
	}
	func() {
		live := make([]byte, least)
		collectUntil(func(limit int64) bool { return limit > least })
		runtime.KeepAlive(live)
	}()
	collectUntil(func(limit int64) bool { return limit == least })
	const other = 1 << 30
	debug.SetMemoryLimit(other)
	for range 4 {
		runtime.GC()
	}
	if got := debug.SetMemoryLimit(-1); got != other {
		t.Errorf("a limit of %d, want the other one of %d", got, other)
	}
}
