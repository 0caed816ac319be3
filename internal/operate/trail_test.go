package operate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
)

// recorded returns actions without their unique fields.
func recorded(all []clickhouse.Action) (out []string) {
	for _, a := range all {
		out = append(out, fmt.Sprint(a.Who, " ", a.Via, " ", a.Operation, " ", a.Result, " ", a.Items, " ", a.Error))
	}
	return out
}

// newTrail gives an operator of the world a trail.
func (w *world) newTrail(t *testing.T, o *Operator) *Trail {
	t.Helper()
	o.Trail = NewTrail(table{w}, filepath.Join(t.TempDir(), "sub", "audit.ndjson"), slog.New(slog.DiscardHandler))
	return o.Trail
}

// A change is recorded at its begin and end; reading is not recorded.
func TestTrail(t *testing.T) {
	w := newWorld()
	w.store(key(1), "a")
	w.load(key(1), pipeline.Dead)
	id := w.keep(1)
	o := w.operator()
	w.newTrail(t, o)
	api := w.api()
	api.Operator = o
	h := api.Handler()
	t.Setenv("SUDO_USER", "carl")
	for _, r := range []struct{ method, path, body string }{
		{"GET", "/v1/dlq", ""}, {"POST", "/v1/dlq/redrive", `{"all":true}`}, {"POST", "/v1/dlq/drop", `{"all":true}`},
		{"POST", "/v1/errors/redrive", fmt.Sprintf(`{"ids":[%q],"bodies_base64":{%q:"c2VjcmV0"}}`, id, id)},
	} {
		get(t, h, r.method, r.path, "Bearer secret", r.body)
	}
	do[letterResult](t, Local(o), "dlq redrive", func(p any) { p.(*letterFilter).All = true })
	no := " the objects will never be loaded: set --yes to confirm"
	want := []string{"admin api dlq redrive begun 0 ", "admin api dlq redrive done 1 ", "admin api dlq drop begun 0 ",
		"admin api dlq drop failed 0" + no, "admin api errors redrive begun 0 ", "admin api errors redrive done 1 ",
		"carl command dlq redrive begun 0 ", "carl command dlq redrive done 0 "}
	if diff := cmp.Diff(want, recorded(w.actions)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for i, a := range w.actions {
		if a.Began.IsZero() || a.Ended.IsZero() != (a.Result == "begun") || a.Process != "test" ||
			(a.Address == "") != (a.Via == "command") || a.ID != w.actions[i/2*2].ID {
			t.Errorf("action %d: %+v", i, a)
		}
		if strings.Contains(a.Params, "c2VjcmV0") || !json.Valid([]byte(a.Params)) {
			t.Errorf("params %s: want JSON without payloads", a.Params)
		}
	}
	if !strings.Contains(w.actions[4].Params, id) {
		t.Errorf("params %s: want the edited record %s", w.actions[4].Params, id)
	}
	var out bytes.Buffer
	if err := printed(t, o, "audit", &auditParams{Since: "24h", Until: "now", Who: "carl"}, &out); err != nil ||
		strings.Count(out.String(), "\n") != 3 || !strings.Contains(out.String(), "dlq redrive") {
		t.Errorf("audit printed %s, %v", &out, err)
	}
}

// While the table is unreachable, records wait in a file, and no action waits.
func TestTrailWhileTheTableIsAway(t *testing.T) {
	w := newWorld()
	o := w.operator()
	trail := w.newTrail(t, o)
	w.away["ledger"] = errAway
	record := func(name string) { trail.Record(t.Context(), clickhouse.Action{Operation: name}) }
	for i := range 3 {
		record(fmt.Sprint(i))
	}
	if err := trail.Flush(t.Context()); err == nil || len(w.actions) > 0 {
		t.Errorf("flush without the table: %v, %v", err, w.actions)
	}
	// A crash truncates the last line.
	f, err := os.OpenFile(trail.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"operation":"cut`)
	f.Close()
	delete(w.away, "ledger")
	record("3") // too early for another attempt
	for range 2 {
		if err := trail.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, a := range w.actions {
		got = append(got, a.Operation)
	}
	if diff := cmp.Diff([]string{"0", "1", "2", "3"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// A record that is nowhere else is in the log.
	var log bytes.Buffer
	trail.log = slog.New(slog.NewTextHandler(&log, nil))
	trail.path = filepath.Join(trail.path, "x")
	record("4")
	if text := log.String(); !strings.Contains(text, "operation=4") || !strings.Contains(text, "in this log only") {
		t.Errorf("log %s", text)
	}
}

// A viewer reads everything and changes nothing.
func TestRoles(t *testing.T) {
	w := newWorld()
	api := w.api()
	api.Access = NewAccess(func() string { return "secret" }, adminTokens())
	h := api.Handler()
	for _, op := range Operations() {
		for token, change := range map[string]bool{"viewer": false, "operator": true} {
			r := get(t, h, op.method, op.path+"?no=1", "Bearer "+token, `{"no":1}`)
			want := http.StatusBadRequest // an invalid parameter, so nothing happens
			if op.method == http.MethodPost && !change {
				want = http.StatusForbidden
			}
			if r.Code != want {
				t.Errorf("%s as %s: %d %s, want %d", op.Name, token, r.Code, r.Body, want)
			}
		}
	}
	if r := get(t, h, "GET", "/debug/pprof/", "Bearer viewer", ""); r.Code != http.StatusForbidden {
		t.Errorf("a viewer's profile: %d", r.Code)
	}
	var who Actor
	api.Access.guard(func(_ http.ResponseWriter, r *http.Request, _ Identity) {
		who, _ = r.Context().Value(actorKey{}).(Actor)
	})(nil, (&http.Request{RemoteAddr: "10.0.0.1:5", Header: http.Header{"Authorization": {"Bearer viewer"}}}).WithContext(
		context.Background()))
	if want := (Actor{"wall", RoleViewer, "10.0.0.1:5", "api"}); who != want {
		t.Errorf("got %+v, want %+v", who, want)
	}
}
