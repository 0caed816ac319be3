// Package lint checks the rules of the layout that no linter knows. The import rules are in .golangci.yml.
package lint

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// One loop builds both pipelines: each stage's New occurs once.
func TestBuiltByOneLoop(t *testing.T) {
	for _, call := range []string{"batcher.New(", "loader.New("} {
		out, _ := exec.Command("grep", "-rnF", "--include=*.go", "--exclude=*_test.go", call, root(t)).Output()
		if n := strings.Count(string(out), "\n"); n != 1 {
			t.Errorf("%s stands %d times outside tests, want 1:\n%s", call, n, out)
		}
	}
}

func root(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Clean(strings.TrimSpace(string(out)))
}

// Bubbles of fake time run on one processor, because of the race detector.
func TestBubblesByOneFunction(t *testing.T) {
	call := "synctest" + ".Test("
	out, _ := exec.Command("grep", "-rlF", "--include=*.go", call, root(t)).Output()
	if got := strings.TrimSpace(string(out)); got != filepath.Join(root(t), "internal/testing/bubble/bubble.go") {
		t.Errorf("%s stands in\n%s\nwant it in internal/testing/bubble only", call, got)
	}
}
