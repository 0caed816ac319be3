package objstore

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestOffset(t *testing.T) {
	b, _ := open(t)
	if got, err := b.Offset(t.Context()); err != nil || got.Abs() > 2*time.Second {
		t.Errorf("MinIO on this machine: %s, %v", got, err)
	}
	for _, want := range []time.Duration{-24 * time.Hour, time.Hour} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(-want).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusForbidden)
		}))
		defer server.Close()
		b := Open(Options{Endpoint: server.URL, Region: "us-east-1", Bucket: "bucket", AccessKey: "key", SecretKey: "secret"})
		if got, err := b.Offset(t.Context()); err != nil || (got-want).Abs() > 2*time.Second {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
	}
	gone := Open(Options{Endpoint: "http://127.0.0.1:1", Region: "us-east-1", Bucket: "bucket", AccessKey: "key",
		SecretKey: "secret"})
	if got, err := gone.Offset(t.Context()); err == nil {
		t.Errorf("a store that is away: offset %s", got)
	}
}
