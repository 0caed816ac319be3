package devstack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// toolGrace is how long a tool gets to clean up its temporary files when it is cancelled, before SIGKILL.
const toolGrace = 5 * time.Second

// tool is a program of the machine's that we run to its end: go, npm, a C compiler.
type tool struct {
	name string   // as looked up on PATH, or a path
	need string   // what to install when it is missing: "install Go 1.26 or newer"
	args []string // without the name
	dir  string   // where it runs
	env  []string // replaces variables of ours of the same name
}

// run runs the tool and writes both its outputs to output. A missing tool's error says what to install, a failing one's
// holds the end of what it printed.
func (t tool) run(ctx context.Context, output *tail) error {
	path, err := exec.LookPath(t.name)
	if err != nil {
		return fmt.Errorf("%s is missing: %s", t.name, t.need)
	}
	cmd := exec.CommandContext(ctx, path, t.args...)
	cmd.Dir = t.dir
	cmd.Env = append(os.Environ(), t.env...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = childAttributes()
	cmd.WaitDelay = toolGrace
	cmd.Cancel = func() error {
		// The whole group: `go` and `npm` work through children of their own.
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
	}

	// See Process.run: the tool must not outlive us, and that is tied to the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Run()
	if cause := context.Cause(ctx); cause != nil {
		killGroup(cmd)
		return fmt.Errorf("run %s: %w", t.name, cause)
	}
	if err != nil {
		return fmt.Errorf("run %s: %w; it printed last:\n%s", t.line(), err, output)
	}
	return nil
}

// line is the command as one would type it.
func (t tool) line() string { return strings.Join(append([]string{t.name}, t.args...), " ") }

// killGroup ends what a cancelled tool started and left behind. The tool itself has just been waited for, so its number is
// still its group's or nobody's.
func killGroup(cmd *exec.Cmd) {
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
}

// without returns env less the variables whose names begin with prefix: a developer's own MINIO_… or CLICKHOUSE_… is
// about another server.
func without(env []string, prefix string) []string {
	var kept []string
	for _, pair := range env {
		if !strings.HasPrefix(pair, prefix) {
			kept = append(kept, pair)
		}
	}
	return kept
}

// goInstall builds a main package of a module at a pinned version into dir. The build's own settings are fixed here so
// that everybody gets the same program; where modules come from stays as the machine has it (GOPROXY, GOPRIVATE, …).
func (f *Fetcher) goInstall(ctx context.Context, what, hint, pkg, dir string) error {
	output := &tail{counts: func(line string) bool { return !strings.HasPrefix(line, "go: ") }}
	count := func() string { return fmt.Sprintf("%d packages compiled", output.counted()) }
	return f.during(step{what: "build " + what, hint: hint, count: count}, func() error {
		return tool{
			name: "go",
			need: "install Go 1.26 or newer and put it on PATH",
			args: []string{"install", "-v", "-ldflags=-s -w", pkg},
			dir:  dir, // away from any go.work or go.mod
			env: []string{"GOBIN=" + dir, "GOFLAGS=", "GOWORK=off", "GO111MODULE=on", "CGO_ENABLED=0",
				"GOOS=" + runtime.GOOS, "GOARCH=" + runtime.GOARCH},
		}.run(ctx, output)
	})
}
