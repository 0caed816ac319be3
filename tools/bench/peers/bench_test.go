package peers

import (
	"context"
	"encoding/json"
	"math"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/plog/plogotlp"

	"github.com/penstock/penstock/internal/testing/load"
	"github.com/penstock/penstock/internal/traffic"
)

// cutEvent finds the same values as a JSON parser, for every kind of event.
func TestCutEvent(t *testing.T) {
	g := traffic.New("run", 1)
	for range 1000 {
		line := g.Append(nil)
		var want struct {
			ID         string          `json:"event_id"`
			Timestamp  int64           `json:"timestamp"`
			Session    string          `json:"session_id"`
			User       string          `json:"user_id"`
			Name       string          `json:"name"`
			Properties json.RawMessage `json:"properties"`
		}
		decoder := json.NewDecoder(strings.NewReader(string(line)))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&want); err != nil {
			t.Fatal(err)
		}
		got, err := cutEvent(line)
		if err != nil {
			t.Fatal(err)
		}
		if got != (event{want.ID, time.UnixMilli(want.Timestamp), want.Session, want.User, want.Name,
			string(want.Properties)}) {
			t.Fatalf("got %+v of %s", got, line)
		}
	}
	for _, line := range []string{``, `{}`, `{"event_id":"a","timestamp":1}`,
		`{"event_id":"a","timestamp":x,"session_id":"s","user_id":"u","name":"n","properties":{}}`} {
		if e, err := cutEvent([]byte(line)); err == nil {
			t.Errorf("%q gave %+v", line, e)
		}
	}
}

// Every event becomes one log record, with all properties and their types.
func TestMakePosts(t *testing.T) {
	const events = 250
	posts, err := makePosts(events)
	if err != nil {
		t.Fatal(err)
	}
	if len(posts) != 3 {
		t.Errorf("%d posts, want 3", len(posts))
	}
	ids := map[string]bool{}
	for _, body := range posts {
		request := plogotlp.NewExportRequest()
		if err := request.UnmarshalProto(body); err != nil {
			t.Fatal(err)
		}
		records := request.Logs().ResourceLogs().At(0).ScopeLogs().At(0).LogRecords()
		for _, r := range records.All() {
			a := r.Attributes().AsRaw()
			ids[a["event_id"].(string)] = true
			if r.EventName() == "llm_call" {
				message := a["messages"].([]any)[0].(map[string]any)
				if _, ok := a["input_tokens"].(int64); !ok || a["stream"] != true || message["role"] != "user" {
					t.Errorf("attributes %v", a)
				}
				continue
			}
			_, level := a["level"].(int64)
			_, x := a["position"].(map[string]any)["x"].(float64)
			_, premium := a["premium"].(bool)
			if !level || !x || !premium || len(a) != 3+13 {
				t.Errorf("%d attributes: %v", len(a), a)
			}
		}
	}
	if len(ids) != events {
		t.Errorf("%d different ids, want %d", len(ids), events)
	}
}

func TestParseStat(t *testing.T) {
	// A program's name may contain spaces and parentheses.
	stat := "4242 (a) b (c) S 1 4200 4200 0 -1 4194560 1 2 3 4 150 50 7 3 20 0 9 0 123 456 789"
	group, seconds, err := parseStat(stat)
	if group != 4200 || math.Abs(seconds-2.1) > 1e-9 || err != nil {
		t.Errorf("got group %d, %v s, %v", group, seconds, err)
	}
	for _, stat := range []string{"", "1 (a) S 1 2 3", "1 (a) S 1 x 1 0 -1 0 1 2 3 4 150 50 7 3",
		"1 (a) S 1 1 1 0 -1 0 1 2 3 4 y 50 7 3"} {
		if _, _, err := parseStat(stat); err == nil {
			t.Errorf("%q was taken", stat)
		}
	}
}

func TestParseHWM(t *testing.T) {
	if got, err := parseHWM("Name:\ta\nVmPeak:\t  99 kB\nVmHWM:\t  2048 kB\nVmRSS:\t 1 kB\n"); got != 2 || err != nil {
		t.Errorf("got %v MiB, %v", got, err)
	}
	for _, status := range []string{"", "VmHWM:\t many kB\n"} {
		if _, err := parseHWM(status); err == nil {
			t.Errorf("%q was taken", status)
		}
	}
}

// A child that has ended still counts, in its parent's group.
func TestGroupUsage(t *testing.T) {
	before, err := groupUsage(processGroup(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done").Run(); err != nil {
		t.Fatal(err)
	}
	after, err := groupUsage(processGroup(t))
	if err != nil {
		t.Fatal(err)
	}
	if after.cpu-before.cpu < 0.02 || after.peak < 1 {
		t.Errorf("from %+v to %+v", before, after)
	}
	if _, err := groupUsage(1 << 30); err == nil {
		t.Error("a group that there is not has usage")
	}
}

func processGroup(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	group, _, err := parseStat(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return group
}

func TestMedian(t *testing.T) {
	if got := median(nil); got != nil {
		t.Errorf("of none: %v", *got)
	}
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.values); got == nil || *got != c.want {
			t.Errorf("of %v: %v", c.values, got)
		}
	}
}

// Figures are medians per million events. Loss or duplication in any run is shown.
func TestSummarize(t *testing.T) {
	stored := func(rows, distinct uint64, seconds, peer, engine float64) figures {
		return figures{Events: 1000, Rows: &rows, Distinct: &distinct, Seconds: seconds, PeerCPU: &peer, EngineCPU: &engine,
			PeerRSS: 10, EngineRSS: new(20.0), Retries: int64(seconds)}
	}
	all := summarize([]run{
		{Peer: "a", Run: 1, figures: stored(1000, 1000, 1, 0.01, 0.02)},
		{Peer: "b", Run: 1, figures: figures{Events: 500, Seconds: 2}},
		{Peer: "a", Run: 2, figures: stored(990, 990, 2, 0.03, 0.04)},
		{Peer: "b", Run: 2, figures: figures{Events: 500}, Error: "it broke"},
		{Peer: "a", Run: 3, figures: stored(1010, 1000, 4, 0.05, 0.06)},
	})
	if len(all) != 2 {
		t.Fatalf("got %+v", all)
	}
	a, b := all[0], all[1]
	if a.Peer != "a" || a.Runs != 3 || *a.Rows != 1000 || *a.Lost != 10 || *a.Doubled != 10 || *a.PerSecond != 495 ||
		math.Abs(*a.PeerCPU-30) > 1e-9 || math.Abs(*a.EngineCPU-40) > 1e-9 || *a.PeerRSS != 10 || *a.EngineRSS != 20 ||
		a.MostRetries != 4 {
		t.Errorf("a: %+v", a)
	}
	if b.Runs != 1 || b.Failed != 1 || b.Lost != nil || b.EngineCPU != nil || *b.PerSecond != 250 {
		t.Errorf("b: %+v", b)
	}

	var table strings.Builder
	writeTable(&table, all)
	lines := strings.Split(strings.TrimRight(table.String(), "\n"), "\n")
	if len(lines) != 4 {
		t.Fatalf("table:\n%s", &table)
	}
	if got := strings.Fields(lines[2]); strings.Join(got, " ") != "a 1000 1000 10 10 495 30.0 40.0 10 20 4 3" {
		t.Errorf("a's line: %q", got)
	}
	if got := strings.Fields(lines[3]); strings.Join(got, " ") != "b 500 - - - 250 - - 0 - 0 1, 1 failed" {
		t.Errorf("b's line: %q", got)
	}
	if strings.Index(lines[1], "events/s")+len("events/s") != strings.Index(lines[2], " 495 ")+len(" 495") {
		t.Errorf("columns are not aligned:\n%s", &table)
	}
}

func TestChoose(t *testing.T) {
	chosen, err := choose("s3,direct")
	if err != nil || len(chosen) != 4 || chosen[0].group != "s3" || chosen[3].group != "direct" {
		t.Errorf("got %d peers, %v", len(chosen), err)
	}
	for _, only := range []string{"", "bento", "s3,", "s3,s3x"} {
		if _, err := choose(only); err == nil {
			t.Errorf("%q was taken", only)
		}
	}
}

// Each server reads the whole body and gives a receiver's answer.
func TestHTTPServers(t *testing.T) {
	for name, serve := range servers {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- serve(l, []byte(`{"accepted":100,"rejected":0,"request_id":"r"}`+"\n")) }()
		clients := load.Clients{Connections: 2, Events: 2000,
			Bodies: []*traffic.Body{traffic.NewBody(traffic.New("t", 1), 100)},
			Dial:   func(ctx context.Context) (load.Poster, error) { return load.Dial(ctx, l.Addr().String(), "none") }}
		sent, err := clients.Run(t.Context(), new(load.Counts))
		if err != nil || sent.Accepted != 2000 || sent.Failed() != 0 {
			t.Errorf("%s: %+v, %v", name, sent, err)
		}
		l.Close()
		<-served
	}
	if err := runHTTPServer([]string{"-server", "none"}); err == nil {
		t.Error("a server that is none serves")
	}
}
