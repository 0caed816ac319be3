// Package bubble runs a test in fake time.
package bubble

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

var begin = time.Date(2026, time.November, 22, 0, 0, 0, 0, time.UTC)

// Test is synctest.Test on one processor. Under the race detector the fake
// timers of a bubble share one context of the detector, and Go 1.26 lets
// goroutines on two processors use it at once (runtime.(*timer).unlockAndRun):
// the detector then dies of a SIGSEGV. What the detector finds does not depend
// on the number of processors.
func Test(t *testing.T, f func(*testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(begin)) // a bubble begins in 2000, when no event can have been received
		f(t)
	})
}
