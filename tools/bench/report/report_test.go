package report

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	r := Report{Command: "bench receive", Machine: Machine{Cores: 2},
		Flags: map[string]string{"batch": "100", "roll": "5s"}}
	for _, v := range []float64{3, 1, 2} {
		var f, g Figures
		f.Add("accepted_per_s", v*1000)
		f.Add("nothing_of_nothing", math.NaN())
		f.Add("latency_p50_ms", v/10)
		g.Add("accepted_per_s", 4000)
		r.Runs = append(r.Runs, Run{What: "receive", Figures: f}, Run{What: "floor", Figures: g})
	}
	r.Summarize()
	if v, _ := r.Medians[0].Figures.Get("accepted_per_s"); v != 2000 || len(r.Medians) != 2 ||
		len(r.Medians[0].Figures) != 2 {
		t.Errorf("medians %+v", r.Medians)
	}
	if want := (Figures{{"accepted_per_s", 0.5}}); !reflect.DeepEqual(r.Ratio, want) {
		t.Errorf("ratio %v, want %v", r.Ratio, want)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(r, back) {
		t.Errorf("error %v, want %+v, got %+v", err, r, back)
	}
	var out bytes.Buffer
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 cores", "accepted per s", "median", "by floor", "0.5", "--batch=100 --roll=5s",
		"0.300  0.100  0.200   0.200"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// The report prints what limits the figures' value.
func TestReportOfFailures(t *testing.T) {
	var f Figures
	f.Add("accepted_per_s", 447_700)
	f.Add("long", 4.6000000000000005)
	r := Report{Runs: []Run{{What: "receive", Rate: 1_000_000, Figures: f,
		Failures: map[string]int64{"503": 7, "connection": 2}, Failure: "answer 503"}}}
	r.Summarize()
	var out bytes.Buffer
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"only 447700 a second",
		"9 requests failed (503: 7, connection: 2); the first: answer 503"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if text, err := json.Marshal(r.Runs[0].Figures); err != nil || !strings.Contains(string(text), `"long":4.6}`) {
		t.Errorf("%s, %v", text, err)
	}
	if n := r.Failed(); n != 9 {
		t.Errorf("%d requests failed, want 9", n)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{7}, 7}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := Median(c.values); got != c.want {
			t.Errorf("median of %v: %v, want %v", c.values, got, c.want)
		}
	}
}

func TestFileSystem(t *testing.T) {
	mounts := "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / /tmp rw shared:1 - tmpfs tmpfs rw\n3 1 0:6 / /tmpx rw - xfs " +
		"/dev/b rw\n"
	for dir, want := range map[string]string{"/tmp/penstock-bench-1": "tmpfs", "/home/a": "ext4", "/tmpx": "xfs",
		"/": "ext4"} {
		if got := fileSystem(mounts, dir); got != want {
			t.Errorf("%s is in %q, want %q", dir, got, want)
		}
	}
	if m := ThisMachine(t.TempDir()); m.Cores < 1 || m.Kernel == "" || m.FileSystem == "" || m.MemoryMiB < 10 {
		t.Errorf("%+v", m)
	}
}
