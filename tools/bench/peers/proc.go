package peers

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// userHz is the unit of times in /proc/PID/stat, a second's part: 100 on every Linux.
const userHz = 100

// usage is what processes have used so far.
type usage struct {
	cpu  float64 // CPU seconds, user and system
	peak float64 // the most memory resident, MiB; of several processes the sum of what each had at its own time
}

// groupUsage is what the processes of a group have used. devstack gives each server a group, and a server may be
// several: ClickHouse's library runs below a watchdog.
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
			continue // it has ended
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

// parseStat reads a process's group and CPU seconds from its /proc/PID/stat. Behind the name in parentheses, which may
// hold anything: state, parent, group, … and from the eleventh place after the state on the times, in ticks: user,
// system, and the same two of children that have ended, as a ClickHouse that its watchdog started again.
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

// peakRSS is the most memory that a process has had resident, in MiB. proc is its folder, like /proc/self.
func peakRSS(proc string) (float64, error) {
	text, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return 0, err
	}
	if strings.Contains(string(text), "\nState:\tZ") {
		return 0, nil // it has ended and has no memory any more
	}
	return parseHWM(string(text))
}

// parseHWM finds VmHWM, which is in KiB, in a /proc/PID/status and returns MiB.
func parseHWM(status string) (float64, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return float64(kib) / 1024, err
		}
	}
	return 0, fmt.Errorf("no VmHWM in %q", status)
}
