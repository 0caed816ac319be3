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
	Name    string   // for errors: "ClickHouse"
	Path    string   // the program
	Args    []string // without the program
	Env     []string // whole environment; nil: this process's
	Dir     string   // working directory; "": this process's
	LogPath string   // receives both outputs, appended; its folder is created if missing; "": no log
}

// Process is a child process. It ends alone, by Stop or Kill, or when this process ends. After kill -9 of this process,
// it ends on Linux only.
type Process struct {
	Name    string
	Pid     int
	LogPath string

	cmd     *exec.Cmd
	logFrom int64       // offset of this run in the log, in bytes
	asked   atomic.Bool // Stop or Kill was called, so its end is no error
	done    chan struct{}
	err     error // set before done is closed
}

// Start starts the command and returns. ctx is only for the start and does not end the process later. The child is in a
// separate process group, so Ctrl-C in a terminal reaches only this process, which stops its children in order.
func Start(ctx context.Context, c Command) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	log, from, err := openLog(c.LogPath)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	defer log.Close()                      // the child has its own descriptor
	cmd := exec.Command(c.Path, c.Args...) // #nosec G204 -- servers that devstack fetched, or this program
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

// run forks the child and waits for it, on one thread all the time. Linux signals a parent's death when the forking
// *thread* ends, and Go ends threads at any time unless they are locked.
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

// Done is closed when the process has ended and was waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the process ended. It is nil while it runs, and after Stop or Kill. Otherwise it has the exit status and
// the last lines of the log.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// LogTail returns the process's last log lines since its start, at most 20.
func (p *Process) LogTail() string { return tailOf(p.LogPath, p.logFrom) }

// Stop sends SIGTERM, and kills the process when ctx ends; without a deadline, after 10 s. It returns when the process
// is gone.
func (p *Process) Stop(ctx context.Context) {
	p.asked.Store(true)
	_ = p.Signal(syscall.SIGTERM) // an error means that it has ended
	_ = p.Signal(syscall.SIGCONT) // a process halted by SIGSTOP would not see SIGTERM
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

// Kill sends SIGKILL and returns when the process is gone.
func (p *Process) Kill() {
	p.asked.Store(true)
	_ = p.Signal(syscall.SIGKILL)
	<-p.done
	p.awaitGroup()
}

// groupGrace is how long a child's own children may outlive it.
const groupGrace = 2 * time.Second

// awaitGroup waits until the child's process group is gone, because its other processes may hold ports.
func (p *Process) awaitGroup() {
	for end := time.Now().Add(groupGrace); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if !groupAlive(p.Pid) {
			return
		}
	}
}

// Signal sends a signal to the process and its children. SIGSTOP and SIGCONT make a server hang and continue. If the
// process has ended, the error is os.ErrProcessDone.
func (p *Process) Signal(s os.Signal) error {
	select {
	case <-p.done:
		return os.ErrProcessDone
	default:
	}
	// The child leads a process group. Before done is closed it has not been waited for, so the pid is still its own.
	if err := syscall.Kill(-p.Pid, s.(syscall.Signal)); err != nil {
		return os.ErrProcessDone
	}
	return nil
}

// openLog opens the log for appending, and returns where this run begins.
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
