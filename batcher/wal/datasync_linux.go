package wal

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// datasync makes a file's data and length durable. Unlike fsync, it does not write the file's times. If blocks were
// overwritten, nothing goes through the file system's journal, and the call does not wait for the data of other files.
func datasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
	}
}
