package devstack

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTailKeepsTheLastLines(t *testing.T) {
	output := &tail{counts: func(line string) bool { return line != "line 3" }}
	for i := range 50 {
		fmt.Fprintf(output, "li")
		fmt.Fprintf(output, "ne %d\nli", i)
		output.partial = output.partial[:0] // the next write has the whole line
	}
	fmt.Fprint(output, strings.Repeat("x", 5000))
	lines := strings.Split(output.String(), "\n")
	if want := tailLines + 1; len(lines) != want || lines[0] != "line 30" || lines[tailLines-1] != "line 49" {
		t.Errorf("got %d lines, %q", len(lines), lines)
	}
	if got := len(lines[tailLines]); got != tailLineBytes {
		t.Errorf("the long line has %d bytes, want %d", got, tailLineBytes)
	}
	if got := output.counted(); got != 49 {
		t.Errorf("counted %d, want 49", got)
	}
}

func TestTailOfOneRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	before, long := "the run before\n", strings.Repeat("ü", tailLineBytes)
	if err := os.WriteFile(path, []byte(before+"this run\n"+long+"\n0. ? @ 0x000000001c8fa4b3\n17. main @ 0x0f\n"+
		"2026.11.26 07:27:03.077741 [ 1 ] {} <Fatal> ClientBase: 4. raise @ 0x03\nend\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	want := "this run\n" + strings.Repeat("ü", tailLineBytes/2) + " …\nend"
	if got := tailOf(path, int64(len(before))); got != want {
		t.Errorf("got %q", got)
	}
	if got := tailOf(filepath.Join(t.TempDir(), "none"), 0); got != "" {
		t.Errorf("of no file: %q", got)
	}
}
