package report

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Machine is the machine of a measurement. Fields that /proc lacks are empty.
type Machine struct {
	Cores      int    `json:"cores"`
	CPU        string `json:"cpu"`
	MemoryMiB  int    `json:"memory_mib"`
	OS         string `json:"os"`
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	FileSystem string `json:"file_system"` // of the folder with the WAL and the objects
}

// ThisMachine describes this machine, and the file system of a folder.
func ThisMachine(dir string) Machine {
	m := Machine{Cores: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(),
		FileSystem: fileSystem(read("/proc/self/mountinfo"), dir)}
	m.Kernel = strings.TrimSpace(read("/proc/sys/kernel/osrelease"))
	m.CPU = field(read("/proc/cpuinfo"), "model name")
	for i, c := range field(read("/proc/meminfo"), "MemTotal") {
		if c < '0' || c > '9' || i > 15 {
			break
		}
		m.MemoryMiB = 10*m.MemoryMiB + int(c-'0')
	}
	m.MemoryMiB >>= 10
	return m
}

func read(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "" // not Linux
	}
	return string(text)
}

// field returns the first value of a name in lines of "name : value".
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// fileSystem returns the type of dir's file system: the one with the longest mount point above dir. A line of mountinfo
// is id, parent, device, root, mount point, options, … - type, source, options.
func fileSystem(mountinfo, dir string) (kind string) {
	longest := ""
	for line := range strings.Lines(mountinfo) {
		left, right, ok := strings.Cut(line, " - ")
		fields, kinds := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 5 || len(kinds) < 1 {
			continue
		}
		at := fields[4]
		if rel, err := filepath.Rel(at, dir); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") &&
			len(at) >= len(longest) {
			longest, kind = at, kinds[0]
		}
	}
	return kind
}
