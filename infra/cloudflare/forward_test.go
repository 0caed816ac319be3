package cloudflare

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/edge"
	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver/receivertest"
	"github.com/penstock/penstock/receiver/tenant"
)

// trouble is how the receiver fails.
type trouble int32

const (
	none    trouble = iota
	away            // answers like a proxy without a receiver
	forgets         // stores the events and cuts the connection
	locked          // does not know the key
)

// forwarding is an edge in front of a receiver that can fail.
type forwarding struct {
	sink    *intake.Sink
	state   atomic.Int32
	hits    atomic.Int32 // requests since the last change of state
	edge    *edge.Edge
	restart func()
}

const forwardKey = "key-of-the-edge"

// maxBuffer is the most that may wait in the shard, in bytes.
const maxBuffer = 16 << 20

func newForwarding(t *testing.T, project edge.Project) *forwarding {
	t.Helper()
	o := receivertest.Options()
	o.MaxBody, o.MaxDecoded, o.MaxEvent, o.BlobThreshold = 2<<20, 2<<20, 2<<20, 64<<10
	f := &forwarding{sink: &intake.Sink{}}
	r := receivertest.New(t, o, f.sink)
	if err := r.SetProjects([]tenant.Project{{Name: "game", Names: []string{"e*", "x"}},
		{Name: "shop", Events: tenant.Rate{PerSecond: 0.001, Burst: 1}}},
		[]tenant.Key{{Project: "game", Hash: tenant.HashKey(forwardKey)},
			{Project: "shop", Hash: tenant.HashKey(forwardKey + "-shop")}}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		f.hits.Add(1)
		switch trouble(f.state.Load()) {
		case none:
			r.ServeHTTP(w, req)
		case away:
			http.Error(w, "<html>no healthy upstream", http.StatusBadGateway)
		case locked:
			req.Header.Set("Authorization", "Bearer other")
			r.ServeHTTP(w, req)
		case forgets:
			r.ServeHTTP(httptest.NewRecorder(), req)
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(server.Close)
	options := edge.Options{Persist: t.TempDir(), Bindings: map[string]string{"MODE": "forward", "ROLL_AGE": "1",
		"RECEIVER_URL": server.URL, "PROJECTS": projectsFile(t), "SHARDS": "1", "MAX_BUFFER": fmt.Sprint(maxBuffer),
		"FORWARD_KEYS": `{"game":"` + forwardKey + `","shop":"` + forwardKey + `-shop"}`}}
	f.edge = project.Start(t, options)
	f.restart = func() {
		f.edge.Kill()
		f.edge = project.Start(t, options)
	}
	return f
}

func (f *forwarding) set(s trouble) {
	f.state.Store(int32(s))
	f.hits.Store(0)
}

// post sends a client's event; its address names the client.
func (f *forwarding) post(t *testing.T, key, client, body string) (status int, answer map[string]any) {
	t.Helper()
	x := exchange{"POST", "/v1/events", bearer(key, "CF-Connecting-IP", client, "User-Agent", client)}
	status, _, answer = x.send(t, f.edge.URL, body)
	return status, answer
}

// names lists a client's events at the receiver, each at its first arrival.
func (f *forwarding) names(client string) (names []string) {
	f.sink.Mu.Lock()
	defer f.sink.Mu.Unlock()
	seen := map[pipeline.UUID]bool{}
	for _, e := range f.sink.Events {
		if strings.Contains(string(e.Context), `"`+client+`"`) && !seen[e.ID] {
			seen[e.ID] = true
			names = append(names, string(e.Name))
		}
	}
	return names
}

func TestForward(t *testing.T) {
	t.Parallel()
	project := edge.Copy(t)
	project.Build(t)
	f := newForwarding(t, project)
	t.Run("answers", f.answers)
	t.Run("outages", f.outages)
	t.Run("killed", f.killed)
	t.Run("refused later", f.refusedLater)
	t.Run("full", f.full)
}

// answers: the receiver's answers come back, with the edge's rejections added.
func (f *forwarding) answers(t *testing.T) {
	status, answer := f.post(t, largeKey, "c0", `[{"name":"e1","event_id":"a"},{"v":1},{"name":"other"},{"name":"e2"},1]`)
	delete(answer, "request_id")
	for _, e := range answer["errors"].([]any) {
		delete(e.(map[string]any), "message")
	}
	want := map[string]any{"accepted": 2.0, "rejected": 3.0, "errors": []any{
		map[string]any{"index": 1.0, "code": "missing_name"}, map[string]any{"index": 2.0, "code": "name_not_allowed"},
		map[string]any{"index": 4.0, "code": "not_an_object"}}}
	if diff := cmp.Diff(want, answer); diff != "" || status != 202 {
		t.Errorf("status %d (-want +got):\n%s", status, diff)
	}
	if got := f.names("c0"); !slices.Equal(got, []string{"e1", "e2"}) || f.sink.Codes() != "1:name_not_allowed" {
		t.Errorf("the receiver has %s, and failure records of %s", got, f.sink.Codes())
	}
	if status, answer = f.post(t, diskKey, "c0", `{"name":"e1"}`); status != 202 {
		t.Errorf("the first of a project with a rate: %d %v", status, answer)
	}
	status, answer = f.post(t, diskKey, "c0", `{"name":"e2"}`)
	if limit, _ := answer["limit"].(map[string]any); status != 429 || limit["of"] != "events" {
		t.Errorf("beyond the rate: %d %v, want the receiver's 429", status, answer)
	}
	// Events that the edge rejected are in its errors objects.
	await(t, "errors", func() error {
		objects, err := f.edge.Objects(t.Context())
		if err != nil || len(objects) == 0 {
			return fmt.Errorf("%d objects, %v", len(objects), err)
		}
		if all := readObject(t, f.edge, objects[0]); len(all) != 2 || string(all[0].Name) != "missing_name" ||
			string(all[1].Name) != "not_an_object" {
			t.Errorf("errors: %+v", all)
		}
		return nil
	})
}

// outages: no outage loses events, and each client's events arrive in the order in which it sent them.
func (f *forwarding) outages(t *testing.T) {
	const clients, each = 8, 6
	states := []trouble{none, away, forgets, locked, none}
	send := func(c, i int) {
		id := ""
		if i%2 == 0 {
			id = fmt.Sprintf(`,"event_id":"%d-%d"`, c, i)
		}
		body := fmt.Sprintf(`{"name":"e%d"%s}`, i, id)
		if i == each+2 {
			body = fmt.Sprintf(`{"name":"e%d","large":%q}`, i, strings.Repeat("x", 1<<20))
		}
		if status, answer := f.post(t, largeKey, fmt.Sprintf("client-%d", c), body); status != 202 {
			t.Errorf("got %d %v, want 202", status, answer)
		}
	}
	for n, s := range states {
		f.set(s)
		var all sync.WaitGroup
		for c := range clients {
			all.Go(func() {
				for i := n * each; i < (n+1)*each; i++ {
					send(c, i)
				}
			})
		}
		all.Wait()
		await(t, "attempts", func() error { // the shard retries meanwhile
			if hits := f.hits.Load(); hits < 2 {
				return fmt.Errorf("%d", hits)
			}
			return nil
		})
	}
	events := len(states) * each
	for c := range clients {
		client := fmt.Sprintf("client-%d", c)
		await(t, client, func() error {
			if got := f.names(client); len(got) < events {
				return fmt.Errorf("%d events", len(got))
			}
			return nil
		})
		for i, name := range f.names(client) {
			if name != fmt.Sprintf("e%d", i) {
				t.Fatalf("%s: the events came as %s", client, f.names(client))
			}
		}
	}
}

// killed: a killed edge keeps what it has acknowledged.
func (f *forwarding) killed(t *testing.T) {
	f.set(away)
	for i := range 20 {
		if status, answer := f.post(t, largeKey, "killed", fmt.Sprintf(`{"name":"e%d"}`, i)); status != 202 {
			t.Fatalf("got %d %v", status, answer)
		}
		if i == 9 {
			f.restart()
		}
	}
	f.set(none)
	await(t, "events", func() error {
		if got := f.names("killed"); len(got) != 20 || got[0] != "e0" || got[19] != "e19" {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}

// refusedLater: the receiver rejects a request that the edge answered with 202. It becomes a failure record, and blocks
// nothing.
func (f *forwarding) refusedLater(t *testing.T) {
	f.set(away)
	body := `{"name":"e1","list":["` + strings.Repeat("x", 3<<20) + `"]}`
	for _, body := range []string{`{"name":"e0"}`, body, `{"name":"e2"}`} {
		if status, answer := f.post(t, largeKey, "refused", body); status != 202 {
			t.Fatalf("got %d %v", status, answer)
		}
	}
	f.set(none)
	await(t, "the neighbours", func() error {
		if got := f.names("refused"); !slices.Equal(got, []string{"e0", "e2"}) {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	await(t, "the failure record", func() error {
		objects, err := f.edge.Objects(t.Context())
		for _, o := range objects {
			if !strings.HasPrefix(o.Key, "errors/") {
				continue
			}
			for _, e := range readObject(t, f.edge, o) {
				if string(e.Name) == "body_too_large" {
					var props struct {
						Blob map[string]pipeline.BlobRef `json:"raw_blob"`
					}
					if err := json.Unmarshal(e.Properties, &props); err != nil || props.Blob["$blob"].Bytes < 3<<20 {
						t.Errorf("%s: %v", e.Properties, err)
					}
					return nil
				}
			}
		}
		return fmt.Errorf("none, %v", err)
	})
}

// full: a shard has reached its limit. Clients get a 503 and keep their events.
func (f *forwarding) full(t *testing.T) {
	f.set(away)
	body := `{"name":"e%d","large":"` + strings.Repeat("x", 1<<20) + `"}`
	kept, status, answer := 0, 202, map[string]any(nil)
	for ; status == 202 && kept <= 2*maxBuffer>>20; kept++ {
		status, answer = f.post(t, largeKey, "full", fmt.Sprintf(body, kept))
	}
	kept--
	if e, _ := answer["error"].(map[string]any); status != 503 || e["code"] != "unavailable" || kept < maxBuffer>>20/2 {
		t.Fatalf("after %d events: got %d %v, want 503 unavailable", kept, status, answer)
	}
	f.set(none)
	await(t, "events", func() error {
		if got := f.names("full"); len(got) != kept {
			return fmt.Errorf("%d, want %d", len(got), kept)
		}
		return nil
	})
	if status, answer := f.post(t, largeKey, "full", `{"name":"e"}`); status != 202 {
		t.Errorf("after the outage: got %d %v", status, answer)
	}
}
