package console

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/tap"
)

// stream opens the live events, and returns the lines of data of each kind but "count".
func (b *browser) stream() (next func() string) {
	b.t.Helper()
	s := httptest.NewServer(b.handler)
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
	b.t.Cleanup(func() { cancel(); s.Close() })
	r, err := http.NewRequestWithContext(ctx, "GET", s.URL+"/console/events", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
	r.AddCookie(&http.Cookie{Name: "penstock_console_" + port, Value: b.cookie})
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { resp.Body.Close() })
	lines, kind := bufio.NewScanner(resp.Body), ""
	return func() string {
		for lines.Scan() {
			line := lines.Text()
			if k, ok := strings.CutPrefix(line, "event: "); ok {
				kind = k
			} else if data, ok := strings.CutPrefix(line, "data: "); ok && kind != "count" {
				return kind + " " + data
			}
		}
		b.t.Fatalf("the stream ended: %v", lines.Err())
		return ""
	}
}

// A live event can be followed: to its object, by receiver and seq, and to the table, by the ledger.
func TestLiveStages(t *testing.T) {
	b := newBrowser(t).login("secret")
	next := b.stream()
	for !b.tap.Watched() {
		time.Sleep(time.Millisecond)
	}
	batch := b.tap.Copy(tap.Event{RequestID: "r", Receiver: "rx", Redriven: true}, []pipeline.Event{{Name: []byte("start")}})
	batch.Number(1 << 60)
	batch.Show("")
	if got := next(); !strings.Contains(got, `"receiver":"rx","seq":"1152921504606846976"`) || !strings.Contains(got, `"redriven":true`) {
		t.Errorf("got %s", got)
	}
	b.tap.Store(tap.Stored{Object: "events/o", Receiver: "rx", First: 1 << 60, Last: 1<<60 + 5})
	want := `stored {"object":"events/o","receiver":"rx","first_seq":"1152921504606846976","last_seq":"1152921504606846981"}`
	if got := next(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, state := range []pipeline.LoadState{pipeline.Failed, pipeline.Loaded} {
		b.mu.Lock()
		b.ledger = []pipeline.Load{{Key: "events/n", State: pipeline.Loaded}, {Key: "events/o", State: state},
			{Key: "events/p", State: pipeline.Loaded}}
		b.mu.Unlock()
		if got, want := next(), fmt.Sprintf(`load {"object":"events/o","state":%q}`, state); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// Followed objects are bounded, and what is over is forgotten.
func TestFollowing(t *testing.T) {
	f := &following{objects: map[string]followed{}}
	for i := range followMost + 10 {
		f.follow(fmt.Sprint(i))
		if i == 0 {
			f.objects["0"] = followed{since: time.Now().Add(-time.Minute)}
		}
	}
	if _, ok := f.objects["0"]; ok || len(f.objects) != followMost {
		t.Errorf("%d objects, the oldest %v", len(f.objects), ok)
	}
	f.objects = map[string]followed{"old": {since: time.Now().Add(-followLong - time.Second)}, "a": {since: time.Now()}}
	f.follow("b")
	if _, ok := f.objects["old"]; ok || len(f.objects) != 2 {
		t.Errorf("followed %v", f.objects)
	}
	got := f.compare([]pipeline.Load{{Key: "a", State: pipeline.Loading}, {Key: "x", State: pipeline.Loaded}})
	got = append(got, f.compare([]pipeline.Load{{Key: "a", State: pipeline.Loading}})...)
	got = append(got, f.compare([]pipeline.Load{{Key: "a", State: pipeline.Dead, Error: "bad"}})...)
	got = append(got, f.compare([]pipeline.Load{{Key: "a", State: pipeline.Loaded}})...)
	if diff := cmp.Diff([]load{{"a", "loading", ""}, {"a", "dead", "bad"}, {"a", "loaded", ""}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, ok := f.objects["a"]; ok {
		t.Error("a loaded object is still followed")
	}
}
