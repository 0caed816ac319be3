package otlp_test

import (
	"fmt"
	"net/http"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol/protocoltest"
)

// reads is the reaction of exporters: they retry only after 429, 502, 503 and 504.
func reads(a *http.Response, _ []byte) protocoltest.Meaning {
	switch a.StatusCode {
	case http.StatusOK:
		return protocoltest.Done
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return protocoltest.Again
	}
	return protocoltest.Drop
}

func TestJSON(t *testing.T) {
	for _, c := range []struct{ path, open, end, good, bad string }{
		{"/v1/traces", `{"resourceSpans":[{"scopeSpans":[{"spans":[`, `]}]}]}`,
			`{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b17%d","name":%q}`, `{"name":"no ids"}`},
		{"/api/public/otel/v1/traces", `{"resource_spans":[{"scope_spans":[{"spans":[`, `]}]}]}`,
			`{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b17%d","name":%q}`, `{"spanId":"abcd"}`},
		{"/v1/logs", `{"resourceLogs":[{"scopeLogs":[{"logRecords":[`, `]}]}]}`,
			`{"severityNumber":%d,"eventName":%q,"body":{"stringValue":"x"}}`, `{"traceId":"ab"}`},
	} {
		t.Run(c.path, func(t *testing.T) {
			protocoltest.Run(t, protocoltest.Protocol{Route: "otlp", Reads: reads, Code: errcode.InvalidID, Empty: true,
				Request: func(key string, events ...string) *http.Request {
					body := c.open + protocoltest.Join(events, ",", func(i int, name string) string {
						if name == protocoltest.Bad {
							return c.bad
						}
						return fmt.Sprintf(c.good, i, name)
					}) + c.end
					return protocoltest.Bearer(protocoltest.Post(c.path, "application/json", []byte(body)), key)
				}})
		})
	}
}

func TestProtobuf(t *testing.T) {
	for _, c := range []struct {
		path    string
		message func(events []string) proto.Message
	}{{"/v1/traces", spans}, {"/v1/logs", logs}} {
		t.Run(c.path, func(t *testing.T) {
			protocoltest.Run(t, protocoltest.Protocol{Route: "otlp", Reads: reads, Code: errcode.InvalidID, Empty: true,
				Request: func(key string, events ...string) *http.Request {
					body, err := proto.Marshal(c.message(events))
					if err != nil {
						t.Fatal(err)
					}
					return protocoltest.Bearer(protocoltest.Post(c.path, "application/x-protobuf", body), key)
				}})
		})
	}
}

func spans(events []string) proto.Message {
	var all []*tracepb.Span
	for i, name := range events {
		s := &tracepb.Span{Name: name, TraceId: []byte{15: 7}, SpanId: []byte{7: byte(i + 1)},
			TraceState: "a=1,b=2,c=3,d=4,e=5,f=6,g=7"}
		if name == protocoltest.Bad {
			s.SpanId = nil
		}
		all = append(all, s)
	}
	return &tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: all}}}}}
}

func logs(events []string) proto.Message {
	var all []*logspb.LogRecord
	for _, name := range events {
		l := &logspb.LogRecord{EventName: name,
			Body: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "the level was reached after a long " +
				"fight in the dunes"}}}
		if name == protocoltest.Bad {
			l.TraceId = []byte{1}
		}
		all = append(all, l)
	}
	return &logspb.LogsData{ResourceLogs: []*logspb.ResourceLogs{{ScopeLogs: []*logspb.ScopeLogs{{LogRecords: all}}}}}
}
