package objstoretest

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/penstock/penstock/internal/objstore"
)

// A gateway may answer a PUT with a wrong ETag. The one that counts is the object's, which a loader sees.
func testWrongETag(t *testing.T, opts objstore.Options, _ *objstore.Bucket) {
	target, err := url.Parse(opts.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		wrong bool
		heads int64 // for three PUTs: each of them, or until the first was right
	}{{"wrong", true, 3}, {"right", false, 1}} {
		var heads atomic.Int64
		proxy := &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
			ModifyResponse: func(r *http.Response) error {
				if r.Request.Method == http.MethodHead {
					heads.Add(1)
				}
				if c.wrong && r.Request.Method == http.MethodPut {
					r.Header.Set("ETag", `"00000000000000000000000000000000"`)
				}
				return nil
			},
		}
		server := httptest.NewServer(proxy)
		defer server.Close()
		opts.Endpoint = server.URL
		b := objstore.Open(opts)
		for i := range 3 {
			key := "events/" + strings.Repeat("x", i+1) + c.name + ".parquet"
			written := put(t, b, key, "bytes")
			head, err := b.Head(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			heads.Add(-1)
			if written.ETag != head.ETag || written.ETag == "" {
				t.Errorf("%s: Put returned the ETag %s, the object's is %s", c.name, written.ETag, head.ETag)
			}
		}
		if got := heads.Load(); got != c.heads {
			t.Errorf("%s: %d HEAD requests for three PUTs, want %d", c.name, got, c.heads)
		}
	}
}
