package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/testing/docs"
)

// pages are run in this order, on one stack: later ones may use what earlier ones made.
var pages = []string{"README.md", "docs/getting-started.md", "docs/operate/commands.md", "docs/reference/http-api.md",
	"docs/guides/projects.md", "docs/guides/schemas.md", "docs/guides/large-payloads.md", "docs/guides/sdks.md",
	"docs/guides/imports.md", "docs/guides/analytics.md", "docs/guides/columns.md", "docs/operate/runbook.md",
	"docs/operate/backup.md", "docs/operate/traces.md", "docs/deploy/one-vm.md"}

// Every command in README and docs does what its page says, in the reader's order. A block that cannot run here says so
// after its fence ("not run: WHY"); cmd/penstock checks its commands and flags.
func TestPages(t *testing.T) {
	t.Parallel()
	checkMarks(t)
	binary, err := penstock()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(binary, filepath.Join(dir, "penstock")); err != nil {
		t.Fatal(err)
	}
	r := &reader{t: t, dir: dir, base: portBase(t), bound: map[string]string{}}
	r.write("schemas/level_start.json", docs.Below(t, "../../docs/guides/schemas.md", "Schemas", "json"))
	r.write("schemas/common/position.json", `{"type":"object"}`)
	startDev(t, dir, r.base)
	for _, page := range pages {
		t.Run(page, func(t *testing.T) {
			r.t = t
			r.read(page)
		})
	}
	if r.ran < 60 {
		t.Errorf("%d commands were run, want 60 or more", r.ran)
	}
}

// commands reports whether a block has commands to type.
func commands(b docs.Block) bool { return b.Language == "sh" || b.Language == "console" }

// checkMarks fails unless each block of commands in docs/ is run or marked, and each marked one is a valid script.
func checkMarks(t *testing.T) {
	err := filepath.WalkDir("../../docs", func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".md" {
			return err
		}
		page, err := filepath.Rel("../..", path)
		for _, b := range docs.Blocks(t, path) {
			if b.Language == "" && strings.HasPrefix(b.Text, "$ ") {
				t.Errorf("%s:%d has prompts: write console behind its fence", page, b.Line)
			}
			if !commands(b) {
				continue
			}
			if b.NotRun == "" && !slices.Contains(pages, page) {
				t.Errorf("%s:%d is neither run nor marked", page, b.Line)
			}
			if script := script(b); b.NotRun != "" && script != "" {
				if out, err := exec.CommandContext(t.Context(), "bash", "-n", "-c", script).CombinedOutput(); err != nil {
					t.Errorf("%s:%d: %v\n%s", page, b.Line, err, out)
				}
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// script is all commands of a block.
func script(b docs.Block) string {
	if b.Language != "console" {
		return b.Text
	}
	var all []string
	for _, s := range sessions(b.Text) {
		all = append(all, s.command)
	}
	return strings.Join(all, "\n")
}

// startDev runs a dev stack in dir/.penstock until the test ends.
func startDev(t *testing.T, dir string, base int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "./penstock", "dev", "--port-base", fmt.Sprint(base), "--roll", "1s")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PENSTOCK_SCHEMAS_DIR="+filepath.Join(dir, "schemas"), "PENSTOCK_SCHEMAS_MODE=enforce")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { <-ended }) // t.Context ends before
	eventually(t, time.Minute, "dev is ready", func() error {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("dev has ended: %v\n%s", err, out.String())
		default:
		}
		_, err := os.Stat(filepath.Join(dir, ".penstock", "dev.json"))
		return err
	})
}

// reader runs the commands of pages.
type reader struct {
	t      *testing.T
	dir    string
	base   int
	export []string          // lines that set variables for later blocks
	bound  map[string]string // this run's values of the pages' keys and ids
	ran    int
}

// read runs the blocks of a page. In a block with prompts, a command's output is below it. Without prompts, it is the
// next block below the same heading, if that has no language or is JSON.
func (r *reader) read(page string) {
	blocks := docs.Blocks(r.t, filepath.Join("../..", page))
	prepared := map[string]bool{}
	for i, b := range blocks {
		if !commands(b) || b.NotRun != "" {
			continue
		}
		if prepare := preparations[page+"#"+b.Heading]; prepare != nil && !prepared[b.Heading] {
			prepare(r)
			prepared[b.Heading] = true
		}
		at := fmt.Sprintf("%s:%d", filepath.Base(page), b.Line)
		switch {
		case b.Language == "console":
			for _, s := range sessions(b.Text) {
				r.run(at, s.command, s.output)
			}
		case strings.Contains(b.Text, "penstock receive\n"):
			r.startRoles(b.Text)
		default:
			want := ""
			if i+1 < len(blocks) && blocks[i+1].Heading == b.Heading &&
				(blocks[i+1].Language == "" || blocks[i+1].Language == "json") {
				want = blocks[i+1].Text
			}
			r.run(at, b.Text, want)
		}
	}
}

// session is a command with its output.
type session struct{ command, output string }

// sessions splits a block with prompts. A command may go over lines that end in a backslash.
func sessions(block string) (all []session) {
	const prompt = "\n$ "
	for text := range strings.SplitSeq("\n"+block, prompt) {
		lines := strings.Split(text, "\n")
		n := 1
		for n < len(lines) && strings.HasSuffix(lines[n-1], `\`) {
			n++
		}
		if command := strings.TrimSpace(strings.Join(lines[:n], "\n")); command != "" {
			all = append(all, session{command, strings.TrimSpace(strings.Join(lines[n:], "\n"))})
		}
	}
	return all
}

// once matches commands that must not be tried again.
var once = []string{"redrive", "dlq drop", "keys ", "curl -sS http://127.0.0.1:8080", "curl -H"}

// run runs commands in the folder. Commands that change nothing are repeated until the output matches, because rows
// arrive a second later.
func (r *reader) run(at, commands, want string) {
	r.t.Helper()
	if file, ok := strings.CutPrefix(commands, "cat "); ok {
		r.write(file, want)
	}
	for line := range strings.SplitSeq(commands, "\n") {
		if strings.HasPrefix(line, "export ") || strings.HasPrefix(line, "set -a") || strings.HasPrefix(line, "cd ") {
			r.export = append(r.export, r.adapt(line))
		}
	}
	r.ran++
	limit := 30 * time.Second
	if slices.ContainsFunc(once, func(part string) bool { return strings.Contains(commands, part) }) {
		limit = 0
	}
	eventually(r.t, limit, at, func() error {
		output, err := r.bash(r.adapt(commands))
		if err != nil {
			return err
		}
		if want == "" && strings.Contains(commands, "SELECT") && output == "" {
			return fmt.Errorf("no rows")
		}
		if err := r.compare(want, output); err != nil {
			return fmt.Errorf("%s\n%w", commands, err)
		}
		return nil
	})
}

// bash runs a script in the folder.
func (r *reader) bash(script string) (string, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", "set -e\n"+strings.Join(r.export, "\n")+"\n"+script)
	cmd.Dir, cmd.Env = r.dir, append(os.Environ(), "PATH="+r.dir+":"+os.Getenv("PATH"))
	cmd.Stdin = strings.NewReader("yes\n")
	out, err := cmd.CombinedOutput()
	text := strings.NewReplacer(r.dir+"/.penstock/", "", oneVM, "penstock").Replace(string(out))
	text = strings.ReplaceAll(text, "Type yes to continue: ", "Type yes to continue: yes\n") // as a terminal shows it
	if err != nil {
		err = fmt.Errorf("%w\n%s\n%s", err, script, text)
	}
	return text, err
}

func (r *reader) write(file, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// compare compares an output with the page's: objects by their members, other text by its shape.
func (r *reader) compare(want, got string) error {
	if want == "" {
		return nil
	}
	var wantJSON, gotJSON map[string]any
	if json.Unmarshal([]byte(want), &wantJSON) != nil {
		return r.compareShape(want, got)
	}
	if err := json.Unmarshal([]byte(got), &gotJSON); err != nil {
		return fmt.Errorf("%w: %q", err, got)
	}
	blank(wantJSON)
	blank(gotJSON)
	if diff := cmp.Diff(wantJSON, gotJSON); diff != "" {
		return fmt.Errorf("-page +answer:\n%s", diff)
	}
	return nil
}

// blank empties the members that differ each time.
func blank(v any) {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if name == "request_id" || name == "message" {
				v[name] = ""
				continue
			}
			blank(member)
		}
	case []any:
		for member := range slices.Values(v) {
			blank(member)
		}
	}
}

// ports of the pages, and their offsets from the stack's base port.
var ports = map[string]int{":8080": 0, ":8081": 1, ":8082": 2, ":9100": 2, ":8123": 6}

// adapt replaces values of the pages by this run's: ports, days, keys and ids.
func (r *reader) adapt(commands string) string {
	for port, offset := range ports {
		commands = strings.ReplaceAll(commands, port, ":"+strconv.Itoa(r.base+offset))
	}
	for of, value := range r.bound {
		commands = strings.ReplaceAll(commands, of, value)
	}
	commands = cutWord.ReplaceAllStringFunc(commands, func(word string) string {
		if value, ok := r.lookUp(word); ok {
			return value
		}
		return word
	})
	day := func(n int) string { return time.Now().UTC().AddDate(0, 0, n).Format(time.DateOnly) }
	commands = sinceDay.ReplaceAllString(commands, "--since "+day(-1))
	return untilDay.ReplaceAllString(commands, "--until "+day(1))
}
