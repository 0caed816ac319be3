package operate

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock/penstock/batcher"
	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/loader"
)

// role serves the status of a role.
func role(t *testing.T, st RoleStatus) string {
	t.Helper()
	api := newWorld().api()
	api.Status = func() RoleStatus { return st }
	s := httptest.NewServer(api.Handler())
	t.Cleanup(s.Close)
	return s.URL
}

// Figures of several receivers are summed. A role's problem is an error.
func TestStatus(t *testing.T) {
	w := newWorld()
	w.queued["events"] = queue.Stats{Pending: 4, InFlight: 2}
	w.statuses["events"] = clickhouse.TableStatus{Rows: 100, ObjectsLastMinute: 3, RowsLastMinute: 30, Dead: 1,
		Failing: 5, Newest: 3000, Settled: 3500}
	o := w.operator()
	o.Config.Status.Admins = []string{
		role(t, RoleStatus{Role: "receive", Projects: "projects.yaml: line 3", Batchers: []batcher.Stats{
			{Pipeline: "events", ActiveRows: 10, ActiveSeconds: 1.5, Sealed: 1, Disk: 1 << 20, Newest: 4000},
			{Pipeline: "errors", SetAside: 2}}}),
		role(t, RoleStatus{Role: "receive", Batchers: []batcher.Stats{
			{Pipeline: "events", ActiveRows: 5, ActiveSeconds: 3, Disk: 1 << 20, Newest: 5000, Error: "bucket is away",
				Refused: 1}}}),
		role(t, RoleStatus{Role: "load", Loaders: []loader.Stats{{Pipeline: "events", Error: "ClickHouse is away"}}}),
	}
	var out bytes.Buffer
	err := printed(t, o, "status", &struct{}{}, &out)
	wantError(t, err, "status is incomplete, or a role reports an error: see above", "status")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i, want := range []string{
		"PIPELINE ACTIVE ROWS ACTIVE AGE SEALED WAL QUEUED IN FLIGHT LOADED/MIN ROWS/MIN ROWS FAILING DEAD FRESHNESS",
		"events 15 3s 1 2 MiB 4 2 3 30 100 5 1 1.5s",
		"errors 0 0s 0 0 B 0 0 0 0 0 0 0 -",
		"warning: receive " + o.Config.Status.Admins[0] + " projects.yaml: line 3",
		"warning: receive " + o.Config.Status.Admins[0] + " errors: 2 files of the write-ahead log set aside",
		"error: receive " + o.Config.Status.Admins[1] + " events: bucket is away",
		"error: load " + o.Config.Status.Admins[2] + " events: ClickHouse is away",
	} {
		if i >= len(lines) || !strings.HasPrefix(strings.Join(strings.Fields(lines[i]), " "), want) {
			t.Errorf("line %d of\n%s\nwant %s", i, &out, want)
		}
	}
	out.Reset()
	wantError(t, printedJSON(t, o, "status", &struct{}{}, &out), "see above", "status --json")
	var report statusReport
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	events := report.Pipelines[0]
	if events.ActiveRows != 15 || events.Newest != 5000 || *events.Freshness != 1.5 || events.Queue.Pending != 4 ||
		events.Table.Rows != 100 || len(report.Errors) != 2 || len(report.Warnings) != 2 {
		t.Errorf("got %+v", report)
	}
}

// The first failing objects are named, with the attempts that they have left, and the first dead letters.
func TestStatusNamesFailingObjects(t *testing.T) {
	w := newWorld()
	for i := range 5 {
		w.load(key(i), pipeline.Failed, func(l *pipeline.Load) { l.Failures, l.Error = 6, "it is slow" })
	}
	for i := range 4 {
		w.load(key(10+i), pipeline.Dead, func(l *pipeline.Load) { l.Code, l.Error = "object_damaged", "it is damaged" })
	}
	o := w.operator()
	o.Config.Status.Admins = []string{role(t, RoleStatus{Role: "receive"})}
	var out bytes.Buffer
	if err := printed(t, o, "status", &struct{}{}, &out); err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		"warning: " + key(2) + " is failing: 6 of 10 attempts, the last at 2026-11-22T03:47:00Z: it is slow\n",
		"warning: 2 more such objects of events; run \"penstock dlq list --failing\"\n",
		"warning: " + key(12) + " is a dead letter since 2026-11-22T03:47:00Z, object_damaged: it is damaged\n",
		"warning: 1 more such object of events; run \"penstock dlq list\"\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got\n%s\nwant %s", &out, want)
		}
	}
	if strings.Contains(out.String(), key(3)) || strings.Contains(out.String(), key(13)) {
		t.Errorf("more than three are named:\n%s", &out)
	}
}

// A server gives the same answer and the same errors as the local command.
func TestStatusOfAServer(t *testing.T) {
	w := newWorld()
	w.queued["events"] = queue.Stats{Pending: 4}
	api := w.api()
	api.Operator.Config.Status.Admins = []string{role(t, RoleStatus{Role: "receive", Batchers: []batcher.Stats{
		{Pipeline: "events", ActiveRows: 10, Error: "bucket is away", Refused: 1}}})}
	server := httptest.NewServer(api.Handler())
	defer server.Close()
	for name, want := range map[string]string{"status": "bucket is away", "sweep": "IN QUEUE", "verify": "0 differences"} {
		var out bytes.Buffer
		op := Find(name)
		err := op.Show(t.Context(), Remote(server.URL, "secret", http.DefaultClient), op.NewParams(),
			Output{Out: &out, Err: io.Discard})
		if (err != nil) != (name == "status") || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v\n%s\nwant %s", name, err, &out, want)
		}
	}
}

// Failed queries are named, and the rest is shown.
func TestStatusOfWhatIsAway(t *testing.T) {
	for _, tt := range []struct {
		change func(*world, *Operator)
		want   string // one of the lines
		row    string // the row of events, with single spaces
	}{
		{func(w *world, _ *Operator) { w.away["queue"] = errAway }, "error: connection refused",
			"events 0 0s 0 0 B - - 0 0 0 0 0 -"},
		{func(w *world, _ *Operator) { w.away["bucket"] = errAway }, "error: connection refused",
			"events 0 0s 0 0 B 0 0 0 0 0 0 0 -"},
		{func(w *world, _ *Operator) { w.away["stats"] = errAway }, "error: connection refused",
			"events 0 0s 0 0 B - - 0 0 0 0 0 -"},
		{func(w *world, _ *Operator) { w.away["ledger"] = errAway }, "error: connection refused",
			"events 0 0s 0 0 B 0 0 ? ? ? ? ? -"},
		{func(w *world, _ *Operator) { w.noQueue = true }, "", "events 0 0s 0 0 B - - 0 0 0 0 0 -"},
		{func(_ *world, o *Operator) { o.Config.Status.Admins = []string{"http://127.0.0.1:1"} },
			"127.0.0.1:1: connect: connection refused", "events 0 0s 0 0 B 0 0 0 0 0 0 0 -"},
	} {
		w := newWorld()
		o := w.operator()
		o.Config.Status.Admins = []string{role(t, RoleStatus{Role: "receive"})}
		tt.change(w, o)
		var out bytes.Buffer
		err := printed(t, o, "status", &struct{}{}, &out)
		if (err == nil) != (tt.want == "") || !strings.Contains(out.String(), tt.want) {
			t.Errorf("got\n%s%v, want %s", &out, err, tt.want)
		}
		if row := strings.Join(strings.Fields(strings.Split(out.String(), "\n")[1]), " "); row != tt.row {
			t.Errorf("got %q, want %q", row, tt.row)
		}
	}
}

// Without status.admins, only one listener is queried. Status says so unless it is a loader's.
func TestStatusWithoutAdmins(t *testing.T) {
	for name, warned := range map[string]bool{"receive": true, "load": false} {
		o := newWorld().operator()
		o.Config.Admin.Listen = strings.TrimPrefix(role(t, RoleStatus{Role: name}), "http://")
		var out bytes.Buffer
		if err := printed(t, o, "status", &struct{}{}, &out); err != nil {
			t.Error(err)
		}
		if got := strings.Contains(out.String(), "warning: no loader was asked, because status.admins is empty"); got != warned {
			t.Errorf("%s: warned %v, want %v:\n%s", name, got, warned, &out)
		}
	}
}

func TestAskRole(t *testing.T) {
	answer := "{"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/status" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, answer)
	}))
	defer s.Close()
	_, err := AskRole(t.Context(), http.DefaultClient, s.URL)
	wantError(t, err, s.URL+"/status: unexpected end of JSON input", "half an answer")
	answer = `{"role":"x"}`
	if st, err := AskRole(t.Context(), http.DefaultClient, s.URL+"/"); err != nil || st.Role != "x" {
		t.Errorf("got %+v, %v", st, err)
	}
	_, err = GetAdmin(t.Context(), http.DefaultClient, s.URL, "/metrics")
	wantError(t, err, s.URL+"/metrics: 404 Not Found", "a page that is not there")
	_, err = GetAdmin(t.Context(), http.DefaultClient, "http://a b", "/status")
	wantError(t, err, `status.admins "http://a b": `, "no URL")
	_, err = GetAdmin(t.Context(), http.DefaultClient, "http://127.0.0.1:1", "/status")
	wantError(t, err, "http://127.0.0.1:1/status does not answer: dial tcp 127.0.0.1:1: connect: connection refused", "away")
}
