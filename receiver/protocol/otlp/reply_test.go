package otlp_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	collogspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
	"github.com/penstock/penstock/receiver/protocol/otlp"
)

// routeOf returns the route of a path and a content type.
func routeOf(t testing.TB, path, kind string) *protocol.Route {
	t.Helper()
	router, err := protocol.NewRouter(otlp.Routes())
	if err != nil {
		t.Fatal(err)
	}
	return router.Find(path, http.Header{"Content-Type": {kind}})
}

// An error is a google.rpc.Status in the request's encoding. Its HTTP status says whether exporters retry.
func TestErrorReplies(t *testing.T) {
	for _, c := range []struct {
		refused errcode.Code
		status  int // of the reply; 0: the code's
		want    code.Code
	}{
		{errcode.InvalidJSON, 0, code.Code_INVALID_ARGUMENT},
		{errcode.BodyTooLarge, 0, code.Code_INVALID_ARGUMENT},
		{errcode.UnsupportedMediaType, 0, code.Code_INVALID_ARGUMENT},
		{errcode.UnknownKey, 0, code.Code_UNAUTHENTICATED},
		{errcode.WriteNotAllowed, 0, code.Code_PERMISSION_DENIED},
		{errcode.MethodNotAllowed, 0, code.Code_UNIMPLEMENTED},
		{errcode.Timeout, http.StatusServiceUnavailable, code.Code_UNAVAILABLE}, // exporters do not retry after 408
		{errcode.RateLimited, 0, code.Code_UNAVAILABLE},
		{errcode.Busy, 0, code.Code_UNAVAILABLE},
		{errcode.NotStoredYet, 0, code.Code_UNAVAILABLE},
	} {
		o := &protocol.Outcome{Status: c.refused.Status(), Refused: c.refused.Errorf("because \xff")}
		if c.status == 0 {
			c.status = o.Status
		}
		for _, kind := range []string{protobuf, "application/json"} {
			reply := routeOf(t, "/v1/traces", kind).Protocol.Reply(o, nil)
			var got status.Status
			err := proto.Unmarshal(reply.Body, &got)
			if kind != protobuf {
				err = protojson.Unmarshal(reply.Body, &got)
			}
			want := c.refused.String() + ": because \uFFFD"
			if err != nil || reply.Status != c.status || code.Code(got.Code) != c.want || got.Message != want {
				t.Errorf("%s, %s: got status %d and %v, %v, want %d, %s and %q", c.refused, kind, reply.Status, &got, err,
					c.status, c.want, want)
			}
		}
	}
}

// A partly rejected request is a partial success, readable by the collector's own types. The message names a few
// records.
func TestPartialSuccess(t *testing.T) {
	var rejects []protocol.Reject
	for i := range 7 {
		rejects = append(rejects, protocol.Reject{Index: 2 * i, Code: errcode.InvalidID, Message: fmt.Sprint("id ", i)})
	}
	for _, c := range []struct {
		rejects []protocol.Reject
		want    string
	}{
		{nil, ""},
		{rejects[:1], "1 of 20 records are refused: record 0 (invalid_id): id 0"},
		{rejects[:2], "2 of 20 records are refused: record 0 (invalid_id): id 0; record 2 (invalid_id): id 1"},
		{rejects, "7 of 20 records are refused: record 0 (invalid_id): id 0; record 2 (invalid_id): id 1; " +
			"record 4 (invalid_id): id 2; record 6 (invalid_id): id 3; record 8 (invalid_id): id 4"},
	} {
		for _, httpStatus := range []int{http.StatusOK, http.StatusAccepted} {
			o := &protocol.Outcome{Status: httpStatus, Accepted: 20 - len(c.rejects), Found: 20, Rejected: len(c.rejects),
				Rejects: c.rejects}
			for _, kind := range []string{protobuf, "application/json"} {
				decode := proto.Unmarshal
				if kind != protobuf {
					decode = protojson.Unmarshal
				}
				var spans coltracepb.ExportTraceServiceResponse
				var logs collogspb.ExportLogsServiceResponse
				ofSpans := routeOf(t, "/v1/traces", kind).Protocol.Reply(o, nil)
				ofLogs := routeOf(t, "/v1/logs", kind).Protocol.Reply(o, nil)
				if err := decode(ofSpans.Body, &spans); err != nil {
					t.Fatalf("%s: %q: %v", kind, ofSpans.Body, err)
				}
				if err := decode(ofLogs.Body, &logs); err != nil {
					t.Fatalf("%s: %q: %v", kind, ofLogs.Body, err)
				}
				if ofSpans.Status != http.StatusOK || ofLogs.Status != http.StatusOK {
					t.Errorf("%s: status %d and %d, want 200", kind, ofSpans.Status, ofLogs.Status)
				}
				n, text := spans.GetPartialSuccess().GetRejectedSpans(), spans.GetPartialSuccess().GetErrorMessage()
				m, also := logs.GetPartialSuccess().GetRejectedLogRecords(), logs.GetPartialSuccess().GetErrorMessage()
				if int(n) != len(c.rejects) || n != m || text != c.want || also != c.want {
					t.Errorf("%s: got %d %q and %d %q, want %d %q", kind, n, text, m, also, len(c.rejects), c.want)
				}
				if kind != protobuf && !json.Valid(ofSpans.Body) || c.want == "" && strings.Contains(string(ofSpans.Body), "part") {
					t.Errorf("%s: %q", kind, ofSpans.Body)
				}
			}
		}
	}
}
