package main

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

// limitMemory sets the soft limit of the heap. Beyond it Go collects more often,
// up to half of the CPU, and never refuses.
func limitMemory(most uint64, log *slog.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit := most
	if container, err := memlimit.FromCgroup(); err == nil {
		limit = min(limit, container/10*9)
	}
	debug.SetMemoryLimit(int64(limit))
	log.Debug("memory limit", "bytes", limit)
}
