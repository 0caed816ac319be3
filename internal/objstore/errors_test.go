package objstore

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// An error has the store's code and message, and nothing of hosts and request ids.
func TestErrorsAreBrief(t *testing.T) {
	status, body := 0, ""
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Amz-Id-2", "HOSTID")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	defer store.Close()
	open := func(endpoint string) *Bucket {
		return Open(Options{Endpoint: endpoint, Region: "r", Bucket: "b", AccessKey: "a", SecretKey: "s", PathStyle: true})
	}
	b := open(store.URL)
	for _, tt := range []struct {
		status     int
		body       string
		code, want string
	}{
		{200, "<ListBucketResult/>", "", ""},
		{404, "<Error><Code>NoSuchBucket</Code><Message>It is not here</Message><HostId>HOSTID</HostId></Error>", "NoSuchBucket",
			"list bucket b: NoSuchBucket (status 404): It is not here"},
		{403, "<Error><Code>SignatureDoesNotMatch</Code></Error>", "SignatureDoesNotMatch",
			"list bucket b: SignatureDoesNotMatch (status 403)"},
	} {
		status, body = tt.status, tt.body
		err := b.Ping(t.Context())
		if CodeOf(err) != tt.code || (err == nil) != (tt.want == "") || err != nil && err.Error() != tt.want {
			t.Errorf("%d %s: got %v with code %q, want %q", tt.status, tt.body, err, CodeOf(err), tt.want)
		}
	}
	err := open("http://127.0.0.1:1").Ping(t.Context())
	if want := "list bucket b: dial tcp 127.0.0.1:1: connect: connection refused"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Ping(ended); err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("got %v", err)
	}
}
