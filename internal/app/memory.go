package app

import (
	"log/slog"
	"os"
	"runtime/debug"

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

// limitMemory sets the soft limit of the heap. Beyond it Go collects more often, with up to half of the CPU, but never
// fails.
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

// fillMemory lets the heap grow to its limit before a collection, unless GOGC is set. A receiver's live heap is small.
// By Go's default, which collects at twice of it, collections used a seventh or more of the CPU of small requests.
func fillMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(-1)
	}
}
