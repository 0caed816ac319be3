package pixel_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"testing"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/receivertest"
)

const key = receivertest.Key

func TestEvents(t *testing.T) {
	for _, c := range []struct {
		query      string
		status     int
		code       string // then it is a failure record
		properties string
		kept       string
	}{
		{"key=" + key + "&name=open&user_id=7&session_id=s&level=3&text=a+b%20c&tag=x&tag=y&_=17", 200, "",
			`{"level":"3","text":"a b c","tag":["x","y"],"_":"17"}`, ""},
		{"name=open&%6bey=" + key + "&user_id=7&session_id=s&durability=memory", 200, "", `{}`, ""},
		{"name=open&user_id=7&session_id=s&properties=%7B%7D&key=" + key, 200, "", `{"properties":"{}"}`, ""},
		{"key=no&name=open", 401, "unknown_key", "", "name=open"},
		{"name=open", 401, "missing_key", "", "name=open"},
		{"level=1&key=" + key, 400, "missing_name", "", "level=1"},
		{"name=a&name=b&key=" + key, 400, "duplicate_key", "", "name=a&name=b"},
		{"name=a&x=%zz&key=" + key, 400, "invalid_query", "", "name=a&x=%zz"},
		{"name=a&x=%ff&key=" + key, 400, "invalid_utf8", "", "name=a&x=%ff"},
		{"name=a&timestamp=soon&key=" + key, 400, "invalid_timestamp", "", "name=a&timestamp=soon"},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			r, s := receivertest.Start(nil)
			w := intake.Do(r, httptest.NewRequest(method, "/v1/pixel.gif?"+c.query, nil))
			h := w.Header()
			if w.Code != c.status || w.Body.Len() != 43 || w.Body.String() != intake.Transparent ||
				h.Get("Content-Type") != "image/gif" || h.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: got %d, %d bytes, %v", c.query, w.Code, w.Body.Len(), h)
			}
			if c.status == 200 {
				if s.Names() != "open" || string(s.Events[0].UserID) != "7" || string(s.Events[0].SessionID) != "s" ||
					string(s.Events[0].Properties) != c.properties {
					t.Errorf("%s: got %+v", c.query, s.Events)
				}
				continue
			}
			if len(s.Events) != 0 || len(s.Failures) != 1 || s.Failures[0].Code != c.code ||
				string(s.Failures[0].Raw) != c.kept {
				t.Fatalf("%s: %d events, failures %+v", c.query, len(s.Events), s.Failures)
			}
			f := s.Failures[0]
			out, err := r.Redrive(context.Background(),
				receiver.Redrive{ID: pipeline.NewUUIDv7(1), Project: "game", Path: f.Path, Body: f.Raw})
			if want := map[bool]int{true: 1}[c.status == 401]; err != nil || out.Accepted != want || want == 0 &&
				out.Code != c.code {
				t.Errorf("%s: redriven %+v %v", c.query, out, err)
			}
		}
	}
	r, s := receivertest.Start(nil)
	out, err := r.Redrive(context.Background(),
		receiver.Redrive{ID: pipeline.NewUUIDv7(1), Project: "game", Path: "/v1/pixel.gif", Body: []byte(`{"name":"mended"}`)})
	if err != nil || out.Accepted != 1 || s.Names() != "mended" {
		t.Errorf("mended: %+v %v", out, err)
	}
	w := intake.Do(r, receivertest.WithKey(intake.Post("/v1/pixel.gif", "")))
	if w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD, OPTIONS" || json.Valid(w.Body.Bytes()) {
		t.Errorf("POST: %d %v", w.Code, w.Header())
	}
}
