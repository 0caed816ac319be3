package devstack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// toolGrace is how long a cancelled tool may clean up its temporary files before SIGKILL.
const toolGrace = 5 * time.Second

// tool is a program of this machine: go, npm, a C compiler.
type tool struct {
	name string   // path, or name on PATH
	need string   // how to install it: "install Go 1.26 or newer"
	args []string // without the name
	dir  string   // working directory
	env  []string // overrides variables of this process
}

// run runs the tool, and writes both its outputs to output. If the tool is missing, the error says what to install. If
// it fails, the error has the end of its output.
func (t tool) run(ctx context.Context, output *tail) error {
	path, err := exec.LookPath(t.name)
	if err != nil {
		return fmt.Errorf("%s is missing: %s", t.name, t.need)
	}
	cmd := exec.CommandContext(ctx, path, t.args...) // #nosec G204 -- go, npm, cc or clickhouse, with our own arguments
	cmd.Dir = t.dir
	cmd.Env = append(os.Environ(), t.env...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = childAttributes()
	cmd.WaitDelay = toolGrace
	cmd.Cancel = func() error {
		// Signal the whole group, because `go` and `npm` start children.
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
	}

	// The tool must not outlive this process, which depends on the thread: see Process.run.
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

// line is the command as a person would type it.
func (t tool) line() string { return strings.Join(append([]string{t.name}, t.args...), " ") }

// killGroup ends what a cancelled tool has started. The tool itself has been waited for, so its pid is now only its
// group's number.
func killGroup(cmd *exec.Cmd) {
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
}

// without returns env without variables that begin with prefix. A developer's own MINIO_… or CLICKHOUSE_… is for
// another server.
func without(env []string, prefix string) []string {
	var kept []string
	for _, pair := range env {
		if !strings.HasPrefix(pair, prefix) {
			kept = append(kept, pair)
		}
	}
	return kept
}

// goInstall builds a module's main package at a pinned version into dir.
func (f *Fetcher) goInstall(ctx context.Context, what, hint, pkg, dir string) error {
	return f.runGo(ctx, "build "+what, hint, dir, "install", "-v", "-ldflags=-s -w", pkg)
}

// runGo runs the go command in dir, away from any go.work or go.mod. With -v it counts the compiled packages. The
// build's settings are fixed, so that everybody gets the same program. The module sources are the machine's (GOPROXY,
// GOPRIVATE, …).
func (f *Fetcher) runGo(ctx context.Context, what, hint, dir string, args ...string) error {
	output := &tail{counts: func(line string) bool { return !strings.HasPrefix(line, "go: ") }}
	count := func() string { return fmt.Sprintf("%d packages compiled", output.counted()) }
	return f.during(step{what: what, hint: hint, count: count}, func() error {
		return tool{
			name: "go",
			need: "install Go 1.26 or newer and put it on PATH",
			args: args,
			dir:  dir,
			env: []string{"GOBIN=" + dir, "GOFLAGS=", "GOWORK=off", "GO111MODULE=on", "CGO_ENABLED=0",
				"GOOS=" + runtime.GOOS, "GOARCH=" + runtime.GOARCH},
		}.run(ctx, output)
	})
}

// GoBuild is a third-party program that needs more than one `go install`, for example a source generator.
type GoBuild struct {
	Name  string            // of its folder in the cache, including the version
	Files map[string]string // initial files of the folder, by name
	Steps []GoStep          // run in the folder, in order
}

// GoStep is one go command.
type GoStep struct {
	What string   // for people: "build otelcol v1"
	Hint string   // what to expect: "3 minutes on two cores, once"
	Args []string // with -v, compiled packages are counted
}

// Build returns the program's folder. If it is missing, Build creates it. The folder's name has a digest of Files and
// Steps, so a changed recipe is built again.
func (f *Fetcher) Build(ctx context.Context, b GoBuild) (string, error) {
	recipe, err := json.Marshal(b)
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256(recipe)
	dir, err := f.fetch(ctx, b.Name+"-"+hex.EncodeToString(digest[:6]), func(ctx context.Context, dir string) error {
		for name, text := range b.Files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				return err
			}
		}
		for _, s := range b.Steps {
			if err := f.runGo(ctx, s.What, s.Hint, dir, s.Args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("fetch %s: %w", b.Name, err)
	}
	return dir, nil
}
