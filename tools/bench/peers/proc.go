package peers

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// userHz is the number of ticks a second in /proc/PID/stat: 100 on every Linux.
const userHz = 100

// usage is the consumption of processes so far.
type usage struct {
	cpu  float64 // CPU seconds, user and system
	peak float64 // peak RSS, MiB; for several processes the sum of their peaks
}

// groupUsage is the usage of a process group. devstack gives each server a group, which may have several processes:
// ClickHouse's library runs below a watchdog.
func groupUsage(group int) (usage, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return usage{}, err
	}
	var sum usage
	found := false
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the process has ended
		}
		pgrp, seconds, err := parseStat(string(text))
		if err != nil {
			return usage{}, fmt.Errorf("%s: %w", path, err)
		}
		if pgrp != group {
			continue
		}
		mib, err := peakRSS(filepath.Dir(path))
		if err != nil {
			return usage{}, err
		}
		sum, found = usage{sum.cpu + seconds, sum.peak + mib}, true
	}
	if !found {
		return usage{}, fmt.Errorf("no process of group %d is left", group)
	}
	return sum, nil
}

// parseStat reads a process's group and CPU seconds from its /proc/PID/stat. The name in parentheses may contain
// anything. After it come state, parent, group, … The times start 11 fields after the state, in ticks: user, system,
// and both again for ended children, such as a ClickHouse that its watchdog restarted.
func parseStat(stat string) (group int, seconds float64, err error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 15 {
		return 0, 0, fmt.Errorf("only %d fields in %q", len(fields), stat)
	}
	group, err = strconv.Atoi(fields[2])
	if err != nil {
		return 0, 0, err
	}
	for _, field := range fields[11:15] {
		ticks, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return 0, 0, err
		}
		seconds += float64(ticks) / userHz
	}
	return group, seconds, nil
}

// peakRSS is a process's peak RSS, in MiB. proc is its folder, such as /proc/self.
func peakRSS(proc string) (float64, error) {
	text, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return 0, err
	}
	if strings.Contains(string(text), "\nState:\tZ") {
		return 0, nil // the process has ended and has no memory
	}
	return parseHWM(string(text))
}

// parseHWM returns VmHWM of a /proc/PID/status in MiB. The file has KiB.
func parseHWM(status string) (float64, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return float64(kib) / 1024, err
		}
	}
	return 0, fmt.Errorf("no VmHWM in %q", status)
}
