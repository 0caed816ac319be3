// Command mutate breaks the promises of DESIGN.md on purpose, one by one, and
// checks that the tests notice.
//
//	go run ./tools/mutate [-run PART] infra/mutants
//
// A mutant is a unified diff NAME.patch with two lines before it:
//
//	promise: what the change breaks
//	test: the arguments of `go test` of which a test must fail
//
// Each is applied to a temporary copy of the module, never to the module itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

// limit is how long a mutant's tests may take; one that makes a test hang is caught, too.
const limit = 5 * time.Minute

func main() {
	part := flag.String("run", "", "only mutants whose name contains `PART`")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: mutate [-run PART] FOLDER")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, flag.Arg(0), *part); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

// result is what became of a mutant.
type result string

const (
	killed   result = "killed"   // a test failed
	survived result = "SURVIVED" // all tests passed
	broken   result = "BROKEN"   // it does not apply, or does not compile
)

func run(ctx context.Context, out io.Writer, folder, part string) error {
	paths, err := filepath.Glob(filepath.Join(folder, "*.patch"))
	if err != nil {
		return err
	}
	copied, err := os.MkdirTemp("", "mutate-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(copied)
	if err := copyModule(ctx, copied); err != nil {
		return err
	}
	count := map[result]int{}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".patch")
		if !strings.Contains(name, part) {
			continue
		}
		m, err := read(path)
		if err != nil {
			return err
		}
		began := time.Now()
		got, why := m.judge(ctx, copied)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		count[got]++
		fmt.Fprintf(out, "%-8s %-28s %4.0fs  %s\n", got, name, time.Since(began).Seconds(), m.promise)
		if got != killed {
			fmt.Fprintf(out, "         go test %s\n%s\n", strings.Join(m.test, " "), indent(why))
		}
	}
	fmt.Fprintf(out, "%d killed, %d survived, %d broken\n", count[killed], count[survived], count[broken])
	switch {
	case count[survived]+count[broken] > 0:
		return errors.New("not every mutant was killed")
	case count[killed] == 0:
		return fmt.Errorf("no mutant in %s has %q in its name", folder, part)
	}
	return nil
}

// copyModule copies the files that git knows, as they are on disk.
func copyModule(ctx context.Context, to string) error {
	list, err := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, and not committed yet
		}
		if err != nil {
			return err
		}
		path := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// mutant is one change.
type mutant struct {
	promise string
	test    []string // arguments of go test
	patch   string   // its path
}

func read(path string) (mutant, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return mutant{}, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return mutant{}, err
	}
	m := mutant{patch: path}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "--- ") {
			break
		}
		if promise, ok := strings.CutPrefix(line, "promise: "); ok {
			m.promise = promise
		}
		if test, ok := strings.CutPrefix(line, "test: "); ok {
			m.test = strings.Fields(test)
		}
	}
	if m.promise == "" || len(m.test) == 0 {
		return m, fmt.Errorf("%s: no \"promise: …\" or no \"test: …\" before the diff", path)
	}
	return m, nil
}

// judge applies the mutant to the copy, runs its tests, and takes it back.
func (m mutant) judge(ctx context.Context, copied string) (result, string) {
	if said, err := command(ctx, copied, "git", "apply", "-p1", m.patch); err != nil {
		return broken, said
	}
	defer command(context.WithoutCancel(ctx), copied, "git", "apply", "-p1", "-R", m.patch)
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	args := append([]string{"test", "-count=1", "-failfast", "-timeout=2m"}, m.test...)
	said, err := command(limited, copied, "go", args...)
	switch {
	case err == nil && strings.Contains(said, "no tests to run"):
		return broken, said
	case err == nil:
		return survived, said
	case strings.Contains(said, "[build failed]") || strings.Contains(said, "[setup failed]"):
		return broken, said
	}
	return killed, said
}

func command(ctx context.Context, dir, name string, args ...string) (said string, err error) {
	cmd := exec.CommandContext(ctx, name, args...) // #nosec G204 -- patch and go, with names from our own patches
	cmd.Dir = dir
	// A repository around the copy would have git look for the files there.
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir), "GIT_DIR="+filepath.Join(dir, "none"))
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// indent is the end of what a command said.
func indent(said string) string {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	lines = lines[max(0, len(lines)-15):]
	return "         " + strings.Join(lines, "\n         ")
}
