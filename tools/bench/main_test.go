package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Invalid flags are rejected before anything starts.
func TestBenchFlags(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"receive --events 150", "--events 150"},
		{"receive --batch 0", "--batch 0"},
		{"receive --durability tape", "--durability"},
		{"receive --format csv", "--format"},
		{"receive --runs 0", "--runs 0"},
		{"receive --floor --before penstock", "--before"},
		{"receive --paths 10", "--paths"},
		{"receive --properties 20 --paths 10", "--paths"},
		{"load --loaders 5", "--loaders 5"},
		{"load --events-kind chess", "--events-kind"},
		{"load --events-kind game,llm", "--events-kind"},
		{"receive --format parquet,ndjson", "--format"},
		{"receive --events-kind llm --properties 5", "--properties"},
		{"disk --events 500", "--events 500"},
		{"disk --format csv,parquet", "--format"},
		{"e2e --duration 1ms", "--duration 1ms"},
		{"e2e --rate 5 --curve 1,2", "--curve"},
		{"ask --rows 1000", "--rows 1000"},
		{"ask --batch 0", "--batch 0"},
		{"ask --scale 15M", "--scale 15M"},
		{"ask --scale much", "--scale much"},
		{"ask --only weather", "--only weather"},
		{"e2e --json " + t.TempDir() + "/no/such/directory.json", "--json"},
	} {
		err := run(t.Context(), streams{new(bytes.Buffer), io.Discard}, strings.Fields(c.args))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("bench %s: error %v, want one of %s", c.args, err, c.want)
		}
	}
	broken := filepath.Join(t.TempDir(), "x.json")
	if err := os.WriteFile(broken, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"", "fast", "e2e --curve 1,x", "receive --loaders 2", "plot", "plot a b"} {
		if err := run(t.Context(), streams{new(bytes.Buffer), io.Discard}, strings.Fields(args)); !errors.Is(err, errUsage) {
			t.Errorf("bench %s: error %v", args, err)
		}
	}
	if err := run(t.Context(), streams{new(bytes.Buffer), io.Discard},
		[]string{"plot", broken, "--out", broken + ".png"}); err == nil {
		t.Error("a report without runs is drawn")
	}
	var out bytes.Buffer
	if err := run(t.Context(), streams{&out, io.Discard}, []string{"help"}); err != nil ||
		!strings.Contains(out.String(), "e2e") {
		t.Errorf("help: %v %s", err, &out)
	}
}
