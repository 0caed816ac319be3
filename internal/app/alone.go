package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/loader"
)

// AloneCommand is the command by which a loader loads a suspicious object in a separate process. Users do not run it,
// and `help` does not list it.
const AloneCommand = "load-one"

// begunLine is printed before the object is read. If the process ends before it, the object is not the cause.
const begunLine = "begun\n"

// LoadAlone loads the object of the notification on in, under a memory limit, and writes the verdict to out.
func LoadAlone(ctx context.Context, cfg config.Config, table string, in io.Reader, out io.Writer,
	log *slog.Logger) error {
	spec, err := pipeline.SpecNamed(table)
	if err != nil {
		return err
	}
	var n pipeline.Notification
	if err := json.NewDecoder(in).Decode(&n); err != nil {
		return fmt.Errorf("read the notification: %w", err)
	}
	hard := aloneLimit()
	if err := limitAlone(hard); err != nil {
		return err
	}
	limitMemory(min(loadMemory, hard/2), log)
	p := newProcess(cfg, log, newRegistry())
	p.trace("load", LoaderName(cfg))
	defer p.tracer.Close()
	return loadAlone(ctx, p, spec, n, out)
}

func loadAlone(ctx context.Context, p process, spec pipeline.Spec, n pipeline.Notification, to io.Writer) error {
	db := openLoading(p, 5)
	defer db.Close()
	out := &outlet{process: p, name: LoaderName(p.cfg), isolated: loader.NewIsolation(nil), db: db,
		source: Source(p.cfg, p.store, db)}
	reports, err := newIntake(p, "load", []pipeline.Spec{pipeline.Errors}, nil)
	if err == nil {
		err = reports.start()
	}
	if err != nil {
		p.log.Error("load failures are not reported to the errors pipeline", "error", err)
	} else {
		out.report = reports.reporter
		defer func() {
			if err := reports.stop(); err != nil {
				p.log.Error("stop the errors pipeline", "error", err)
			}
		}()
	}
	l := out.newLoader(spec, nil)
	if _, err := io.WriteString(to, begunLine); err != nil {
		return err
	}
	err = l.Alone(ctx, n)
	if ctx.Err() != nil {
		return ctx.Err() // no verdict
	}
	return json.NewEncoder(to).Encode(loader.VerdictOf(err))
}

// Isolation lets a process whose configuration is at path load objects in another process.
// name is the loader's name there; empty: the one of the configuration.
func Isolation(path, name string, stderr io.Writer) *loader.Isolation {
	return loader.NewIsolation(func(ctx context.Context, spec pipeline.Spec, n pipeline.Notification) error {
		debug.FreeOSMemory() // nothing else is loaded now: leave the memory to the child
		args := []string{AloneCommand, "--pipeline", spec.Name}
		if path != "" {
			args = append(args, "--config", path)
		}
		// #nosec G204 -- this very program, with the flags that it was given itself
		cmd := exec.CommandContext(ctx, selfPath(), args...)
		cmd.Env = append(os.Environ(), "PENSTOCK_LOADER_NAME="+name)
		cmd.Stderr = stderr
		cmd.SysProcAttr = aloneAttributes()
		cmd.WaitDelay = 5 * time.Second
		body, err := json.Marshal(n)
		if err != nil {
			return err
		}
		cmd.Stdin = bytes.NewReader(body)
		var out bytes.Buffer
		cmd.Stdout = &out
		// The kernel kills the child when the thread that started it ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err = cmd.Run()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return verdict(out.Bytes(), err)
	})
}

// verdict is the result of a child process, by its output and its exit. failed is the error of running it.
func verdict(out []byte, failed error) error {
	in := bufio.NewReader(bytes.NewReader(out))
	line, _ := in.ReadString('\n')
	var v loader.Verdict
	if line == begunLine && json.NewDecoder(in).Decode(&v) == nil {
		return v.Err()
	}
	if line == begunLine && killed(failed) {
		return fmt.Errorf("%w: %w", loader.ErrKilled, failed)
	}
	return retry.As(retry.Outage, fmt.Errorf("the process that loads an object alone gave no verdict: %w", failed))
}

// killed distinguishes an end that the object may have caused from one that was requested.
func killed(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	if !ok {
		return false
	}
	if !status.Signaled() {
		return status.ExitStatus() > 1 // by Go's runtime: out of memory, a panic; 1 is an error of ours
	}
	switch status.Signal() {
	case syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP:
		return false
	}
	return true
}
