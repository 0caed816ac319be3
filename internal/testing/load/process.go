package load

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what processes have used of the machine.
type Usage struct {
	CPU time.Duration // user and system since their start, in steps of 10 ms; a process that has ended is not in it
	RSS int64         // bytes now
}

// tick is the unit of times in /proc: USER_HZ is 100 on every Linux.
const tick = 10 * time.Millisecond

// procStat is what is of use of /proc/PID/stat.
type procStat struct {
	group int
	Usage
}

// parseStat reads /proc/PID/stat: pid (name) state parent group …, where the
// name may hold anything; user and system time are 11 and 12 places behind the
// state, the resident pages 21.
func parseStat(text []byte) (procStat, error) {
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 22 {
		return procStat{}, fmt.Errorf("/proc/PID/stat has %d fields behind the name: %q", len(fields), text)
	}
	var v [4]int64
	for i, at := range [...]int{2, 11, 12, 21} {
		var err error
		if v[i], err = strconv.ParseInt(string(fields[at]), 10, 64); err != nil {
			return procStat{}, fmt.Errorf("/proc/PID/stat: %w", err)
		}
	}
	return procStat{group: int(v[0]),
		Usage: Usage{CPU: time.Duration(v[1]+v[2]) * tick, RSS: v[3] * int64(os.Getpagesize())}}, nil
}

// Self is what this process has used.
func Self() (Usage, error) {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return Usage{}, err
	}
	st, err := parseStat(text)
	return st.Usage, err
}

// Groups is what each process group has used, by its leader's pid: a server and
// what it has started itself.
func Groups() (map[int]Usage, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("benchmarks read /proc, which only Linux has: %w", err)
	}
	all := map[int]Usage{}
	for _, e := range entries {
		if name := e.Name(); name[0] < '0' || name[0] > '9' {
			continue
		}
		text, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		st, err := parseStat(text)
		if err != nil {
			return nil, err
		}
		u := all[st.group]
		all[st.group] = Usage{u.CPU + st.CPU, u.RSS + st.RSS}
	}
	return all, nil
}

// PeakRSS is the most memory, in bytes, that a process has had at once.
func PeakRSS(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parsePeak(string(text))
}

func parsePeak(status string) (int64, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no VmHWM in %q", status)
}
