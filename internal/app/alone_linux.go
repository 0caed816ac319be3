package app

import (
	"fmt"
	"os"
	"syscall"
)

// selfPath is this program, even if the file has been replaced meanwhile.
func selfPath() string { return "/proc/self/exe" }

// aloneAttributes keeps a terminal's signals from the child, and ends it with us.
func aloneAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// limitAlone lets this process die rather than others: it gets no more than so
// many bytes of data from the kernel, and is the first to go where memory is short.
func limitAlone(bytes uint64) error {
	limit := syscall.Rlimit{Cur: bytes, Max: bytes}
	if err := syscall.Setrlimit(syscall.RLIMIT_DATA, &limit); err != nil {
		return fmt.Errorf("limit the data segment to %d bytes: %w", bytes, err)
	}
	return os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
}
