package objstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// served is a bucket whose requests a function answers.
func served(t *testing.T, answer http.HandlerFunc) *Bucket {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	b := Open(Options{Endpoint: server.URL, Region: "us-east-1", Bucket: "bucket", AccessKey: "a", SecretKey: "s",
		PathStyle: true})
	b.client = s3.New(b.client.Options(), func(o *s3.Options) { o.Retryer = aws.NopRetryer{} })
	return b
}

// Each error names what was asked for, and says whether the object is at fault or the store.
func TestErrorsNameTheObject(t *testing.T) {
	ctx := t.Context()
	calls := map[string]func(b *Bucket) error{
		"get object events/x":          func(b *Bucket) error { _, _, err := b.Get(ctx, "events/x"); return err },
		"head object events/x":         func(b *Bucket) error { _, err := b.Head(ctx, "events/x"); return err },
		"get bytes=3-5 of events/x":    func(b *Bucket) error { _, err := b.GetRange(ctx, "events/x", 3, 5); return err },
		"list events/":                 func(b *Bucket) error { return b.List(ctx, "events/", "", "", nil) },
		"list bucket bucket":           func(b *Bucket) error { return b.Ping(ctx) },
		"create bucket bucket":         func(b *Bucket) error { return b.Create(ctx) },
		"read notification rules of b": func(b *Bucket) error { return b.Notify(ctx, pipeline.Specs(), nil, nil) },
	}
	for what, call := range calls {
		for status, want := range map[int]retry.Class{503: retry.Outage, 403: retry.Outage, 404: retry.Outage} {
			b := served(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
			err := call(b)
			if err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("%d: %v, want %q", status, err, what)
			}
			if strings.Contains(what, "object") && status == 404 {
				want = retry.Permanent
			}
			if got := retry.ClassOf(err); got != want && status != 404 {
				t.Errorf("%s, %d: class %s, want %s", what, status, got, want)
			}
		}
	}
}

// A caller that has given up gets its own error: that is no outage.
func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := served(t, func(http.ResponseWriter, *http.Request) {})
	if _, err := b.Head(ctx, "events/x"); err == nil || retry.ClassOf(err) == retry.Outage {
		t.Errorf("got %v of class %s", err, retry.ClassOf(err))
	}
}

// Metadata of ours that is broken, and a range that the object has not, are the object's own fault.
func TestObjectsAtFault(t *testing.T) {
	broken := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Amz-Meta-Penstock-Schema", "three")
	}
	b := served(t, broken)
	if o, err := b.Head(t.Context(), "events/x"); err != nil || o.Key != "events/x" || o.Meta != (pipeline.Meta{}) {
		t.Errorf("HEAD: %+v, %v; want the object without its broken metadata", o, err)
	}
	_, _, getErr := b.Get(t.Context(), "events/x")
	if f, ok := errors.AsType[*pipeline.FileError](getErr); !ok || !f.Final || f.Code != "invalid_metadata" {
		t.Errorf("got %v, want a final error", getErr)
	}
	short := served(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ab") })
	_, rangeErr := short.GetRange(t.Context(), "events/x", 0, 9)
	for what, err := range map[string]error{`object events/x: metadata schema "three"`: getErr, "it has only 2 of these bytes": rangeErr} {
		if retry.ClassOf(err) != retry.Permanent || !strings.Contains(err.Error(), what) {
			t.Errorf("got %v of class %s, want a permanent error with %q", err, retry.ClassOf(err), what)
		}
	}
}

// A key that a store writes in a way that cannot be read is an error, and no other key.
func TestListedKeys(t *testing.T) {
	page := func(encoding, key string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `<ListBucketResult><EncodingType>%s</EncodingType><Contents><Key>%s</Key><Size>7</Size>`+
				`<ETag>"e"</ETag></Contents></ListBucketResult>`, encoding, key)
		}
	}
	for _, tt := range []struct{ encoding, key, want string }{
		{"url", "events/a%20b+c%01", "events/a b c\x01"},
		{"", "events/a%20b", "events/a%20b"}, // a store that does not know of it
	} {
		var got []string
		err := served(t, page(tt.encoding, tt.key)).List(t.Context(), "events/", "", "", func(p []pipeline.Object) error {
			for _, o := range p {
				got = append(got, o.Key)
			}
			return nil
		})
		if diff := cmp.Diff([]string{tt.want}, got); diff != "" || err != nil {
			t.Errorf("%s %s: %v (-want +got):\n%s", tt.encoding, tt.key, err, diff)
		}
	}
	err := served(t, page("url", "events/%zz")).List(t.Context(), "events/", "", "",
		func([]pipeline.Object) error { return nil })
	if err == nil || !strings.Contains(err.Error(), `key "events/%zz" in the store's answer`) {
		t.Errorf("got %v", err)
	}
}
