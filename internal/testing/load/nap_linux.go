package load

import (
	"syscall"
	"time"
)

// nap sleeps for a short time; a signal may end it before.
func nap(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	syscall.Nanosleep(&t, nil)
}
