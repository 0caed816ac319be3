package console

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/codec/foreign"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/tap"
)

// evil is a text that becomes a script if it is not escaped.
const evil = `"><script>alert('evil')</script><img src=x onerror=alert(1)>`

var when = time.Date(2026, 11, 22, 3, 45, 0, 0, time.UTC)

// world has one of each thing that pages show, with evil texts.
type world struct {
	operate.Table
	operate.Store
	operate.Source
	mu       sync.Mutex
	away     error
	actions  []clickhouse.Action
	saved    []pipeline.Load
	redriven []receiver.Redrive
	verified string // the last result of verify
	past     []clickhouse.Action
	ledger   []pipeline.Load
	hold     chan struct{} // nil: redrives do not wait
	tap      tap.Tap
}

var id = pipeline.UUIDv5([]byte("p"), []byte("x"))

func (w *world) Errors(_ context.Context, _ clickhouse.ErrorFilter, each func(clickhouse.Kept) error) error {
	if w.away != nil {
		return w.away
	}
	return each(clickhouse.Kept{ID: id.String(), Time: when, Stage: "receiver", Code: "code" + evil, Message: "m" + evil,
		Project: "p" + evil, RawBytes: 9, Object: "errors/" + evil, Properties: `{"index":0,"path":"/v1/events","x":"<script>alert('evil')</script>"}`,
		Context: `{"ip":"<script>alert('evil')</script>"}`, Raw: "{" + evil})
}

func (w *world) CountErrors(_ context.Context, _ clickhouse.ErrorFilter, each func(clickhouse.ErrorCount) error) error {
	if w.away != nil {
		return w.away
	}
	return each(clickhouse.ErrorCount{Code: "code" + evil, Stage: "receiver", Project: "p" + evil, Release: "r" + evil, Count: 3,
		Pending: 2, First: when, Last: when, Example: evil})
}

func (w *world) Dead(_ context.Context, table string, each func(pipeline.Load) error) error {
	if table != "events" {
		return w.away
	}
	return each(pipeline.Load{Key: "events/dead" + evil, Pipeline: "events", State: pipeline.Dead, Error: "because " + evil,
		Code: "object_damaged", Attempts: 3, Failures: 2})
}

func (w *world) Loads(_ context.Context, first, last string, each func(pipeline.Load) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.ledger {
		if l.Key >= first && l.Key <= last {
			if err := each(l); err != nil {
				return err
			}
		}
	}
	return w.away
}

func (w *world) SaveLoad(_ context.Context, l pipeline.Load) error {
	w.saved = append(w.saved, l)
	return nil
}

func (w *world) MarkRedriven(context.Context, []clickhouse.Redriven) error { return nil }

func (w *world) TableStatus(context.Context) (map[string]clickhouse.TableStatus, error) {
	st := clickhouse.TableStatus{Rows: 12345, Dead: 1}
	return map[string]clickhouse.TableStatus{"events": st, "errors": st}, w.away
}

func (w *world) Explosions(context.Context, string) ([]clickhouse.Explosion, error) { return nil, nil }

func (w *world) Minutes(context.Context) ([]clickhouse.Minute, error) {
	return []clickhouse.Minute{{Start: when, Rows: 5}, {Start: when, Rows: 10, Rejected: 1}}, w.away
}

func (w *world) SaveActions(_ context.Context, all []clickhouse.Action) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.actions = append(w.actions, all...)
	return nil
}

func (w *world) LastVerify(_ context.Context, each func(string) error) error {
	if w.away != nil || w.verified == "" {
		return w.away
	}
	return each(w.verified)
}

func (w *world) SaveJob(_ context.Context, j clickhouse.Job) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.verified = j.Detail
	return nil
}

func (w *world) Actions(_ context.Context, _ clickhouse.ActionFilter, each func(clickhouse.Action) error) error {
	for _, a := range w.past {
		if err := each(a); err != nil {
			return err
		}
	}
	if w.away != nil || w.past != nil {
		return w.away
	}
	return each(clickhouse.Action{Began: when, Who: "ann" + evil, Via: "api", Operation: "dlq drop", Params: evil, Result: "failed",
		Error: evil})
}

func (w *world) FindEvent(context.Context, string, pipeline.UUID) ([]clickhouse.Place, error) {
	return []clickhouse.Place{{Object: "events/o" + evil, Row: 7}}, w.away
}

func (w *world) List(_ context.Context, prefix, _, _ string, page func([]pipeline.Object) error) error {
	if w.away != nil {
		return w.away
	}
	return page([]pipeline.Object{{Key: prefix + "o" + evil, Size: 2048, Modified: time.Now()}})
}

func (w *world) Head(_ context.Context, key string) (pipeline.Object, error) {
	return pipeline.Object{Key: key, Size: 2048}, nil
}

func (w *world) ReadRows(_ context.Context, _ string, each func(*pipeline.Event) error,
	_ func(foreign.Rejected) error) (pipeline.Object, error) {
	if w.away != nil {
		return pipeline.Object{}, w.away
	}
	var err error
	for _, name := range []string{"first", "n" + evil} {
		err = errors.Join(err, each(&pipeline.Event{Project: []byte("p"), Name: []byte(name),
			Properties: []byte(`{"a":"<script>alert('evil')</script>"}`), Context: []byte(`{}`), Timestamp: pipeline.NoTime}))
	}
	return pipeline.Object{}, err
}

func (w *world) Read(ctx context.Context, key string, each func(*pipeline.Event) error) (pipeline.Object, error) {
	return w.ReadRows(ctx, key, func(e *pipeline.Event) error { e.Row = 7; return each(e) }, nil)
}

func (w *world) Redrive(ctx context.Context, r receiver.Redrive) (receiver.Redriven, error) {
	if w.hold != nil {
		select {
		case <-w.hold:
		case <-ctx.Done():
			return receiver.Redriven{}, ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.redriven = append(w.redriven, r)
	return receiver.Redriven{Accepted: 1}, nil
}

func (w *world) Renew(context.Context) (bool, error) { return true, nil }
func (w *world) Release(context.Context) error       { return nil }
func (w *world) Failing(_ context.Context, table string, each func(pipeline.Load) error) error {
	if w.away != nil || table != "events" {
		return w.away
	}
	return each(pipeline.Load{Key: "events/failing" + evil, Pipeline: "events", State: pipeline.Failed, Error: "again " + evil,
		Code: "object_missing", Attempts: 2, Failures: 2})
}
func (w *world) redrives() (all []receiver.Redrive) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.redriven
}
func (w *world) recorded() (all []clickhouse.Action) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.actions
}

// browser is a browser at a console.
type browser struct {
	*world
	t       *testing.T
	handler http.Handler
	token   *string // the valid one
	console *Console
	cookie  string
	csrf    string
}

// newBrowser opens a console without a login.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	found, _ := json.Marshal(map[string]any{"pipeline": "events", "objects": 1234, "found": 1, "ended_at": when,
		"differences": []map[string]string{{"kind": "short", "key": "events/" + evil, "message": evil}}})
	w := &world{verified: string(found)}
	cfg := config.Default()
	cfg.Receiver.Projects = filepath.Join(t.TempDir(), "projects.yaml")
	if err := os.WriteFile(cfg.Receiver.Projects, []byte("projects: {game: {quota: {events: 10}}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	none := func(context.Context) (operate.Queue, error) { return nil, nil }
	o := &operate.Operator{Config: cfg, Name: "test", Said: io.Discard, Store: w, Table: w, Source: w, Queue: none, Peek: none,
		Ping:    func(context.Context) error { return nil },
		Explain: func(err error) error { return err }, Tap: &w.tap, Receives: true,
		Claim: func(context.Context, string, string, time.Duration) (operate.Claim, bool, error) { return w, true, nil },
		Receiver: func() (operate.Receiver, func() error, error) {
			return w, func() error { return nil }, nil
		},
		Trail: operate.NewTrail(w, filepath.Join(t.TempDir(), "audit.ndjson"), log)}
	b := &browser{world: w, t: t, token: new(string)}
	*b.token = "secret"
	sum := sha256.Sum256([]byte("look"))
	access := operate.NewAccess(func() string { return *b.token },
		[]config.AdminToken{{Name: "wall", Role: operate.RoleViewer, SHA256: hex.EncodeToString(sum[:])}})
	b.console = New(o, access, log)
	api := operate.API{Operator: o, Access: access, Metrics: prometheus.NewRegistry(), Hosts: []string{"localhost"},
		Ready: func() error { return nil }, Status: func() operate.RoleStatus { return operate.RoleStatus{Role: "receive"} },
		Console: b.console.Handler()}
	b.handler = api.Handler()
	// status queries the admin listener.
	server := httptest.NewServer(b.handler)
	t.Cleanup(server.Close)
	o.Config.Status.Admins = []string{server.URL}
	return b
}

// ask sends a request like the browser; with modifies it.
func (b *browser) ask(method, path string, form url.Values, with ...func(*http.Request)) *httptest.ResponseRecorder {
	b.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
	r.Host, r.RemoteAddr = "localhost:8081", "10.0.0.1:5"
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if b.cookie != "" {
		r.AddCookie(&http.Cookie{Name: "penstock_console_8081", Value: b.cookie})
	}
	for _, f := range with {
		f(r)
	}
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	return w
}

func (b *browser) get(path string) *httptest.ResponseRecorder {
	b.t.Helper()
	return b.ask("GET", path, nil)
}

// post sends a form with the session's token.
func (b *browser) post(path string, pairs ...string) *httptest.ResponseRecorder {
	b.t.Helper()
	form := url.Values{"csrf": {b.csrf}}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return b.ask("POST", path, form)
}

var csrfField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// login logs in.
func (b *browser) login(token string) *browser {
	b.t.Helper()
	w := b.ask("POST", "/console/login", url.Values{"token": {token}})
	if w.Code != http.StatusSeeOther || len(w.Result().Cookies()) != 1 {
		b.t.Fatalf("login: %d %s", w.Code, w.Body)
	}
	b.cookie = w.Result().Cookies()[0].Value
	found := csrfField.FindStringSubmatch(b.get("/console/").Body.String())
	if found == nil {
		b.t.Fatal("the page has no form")
	}
	b.csrf = found[1]
	return b
}

var errAway = retry.As(retry.Outage, io.ErrUnexpectedEOF)

func (*world) Holder() string { return "loader-1" }
