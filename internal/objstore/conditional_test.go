package objstore

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/penstock/penstock/internal/pipeline"
)

// A store that ignores If-None-Match is found out. Then an object that is there is not overwritten all the same.
func TestStoreWithoutConditionalPut(t *testing.T) {
	for _, ignores := range []bool{false, true} {
		store := gofakes3.New(s3mem.New()).Server()
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if ignores {
				r.Header.Del("If-None-Match")
			}
			store.ServeHTTP(w, r)
		}))
		defer server.Close()
		b := Open(Options{Endpoint: server.URL, Region: "us-east-1", Bucket: "bucket", AccessKey: "a", SecretKey: "s",
			PathStyle: true})
		if err := b.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := b.Probe(t.Context()); errors.Is(err, ErrUnconditional) != ignores || err != nil && !ignores {
				t.Errorf("the store ignores the header: %t; probe: %v", ignores, err)
			}
		}
		put := func(sum string) error {
			_, err := b.Put(t.Context(), "events/x", strings.NewReader(sum), 1, meta(sum))
			return err
		}
		if err := errors.Join(put("a"), put("a")); err != nil { // an answer may be lost
			t.Errorf("ignores %t: the same object again: %v", ignores, err)
		}
		if _, conflict := errors.AsType[pipeline.ConflictError](put("b")); !conflict {
			t.Errorf("ignores %t: another object under the same key: no conflict", ignores)
		}
		if o, err := b.Head(t.Context(), "events/x"); err != nil || o.Meta.SHA256 != meta("a").SHA256 {
			t.Errorf("ignores %t: the key has %+v, %v; want the first object", ignores, o, err)
		}
	}
}

// A store that knows no conditional PUT at all is refused, with the feature that is missing.
func TestProbeIsRefused(t *testing.T) {
	b := served(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotImplemented) })
	err := b.Probe(t.Context())
	if refused, ok := errors.AsType[pipeline.RefusedError](err); !ok || refused.Missing != pipeline.MissingConditional {
		t.Errorf("got %v, want a refusal for %s", err, pipeline.MissingConditional)
	}
}
