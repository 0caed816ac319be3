// Package bubble runs a test in fake time.
package bubble

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// Test is synctest.Test on one processor. Under the race detector the fake
// timers of a bubble share one context of the detector, and Go 1.26 lets
// goroutines on two processors use it at once (runtime.(*timer).unlockAndRun):
// the detector then dies of a SIGSEGV. What the detector finds does not depend
// on the number of processors.
func Test(t *testing.T, f func(*testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, f)
}
