//go:build !linux

package app

import (
	"os"
	"syscall"
)

func selfPath() string {
	path, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return path
}

func aloneAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// limitAlone leaves the limit to the garbage collector.
func limitAlone(uint64) error { return nil }
