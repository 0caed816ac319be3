package operate

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
)

// objects returns a world with five objects: loaded, failed, dead, dropped, and one unknown to the ledger.
func objects() *world {
	w := newWorld()
	for i, state := range []pipeline.LoadState{pipeline.Loaded, pipeline.Failed, pipeline.Dead, pipeline.Dropped} {
		w.store(key(i), "a", "b")
		w.load(key(i), state, func(l *pipeline.Load) { l.Error = "why " + state.String() })
	}
	w.store(key(4), "a")
	w.store("events/dt=2026-11-22/_SUCCESS")
	w.store("errors/dt=2026-11-22/hr=03/20261122T034509.000Z-r1-9.ndjson.zst", "x")
	return w
}

func TestListObjects(t *testing.T) {
	w := objects()
	for name, ex := range w.ways(t) {
		for _, tt := range []struct {
			change func(*objectsParams)
			want   string // states, sorted by key
		}{
			{func(*objectsParams) {}, "loaded failed dead dropped new"},
			{func(p *objectsParams) { p.State = "dead" }, "dead"},
			{func(p *objectsParams) { p.State = "new" }, "new"},
			{func(p *objectsParams) { p.Limit = 2 }, "loaded failed"},
			{func(p *objectsParams) { p.Limit, p.State = 1, "dropped" }, "dropped"},
			{func(p *objectsParams) { p.Pipeline = "errors" }, "new"},
			{func(p *objectsParams) { p.Until = "2026-11-22T03:45:02Z" }, "loaded failed"},
		} {
			got, err := do[objectInfo](t, ex, "objects list", func(params any) {
				p := params.(*objectsParams)
				p.Since, p.Until = "2026-11-22", "2026-11-23"
				tt.change(p)
			})
			var states []string
			for _, o := range got {
				states = append(states, o.State)
			}
			if err != nil || strings.Join(states, " ") != tt.want {
				t.Errorf("%s: got %v, %v; want %s", name, states, err, tt.want)
			}
		}
		all, err := do[objectInfo](t, ex, "objects list", func(p any) {
			p.(*objectsParams).Since, p.(*objectsParams).Until = "2026-11-22", "2026-11-23"
		})
		if err != nil || len(all) != 5 {
			t.Fatalf("%s: %d objects, %v", name, len(all), err)
		}
		if o := all[0]; o.Rows != 2 || o.Loaded == nil || o.Error != "" || o.Bytes != 200 || o.Pipeline != "events" {
			t.Errorf("%s: loaded: %+v", name, o)
		}
		if o := all[1]; o.Rows != 2 || o.Loaded != nil || o.Error != "why failed" || o.Attempts != 1 {
			t.Errorf("%s: failed: %+v", name, o)
		}
	}
}

// The ledger has the number of rows of loaded objects. Only others need a HEAD.
func TestListObjectsAsksForFewHeads(t *testing.T) {
	w := objects()
	if _, err := do[objectInfo](t, Local(w.operator()), "objects list", func(p any) {
		p.(*objectsParams).Since, p.(*objectsParams).Until = "2026-11-22", "2026-11-23"
	}); err != nil || w.heads != 4 {
		t.Errorf("%d objects were asked for, %v; want 4", w.heads, err)
	}
}

func TestWrongParamsOfObjects(t *testing.T) {
	w := objects()
	list := func(change func(*objectsParams)) func(any) { return func(p any) { change(p.(*objectsParams)) } }
	cat := func(change func(*catParams)) func(any) { return func(p any) { change(p.(*catParams)) } }
	find := func(what ...string) func(any) { return func(p any) { p.(*findParams).What = what } }
	for _, tt := range []struct {
		op     string
		change func(any)
		want   string
	}{
		{"objects list", list(func(p *objectsParams) { p.Since = "yesterday" }), `--since "yesterday": want 2026-11-22`},
		{"objects list", list(func(p *objectsParams) { p.Until = "x" }), `--until "x": want`},
		{"objects list", list(func(p *objectsParams) { p.Since, p.Until = "1h", "2h" }), "--since 1h is not before --until 2h"},
		{"objects list", list(func(p *objectsParams) { p.Pipeline = "logs" }), `--pipeline "logs": set events or errors`},
		{"objects list", list(func(p *objectsParams) { p.State = "gone" }), `--state "gone": set new, loading, failed, dead, dropped or loaded`},
		{"objects show", cat(func(*catParams) {}), "KEY is missing; list objects with \"penstock objects list\""},
		{"objects show", cat(func(p *catParams) { p.Keys = []string{"events/none"} }), "no such object"},
		{"objects show", cat(func(p *catParams) { p.Keys, p.Row = []string{key(0)}, 7 }), key(0) + " has no row 7"},
		{"objects find", find(), "EVENT_ID, or KEY and ROW, are missing"},
		{"objects find", find("a", "b", "c"), "EVENT_ID, or KEY and ROW, are missing"},
		{"objects find", find("my-id"), `"my-id" is not a UUID; for an id that a client chose, set --project`},
		{"objects find", find("logs/x", "0"), `"logs/x" is of no pipeline`},
		{"objects find", find(key(0), "first"), `ROW "first" is not a number`},
		{"objects find", find(key(0), "9"), key(0) + " has no row 9"},
		{"objects find", find("00000000-0000-4000-8000-000000000000"),
			"no row has the event 00000000-0000-4000-8000-000000000000"},
	} {
		for name, ex := range w.ways(t) {
			op := Find(tt.op)
			params := op.NewParams()
			tt.change(params)
			err := ex(t.Context(), op, params, sink{item: func(any) error { return nil }, progress: func(progress) {}})
			wantError(t, err, tt.want, "%s %s %+v", name, tt.op, params)
		}
	}
}

func TestCatObjects(t *testing.T) {
	w := objects()
	names := func(change func(*catParams)) string {
		t.Helper()
		got, err := do[json.RawMessage](t, Local(w.operator()), "objects show", func(p any) { change(p.(*catParams)) })
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, line := range got {
			var e struct{ Name string }
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			names = append(names, e.Name)
		}
		return strings.Join(names, " ")
	}
	for want, change := range map[string]func(*catParams){
		"a b a": func(p *catParams) { p.Keys = []string{key(0), key(4)} },
		"b":     func(p *catParams) { p.Keys, p.Row = []string{key(0)}, 1 },
		"a a":   func(p *catParams) { p.Keys, p.Limit = []string{key(0), key(1)}, 1 },
	} {
		if got := names(change); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// A reference is resolved if the bucket has its bytes. Otherwise it stays.
func TestCatResolves(t *testing.T) {
	w := newWorld()
	w.store(key(0), "a", "b")
	value := []byte("the value")
	w.objects[blobObject] = pipeline.Object{Key: blobObject, Size: int64(len(value))}
	w.bytes[blobObject] = value
	good, bad := blobRef(value, 0), blobRef(value, 0)
	bad.SHA256 = strings.Repeat("0", 64)
	w.events[key(0)][0].Properties = []byte(`{"v":` + string(good.Append(nil)) + `}`)
	w.events[key(0)][1].Properties = []byte(`{"v":` + string(bad.Append(nil)) + `}`)
	cat := func(resolve bool) ([]json.RawMessage, error) {
		return do[json.RawMessage](t, Local(w.operator()), "objects show", func(p any) {
			p.(*catParams).Keys, p.(*catParams).Resolve = []string{key(0)}, resolve
		})
	}
	got, err := cat(false)
	if err != nil || !strings.Contains(string(got[0]), "$blob") {
		t.Errorf("without --resolve: %s, %v", got, err)
	}
	got, err = cat(true)
	wantError(t, err, "1 reference could not be resolved and stayed as they are; the first: "+key(0)+" row 1", "cat")
	if len(got) != 2 || !strings.Contains(string(got[0]), `"v":"the value"`) ||
		!strings.Contains(string(got[1]), "$blob") {
		t.Errorf("with --resolve: %s", got)
	}
}

func TestFindEvent(t *testing.T) {
	w := objects()
	inBoth, inBucket, inTable := w.events[key(0)][1], w.events[key(4)][0],
		pipeline.UUIDv5([]byte("p"), []byte("client-id"))
	w.places = []clickhouse.Place{
		{Object: key(0), Row: 1, EventID: inBoth.ID.String(), Table: "events"},
		{Object: "events/expired", Row: 3, EventID: inTable.String(), Table: "events", Name: "gone"},
	}
	for _, tt := range []struct {
		params findParams
		want   string // object, row, places
	}{
		{findParams{What: []string{inBoth.ID.String()}}, key(0) + " 1 table bucket"},
		{findParams{What: []string{"client-id"}, Project: "p"}, "events/expired 3 table"},
		{findParams{What: []string{inBucket.ID.String()}, Scan: "200000h"}, key(4) + " 0 bucket"},
		{findParams{What: []string{key(0), "1"}}, key(0) + " 1 bucket table"},
		{findParams{What: []string{key(4), "0"}}, key(4) + " 0 bucket"},
	} {
		for name, ex := range w.ways(t) {
			got, err := do[found](t, ex, "objects find", func(p any) { *p.(*findParams) = tt.params })
			if err != nil || len(got) != 1 {
				t.Errorf("%s %+v: %+v, %v", name, tt.params, got, err)
				continue
			}
			where := strings.Join(append([]string{got[0].Object, string('0' + rune(got[0].Row))}, got[0].In...), " ")
			if where != tt.want || !json.Valid(got[0].Event) {
				t.Errorf("%s %+v: got %s of %s, want %s", name, tt.params, where, got[0].Event, tt.want)
			}
		}
	}
	// An unreadable object does not end the search, and the error counts it.
	delete(w.events, key(1))
	_, err := do[found](t, Local(w.operator()), "objects find", func(p any) {
		*p.(*findParams) = findParams{What: []string{pipeline.NewUUIDv7(1).String()}, Scan: "200000h"}
	})
	wantError(t, err, "neither a row nor an object since", "find")
}

// Each operation reports an outage with the name of the unreachable server.
func TestOutages(t *testing.T) {
	for _, away := range []string{"bucket", "ledger"} {
		w := objects()
		w.away[away] = errAway
		_, err := do[objectInfo](t, Local(w.operator()), "objects list", func(p any) {
			p.(*objectsParams).Since, p.(*objectsParams).Until = "2026-11-22", "2026-11-23"
		})
		wantError(t, err, "connection refused", "%s is away", away)
	}
}

func TestOperationsAreListedOnce(t *testing.T) {
	var names, paths []string
	for _, op := range Operations() {
		names = append(names, op.Name)
		paths = append(paths, op.method+" "+op.path)
		if op.Short == "" || op.row == nil && op.print == nil && op.Name != "objects show" {
			t.Errorf("%s says nothing of itself, or prints nothing", op.Name)
		}
	}
	for _, all := range [][]string{names, paths} {
		slices.Sort(all)
		if compact := slices.Compact(slices.Clone(all)); len(compact) != len(all) {
			t.Errorf("twice in %q", all)
		}
	}
}
