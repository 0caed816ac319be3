package operate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/codec/foreign"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/loader/audit"
	"github.com/penstock/penstock/receiver"
)

// world is everything that an operator works on, in memory: bucket, table, ledger, queue, a receiver and a loader.
type world struct {
	mu       sync.Mutex
	objects  map[string]pipeline.Object
	bytes    map[string][]byte             // content of objects; nil: none
	events   map[string][]pipeline.Event   // content of objects, decoded
	rejected map[string][]foreign.Rejected // invalid rows of objects
	claimed  map[string]bool               // claims of others
	away     map[string]error              // what is unreachable: bucket, ledger, queue, stats, receiver, loader
	heads    int                           // requests for single objects

	loads    map[string]pipeline.Load
	rows     map[string][]uint32 // object_row of the rows in the table
	places   []clickhouse.Place
	kept     []clickhouse.Kept
	marked   []clickhouse.Redriven
	jobs     map[string]clickhouse.Job
	actions  []clickhouse.Action // as written
	statuses map[string]clickhouse.TableStatus

	rollupDays []clickhouse.RollupDay // the same for every rollup
	computed   []string               // NAME DAY, and NAME done

	properties  []clickhouse.Property
	explosions  []clickhouse.Explosion
	suggestions map[string][]clickhouse.Suggestion // by project
	expired     time.Time

	noQueue   bool
	enqueued  []string // KEY, or KEY again
	forgotten []string
	letters   []pipeline.DeadLetter
	queued    map[string]queue.Stats

	redriven []receiver.Redrive
	answer   func(receiver.Redrive) (receiver.Redriven, error) // nil: accept all
	stopped  int                                               // number of stopped receivers
	reingest func(audit.Item, string) (pipeline.Load, error)   // nil: load all
}

func newWorld() *world {
	return &world{objects: map[string]pipeline.Object{}, bytes: map[string][]byte{}, events: map[string][]pipeline.Event{},
		claimed: map[string]bool{}, away: map[string]error{}, loads: map[string]pipeline.Load{}, rows: map[string][]uint32{},
		jobs: map[string]clickhouse.Job{}, statuses: map[string]clickhouse.TableStatus{},
		queued: map[string]queue.Stats{}}
}

// operator is an operator of the world.
func (w *world) operator() *Operator {
	return &Operator{Config: config.Default(), Name: "test", Said: io.Discard, Store: bucket{w},
		Explain: func(err error) error { return err }, Ping: func(context.Context) error { return w.away["bucket"] },
		Claim: func(_ context.Context, name, _ string, _ time.Duration) (Claim, bool, error) {
			return claim{}, !w.claimed[name], w.away["bucket"]
		},
		Table: table{w}, Source: source{w},
		Queue: func(context.Context) (Queue, error) { return w.queue() },
		Peek:  func(context.Context) (Queue, error) { return w.queue() },
		Receiver: func() (Receiver, func() error, error) {
			return w, func() error { w.stopped++; return nil }, w.away["receiver"]
		},
		Loader: func(context.Context, pipeline.Spec) (Loader, error) { return loads{w}, w.away["loader"] },
	}
}

func (w *world) queue() (Queue, error) {
	if w.noQueue || w.away["queue"] != nil {
		return nil, w.away["queue"]
	}
	return fakeQueue{w}, nil
}

// errAway is an outage.
var errAway = retry.As(retry.Outage, errors.New("connection refused"))

const day = "events/dt=2026-11-22/hr=03/"

// key is the key of the object that begins with event seq.
func key(seq int) string {
	return fmt.Sprintf("%s20261122T0345%02d.000Z-r1-%d.ndjson.zst", day, seq, seq)
}

// store stores an object with events at 3:45.
func (w *world) store(key string, names ...string) {
	for i, name := range names {
		id := pipeline.UUIDv5([]byte("p"), fmt.Appendf(nil, "%s/%d", key, i))
		w.events[key] = append(w.events[key], pipeline.Event{ID: id, Project: []byte("p"), Name: []byte(name), Row: uint32(i),
			ReceivedAt: 1795319100000, Timestamp: pipeline.NoTime, Properties: []byte(`{}`), Context: []byte(`{}`)})
	}
	w.objects[key] = pipeline.Object{Key: key, ETag: "e", Size: int64(100 * len(names)),
		Modified: time.Date(2026, 11, 22, 3, 46, 0, 0, time.UTC), Meta: pipeline.Meta{Rows: int64(len(names))}}
}

// load writes an object's entry into the ledger. A loaded one has its rows in the table.
func (w *world) load(key string, state pipeline.LoadState, change ...func(*pipeline.Load)) {
	spec, _ := pipeline.SpecOf(key)
	n := len(w.events[key])
	l := pipeline.Load{Key: key, ETag: "e", Pipeline: spec.Name, State: state, Attempts: 1, Bytes: uint64(100 * n),
		Finished: time.Date(2026, 11, 22, 3, 47, 0, 0, time.UTC)}
	if state == pipeline.Loaded {
		l.Rows = uint64(n)
		for i := range n {
			w.rows[key] = append(w.rows[key], uint32(i))
		}
	}
	for _, c := range change {
		c(&l)
	}
	w.loads[key] = l
}

// keep inserts a failure into the table of errors, and returns its id.
func (w *world) keep(n int, change ...func(*clickhouse.Kept)) string {
	id := pipeline.UUIDv5([]byte("kept"), fmt.Append(nil, n)).String()
	k := clickhouse.Kept{ID: id, Time: time.Date(2026, 11, 22, 3, n, 0, 0, time.UTC), Stage: "receiver",
		Code:    "invalid_json",
		Message: fmt.Sprintf("message %d", n), Project: "p", RawBytes: 8, Object: "errors/x", Row: uint32(n),
		Properties: `{"index":0,"path":"/v1/events","raw":"x"}`, Context: `{"ip":"10.0.0.1","user_agent":"ua"}`,
		Raw: `{"a":1}`}
	for _, c := range change {
		c(&k)
	}
	w.kept = append(w.kept, k)
	return id
}

type bucket struct{ *world }

const worldPage = 3

func (b bucket) List(_ context.Context, prefix, after, before string, page func([]pipeline.Object) error) error {
	if err := b.away["bucket"]; err != nil {
		return err
	}
	var all []pipeline.Object
	for _, k := range slices.Sorted(maps.Keys(b.objects)) {
		if strings.HasPrefix(k, prefix) && k > after && (before == "" || k < before) {
			o := b.objects[k]
			o.Meta = pipeline.Meta{} // a listing has no metadata
			all = append(all, o)
		}
	}
	for p := range slices.Chunk(all, worldPage) {
		if err := page(p); err != nil {
			return err
		}
	}
	return nil
}

func (b bucket) Head(_ context.Context, key string) (pipeline.Object, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.heads++
	o, ok := b.objects[key]
	if b.away["bucket"] != nil {
		return o, b.away["bucket"]
	}
	if !ok {
		return o, fmt.Errorf("head %s: %w", key, objstore.ErrNotFound)
	}
	return o, nil
}

func (b bucket) Get(ctx context.Context, key string) (pipeline.Object, io.ReadCloser, error) {
	o, err := b.Head(ctx, key)
	return o, io.NopCloser(bytes.NewReader(b.bytes[key])), err
}

func (b bucket) GetRange(ctx context.Context, key string, first, last int64) (io.ReadCloser, error) {
	if _, err := b.Head(ctx, key); err != nil {
		return nil, err
	}
	text := b.bytes[key]
	if first > last || last >= int64(len(text)) {
		return nil, fmt.Errorf("get %s: no bytes %d-%d", key, first, last)
	}
	return io.NopCloser(bytes.NewReader(text[first : last+1])), nil
}

type claim struct{}

func (claim) Renew(context.Context) (bool, error) { return true, nil }
func (claim) Release(context.Context) error       { return nil }
func (claim) Holder() string                      { return "loader-1, since noon" }

type source struct{ *world }

func (s source) Read(_ context.Context, key string, each func(*pipeline.Event) error) (pipeline.Object, error) {
	o, ok := s.objects[key]
	if !ok {
		return o, fmt.Errorf("get %s: %w", key, objstore.ErrNotFound)
	}
	for _, e := range s.events[key] {
		if err := each(&e); err != nil {
			return o, err
		}
	}
	return o, nil
}

func (s source) ReadRows(ctx context.Context, key string, each func(*pipeline.Event) error,
	rejected func(foreign.Rejected) error) (pipeline.Object, error) {
	for _, r := range s.rejected[key] {
		if err := rejected(r); err != nil {
			return s.objects[key], err
		}
	}
	return s.Read(ctx, key, each)
}

type table struct{ *world }

func (t table) Loads(_ context.Context, first, last string, each func(pipeline.Load) error) error {
	if err := t.away["ledger"]; err != nil {
		return err
	}
	for _, l := range t.entries() {
		if l.Key >= first && l.Key <= last {
			if err := each(l); err != nil {
				return err
			}
		}
	}
	return nil
}

// entries returns a snapshot of the ledger sorted by key, because a reingest writes while another page is read.
func (t table) entries() (all []pipeline.Load) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(t.loads)) {
		l := t.loads[k]
		l.Key = k
		all = append(all, l)
	}
	return all
}

func (t table) Failing(_ context.Context, table string, each func(pipeline.Load) error) error {
	return t.inState(pipeline.Failed, table, each)
}

func (t table) Dead(_ context.Context, table string, each func(pipeline.Load) error) error {
	return t.inState(pipeline.Dead, table, each)
}

func (t table) inState(state pipeline.LoadState, table string, each func(pipeline.Load) error) error {
	for _, l := range t.entries() {
		if l.State == state && l.Pipeline == table {
			if err := each(l); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t table) SaveLoad(_ context.Context, l pipeline.Load) error {
	if err := t.away["ledger"]; err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if before := t.loads[l.Key]; before.Version() > l.Version() {
		return nil // like the ledger: the highest version counts
	}
	t.loads[l.Key] = l
	return nil
}

func (t table) CountRows(_ context.Context, _, first, last string, _ time.Time,
	each func(object string, rows, distinct uint64)) error {
	for _, k := range slices.Sorted(maps.Keys(t.rows)) {
		if n := uint64(len(t.rows[k])); k >= first && k <= last && n > 0 {
			each(k, n, n)
		}
	}
	return nil
}

func (t table) RowsOf(_ context.Context, _, object string, _ time.Time, each func(row uint32)) error {
	for _, r := range t.rows[object] {
		each(r)
	}
	return nil
}

func (t table) Known(_ context.Context, _ string, events []pipeline.Identity) (uint64, error) {
	n := uint64(0)
	for _, e := range events {
		if slices.ContainsFunc(t.places, func(p clickhouse.Place) bool { return p.EventID == e.ID.String() }) {
			n++
		}
	}
	return n, nil
}

func (t table) Expired(context.Context, string) (pipeline.Expiry, error) {
	return pipeline.Expiry{Received: t.expired}, nil
}

func (t table) Objects(_ context.Context, _, first, last string) (map[string]bool, error) {
	there := map[string]bool{}
	for k, rows := range t.rows {
		if k >= first && k <= last && len(rows) > 0 {
			there[k] = true
		}
	}
	return there, nil
}

func (t table) FindEvent(_ context.Context, table string, id pipeline.UUID) ([]clickhouse.Place, error) {
	return t.find(func(p clickhouse.Place) bool { return p.Table == table && p.EventID == id.String() }), nil
}

func (t table) FindRow(_ context.Context, table, object string, row uint32) ([]clickhouse.Place, error) {
	return t.find(func(p clickhouse.Place) bool { return p.Table == table && p.Object == object && p.Row == row }), nil
}

func (t table) find(is func(clickhouse.Place) bool) (found []clickhouse.Place) {
	for _, p := range t.places {
		if is(p) {
			found = append(found, p)
		}
	}
	return found
}

func (t table) TableStatus(context.Context) (map[string]clickhouse.TableStatus, error) {
	if err := t.away["ledger"]; err != nil {
		return nil, err
	}
	all := map[string]clickhouse.TableStatus{"events": t.statuses["events"], "errors": t.statuses["errors"]}
	for _, l := range t.loads {
		st := all[l.Pipeline]
		switch l.State {
		case pipeline.Failed:
			st.Failing++
		case pipeline.Dead:
			st.Dead++
		}
		all[l.Pipeline] = st
	}
	return all, nil
}

func (t table) Minutes(context.Context) ([]clickhouse.Minute, error) {
	return nil, t.away["ledger"]
}

// Errors implements only the fields of a filter in which operations differ.
func (t table) Errors(_ context.Context, f clickhouse.ErrorFilter, each func(clickhouse.Kept) error) error {
	if err := t.away["ledger"]; err != nil {
		return err
	}
	all := slices.Clone(t.kept)
	if !f.Oldest {
		slices.Reverse(all)
	}
	n := 0
	for _, k := range all {
		id, _ := pipeline.ParseUUID([]byte(k.ID))
		if len(f.IDs) > 0 && !slices.Contains(f.IDs, id) || f.Code != "" && k.Code != f.Code ||
			f.Project != "" && k.Project != f.Project || f.Stage != "" && k.Stage != f.Stage ||
			!strings.Contains(k.Message, f.Text) || f.Pending && k.Redriven != nil || f.Source != "" && k.Object != f.Source ||
			!f.From.IsZero() && k.Time.Before(f.From) || !f.To.IsZero() && !k.Time.Before(f.To) {
			continue
		}
		if !f.Whole {
			k.Properties, k.Context, k.Raw = "", "", ""
		}
		if err := each(k); err != nil {
			return err
		}
		if n++; n == f.Limit {
			break
		}
	}
	return nil
}

func (t table) CountErrors(ctx context.Context, f clickhouse.ErrorFilter,
	each func(clickhouse.ErrorCount) error) error {
	counts, order := map[string]*clickhouse.ErrorCount{}, []string{}
	if err := t.Errors(ctx, f, func(k clickhouse.Kept) error {
		c := counts[k.Code+k.Project]
		if c == nil {
			c = &clickhouse.ErrorCount{Code: k.Code, Stage: k.Stage, Project: k.Project, First: k.Time, Last: k.Time,
				Example: k.Message}
			counts[k.Code+k.Project], order = c, append(order, k.Code+k.Project)
		}
		c.Count++
		if k.Redriven == nil {
			c.Pending++
		}
		return nil
	}); err != nil {
		return err
	}
	for _, name := range order {
		if err := each(*counts[name]); err != nil {
			return err
		}
	}
	return nil
}

func (t table) MarkRedriven(_ context.Context, all []clickhouse.Redriven) error {
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for _, r := range all {
		t.marked = append(t.marked, r)
		for i := range t.kept {
			if t.kept[i].ID == r.ID.String() {
				t.kept[i].Redriven = &now
			}
		}
	}
	return nil
}

func (t table) OpenJob(_ context.Context, selection string) (clickhouse.Job, bool, error) {
	j, ok := t.jobs[selection]
	return j, ok && !j.Finished, nil
}

func (t table) RollupDays(context.Context, clickhouse.Rollup) ([]clickhouse.RollupDay, error) {
	return t.rollupDays, nil
}

func (t table) RollupBatches(_ context.Context, _ clickhouse.Rollup, days []time.Time) (all [][]time.Time, err error) {
	for batch := range slices.Chunk(days, 2) {
		all = append(all, batch)
	}
	return all, nil
}

func (t table) RefreshRollup(_ context.Context, r clickhouse.Rollup, days []time.Time) ([]uint64, error) {
	for _, day := range slices.Backward(days) {
		t.computed = append(t.computed, r.Name+" "+day.Format(time.DateOnly))
	}
	return make([]uint64, len(days)), nil
}

func (t table) RollupDone(_ context.Context, r clickhouse.Rollup) error {
	t.computed = append(t.computed, r.Name+" done")
	return nil
}

func (t table) Properties(_ context.Context, project, name string, each func(clickhouse.Property) error) error {
	for _, p := range t.properties {
		if (project == "" || p.Project == project) && (name == "" || p.Name == name) {
			if err := each(p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t table) Explosions(context.Context, string) ([]clickhouse.Explosion, error) {
	return t.explosions, nil
}

func (t table) SuggestColumns(_ context.Context, _, project string,
	have []clickhouse.Column) ([]clickhouse.Suggestion, error) {
	return slices.DeleteFunc(slices.Clone(t.suggestions[project]), func(s clickhouse.Suggestion) bool {
		return slices.ContainsFunc(have, func(c clickhouse.Column) bool { return c.Path == s.Path })
	}), nil
}

func (t table) LastVerify(_ context.Context, each func(string) error) error {
	for _, pipeline := range []string{"verify events", "verify errors"} {
		if j, ok := t.jobs[pipeline]; ok && j.Detail != "" {
			if err := each(j.Detail); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t table) SaveJob(_ context.Context, j clickhouse.Job) error {
	t.jobs[j.Selection] = j
	return nil
}

func (t table) SaveActions(_ context.Context, all []clickhouse.Action) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.away["ledger"]; err != nil {
		return err
	}
	t.actions = append(t.actions, all...)
	return nil
}

func (t table) Actions(_ context.Context, f clickhouse.ActionFilter, each func(clickhouse.Action) error) error {
	for _, a := range slices.Backward(t.actions) {
		if f.Who == "" || a.Who == f.Who {
			if err := each(a); err != nil {
				return err
			}
		}
	}
	return t.away["ledger"]
}

type fakeQueue struct{ *world }

func (q fakeQueue) Enqueue(_ context.Context, _ pipeline.Spec, n pipeline.Notification, again bool) (bool, error) {
	told := slices.Contains(q.enqueued, n.Key)
	text := n.Key
	if again {
		text += " again"
	}
	q.enqueued = append(q.enqueued, text)
	return told && !again, nil
}

func (q fakeQueue) DeadLetter(context.Context, pipeline.DeadLetter) error {
	panic("operators publish no dead letters")
}

func (q fakeQueue) Forget(_ context.Context, _, key string) error {
	q.forgotten = append(q.forgotten, key)
	return nil
}

func (q fakeQueue) Rebuild(_ context.Context, letters []pipeline.DeadLetter) (uint64, error) {
	before := len(q.letters)
	q.letters = letters
	return uint64(before), nil
}

func (q fakeQueue) Stats(_ context.Context, spec pipeline.Spec) (queue.Stats, error) {
	return q.queued[spec.Name], q.away["stats"]
}

// Redrive replaces the receiver's.
func (w *world) Redrive(_ context.Context, r receiver.Redrive) (receiver.Redriven, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.redriven = append(w.redriven, r)
	if w.answer != nil {
		return w.answer(r)
	}
	return receiver.Redriven{Accepted: 1, Object: "events/new"}, nil
}

type loads struct{ *world }

func (l loads) Reingest(_ context.Context, it audit.Item, job string) (pipeline.Load, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reingest != nil {
		return l.reingest(it, job)
	}
	entry := it.Entry
	entry.Key, entry.State, entry.Rows, entry.Job = it.Object.Key, pipeline.Loaded, uint64(it.Object.Size/100), job
	l.world.loads[entry.Key] = entry
	return entry, nil
}

// do runs an operation with params that change modifies, and returns its items.
func do[Item any](t *testing.T, ex Executor, name string, change func(params any)) ([]Item, error) {
	t.Helper()
	op := Find(name)
	params := op.NewParams()
	if change != nil {
		change(params)
	}
	var items []Item
	err := ex(t.Context(), op, params, sink{progress: func(progress) {}, item: func(item any) error {
		if raw, ok := item.(*json.RawMessage); ok {
			*raw = slices.Clone(*raw) // valid only during the call
		}
		items = append(items, *item.(*Item))
		return nil
	}})
	return items, err
}

// server serves the world's API with the token "secret".
func (w *world) server(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(w.api().Handler())
	t.Cleanup(s.Close)
	return s
}

func (w *world) api() API {
	return API{Operator: w.operator(), Metrics: prometheus.NewRegistry(), Ready: func() error { return nil },
		Status: func() RoleStatus { return RoleStatus{Role: "test"} }, Access: NewAccess(func() string { return "secret" }, nil),
		Hosts: []string{"localhost"}}
}

// ways returns both executors: local, and through a server.
func (w *world) ways(t *testing.T) map[string]Executor {
	t.Helper()
	return map[string]Executor{"local": Local(w.operator()),
		"remote": Remote(w.server(t).URL, "secret", http.DefaultClient)}
}

// wantError checks that the error contains the text; empty: no error.
func wantError(t *testing.T, err error, text, what string, args ...any) {
	t.Helper()
	if text == "" && err != nil || text != "" && (err == nil || !strings.Contains(err.Error(), text)) {
		t.Errorf("%s: got error %v, want %q", fmt.Sprintf(what, args...), err, text)
	}
}
