package receiver

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/traffic"
	"github.com/penstock/penstock/receiver/tap"
)

// A watcher sees accepted events, and rejected ones with code and bytes. The counts cover all of them.
func TestTap(t *testing.T) {
	r, _ := newTest(nil)
	w, err := r.Tap().Watch(tap.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	serve(t, r, withKey(post("/v1/events", `{"name":"start","user_id":"u1","session_id":"s1","level":3}`)))
	serve(t, r, withKey(post("/v1/events", `[{"name":"end"},{"level":4}]`)))
	serve(t, r, withKey(post("/v1/events", "{")))
	serve(t, r, post("/v1/events", `{"name":"start"}`)) // without a key
	want := []tap.Event{
		{Accepted: true, Project: "game", Name: "start", User: "u1", Session: "s1", Text: `{"level":3}`},
		{Accepted: true, Project: "game", Name: "end", Text: "{}"},
		{Project: "game", Code: "missing_name", Text: `{"level":4}`},
		{Project: "game", Code: "invalid_json", Text: "{"},
		{Code: "missing_key", Whole: true},
	}
	var got []tap.Event
	for range want {
		e := <-w.Events()
		if e.Time.IsZero() || e.RequestID == "" || e.Accepted != (len(e.ID) == 36) || e.Accepted != (e.Message == "") {
			t.Errorf("got %+v", e)
		}
		got = append(got, e)
	}
	own := cmpopts.IgnoreFields(tap.Event{}, "Time", "RequestID", "ID", "Message", "Object")
	if diff := cmp.Diff(want, got, own); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Counts{Accepted: 2, Rejected: 2, Refused: 1}, r.Counts()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

// An event that could not be stored is not shown.
func TestTapOfWhatIsNotStored(t *testing.T) {
	r, s := newTest(nil)
	w, err := r.Tap().Watch(tap.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	s.Err = io.ErrShortWrite
	serve(t, r, withKey(post("/v1/events", `{"name":"start"}`)))
	e := <-w.Events()
	if e.Accepted || !e.Whole || e.Code != "unavailable" || strings.Contains(e.Text, "secret") || len(w.Events()) > 0 {
		t.Errorf("got %+v, and %d more", e, len(w.Events()))
	}
}

// The cost of a watcher: off, everything (1000 events a second are copied), and a user who sends nothing.
func BenchmarkTap(b *testing.B) {
	for _, c := range []struct {
		name   string
		filter *tap.Filter
	}{{"off", nil}, {"all", &tap.Filter{}}, {"user", &tap.Filter{User: "nobody"}}} {
		b.Run(c.name, func(b *testing.B) {
			r := must(New(options(), discard{}, discard{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry()))
			if c.filter != nil {
				w := must(r.Tap().Watch(*c.filter))
				defer w.Close()
				go func() {
					for e := range w.Events() {
						json.NewEncoder(io.Discard).Encode(e)
					}
				}()
			}
			g := traffic.New("tap", 1)
			var body []byte
			for range 100 {
				body = append(g.Append(body), '\n')
			}
			reader := bytes.NewReader(nil)
			req := httptest.NewRequest("POST", "/v1/events", nil)
			req.Body, req.ContentLength = io.NopCloser(reader), int64(len(body))
			req.Header = http.Header{"Authorization": {"Bearer " + key}, "Content-Type": {ndjson}}
			w := &quiet{header: http.Header{}}
			for b.Loop() {
				reader.Reset(body)
				clear(w.header)
				r.ServeHTTP(w, req)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/event")
		})
	}
}
