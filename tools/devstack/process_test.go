package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shell starts a script as a child. The end of the test kills it.
func shell(t *testing.T, name, script string) *Process {
	t.Helper()
	p, err := Start(t.Context(), Command{
		Name: name, Path: "/bin/sh", Args: []string{"-c", script}, LogPath: filepath.Join(t.TempDir(), "logs", name+".log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestProcessThatDiesIsNamedWithTheEndOfItsLog(t *testing.T) {
	p := shell(t, "loader", `for i in $(seq 100 140); do echo "line $i"; done; echo "out of luck" >&2; exit 7`)
	<-p.Done()
	text := fmt.Sprint(p.Err())
	for _, want := range []string{"loader", fmt.Sprint(p.Pid), "exit status 7", p.LogPath, "line 140\nout of luck"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %s", want, text)
		}
	}
	if strings.Contains(text, "line 110") {
		t.Errorf("too much of the log: %s", text)
	}
}

func TestProcessShowsNothingOfTheRunBefore(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	for i := range 2 {
		p, err := Start(t.Context(), Command{Name: "x", Path: "/bin/sh", Args: []string{"-c", fmt.Sprintf("echo run %d", i)},
			LogPath: log})
		if err != nil {
			t.Fatal(err)
		}
		<-p.Done()
		want := fmt.Sprintf("x (pid %d) ended by itself: exit status 0; its log %s ends:\nrun %d", p.Pid, log, i)
		if got := fmt.Sprint(p.Err()); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
	if text, err := os.ReadFile(log); err != nil || string(text) != "run 0\nrun 1\n" {
		t.Errorf("the log holds %q, %v", text, err)
	}
}

func TestProcessStops(t *testing.T) {
	p := shell(t, "receiver", `trap 'echo drained; exit 3' TERM; echo up; while :; do sleep 0.02; done`)
	waitFor(t, "the trap", func() bool { return p.LogTail() == "up" })
	if err := p.Err(); err != nil {
		t.Errorf("while it runs: %v", err)
	}
	if group, err := syscall.Getpgid(p.Pid); err != nil || group != p.Pid {
		t.Errorf("its process group is %d, %v, want %d", group, err, p.Pid)
	}
	if err := p.Signal(syscall.SIGSTOP); err != nil { // a halted process must be stoppable too
		t.Fatal(err)
	}
	p.Stop(t.Context())
	// The shell may report that its sleep ended.
	if got := p.LogTail(); !strings.HasPrefix(got, "up\n") || !strings.HasSuffix(got, "\ndrained") {
		t.Errorf("its log: %q", got)
	}
	if err := p.Err(); err != nil {
		t.Errorf("after a stop that we asked for: %v", err)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after its end: %v", err)
	}
	p.Stop(t.Context())
	p.Kill()
}

func TestProcessThatWillNotStopIsKilled(t *testing.T) {
	p := shell(t, "stubborn", `trap '' TERM; echo up; while :; do sleep 0.02; done`)
	waitFor(t, "the trap", func() bool { return p.LogTail() == "up" })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	p.Stop(ctx)
	if syscall.Kill(p.Pid, 0) == nil {
		t.Error("it lives")
	}
}

func TestProcessOutlivesTheThreadOfItsStarter(t *testing.T) {
	var p *Process
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked, so the thread ends with the goroutine
		p = shell(t, "child", "sleep 60")
	}()
	<-done
	select {
	case <-p.Done():
		t.Error(p.Err())
	case <-time.After(300 * time.Millisecond):
	}
}

func TestStartWithoutProgram(t *testing.T) {
	if p, err := Start(t.Context(), Command{Name: "loader", Path: "/no/such/program"}); p != nil ||
		!errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, %v", p, err)
	} else if !strings.HasPrefix(err.Error(), "start loader: ") {
		t.Error(err)
	}
}

func TestStartAfterTheEndOfItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if p, err := Start(ctx, Command{Name: "sleep", Path: "/bin/sleep", Args: []string{"60"}}); p != nil ||
		!errors.Is(err, context.Canceled) {
		t.Errorf("got %v, %v", p, err)
	}
}

func TestServerThatDiesWhileItStarts(t *testing.T) {
	program := filepath.Join(t.TempDir(), "server")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho 'no licence found'; exit 4\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := StartNATS(t.Context(), NATSOptions{Binary: program, Data: t.TempDir()})
	text := fmt.Sprint(err)
	for _, want := range []string{"start NATS: ", "exit status 4", "no licence found"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %s", want, text)
		}
	}
}

func TestServerThatDoesNotAnswerEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	program := filepath.Join(t.TempDir(), "server")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho $$ > "+program+".pid; exec sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := StartMinIO(ctx, MinIOOptions{Binary: program, Data: t.TempDir()}); !errors.Is(err,
		context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	var pid int
	text, err := os.ReadFile(program + ".pid")
	if _, scan := fmt.Sscan(string(text), &pid); err != nil || scan != nil || syscall.Kill(pid, 0) == nil {
		t.Errorf("process %d still runs (%v, %v)", pid, err, scan)
	}
}
