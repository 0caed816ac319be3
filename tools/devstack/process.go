package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// stopGrace is how long a process may take to end after SIGTERM before Stop kills it.
const stopGrace = 10 * time.Second

// Command is a program to run as a child.
type Command struct {
	Name    string   // what errors call it: "ClickHouse"
	Path    string   // the program
	Args    []string // without the program
	Env     []string // its whole environment; nil: ours
	Dir     string   // where it runs; "": where we do
	LogPath string   // both its outputs are appended here, the folder is made when missing; "": dropped
}

// Process is a child that we started. It ends when it likes, by Stop or Kill, or when we end: on Linux also when we are
// kill -9ed, elsewhere it outlives that.
type Process struct {
	Name    string
	Pid     int
	LogPath string

	cmd     *exec.Cmd
	logFrom int64       // where this run begins in the log, in bytes
	asked   atomic.Bool // Stop or Kill was called: its end is no error
	done    chan struct{}
	err     error // set before done is closed
}

// Start runs the command and returns as soon as it runs; ctx is only for that, and does not end the process later. The
// child is in a separate process group: Ctrl-C in a terminal reaches us and not it, and we stop our children in
// order.
func Start(ctx context.Context, c Command) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	log, from, err := openLog(c.LogPath)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	defer log.Close()                      // the child has its own
	cmd := exec.Command(c.Path, c.Args...) // #nosec G204 -- servers that devstack fetched, or ourselves
	cmd.Env, cmd.Dir = c.Env, c.Dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttributes()

	p := &Process{Name: c.Name, LogPath: c.LogPath, cmd: cmd, logFrom: from, done: make(chan struct{})}
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	return p, nil
}

// run forks the child and waits for it, on one thread from first to last: Linux sends the signal that a child gets at
// its parent's death when the *thread* that forked it ends, and Go ends threads as it pleases unless they are locked.
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := p.cmd.Start(); err != nil {
		started <- err
		return
	}
	p.Pid = p.cmd.Process.Pid
	started <- nil

	err := p.cmd.Wait()
	if !p.asked.Load() {
		p.err = p.ended(err)
	}
	close(p.done)
}

// ended describes an unexpected end.
func (p *Process) ended(err error) error {
	how := "exit status 0"
	if err != nil {
		how = err.Error()
	}
	if last := p.LogTail(); last != "" {
		return fmt.Errorf("%s (pid %d) ended by itself: %s; its log %s ends:\n%s", p.Name, p.Pid, how, p.LogPath, last)
	}
	return fmt.Errorf("%s (pid %d) ended by itself: %s; its log %s is empty", p.Name, p.Pid, how, p.LogPath)
}

// Done is closed when the process has ended and has been waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the process ended: nil while it runs and when Stop or Kill ended it; otherwise an error that holds its
// exit and the last lines of its log.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// LogTail returns the last lines of what the process has written since it started, at most 20.
func (p *Process) LogTail() string { return tailOf(p.LogPath, p.logFrom) }

// Stop asks the process to end (SIGTERM), and kills it when ctx ends; where ctx has no deadline, after 10 s. It returns
// when the process is gone.
func (p *Process) Stop(ctx context.Context) {
	p.asked.Store(true)
	_ = p.Signal(syscall.SIGTERM) // an error: it has ended already
	_ = p.Signal(syscall.SIGCONT) // one that SIGSTOP halted would not see the other
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, stopGrace)
		defer cancel()
	}
	select {
	case <-p.done:
		p.awaitGroup()
	case <-ctx.Done():
		p.Kill()
	}
}

// Kill ends the process at once (SIGKILL) and returns when it is gone.
func (p *Process) Kill() {
	p.asked.Store(true)
	_ = p.Signal(syscall.SIGKILL)
	<-p.done
	p.awaitGroup()
}

// groupGrace is how long what a child has started itself may take to be gone after it.
const groupGrace = 2 * time.Second

// awaitGroup waits until the rest of the child's process group is gone as well: it may hold ports.
func (p *Process) awaitGroup() {
	for end := time.Now().Add(groupGrace); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if !groupAlive(p.Pid) {
			return
		}
	}
}

// Signal sends a signal to the process and to what it has started itself: SIGSTOP and SIGCONT make a server hang and
// wake again. The error is os.ErrProcessDone when the process has ended.
func (p *Process) Signal(s os.Signal) error {
	select {
	case <-p.done:
		return os.ErrProcessDone
	default:
	}
	// The child leads a process group; it is not waited for before done is closed, so the number is still its own.
	if err := syscall.Kill(-p.Pid, s.(syscall.Signal)); err != nil {
		return os.ErrProcessDone
	}
	return nil
}

// openLog opens the log for appending, and says where this run's part of it begins.
func openLog(path string) (*os.File, int64, error) {
	if path == "" {
		path = os.DevNull
	} else if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, 0, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, 0, err
	}
	from, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, from, nil
}
