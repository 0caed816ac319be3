package load

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	text := "4711 (a) b (c 1 2) S 1 4242 4711 0 -1 4194304 100 200 0 0 1234 66 7 8 20 0 9 0 12345 1000000 512 " +
		"18446744073709551615 1 1 0 0\n"
	got, err := parseStat([]byte(text))
	want := procStat{group: 4242, Usage: Usage{CPU: 13 * time.Second, RSS: int64(512 * os.Getpagesize())}}
	if err != nil || got != want {
		t.Errorf("%+v, error %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "1 (x) S 1 2", "1 (x) S 1 2 3 4 5 6 7 8 9 10 x 12 13 14 15 16 17 18 19 20 21 22"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestParsePeak(t *testing.T) {
	got, err := parsePeak("Name:\tx\nVmPeak:\t  99 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n")
	if err != nil || got != 2<<20 {
		t.Errorf("%d, error %v", got, err)
	}
	if _, err := parsePeak("Name:\tx\n"); err == nil {
		t.Error("a status without VmHWM is taken")
	}
}

// A group's usage counts what its leader has started.
func TestGroups(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 60 & sleep 60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	}()
	alone := int64(0)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		all, err := Groups()
		if err != nil {
			t.Fatal(err)
		}
		rss := all[cmd.Process.Pid].RSS
		if alone == 0 {
			alone = rss
		}
		if peak, err := PeakRSS(cmd.Process.Pid); err != nil || peak == 0 {
			t.Fatalf("peak %d, error %v", peak, err)
		} else if rss > 3*peak/2 {
			break // more than the leader has ever had
		}
		if time.Now().After(end) {
			t.Fatalf("the group has %d bytes, the shell alone had %d", rss, alone)
		}
	}
}

func TestSelf(t *testing.T) {
	before, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
	}
	after, err := Self()
	if used := after.CPU - before.CPU; err != nil || used < 10*time.Millisecond || used > 5*time.Second ||
		after.RSS < 1<<20 {
		t.Errorf("used %s, RSS %d, error %v", used, after.RSS, err)
	}
}
