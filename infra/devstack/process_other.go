//go:build !linux

package devstack

import "syscall"

// childAttributes puts a child into a process group of its own. There is nothing here that would end it when we are
// kill -9ed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
