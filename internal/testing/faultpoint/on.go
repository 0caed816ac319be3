//go:build chaos

// Package faultpoint lets tests kill a process at a named place in its work.
package faultpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var hits atomic.Int64

// Hit kills the process, as kill -9 does, where PENSTOCK_FAULTPOINT is
// "name:n" and this is the nth time that the place of that name is reached.
func Hit(name string) {
	want, count, _ := strings.Cut(os.Getenv("PENSTOCK_FAULTPOINT"), ":")
	if want != name {
		return
	}
	if n, _ := strconv.ParseInt(count, 10, 64); hits.Add(1) == max(n, 1) {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // nothing more happens here
	}
}

// Setting is what PENSTOCK_TEST_name says, else def.
func Setting(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv("PENSTOCK_TEST_" + name)); err == nil {
		return n
	}
	return def
}
