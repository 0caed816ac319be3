//go:build !linux

package devstack

import "syscall"

// childAttributes puts a child into a separate process group. There is nothing here that would end it when we are
// kill -9ed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// groupAlive reports whether a process of the group is left.
func groupAlive(group int) bool { return syscall.Kill(-group, 0) == nil }
