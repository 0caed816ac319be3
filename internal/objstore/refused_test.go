package objstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// answering is a store that gives the same answers to every PUT and HEAD: a status and, for PUT, a code.
func answering(t *testing.T, put int, code string, head int) *Bucket {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPut:
			if r.Header.Get("If-None-Match") != "*" {
				t.Error("a PUT without its condition")
			}
			w.WriteHeader(put)
			if code != "" {
				fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>as told</Message></Error>`, code)
			}
		case http.MethodHead:
			w.WriteHeader(head)
		default:
			t.Errorf("%s %s", r.Method, r.URL)
		}
	}))
	t.Cleanup(server.Close)
	b := Open(Options{Endpoint: server.URL, Region: "us-east-1", Bucket: "bucket", AccessKey: "a", SecretKey: "s",
		PathStyle: true})
	// The answers stay the same.
	b.client = s3.New(b.client.Options(), func(o *s3.Options) { o.Retryer = aws.NopRetryer{} })
	return b
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		put     int
		code    string
		head    int
		missing string // empty: not refused
		says    string
	}{
		{501, "NotImplemented", 0, pipeline.MissingConditional, "If-None-Match (status 501)"},
		{501, "", 0, pipeline.MissingConditional, "conditional PUT"},
		{400, "InvalidArgument", 0, pipeline.MissingConditional, "If-None-Match (status 400)"},
		{400, "", 0, pipeline.MissingConditional, "conditional PUT"},
		{403, "AccessDenied", 0, pipeline.MissingPut, "s3:PutObject"},
		{405, "MethodNotAllowed", 0, pipeline.MissingOther, "status 405"},
		{413, "EntityTooLarge", 0, pipeline.MissingOther, "EntityTooLarge"},
		{412, "PreconditionFailed", 403, pipeline.MissingGet, "s3:GetObject"},
		{412, "PreconditionFailed", 400, pipeline.MissingGet, "HEAD (status 400)"},
		{412, "PreconditionFailed", 501, pipeline.MissingGet, "HEAD (status 501)"},
		{412, "PreconditionFailed", 404, "", ""}, // it was deleted at this moment
		{412, "PreconditionFailed", 503, "", ""},
		{403, "InvalidAccessKeyId", 0, "", ""},
		{403, "RequestTimeTooSkewed", 0, "", ""},
		{400, "ExpiredToken", 0, "", ""},
		{400, "InvalidRegionName", 0, "", ""},
		{404, "NoSuchBucket", 0, "", ""},
		{409, "ConditionalRequestConflict", 0, "", ""},
		{429, "SlowDown", 0, "", ""},
		{503, "SlowDown", 0, "", ""},
		{500, "InternalError", 0, "", ""},
	} {
		name := fmt.Sprintf("PUT %d %s, HEAD %d", c.put, c.code, c.head)
		b := answering(t, c.put, c.code, c.head)
		_, err := b.Put(context.Background(), "events/x.parquet", bytes.NewReader([]byte("x")), 1, meta("a"))
		if err == nil {
			t.Errorf("%s: the PUT succeeds", name)
			continue
		}
		refusal, refused := errors.AsType[pipeline.RefusedError](err)
		if refused != (c.missing != "") || refusal.Missing != c.missing || !strings.Contains(err.Error(), c.says) ||
			!strings.Contains(err.Error(), "events/x.parquet") {
			t.Errorf("%s: got %q, %v", name, refusal.Missing, err)
		}
		if class := retry.ClassOf(err); refused && class == retry.Permanent {
			t.Errorf("%s: class %s: the object is not at fault", name, class)
		}
	}
}
