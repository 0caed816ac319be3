//go:build !linux

package devstack

import "syscall"

// childAttributes puts a child into a separate process group. On this system, nothing ends it after kill -9 of this
// process.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// groupAlive reports whether the group still has a process.
func groupAlive(group int) bool { return syscall.Kill(-group, 0) == nil }
