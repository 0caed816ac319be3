package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/testing/docs"
)

// Every command of the first two pages does what the pages say, in the order in which a reader types them.
func TestFirstPages(t *testing.T) {
	t.Parallel()
	binary, err := penstock()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(binary, filepath.Join(dir, "penstock")); err != nil {
		t.Fatal(err)
	}
	base := portBase(t)
	startDev(t, dir, base)
	r := reader{t: t, dir: dir, base: base}
	r.read("../../README.md", "Quick start")
	for _, heading := range []string{"2. Send events", "3. Query them", "4. Look at a rejected event", "5. See what waits where"} {
		r.read("../../docs/getting-started.md", heading)
	}
	if r.ran < 9 {
		t.Errorf("%d commands were run, want 9 or more", r.ran)
	}
}

// startDev runs a dev stack in dir/.penstock until the test ends.
func startDev(t *testing.T, dir string, base int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "./penstock", "dev", "--port-base", fmt.Sprint(base), "--roll", "1s")
	cmd.Dir = dir
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

// reader runs the commands of a page.
type reader struct {
	t      *testing.T
	dir    string
	base   int
	export []string // lines that set variables for later blocks
	ran    int
}

// mark stands before commands whose output the page shows below them.
const mark = "$ "

// read runs the blocks below a heading. A block of JSON is the output of the block before it; in a block with prompts,
// what stands below a command is its output.
func (r *reader) read(page, heading string) {
	r.t.Helper()
	output := ""
	for _, b := range docs.Blocks(r.t, page) {
		at := fmt.Sprintf("%s:%d", filepath.Base(page), b.Line)
		switch {
		case b.Heading != heading:
		case b.Language == "json":
			r.compare(at, b.Text, output)
		case b.Language != "sh" || strings.Contains(b.Text, "go run ./cmd/penstock dev"):
		case strings.HasPrefix(b.Text, mark):
			for session := range strings.SplitSeq("\n"+b.Text, "\n"+mark) {
				if command, want := splitSession(session); command != "" {
					r.compare(at, want, r.run(at, command, want))
				}
			}
		default:
			output = r.run(at, strings.ReplaceAll(b.Text, "go build ./cmd/penstock\n", ""), "")
		}
	}
}

// splitSession parts a command, which may go over lines that end in a backslash, from its output.
func splitSession(session string) (command, output string) {
	lines := strings.Split(session, "\n")
	n := 1
	for n < len(lines) && strings.HasSuffix(lines[n-1], `\`) {
		n++
	}
	return strings.TrimSpace(strings.Join(lines[:n], "\n")), strings.TrimSpace(strings.Join(lines[n:], "\n"))
}

var ports = map[string]int{":8080": 0, ":8123": 6} // as dev lays them out from its base

// run runs commands in the folder, again until the rows are there if they ask the table.
func (r *reader) run(at, commands, want string) string {
	r.t.Helper()
	script := "set -e\n" + strings.Join(r.export, "\n") + "\n" + commands
	for port, offset := range ports {
		script = strings.ReplaceAll(script, port, ":"+strconv.Itoa(r.base+offset))
	}
	for line := range strings.SplitSeq(commands, "\n") {
		if strings.HasPrefix(line, "export ") {
			r.export = append(r.export, line)
		}
	}
	r.ran++
	var output string
	eventually(r.t, 30*time.Second, at, func() error {
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "bash", "-c", script)
		cmd.Dir = r.dir
		out, err := cmd.CombinedOutput()
		output = string(out)
		if err != nil {
			return fmt.Errorf("%w\n%s\n%s", err, script, output)
		}
		if strings.Contains(commands, "SELECT") && (output == "" || want != "" && !strings.Contains(output, want)) {
			return fmt.Errorf("want %q, got\n%s", want, output)
		}
		return nil
	})
	return output
}

// compare compares an output with the page's: JSON by its members, other text as it is.
func (r *reader) compare(at, want, got string) {
	r.t.Helper()
	if want == "" {
		return
	}
	var wantJSON, gotJSON map[string]any
	if json.Unmarshal([]byte(want), &wantJSON) != nil {
		if !strings.Contains(got, want) {
			r.t.Errorf("%s: got %q, want %q", at, got, want)
		}
		return
	}
	if err := json.Unmarshal([]byte(got), &gotJSON); err != nil {
		r.t.Errorf("%s: %v: %q", at, err, got)
		return
	}
	random := regexp.MustCompile(`^(request_id|message)$`)
	for _, m := range []map[string]any{wantJSON, gotJSON} {
		blank(m, random)
	}
	if diff := cmp.Diff(wantJSON, gotJSON); diff != "" {
		r.t.Errorf("%s (-page +answer):\n%s", at, diff)
	}
}

// blank empties the members that differ each time.
func blank(v any, names *regexp.Regexp) {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if names.MatchString(name) {
				v[name] = ""
				continue
			}
			blank(member, names)
		}
	case []any:
		for member := range slices.Values(v) {
			blank(member, names)
		}
	}
}
