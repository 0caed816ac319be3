package operate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/user"
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
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld()
	w.store(key(1), "a")
	w.load(key(1), pipeline.Dead)
	id := w.keep(1)
	o := w.operator()
	w.newTrail(t, o)
	api := w.api()
	api.Operator = o
	h := api.Handler()
	for _, r := range []struct{ method, path, body string }{
		{"GET", "/v1/dlq", ""}, {"POST", "/v1/dlq/redrive", `{"all":true}`}, {"POST", "/v1/dlq/drop", fmt.Sprintf(`{"keys":[%q],"yes":true}`, key(5))},
		{"POST", "/v1/errors/redrive", fmt.Sprintf(`{"ids":[%q],"bodies_base64":{%q:"c2VjcmV0"}}`, id, id)},
	} {
		get(t, h, r.method, r.path, "Bearer secret", r.body)
	}
	do[letterResult](t, Local(o), "dlq redrive", func(p any) { p.(*letterChoice).All = true })
	no := " " + key(5) + " is neither a dead letter nor failing; run `penstock dlq list` and `penstock dlq list --failing`"
	want := []string{"admin api dlq redrive begun 0 ", "admin api dlq redrive done 1 ", "admin api dlq drop begun 0 ",
		"admin api dlq drop failed 0" + no, "admin api errors redrive begun 0 ", "admin api errors redrive done 1 ",
		me.Username + " command dlq redrive begun 0 ", me.Username + " command dlq redrive done 0 "}
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
	if err := printed(t, o, "audit", &auditParams{Since: "24h", Until: "now", Who: me.Username}, &out); err != nil ||
		strings.Count(out.String(), "\n") != 3 || !strings.Contains(out.String(), "dlq redrive") {
		t.Errorf("audit printed %s, %v", &out, err)
	}
}

// Wrong usage is not an action: it changes nothing and leaves no record.
func TestTrailOfWrongUsage(t *testing.T) {
	w := newWorld()
	o := w.operator()
	w.newTrail(t, o)
	api := w.api()
	api.Operator = o
	h := api.Handler()
	for _, r := range []struct{ path, body, want string }{
		{"/v1/keys", `{}`, "PROJECT is missing: penstock keys add PROJECT"},
		{"/v1/keys", `{"project":"game","min_durability":"ram"}`, `--min-durability \"ram\": set memory, disk or object`},
		{"/v1/keys", `{"project":"game","expires":"2020-01-01"}`, "is in the past"},
		{"/v1/keys/revoke", `{"project":"game"}`, "NAME is missing: penstock keys revoke PROJECT NAME"},
		{"/v1/keys/rotate", `{"project":"game","name":"ci","overlap":"soon"}`, "--overlap"},
		{"/v1/dlq/redrive", `{}`, "no object is chosen"},
		{"/v1/dlq/drop", `{"all":true}`, "set --yes to confirm"},
		{"/v1/dlq/drop", `{"all":true,"pipeline":"event"}`, `Did you mean \"events\"?`},
		{"/v1/errors/redrive", `{}`, "no failure record is chosen"},
		{"/v1/errors/redrive", `{"all":true,"edit":"x"}`, "want s/REGEXP/TEXT/"},
		{"/v1/errors/redrive", `{"all":true,"stage":"reciever"}`, `Did you mean \"receiver\"?`},
		{"/v1/reingest", `{}`, "choose objects by one of"},
		{"/v1/reingest", `{"since":"yesterday"}`, "--since"},
		{"/v1/rollups/refresh", `{"name":"daily"}`, "no rollup"},
		{"/v1/rollups/refresh", `{"to":"2026-11-01"}`, "--to needs --from"},
		{"/v1/sweep", `{"grace":"-1s"}`, "--grace"},
	} {
		got := get(t, h, "POST", r.path, "Bearer secret", r.body)
		if got.Code != http.StatusBadRequest || !strings.Contains(got.Body.String(), r.want) {
			t.Errorf("%s %s: %d %s, want 400 and %s", r.path, r.body, got.Code, got.Body, r.want)
		}
	}
	if len(w.actions) > 0 {
		t.Errorf("recorded %q", recorded(w.actions))
	}
}

// A viewer's attempts to change something are recorded. Of many, the table gets a part, and the log all.
func TestTrailOfDenied(t *testing.T) {
	w := newWorld()
	o := w.operator()
	var log bytes.Buffer
	w.newTrail(t, o).log = slog.New(slog.NewTextHandler(&log, nil))
	api := w.api()
	api.Operator, api.Access = o, NewAccess(func() string { return "secret" }, adminTokens())
	h := api.Handler()
	const tries = 150
	for range tries {
		if r := get(t, h, "POST", "/v1/sweep", "Bearer viewer", `{}`); r.Code != http.StatusForbidden {
			t.Fatalf("a viewer's sweep: %d %s", r.Code, r.Body)
		}
	}
	want := `wall api sweep denied 0 the token wall has the role viewer, which changes nothing: "sweep" needs a token with ` +
		"the role operator, or a dry run"
	if n := len(w.actions); n < 100 || n > tries-10 || recorded(w.actions)[0] != want || w.actions[0].Role != RoleViewer {
		t.Errorf("%d records, the first %v; want about 100 of %s", n, w.actions, want)
	}
	if n := strings.Count(log.String(), "result=denied"); n != tries {
		t.Errorf("%d lines in the log, want %d", n, tries)
	}
}

// A viewer's dry run is one record, and each viewer may make a limited number. Every one is recorded.
func TestTrailOfDryRuns(t *testing.T) {
	w := newWorld()
	o := w.operator()
	w.newTrail(t, o)
	api := w.api()
	api.Operator, api.Access = o, NewAccess(func() string { return "secret" }, adminTokens())
	h := api.Handler()
	const tries = 150
	codes := map[int]int{}
	for range tries {
		r := get(t, h, "POST", "/v1/sweep", "Bearer viewer", `{"dry_run":true}`)
		codes[r.Code]++
		if r.Code == http.StatusTooManyRequests && (r.Header().Get("Retry-After") == "" ||
			!strings.Contains(r.Body.String(), "the token wall has the role viewer and made too many dry runs: try again in ")) {
			t.Fatalf("got %v %s", r.Header(), r.Body)
		}
	}
	done, denied := 0, 0
	for _, line := range recorded(w.actions) {
		if strings.HasPrefix(line, "wall api sweep done 2") {
			done++
		}
		if strings.HasPrefix(line, "wall api sweep denied 0 the token wall has the role viewer and made too many dry runs") {
			denied++
		}
	}
	if n := codes[http.StatusOK]; n < 100 || n > tries-10 || done != n || denied != codes[http.StatusTooManyRequests] ||
		len(w.actions) != tries {
		t.Errorf("answers %v, %d records of dry runs and %d of denials, in all %d; want about 100 dry runs, one record each",
			codes, done, denied, len(w.actions))
	}
	if r := get(t, h, "POST", "/v1/sweep", "Bearer secret", `{"dry_run":true}`); r.Code != http.StatusOK {
		t.Errorf("an operator's dry run after that: %d %s", r.Code, r.Body)
	}
}

// The name of a command's user is that of the system, also without USER.
func TestUserName(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SUDO_USER", "")
	for _, name := range []string{"", "somebody"} {
		t.Setenv("USER", name)
		if got := userName(); got != me.Username {
			t.Errorf("USER=%s: %q, want %q", name, got, me.Username)
		}
	}
	want := me.Username
	if os.Getuid() == 0 {
		want = "carl"
	}
	t.Setenv("SUDO_USER", "carl")
	if got := userName(); got != want {
		t.Errorf("after sudo: %q, want %q", got, want)
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
	dry := map[string]bool{"errors redrive": true, "reingest": true, "sweep": true}
	for _, op := range Operations() {
		for token, change := range map[string]bool{"viewer": false, "operator": true} {
			r := get(t, h, op.method, op.path+"?no=1", "Bearer "+token, `{"no":1}`)
			want := http.StatusBadRequest // an invalid parameter, so nothing happens
			if op.method == http.MethodPost && !change && !dry[op.Name] {
				want = http.StatusForbidden
			}
			if r.Code != want {
				t.Errorf("%s as %s: %d %s, want %d", op.Name, token, r.Code, r.Body, want)
			}
		}
		if op.method == http.MethodPost {
			if r := get(t, h, op.method, op.path, "Bearer viewer", `{}`); r.Code != http.StatusForbidden {
				t.Errorf("%s as viewer: %d %s", op.Name, r.Code, r.Body)
			}
		}
	}
	for name := range dry {
		op := Find(name)
		r := get(t, h, op.method, op.path, "Bearer viewer", `{"dry_run":true,"since":"1h"}`)
		if name == "errors redrive" {
			r = get(t, h, op.method, op.path, "Bearer viewer", `{"dry_run":true,"code":"x"}`)
		}
		if r.Code != http.StatusOK {
			t.Errorf("dry run of %s as viewer: %d %s", name, r.Code, r.Body)
		}
	}
	large := fmt.Sprintf(`{"dry_run":true,"code":%q}`, strings.Repeat("x", maxViewerParams))
	if r := get(t, h, "POST", Find("errors redrive").path, "Bearer viewer", large); r.Code != http.StatusBadRequest {
		t.Errorf("large parameters of a viewer: %d %s", r.Code, r.Body)
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
