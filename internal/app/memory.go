package app

import (
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// What the roles' heaps are held to, in bytes, by the garbage collector: what a
// process takes beside its heap comes on top. A container's limit that is lower
// counts, but for a tenth of it; GOMEMLIMIT, where it is set, is left alone.
const (
	receiveMemory = 192 << 20
	loadMemory    = 400 << 20
)

// aloneMemory is what the kernel gives a process that loads a suspicious object:
// more than an object that a receiver wrote can need.
const aloneMemory = 2 << 30

// aloneLimit leaves the process that started it a tenth of a container's memory.
func aloneLimit() uint64 {
	limit := uint64(aloneMemory)
	if container, err := memlimit.FromCgroup(); err == nil {
		limit = min(limit, container/10*9)
	}
	return limit
}

// limitMemory sets the soft limit of the heap. Beyond it Go collects more often,
// up to half of the CPU, and never refuses.
func limitMemory(most uint64, log *slog.Logger) (limited bool) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return false
	}
	limit := most
	if container, err := memlimit.FromCgroup(); err == nil {
		limit = min(limit, container/10*9)
	}
	debug.SetMemoryLimit(int64(limit))
	log.Debug("memory limit", "bytes", limit)
	return true
}

// fillMemory lets the heap grow to its limit before it is collected, unless
// GOGC says otherwise. What is alive in a receiver is small, so that by Go's
// own rule, at twice of it, collecting took a seventh or more of the CPU of
// small requests.
func fillMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(-1)
	}
}
