// Package lint holds the rules of the layout that no linter knows.
package lint

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/penstock/penstock/"

type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string // of the package, without its tests
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports", module+"...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages", len(all))
	}
	return all
}

func under(path string, folders ...string) bool {
	for _, f := range folders {
		if path == module+f || strings.HasPrefix(path, module+f+"/") {
			return true
		}
	}
	return false
}

var (
	stages = []string{"receiver", "batcher", "loader", "errors-pipeline"}
	// What wires the stages, below cmd: nothing else in internal/ imports a stage.
	wiring   = []string{"internal/app", "internal/operate", "internal/projects"}
	adapters = []string{"internal/objstore", "internal/queue/jetstream", "internal/clickhouse"}
	// Where the code of a foreign system may be imported.
	homes = map[string]string{
		"github.com/aws/":                          "internal/objstore",
		"github.com/nats-io/":                      "internal/queue/jetstream",
		"github.com/ClickHouse/":                   "internal/clickhouse",
		"github.com/ClickHouse/ch-go":              "internal/clickhouse/native",
		"github.com/parquet-go/":                   "internal/codec",
		"go.yaml.in/":                              "internal/config internal/projects",
		"gonum.org/":                               "tools/bench",
		"github.com/santhosh-tekuri/jsonschema/":   "internal/schemas",
		"go.opentelemetry.io/":                     "receiver",
		"google.golang.org/protobuf/":              "receiver",
		"github.com/penstock/penstock/batcher/wal": "batcher",
	}
)

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		if under(p.ImportPath, "internal/e2e") {
			continue // tests only; they look at every part from outside
		}
		for _, i := range p.Imports {
			bad := func(why string) { t.Errorf("%s imports %s: %s", p.ImportPath, i, why) }
			if under(p.ImportPath, "internal/pipeline") && strings.Contains(strings.Split(i, "/")[0], ".") {
				bad("the leaf imports the standard library only")
			}
			for _, s := range stages {
				if under(p.ImportPath, s) && under(i, stages...) && !under(i, s) {
					bad("stages never import each other")
				}
			}
			if under(p.ImportPath, stages...) && under(i, adapters...) {
				bad("stages know adapters by their own interfaces only")
			}
			if under(p.ImportPath, stages...) && under(i, wiring...) {
				bad("stages are wired, and know nothing of it")
			}
			if under(p.ImportPath, "internal", "infra", "tools") && !under(p.ImportPath, wiring...) &&
				under(i, append(append(stages, wiring...), "cmd")...) {
				bad("what stages share never imports a stage")
			}
			for prefix, home := range homes {
				if strings.HasPrefix(i, prefix) && !under(p.ImportPath, strings.Fields(home)...) {
					bad("only " + home + " may")
				}
			}
		}
	}
}

// The two pipelines are built by one loop: each stage's New stands once.
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

// Bubbles of fake time run on one processor, for the race detector's sake.
func TestBubblesByOneFunction(t *testing.T) {
	call := "synctest" + ".Test("
	out, _ := exec.Command("grep", "-rlF", "--include=*.go", call, root(t)).Output()
	if got := strings.TrimSpace(string(out)); got != filepath.Join(root(t), "internal/testing/bubble/bubble.go") {
		t.Errorf("%s stands in\n%s\nwant it in internal/testing/bubble only", call, got)
	}
}
