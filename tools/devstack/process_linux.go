package devstack

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// childAttributes puts a child into a separate process group. The kernel kills the child when the thread that forked it
// ends, which is when this process ends for any reason.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// groupAlive reports whether a process of the group still holds resources. A process that has ended and that its parent
// has not waited for does not.
func groupAlive(group int) bool {
	if syscall.Kill(-group, 0) != nil {
		return false
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return true
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// After the name in parentheses come state, parent, process group, … and 17 fields later the number of threads. The
		// first thread of a killed process is a zombie before the others have released its ports.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 18 || string(fields[2]) != strconv.Itoa(group) {
			continue
		}
		if threads, _ := strconv.Atoi(string(fields[17])); fields[0][0] != 'Z' || threads > 1 {
			return true
		}
	}
	return false
}
