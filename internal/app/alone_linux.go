package app

import (
	"fmt"
	"os"
	"syscall"
)

// selfPath is this program, even if its file was replaced.
func selfPath() string { return "/proc/self/exe" }

// aloneAttributes protects the child from a terminal's signals, and ends it with its parent.
func aloneAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// limitAlone limits this process's data segment, and makes it the first process that the kernel kills if memory is
// short.
func limitAlone(bytes uint64) error {
	limit := syscall.Rlimit{Cur: bytes, Max: bytes}
	if err := syscall.Setrlimit(syscall.RLIMIT_DATA, &limit); err != nil {
		return fmt.Errorf("limit the data segment to %d bytes: %w", bytes, err)
	}
	return os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
}
