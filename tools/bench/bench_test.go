package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/servers"
	"github.com/penstock/penstock/tools/bench/ask"
	"github.com/penstock/penstock/tools/bench/peers"
	"github.com/penstock/penstock/tools/bench/report"
)

// built is a folder with the programs under test, bench and penstock, built once.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "penstock-bench-test-")
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "bench"), ".").CombinedOutput(); err != nil {
		return dir, fmt.Errorf("build bench: %w\n%s", err, out)
	}
	_, err = peers.BuildPenstock(context.Background(), dir)
	return dir, err
})

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if !testing.Short() {
		dir, _ := built()
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// command prepares a benchmark with a separate temporary folder, which must be empty again at the end.
func command(t *testing.T, args ...string) (cmd *exec.Cmd, tmp string) {
	t.Helper()
	servers.Needed(t)
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	if args[0] != "plot" {
		args = append(args, "--penstock", filepath.Join(dir, "penstock"))
	}
	tmp = t.TempDir()
	// Ports are reserved with all others on this machine, see devstack.
	ports := fmt.Sprintf("penstock-ports-%d", os.Getuid())
	if err := os.MkdirAll(filepath.Join(os.TempDir(), ports), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(os.TempDir(), ports), filepath.Join(tmp, ports)); err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), filepath.Join(dir, "bench"), args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	t.Cleanup(func() {
		if left := stacks(tmp); len(left) > 0 {
			t.Errorf("%v are left", left)
		}
		if left := processesOf(tmp); len(left) > 0 {
			t.Errorf("processes are left: %v", left)
		}
	})
	return cmd, tmp
}

func stacks(tmp string) []string {
	found, _ := filepath.Glob(filepath.Join(tmp, "penstock-bench-*"))
	return found
}

// processesOf returns the processes whose command line has the folder.
func processesOf(dir string) (found []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && bytes.Contains(text, []byte(dir)) {
			found = append(found, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return found
}

func benchReport(t *testing.T, args ...string) report.Report {
	t.Helper()
	cmd, _ := command(t, append(args, "--json", "-")...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("bench %v: %v\n%s", args, err, said.String())
	}
	var r report.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	if r.Machine.Cores < 1 || r.Machine.Kernel == "" || r.Flags["batch"] == "" || r.Version == "" || r.Time.IsZero() {
		t.Errorf("no facts in %s", out)
	}
	return r
}

// wantFigures compares a run's figures with values; -1 means any value above 0.
func wantFigures(t *testing.T, r report.Run, want map[string]float64) {
	t.Helper()
	for name, v := range want {
		if got, ok := r.Figures.Get(name); !ok || got != v && (v >= 0 || got <= 0) {
			t.Errorf("%s: %s is %v, want %v", r.What, name, got, v)
		}
	}
}

func TestBenchReceive(t *testing.T) {
	r := benchReport(t, "receive", "--events", "4000", "--batch", "20", "--connections", "4", "--runs", "2", "--floor")
	if len(r.Runs) != 4 || len(r.Medians) != 2 || r.Medians[0].What != "receive" || r.Medians[1].What != "floor" {
		t.Fatalf("runs %+v", r.Runs)
	}
	for _, m := range r.Medians {
		wantFigures(t, m, map[string]float64{"accepted": 4000, "rejected": 0, "failed_requests": 0, "accepted_per_s": -1,
			"receiver_peak_rss_mib": -1,
			"receiver_end_rss_mib":  -1, "latency_p50_ms": -1, "latency_p99_ms": -1, "latency_p999_ms": -1, "latency_max_ms": -1,
			"sent_mib": -1})
	}
	wantFigures(t, r.Medians[0], map[string]float64{"stored_per_s": -1, "receiver_cpu_s_per_million": -1, "objects": 1,
		"objects_mib": -1})
	if v, ok := r.Ratio.Get("accepted_per_s"); !ok || v <= 0 {
		t.Errorf("ratio %v", r.Ratio)
	}
}

func TestBenchLoad(t *testing.T) {
	r := benchReport(t, "load", "--events", "4000", "--runs", "1", "--loaders", "2", "--properties", "5", "--paths", "50",
		"--format", "ndjson")
	wantFigures(t, r.Runs[0], map[string]float64{"rows": 4000, "rows_per_s": -1, "objects": 1,
		"loader_cpu_s_per_million": -1, "loader_peak_rss_mib": -1, "loader2_peak_rss_mib": -1})
}

// Two binaries are measured in turn, and the ratio is reported.
func TestBenchBefore(t *testing.T) {
	servers.Needed(t)
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	r := benchReport(t, "load", "--events", "2000", "--runs", "1", "--before", filepath.Join(dir, "penstock"))
	if len(r.Runs) != 2 || r.Runs[0].What != "load" || r.Runs[1].What != "before" {
		t.Fatalf("runs %+v", r.Runs)
	}
	if v, ok := r.Ratio.Get("rows"); !ok || v != 1 {
		t.Errorf("ratio %v, want 1 for rows", r.Ratio)
	}
}

// All kinds of events and formats of objects, side by side.
func TestBenchDisk(t *testing.T) {
	r := benchReport(t, "disk", "--events", "10000", "--format", "ndjson")
	if len(r.Runs) != 2 || r.Runs[0].What != "disk game ndjson.zst" || r.Runs[1].What != "disk llm ndjson.zst" {
		t.Fatalf("runs %+v", r.Runs)
	}
	for i, rows := range []float64{10_000, 1_000} {
		wantFigures(t, r.Runs[i], map[string]float64{"rows": rows, "objects": 1, "sent_mib": -1, "objects_mib": -1,
			"clickhouse_mib": -1, "parts": 1})
		for _, name := range []string{"sent_by_objects", "sent_by_clickhouse"} {
			if v, _ := r.Runs[i].Figures.Get(name); v < 3 || v > 20 {
				t.Errorf("%s: %s is %v", r.Runs[i].What, name, v)
			}
		}
	}
}

// Two rates, each with an exact number of rows, and their curve.
func TestBenchE2E(t *testing.T) {
	r := benchReport(t, "e2e", "--curve", "1000,3000", "--duration", "1s", "--batch", "50", "--roll", "300ms",
		"--connections", "4")
	if len(r.Medians) != 2 {
		t.Fatalf("%d medians", len(r.Medians))
	}
	for i, rate := range []float64{1000, 3000} {
		// A busy machine leaves some events unsent, and the report says so.
		accepted, _ := r.Medians[i].Figures.Get("accepted")
		if unsent, _ := r.Medians[i].Figures.Get("unsent"); accepted+unsent != rate || accepted == 0 {
			t.Errorf("%v accepted, %v unsent, want %v together", accepted, unsent, rate)
		}
		wantFigures(t, r.Medians[i], map[string]float64{"rejected": 0, "failed_requests": 0, "accepted_per_s": -1,
			"rows_per_s":      -1,
			"freshness_p50_s": -1, "freshness_max_s": -1, "latency_p99_ms": -1, "objects": -1, "receiver_cores": -1,
			"loader_cores": -1, "clickhouse_cores": -1,
			"stack_cores": -1, "receiver_max_rss_mib": -1, "loader_last_quarter_rss_mib": -1,
			"outside_clickhouse_and_minio_share_of_stack": -1})
		if n := len(r.Runs[i].Series["seconds"]); n < 2 || len(r.Runs[i].Series["receiver"]) != n {
			t.Errorf("series %v", r.Runs[i].Series)
		}
	}
	file := filepath.Join(t.TempDir(), "curve.json")
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd, _ := command(t, "plot", file, "--out", file+".png")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("plot: %v\n%s", err, out)
	}
	picture, err := os.ReadFile(file + ".png")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(bytes.NewReader(picture)); err != nil {
		t.Errorf("plot: %v", err)
	}
}

// The answers to an analyst's questions match those of plain tables without duplicates, also after the rows were
// copied.
func TestBenchAsk(t *testing.T) {
	cmd, _ := command(t, "ask", "--rows", "30000", "--batch", "200", "--runs", "0", "--aged", "--scale", "60000",
		"--json", "-")
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	var r ask.Report
	if broken := json.Unmarshal(out, &r); broken != nil || err != nil {
		t.Fatalf("bench ask: %v, %v\n%s", err, broken, said.String())
	}
	questions, err := ask.Questions()
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Sides) != 2 || r.Sides[0].Sent != 30_400 || len(r.Scaled) != 1 {
		t.Fatalf("%d sides, %d scaled, %d events sent; want 2, 1 and 30400", len(r.Sides), len(r.Scaled), r.Sides[0].Sent)
	}
	check := func(side ask.Side, rows int64, answers int) {
		if side.Rows < rows || len(side.Results) < answers {
			t.Errorf("%s: %d rows, %d answers; want %d and %d", side.Name, side.Rows, len(side.Results), rows, answers)
		}
		for _, result := range side.Results {
			if !result.Equal || result.Ms <= 0 || result.Rows == 0 {
				t.Errorf("%s: %+v", side.Name, result)
			}
		}
	}
	check(r.Sides[0], 30_200, len(questions))
	check(r.Sides[1], 30_200, len(questions))
	check(r.Scaled[0], 2*30_200, 5)
}

// Ctrl-C during a run leaves no process and no file.
func TestBenchInterrupted(t *testing.T) {
	cmd, tmp := command(t, "e2e", "--rate", "1000", "--duration", "10m")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if found, _ := filepath.Glob(filepath.Join(tmp, "penstock-bench-*", "load*.log")); len(found) > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no loader within a minute; stacks: %v", stacks(tmp))
		}
	}
	if n := len(processesOf(tmp)); n < 4 {
		t.Errorf("%d processes of the stack run", n)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("exit status 0")
	}
}
