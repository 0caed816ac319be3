package objstore_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/objstore/objstoretest"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// r2 is a store with the rules that Cloudflare documents for R2's S3 API (developers.cloudflare.com, r2/api/s3/api and
// r2/platform/limits, as of June 2026). It refuses what these pages do not list as implemented.
type r2 struct {
	store http.Handler

	mu      sync.Mutex
	written map[string]time.Time // when a path was last written
	limited int                  // requests that got 429
}

var (
	scopeRegion = regexp.MustCompile(`Credential=[^/]+/[^/]+/([^/]*)/s3/`)

	// Headers and parameters of the operations that Penstock uses. R2 implements no ACLs, no tags, no versions, no
	// notifications, no object locks and no signed streams.
	r2Headers = []string{"X-Amz-Date", "X-Amz-Content-Sha256"}
	r2Queries = []string{"list-type", "prefix", "start-after", "continuation-token", "max-keys", "encoding-type", "x-id"}
)

func newR2() *r2 {
	return &r2{store: gofakes3.New(s3mem.New()).Server(), written: map[string]time.Time{}}
}

func (f *r2) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if region := scopeRegion.FindStringSubmatch(r.Header.Get("Authorization")); region == nil ||
		!slices.Contains([]string{"auto", "us-east-1", ""}, region[1]) {
		r2Error(w, http.StatusBadRequest, "InvalidRegionName", fmt.Sprintf("The region name %q is not valid.", region))
		return
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Amz-") && !strings.HasPrefix(name, "X-Amz-Meta-") && !slices.Contains(r2Headers, name) {
			r2Error(w, http.StatusNotImplemented, "NotImplemented", "Header "+name+" not implemented")
			return
		}
	}
	if sum := r.Header.Get("X-Amz-Content-Sha256"); strings.HasPrefix(sum, "STREAMING") {
		r2Error(w, http.StatusNotImplemented, "NotImplemented", sum+" not implemented")
		return
	}
	for name := range r.URL.Query() {
		if !slices.Contains(r2Queries, name) {
			r2Error(w, http.StatusNotImplemented, "NotImplemented", name+" not implemented")
			return
		}
	}
	if isObject := strings.Contains(strings.Trim(r.URL.Path, "/"), "/"); !isObject || r.Method != http.MethodPut &&
		r.Method != http.MethodDelete {
		f.store.ServeHTTP(w, r)
		return
	}
	if !f.mayWrite(r.URL.Path) {
		r2Error(w, http.StatusTooManyRequests, "TooManyRequests",
			"Reduce your concurrent request rate for the same object.")
		return
	}
	answer := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	f.store.ServeHTTP(answer, r)
	if answer.status < 300 {
		f.mu.Lock()
		f.written[r.URL.Path] = time.Now()
		f.mu.Unlock()
	}
}

// mayWrite reports whether a second has passed since a key was written.
func (f *r2) mayWrite(path string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.written[path]) < time.Second {
		f.limited++
		return false
	}
	return true
}

func r2Error(w http.ResponseWriter, status int, code, message string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message></Error>", code, message)
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// TestR2 runs the suite under R2's rules: the region auto, no checksum trailers, no versions, and a second between two
// writes of one key.
func TestR2(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(newR2())
	t.Cleanup(server.Close)
	open := buckets(server.URL, "key", "secret")
	objstoretest.Test(t, func(t *testing.T) objstore.Options {
		o := open(t)
		o.Region = "auto"
		return o
	})
}

// The probe and a claim write a key twice within a second. R2 answers 429 to the second, which waits and succeeds.
func TestR2WritesOfOneKey(t *testing.T) {
	t.Parallel()
	fake := newR2()
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	b := objstore.Open(objstore.Options{Endpoint: server.URL, Region: "auto", Bucket: "bucket", AccessKey: "key",
		SecretKey: "secret", PathStyle: true})
	if err := b.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Probe(t.Context()); err != nil {
		t.Errorf("probe: %v", err)
	}
	c, ok, err := b.Claim(t.Context(), "sweep", "me", time.Minute)
	if !ok || err != nil {
		t.Fatalf("claim: got %t, %v", ok, err)
	}
	if err := c.Release(t.Context()); err != nil {
		t.Errorf("release: %v", err)
	}
	if fake.limited < 2 {
		t.Errorf("%d requests got 429, want one of the probe and one of the claim at least", fake.limited)
	}
}

// What R2 does not do is an outage with its own words, and no object's fault.
func TestR2Refuses(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(newR2())
	t.Cleanup(server.Close)
	opts := objstore.Options{Endpoint: server.URL, Region: "auto", Bucket: "bucket", AccessKey: "key", SecretKey: "secret",
		PathStyle: true}
	b := objstore.Open(opts)
	if err := b.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	opts.Region = "eu-central-1"
	elsewhere := objstore.Open(opts)
	_, put := elsewhere.Put(t.Context(), "events/x", strings.NewReader("x"), 1, pipeline.Meta{})
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"a wrong region":          {elsewhere.Ping(t.Context()), "InvalidRegionName (status 400)"},
		"a PUT to a wrong region": {put, "InvalidRegionName (status 400)"},
		"notification rules": {b.Notify(t.Context(), pipeline.Specs(), map[string]string{}, nil),
			"read notification rules of bucket: NotImplemented (status 501)"},
	} {
		if tt.err == nil || !strings.Contains(tt.err.Error(), tt.want) || retry.ClassOf(tt.err) != retry.Outage {
			t.Errorf("%s: got %v of class %s, want an outage with %q", name, tt.err, retry.ClassOf(tt.err), tt.want)
		}
		if refused, ok := errors.AsType[pipeline.RefusedError](tt.err); ok {
			t.Errorf("%s: got a refusal for %q", name, refused.Missing)
		}
	}
}
