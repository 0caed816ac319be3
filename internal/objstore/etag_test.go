package objstore

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// A gateway may answer a PUT with an ETag of its own. The object's real one counts, which a loader sees.
func TestWrongETagOfAPut(t *testing.T) {
	_, m := open(t)
	target, err := url.Parse(m.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []bool{true, false} {
		var heads atomic.Int64
		proxy := &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
			ModifyResponse: func(r *http.Response) error {
				if r.Request.Method == http.MethodHead {
					heads.Add(1)
				}
				if wrong && r.Request.Method == http.MethodPut {
					r.Header.Set("ETag", `"00000000000000000000000000000000"`)
				}
				return nil
			},
		}
		server := httptest.NewServer(proxy)
		defer server.Close()
		b := Open(Options{Endpoint: server.URL, Region: "us-east-1", Bucket: "bucket", AccessKey: m.AccessKey(), SecretKey: m.SecretKey(), PathStyle: true})
		for i := range 3 {
			key := "events/" + strings.Repeat("x", i+1) + map[bool]string{true: "wrong", false: "right"}[wrong] + ".parquet"
			put, err := b.Put(t.Context(), key, bytes.NewReader([]byte("bytes")), 5, meta("a"))
			if err != nil {
				t.Fatal(err)
			}
			head, err := b.Head(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			heads.Add(-1)
			if put.ETag != head.ETag || put.ETag == "" {
				t.Errorf("wrong %v: Put returned the ETag %s, the object's is %s", wrong, put.ETag, head.ETag)
			}
		}
		if want := map[bool]int64{true: 3, false: 1}[wrong]; heads.Load() != want {
			t.Errorf("wrong %v: %d HEAD requests for three PUTs, want %d", wrong, heads.Load(), want)
		}
	}
}
