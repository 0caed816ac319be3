package otlp_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/protocol"
	"github.com/penstock/penstock/receiver/receivertest"
)

const key = receivertest.Key

func textValue(s string) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: s}}
}

func intValue(n int64) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: n}}
}

func floatValue(f float64) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: f}}
}

func arrayValue(all ...*commonpb.AnyValue) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{Values: all}}}
}

func listValue(all ...*commonpb.KeyValue) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_KvlistValue{KvlistValue: &commonpb.KeyValueList{Values: all}}}
}

func attribute(key string, v *commonpb.AnyValue) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: v}
}

// protobuf is the content type.
const protobuf = "application/x-protobuf"

var (
	traceID = []byte{0: 0x5b, 15: 0x01}
	spanID  = []byte{0: 0xee, 7: 0x02}
)

const (
	traceHex = "5b000000000000000000000000000001"
	spanHex  = "ee00000000000002"
	nano     = 1795319112345678901
)

// oneSpan returns a request with these spans, a resource and a scope.
func oneSpan(s ...*tracepb.Span) *tracepb.TracesData {
	return &tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{attribute("service.name", textValue("shop")),
			attribute("telemetry.sdk.name", textValue("opentelemetry")), attribute("telemetry.sdk.version", textValue("1.2"))}},
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: &commonpb.InstrumentationScope{Name: "llm", Version: "3"}, Spans: s}},
		SchemaUrl:  "https://schema"}}}
}

func oneLog(l ...*logspb.LogRecord) *logspb.LogsData {
	return &logspb.LogsData{ResourceLogs: []*logspb.ResourceLogs{{
		Resource:  &resourcepb.Resource{Attributes: []*commonpb.KeyValue{attribute("session.id", textValue("of-resource"))}},
		ScopeLogs: []*logspb.ScopeLogs{{LogRecords: l}}}}}
}

// bodies returns the message in both encodings, by content type.
func bodies(t testing.TB, m proto.Message) map[string][]byte {
	t.Helper()
	wire, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	m = proto.Clone(m)
	switch m := m.(type) {
	case *tracepb.TracesData:
		for _, s := range m.ResourceSpans[0].ScopeSpans[0].Spans {
			err = hexIDs(s)
		}
	case *logspb.LogsData:
		for _, l := range m.ResourceLogs[0].ScopeLogs[0].LogRecords {
			err = hexIDs(l)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := (protojson.MarshalOptions{UseEnumNumbers: true}).Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{protobuf: wire, "application/json": text}
}

func send(r *receiver.Receiver, path, kind string, body []byte) *httptest.ResponseRecorder {
	w := intake.Do(r, receivertest.WithKey(intake.Post(path, string(body), "Content-Type", kind)))
	return w
}

const inEnvelope = `"resource":{"service.name":"shop","telemetry.sdk.name":"opentelemetry","telemetry.sdk.version":"1.2"},"schema_url":"https://schema","scope":{"name":"llm","version":"3"},`

func TestRecords(t *testing.T) {
	genai := []*commonpb.KeyValue{attribute("gen_ai.system", textValue("openai")),
		attribute("gen_ai.usage.prompt_tokens", intValue(9)), attribute("gen_ai.response.finish_reason", textValue("stop")),
		attribute("user.id", intValue(7)), attribute("session.id", textValue("s")),
		attribute("gen_ai.conversation.id", textValue("c"))}
	for _, c := range []struct {
		what                            string
		m                               proto.Message
		name, user, session, properties string
		time                            int64
		context                         string
	}{
		{"span", oneSpan(&tracepb.Span{TraceId: traceID, SpanId: spanID, ParentSpanId: spanID, Name: "chat gpt",
			Kind: tracepb.Span_SPAN_KIND_CLIENT, StartTimeUnixNano: nano, EndTimeUnixNano: nano + 1500000,
			Attributes: []*commonpb.KeyValue{attribute("enduser.id", textValue("u")),
				attribute("gen_ai.request.model", textValue("m"))},
			Status: &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: "no"}}),
			"chat gpt", "u", "", `{"enduser.id":"u","gen_ai.request.model":"m","trace_id":"` + traceHex + `","span_id":"` +
				spanHex + `","parent_span_id":"` + spanHex +
				`","duration_ms":1.5,"kind":"client","status":"error","status_message":"no",` +
				`"$envelope":{` + inEnvelope + `"start_time_unix_nano":1795319112345678901}}`, nano / 1000000,
			`"sdk":{"name":"opentelemetry","version":"1.2"}}`},
		{"values", oneSpan(&tracepb.Span{TraceId: traceID, SpanId: spanID, Attributes: []*commonpb.KeyValue{
			attribute("int", intValue(math.MinInt64)), attribute("float", floatValue(1)),
			attribute("nan", floatValue(math.NaN())), attribute("inf", floatValue(math.Inf(-1))),
			attribute("big", floatValue(1e300)),
			attribute("bytes", &commonpb.AnyValue{Value: &commonpb.AnyValue_BytesValue{BytesValue: []byte{1, 2, 255}}}),
			attribute("bool", &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: true}}),
			attribute("array", arrayValue(intValue(1), arrayValue(), textValue("é\n"))),
			attribute("map", listValue(attribute("a.b", intValue(1)), attribute("a.b", intValue(2)),
				attribute("none", &commonpb.AnyValue{}))),
			attribute("twice", intValue(1)), attribute("twice", intValue(2)), attribute("span_id", textValue("mine"))}}),
			"span", "", "",
			`{"int":-9223372036854775808,"float":1.0,"nan":"NaN","inf":"-Infinity","big":1e+300,"bytes":"AQL/","bool":true,"array":[1,[],"é\n"],"map":{"a.b":2,"none":null},"twice":2,"span_id":"mine",` +
				`"trace_id":"` + traceHex + `","kind":"unspecified","status":"unset","$envelope":{` + inEnvelope + `"span_id":"` +
				spanHex + `"}}`, pipeline.NoTime, ""},
		{"events and links", oneSpan(&tracepb.Span{TraceId: traceID, SpanId: spanID, Name: "n", TraceState: "a=b", Flags: 257,
			DroppedLinksCount: 3, EndTimeUnixNano: 5,
			Events: []*tracepb.Span_Event{{Name: "exception", TimeUnixNano: nano,
				Attributes: []*commonpb.KeyValue{attribute("x", intValue(1))}}, {}},
			Links: []*tracepb.Span_Link{{TraceId: traceID, SpanId: spanID, TraceState: "t"}}}),
			"n", "", "", `{"trace_id":"` + traceHex + `","span_id":"` + spanHex +
				`","kind":"unspecified","status":"unset","events":[{"name":"exception","time_unix_nano":1795319112345678901,"attributes":{"x":1}},{}],` +
				`"links":[{"trace_id":"` + traceHex + `","span_id":"` + spanHex + `","trace_state":"t"}],"$envelope":{` +
				inEnvelope + `"end_time_unix_nano":5,"trace_state":"a=b","flags":257,"dropped_links_count":3}}`, pipeline.NoTime,
			""},
		{"older names", oneSpan(&tracepb.Span{TraceId: traceID, SpanId: spanID, Name: strings.Repeat("é", 200),
			Attributes: genai}),
			strings.Repeat("é", 128), "7", "c",
			`{"gen_ai.system":"openai","gen_ai.usage.prompt_tokens":9,"gen_ai.response.finish_reason":"stop","user.id":7,"session.id":"s","gen_ai.conversation.id":"c",` +
				`"gen_ai.provider.name":"openai","gen_ai.usage.input_tokens":9,"gen_ai.response.finish_reasons":["stop"],"trace_id":"` + traceHex + `","span_id":"` + spanHex + `","kind":"unspecified","status":"unset","$envelope":{` +
				inEnvelope + `"name":"` + strings.Repeat("é", 200) + `"}}`, pipeline.NoTime, ""},
		{"log", oneLog(&logspb.LogRecord{TimeUnixNano: nano, ObservedTimeUnixNano: nano + 1,
			SeverityNumber: logspb.SeverityNumber_SEVERITY_NUMBER_WARN, Body: textValue("hot"), TraceId: traceID, SpanId: spanID,
			Attributes: []*commonpb.KeyValue{attribute("event.name", textValue("heat"))}}),
			"heat", "", "of-resource", `{"event.name":"heat","body":"hot","severity":"WARN","severity_number":13,"trace_id":"` +
				traceHex + `","span_id":"` + spanHex + `",` +
				`"$envelope":{"resource":{"session.id":"of-resource"},"time_unix_nano":1795319112345678901,"observed_time_unix_nano":1795319112345678902}}`, nano / 1000000, ""},
		{"structured log", oneLog(&logspb.LogRecord{ObservedTimeUnixNano: nano, SeverityText: "note", EventName: "e",
			Body: listValue(attribute("a", arrayValue(intValue(1)))), TraceId: make([]byte, 16),
			Attributes: []*commonpb.KeyValue{attribute("severity", intValue(1))}}),
			"e", "", "of-resource",
			`{"severity":1,"body":{"a":[1]},"$envelope":{"resource":{"session.id":"of-resource"},"severity":"note","observed_time_unix_nano":1795319112345678901}}`, nano / 1000000, ""},
		{"bare log", &logspb.LogsData{ResourceLogs: []*logspb.ResourceLogs{{ScopeLogs: []*logspb.ScopeLogs{{LogRecords: []*logspb.LogRecord{{}}}}}}}, "log", "", "", `{}`, pipeline.NoTime, ""},
	} {
		path, empty := "/v1/traces", ""
		if _, ok := c.m.(*logspb.LogsData); ok {
			path = "/v1/logs"
		}
		for kind, body := range bodies(t, c.m) {
			r, s := receivertest.Start(nil)
			for range 2 {
				w := send(r, path, kind, body)
				if empty = ""; kind != protobuf {
					empty = "{}\n"
				}
				if w.Code != 200 || w.Body.String() != empty || w.Header().Get("Content-Type") != kind {
					t.Fatalf("%s, %s: got %d %q, %d events", c.what, kind, w.Code, w.Body, len(s.Events))
				}
			}
			e := s.Events[0]
			if len(s.Events) != 2 || e.Identity() != s.Events[1].Identity() {
				t.Errorf("%s, %s: sent twice, it is not the same: %+v", c.what, kind, s.Events)
			}
			if string(e.Name) != c.name || string(e.UserID) != c.user || string(e.SessionID) != c.session ||
				e.Timestamp != c.time || !strings.HasSuffix(string(e.Context), c.context) {
				t.Errorf("%s, %s: got %+v", c.what, kind, e)
			}
			if string(e.Properties) != c.properties {
				t.Errorf("%s, %s: got\n%s\nwant\n%s", c.what, kind, e.Properties, c.properties)
			}
			if path == "/v1/traces" && e.ID != pipeline.UUIDv5([]byte("game"), []byte(traceHex+"/"+spanHex)) {
				t.Errorf("%s: id %s", c.what, e.ID)
			}
		}
	}
}

// A body over several lines, some of which begin with brackets, is read as one.
func TestOverLines(t *testing.T) {
	m := oneSpan(&tracepb.Span{TraceId: traceID, SpanId: spanID, Name: "a"},
		&tracepb.Span{TraceId: traceID, SpanId: []byte{7: 3}, Name: "b"})
	compact := bodies(t, m)["application/json"]
	for _, c := range []string{"{", "[", ",", "}", "]"} {
		r, s := receivertest.Start(nil)
		body := bytes.ReplaceAll(compact, []byte(c), []byte("\n"+c+"\r\n"))
		if w := send(r, "/v1/traces", "application/json", body); w.Code != 200 || w.Body.String() != "{}\n" ||
			len(s.Events) != 2 {
			t.Errorf("line ends around %q: got %d %s, %d events", c, w.Code, w.Body, len(s.Events))
		}
	}
}

// A bad attribute is kept, and its neighbours are not rejected.
func TestPartly(t *testing.T) {
	good := &tracepb.Span{TraceId: traceID, SpanId: spanID, Name: "good"}
	deep := intValue(1)
	for range 70 {
		deep = arrayValue(deep)
	}
	for _, c := range []struct {
		what string
		bad  *tracepb.Span
		code string
	}{
		{"no id", &tracepb.Span{Name: "bad"}, "invalid_id"},
		{"zero id", &tracepb.Span{TraceId: make([]byte, 16), SpanId: spanID}, "invalid_id"},
		{"time", &tracepb.Span{TraceId: traceID, SpanId: spanID, StartTimeUnixNano: math.MaxUint64}, "invalid_timestamp"},
		{"envelope", &tracepb.Span{TraceId: traceID, SpanId: spanID,
			Attributes: []*commonpb.KeyValue{attribute(protocol.EnvelopeKey, intValue(1))}}, "duplicate_key"},
		{"nul", &tracepb.Span{TraceId: traceID, SpanId: spanID,
			Attributes: []*commonpb.KeyValue{attribute("a\x00", intValue(1))}}, "nul_character"},
		{"deep", &tracepb.Span{TraceId: traceID, SpanId: spanID, Attributes: []*commonpb.KeyValue{attribute("a", deep)}},
			"too_deep"},
		{"user", &tracepb.Span{TraceId: traceID, SpanId: spanID,
			Attributes: []*commonpb.KeyValue{attribute("user.id", textValue(strings.Repeat("u", 1025)))}}, "field_too_long"},
		{"large", &tracepb.Span{TraceId: traceID, SpanId: spanID,
			Attributes: []*commonpb.KeyValue{attribute("a", textValue(strings.Repeat("u", 3<<20)))}}, "event_too_large"},
		{"large as JSON", &tracepb.Span{TraceId: traceID, SpanId: spanID,
			Attributes: []*commonpb.KeyValue{attribute("a", textValue(strings.Repeat("\x01", 1<<20)))}}, "event_too_large"},
	} {
		for kind, body := range bodies(t, oneSpan(good, c.bad, good)) {
			r, s := receivertest.Start(func(o *receiver.Options) { o.MaxBody, o.MaxDecoded = 1<<24, 1<<25 })
			w := send(r, "/v1/traces", kind, body)
			if w.Code != 200 || s.Names() != "good good" || len(s.Failures) != 1 {
				t.Fatalf("%s, %s: %d %s, %s, %d failures", c.what, kind, w.Code, w.Body, s.Names(), len(s.Failures))
			}
			message := ""
			if kind == protobuf {
				part, _ := protowire.ConsumeBytes(w.Body.Bytes()[1:])
				number, n := protowire.ConsumeVarint(part[1:])
				text, _ := protowire.ConsumeBytes(part[1+n+1:])
				if message = string(text); number != 1 {
					t.Errorf("%s: %d are refused", c.what, number)
				}
			} else {
				var a struct {
					PartialSuccess struct{ RejectedSpans, ErrorMessage string }
				}
				if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || a.PartialSuccess.RejectedSpans != "1" {
					t.Errorf("%s: %v %s", c.what, err, w.Body)
				}
				message = a.PartialSuccess.ErrorMessage
			}
			f := s.Failures[0]
			if !strings.HasPrefix(message, "1 of 3 records are refused: record 1 ("+c.code+"): ") || f.Code != c.code ||
				f.Index != 1 {
				t.Errorf("%s, %s: %q, %+v", c.what, kind, message, f.Code)
			}
			if want := "application/json"; f.ContentType != want && c.what != "large" {
				t.Errorf("%s, %s: kept as %s", c.what, kind, f.ContentType)
			}
			// A kept record is redriven alone: by a receiver with other limits, or after it was fixed.
			r, s = receivertest.Start(func(o *receiver.Options) { o.MaxDepth, o.MaxEvent = 200, 1<<24 })
			out, err := r.Redrive(context.Background(),
				receiver.Redrive{ID: pipeline.NewUUIDv7(1), Project: "game", Body: f.Raw, ContentType: f.ContentType, Path: f.Path,
					Event: true})
			switch {
			case err != nil:
				t.Errorf("%s, %s: %v", c.what, kind, err)
			case c.what == "deep" || strings.HasPrefix(c.what, "large"):
				if out.Accepted != 1 || !strings.Contains(string(s.Events[0].Properties), `"service.name":"shop"`) {
					t.Errorf("%s, %s: redriven %+v", c.what, kind, out)
				}
			case out.Code != c.code:
				t.Errorf("%s, %s: redriven %+v", c.what, kind, out)
			}
		}
	}
}

// The error quotes a wrong id as sent.
func TestWrongID(t *testing.T) {
	for record, says := range map[string]string{
		`"traceId":"zz"`: `traceId "zz": want`,
		`"traceId":"` + traceHex + `","spanId":"5b00"`:                                           `spanId "5b00": want`,
		`"trace\u0049d":"zw==","spanId":"zz"`:                                                    `traceId "zw==": want`,
		`"links":[{"traceId":"` + traceHex + `"},{"spanId":"abc"}],"traceId":"` + traceHex + `"`: `spanId "abc": want`,
	} {
		r, s := receivertest.Start(nil)
		send(r, "/v1/traces", "application/json", []byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[{`+record+`}]}]}]}`))
		if len(s.Failures) != 1 || s.Failures[0].Code != "invalid_id" || !strings.HasPrefix(s.Failures[0].Message, says) {
			t.Errorf("%s: %+v", record, s.Failures)
		}
	}
}

// Names are decoded, and a list in several parts is read completely.
func TestNames(t *testing.T) {
	span := fmt.Sprintf(`{"traceId":%q,"spanId":%q}`, traceHex, spanHex)
	for body, want := range map[string]int{
		`{"resourceSpans":[{"scopeSpans":[{"sp\u0061ns":[` + span + `]}]}]}`:                                           1,
		`{"resourceSpan\u0073":[{"scop\u0065Spans":[{"spans":[` + span + `]}],"r\u0065source":{}}]}`:                   1,
		`{"resourceSpans":[{"scopeSpans":[{"spans":[` + span + `],"sp\u0061ns":[` + span + `]}]}],"resourceSpans":[]}`: 2,
		`{"resource_spans":[{"scope_spans":[{"spans":[` + span + `]}]}]}`:                                              1,
		`{}`: 0,
		`{"resourceSpans":[],"resourceSpans":[{"scopeSpans":[{"spans":[` + span +
			`]}],"scopeSpans":[]}],"resource\u0053":[]}`: 1,
	} {
		r, s := receivertest.Start(nil)
		if w := send(r, "/v1/traces", "application/json", []byte(body)); w.Code != 200 || len(s.Events) != want {
			t.Errorf("%s: got %d %s, %d events", body, w.Code, w.Body, len(s.Events))
		}
	}
}

func TestRejected(t *testing.T) {
	full := fmt.Sprintf(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":%q,"spanId":%q}]}]}]}`, traceHex, spanHex)
	for _, c := range []struct {
		kind, body   string
		status, code int
		says         string
	}{
		{"application/json", ``, 400, 3, "empty_body"},
		{"application/json", `[]`, 400, 3, "invalid_json"},
		{"application/json", `{"resourceSpans":[}`, 400, 3, "invalid_json"},
		{"application/json", `{"resourceSpans":{}}`, 400, 3, "invalid_otlp"},
		{"application/json", `{"resourceLogs":[]}`, 400, 3, "invalid_otlp"},
		{"application/json", `{"resourceSpans":[7]}`, 400, 3, "invalid_otlp"},
		{"application/json", `{"resourceSpans":[{"scopeSpans":[null]}]}`, 400, 3, "invalid_otlp"},
		{"application/json", `{"resourceSpans":[{"resource":{"attributes":7},"scopeSpans":[]}]}`, 400, 3, "invalid_otlp"},
		{"application/json", `{"resourceSpans":[{"scopeSpans":[{"scope":[],"spans":[]}]}]}`, 400, 3, "invalid_otlp"},
		{"application/json", `{"resourceSpans":[{"scopeSpans":[{"spans":[7]}]}]}`, 400, 3, "invalid_otlp"},
		{"application/json", `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz"}]}]}]}`, 400, 3, "invalid_id"},
		{"application/json", `{"resourceSpans":[{"resource":{},"resourc\u0065":{},"scopeSpans":[]}]}`, 400, 3,
			"duplicate_key"},
		{"application/json", `{"resourceSpans":[{"scopeSpans":[{"schemaUrl":"","schemaUrl":"","spans":[]}]}]}`, 400, 3,
			"duplicate_key"},
		{"application/json", strings.Replace(full, `{"traceId"`, `{"name":"\x","traceId"`, 1), 400, 3, "invalid_otlp"},
		{"application/json", strings.Replace(full, `{"traceId"`, `{"kind":NaN,"traceId"`, 1), 400, 3, "invalid_otlp"},
		{"application/json", full + "x", 400, 3, "invalid_json"},
		{"application/json", strings.Replace(full, `"scopeSpans"`, `x"scopeSpans"`, 1), 400, 3, "invalid_json"},
		{"application/xml", full, 415, 3, "unsupported_media_type"},
		{protobuf, full, 400, 3, "invalid_otlp"},
		{protobuf, "\x0a\x05abc", 400, 3, "invalid_otlp"},
		{protobuf, "\x0a\x04\x12\x02\x12\x07", 400, 3, "invalid_otlp"},
		{protobuf, "\x0a\x02\x0a\x01", 400, 3, "invalid_otlp"},
		{protobuf, "\x0a\x06\x12\x04\x12\x02\x2a\x07", 400, 3, "invalid_otlp"},
	} {
		r, s := receivertest.Start(nil)
		w := send(r, "/v1/traces", c.kind, []byte(c.body))
		var code int
		var message string
		if c.kind == "application/x-protobuf" {
			number, n := protowire.ConsumeVarint(w.Body.Bytes()[1:])
			text, _ := protowire.ConsumeBytes(w.Body.Bytes()[1+n+1:])
			code, message = int(number), string(text)
		} else {
			var a struct {
				Code    int
				Message string
			}
			if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
				t.Error(err)
			}
			code, message = a.Code, a.Message
		}
		if w.Code != c.status || code != c.code || !strings.Contains(message, c.says) || len(s.Events) != 0 ||
			len(s.Failures) != 1 || s.Failures[0].Code != c.says {
			t.Errorf("%s %q: got %d %d %q, %+v", c.kind, c.body, w.Code, code, message, s.Failures)
			continue
		}
		if f := s.Failures[0]; f.Index < 0 && (string(f.Raw) != c.body || f.ContentType != c.kind) {
			t.Errorf("%q: kept %q as %s", c.body, f.Raw, f.ContentType)
		}
	}
	// A request with nothing in it is valid.
	for kind, body := range map[string]string{protobuf: "", "application/json": `{"resourceSpans":null,"more":[{}]}`} {
		r, s := receivertest.Start(nil)
		if w := send(r, "/v1/logs", kind, []byte(body)); w.Code != 200 || len(s.Failures) != 0 || s.Appends != 0 {
			t.Errorf("%s: got %d %s", kind, w.Code, w.Body)
		}
	}
	r, _ := receivertest.Start(nil)
	w := intake.Do(r, intake.Post("/v1/logs", "", "Content-Type", protobuf))
	if w.Code != 401 || w.Header().Get("Content-Type") != protobuf || w.Body.Bytes()[1] != 16 {
		t.Errorf("without a key: %d %q", w.Code, w.Body)
	}
	r, s := receivertest.Start(nil)
	s.Err = context.DeadlineExceeded
	if w := send(r, "/v1/traces", "application/json", []byte(full)); w.Code != 503 ||
		w.Header().Get("Retry-After") != "7" || !strings.HasPrefix(w.Body.String(), `{"code":14,`) {
		t.Errorf("not taken: %d %s", w.Code, w.Body)
	}
}

// Two equal records of one request are two rows.
func TestEqualRecords(t *testing.T) {
	l := &logspb.LogRecord{TimeUnixNano: nano, Body: textValue("again")}
	for kind, body := range bodies(t, oneLog(l, l)) {
		r, s := receivertest.Start(nil)
		send(r, "/v1/logs", kind, body)
		if len(s.Events) != 2 || s.Events[0].ID == s.Events[1].ID {
			t.Errorf("%s: %+v", kind, s.Events)
		}
	}
}

// A request's limits also apply to copies of the resource.
func TestLimits(t *testing.T) {
	var many []*tracepb.Span
	for i := range 60 {
		many = append(many, &tracepb.Span{TraceId: traceID, SpanId: []byte{7: byte(i + 1)}})
	}
	large := oneSpan(many...)
	large.ResourceSpans[0].Resource.Attributes[0] = attribute("a", textValue(strings.Repeat("r", 1<<19)))
	values := make([]*commonpb.AnyValue, 1<<18+1)
	for i := range values {
		values[i] = &commonpb.AnyValue{}
	}
	for _, c := range []struct {
		m      *tracepb.TracesData
		with   func(*receiver.Options)
		status int
		code   string
	}{
		{oneSpan(many...), func(o *receiver.Options) { o.MaxEvents = 59 }, 413, "too_many_events"},
		{oneSpan(many...), func(o *receiver.Options) { o.MaxEvents = 60 }, 200, ""},
		{large, nil, 413, "decoded_too_large"},
		{large, func(o *receiver.Options) { o.MaxEvent = 1 << 18 }, 400, "event_too_large"},
		{oneSpan(&tracepb.Span{TraceId: traceID, SpanId: spanID,
			Attributes: []*commonpb.KeyValue{attribute("a", arrayValue(values...))}}), nil, 400, "event_too_large"},
	} {
		for kind, body := range bodies(t, c.m) {
			r, s := receivertest.Start(c.with)
			w := send(r, "/v1/traces", kind, body)
			code := ""
			if len(s.Failures) > 0 {
				code = s.Failures[0].Code
			}
			if w.Code != c.status || code != c.code {
				t.Errorf("%s: got %d %.200q, %s, want %d %s", kind, w.Code, w.Body, code, c.status, c.code)
			}
		}
	}
}

func fuzz(f *testing.F, kind string) {
	for _, m := range []proto.Message{
		oneSpan(&tracepb.Span{TraceId: traceID, SpanId: spanID, Name: "a", StartTimeUnixNano: nano,
			Attributes: []*commonpb.KeyValue{attribute("gen_ai.system", textValue("x")),
				attribute("m", listValue(attribute("a", floatValue(1.5))))},
			Events: []*tracepb.Span_Event{{Name: "e"}}, Links: []*tracepb.Span_Link{{TraceId: traceID}}}, &tracepb.Span{}),
		oneLog(&logspb.LogRecord{Body: arrayValue(textValue("x"), intValue(1)), TraceId: traceID}, &logspb.LogRecord{}),
	} {
		_, isLog := m.(*logspb.LogsData)
		f.Add(bodies(f, m)[kind], isLog)
	}
	r, s := receivertest.Start(func(o *receiver.Options) {
		o.MaxEvents, o.MaxEvent, o.MaxDepth, o.MaxBody, o.MaxDecoded = 50, 2000, 20, 1<<20, 1<<20
	})
	f.Fuzz(func(t *testing.T, body []byte, isLog bool) {
		path := "/v1/traces"
		if isLog {
			path = "/v1/logs"
		}
		s.Forget()
		w := send(r, path, kind, body)
		s.CheckSound(t)
		if w.Code != 200 && (w.Code < 400 || w.Code > 499 || len(s.Events) > 0 || len(s.Failures) == 0) {
			t.Fatalf("got %d %q, %d events, failure records %s", w.Code, w.Body, len(s.Events), s.Codes())
		}
		// A rejected record is kept as a request that would be rejected for the same reason.
		failures := s.Failures
		for _, f := range failures {
			if f.Index < 0 || f.Count > 0 {
				if f.Index < 0 && string(f.Raw) != string(body) {
					t.Fatalf("%q is kept as %q", body, f.Raw)
				}
				continue
			}
			s.Forget()
			send(r, path, f.ContentType, f.Raw)
			if got, want := s.Codes(), "0:"+f.Code; got != want || len(s.Events) != 0 {
				t.Fatalf("%+v is kept as %q, which has %d events and failure records %s, want %s", f, f.Raw, len(s.Events), got,
					want)
			}
		}
	})
}

func FuzzProto(f *testing.F) { fuzz(f, protobuf) }

func FuzzJSON(f *testing.F) { fuzz(f, "application/json") }

// Prompts become blobs, and later records do not overwrite them.
func TestBlobs(t *testing.T) {
	var spans []*tracepb.Span
	for i := range 5 {
		spans = append(spans, &tracepb.Span{TraceId: traceID, SpanId: []byte{7: byte(i + 1)}, Name: "n",
			Attributes: []*commonpb.KeyValue{
				attribute("gen_ai.input.messages",
					arrayValue(listValue(attribute("content", textValue(strings.Repeat(string(rune('a'+i)), 5000)))))),
				attribute("n", intValue(int64(i)))}})
	}
	for kind, body := range bodies(t, oneSpan(spans...)) {
		r, s := receivertest.Start(func(o *receiver.Options) { o.BlobThreshold = 1000 })
		if w := send(r, "/v1/traces", kind, body); w.Code != 200 || len(s.Events) != 5 || len(s.Blobs) != 5 {
			t.Fatalf("%s: %d, %d events, %d blobs", kind, w.Code, len(s.Events), len(s.Blobs))
		}
		for i, b := range s.Blobs {
			if b.Event != i || string(b.Data) != strings.Repeat(string(rune('a'+i)), 5000) ||
				!strings.HasPrefix(string(s.Events[i].Properties),
					fmt.Sprintf(`{"gen_ai.input.messages":[{"content":null}],"n":%d,`, i)) {
				t.Errorf("%s, %d: %d, %.20s, %s", kind, i, b.Event, b.Data, s.Events[i].Properties)
			}
		}
	}
}

// hexIDs changes ids so that they are hexadecimal in JSON: protojson writes base64.
func hexIDs(m proto.Message) error {
	mend := func(ids ...*[]byte) (err error) {
		for _, id := range ids {
			if err == nil && len(*id) > 0 {
				*id, err = base64.StdEncoding.DecodeString(hex.EncodeToString(*id))
			}
		}
		return err
	}
	switch m := m.(type) {
	case *tracepb.Span:
		for _, l := range m.Links {
			if err := mend(&l.TraceId, &l.SpanId); err != nil {
				return err
			}
		}
		return mend(&m.TraceId, &m.SpanId, &m.ParentSpanId)
	case *logspb.LogRecord:
		return mend(&m.TraceId, &m.SpanId)
	}
	return nil
}

// Rejected records are stored with their resource. What is stored is at most a few times the request's size.
func TestRejectedRecordsShareALargeResource(t *testing.T) {
	var spans []*tracepb.Span
	for range 200 {
		spans = append(spans, &tracepb.Span{Name: "no ids"})
	}
	noise := make([]byte, 200_000)
	rand.NewChaCha8([32]byte{}).Read(noise)
	data := oneSpan(spans...)
	data.ResourceSpans[0].Resource = &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
		attribute("noise", textValue(hex.EncodeToString(noise)))}}
	for kind, body := range bodies(t, data) {
		r, s := receivertest.Start(func(o *receiver.Options) { o.MaxDecoded = 256 << 20; o.MaxMemory = 256 << 20 })
		if w := send(r, "/v1/traces", kind, body); w.Code != 400 {
			t.Fatalf("%s: got %d %.300s", kind, w.Code, w.Body)
		}
		stored, events := 0, 0
		for _, f := range s.Failures {
			stored += len(f.Raw)
			events += max(1, f.Count)
		}
		if most := 3 * len(body); stored > most || events != 200 {
			t.Errorf("%s: %d bytes of %d events are stored, want %d at most of 200", kind, stored, events, most)
		}
	}
}

// Langfuse's SDKs and OpenRouter's webhook send OTLP with other paths and methods.
func TestTracesOfOthers(t *testing.T) {
	const span = `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060701","name":"gen","attributes":[
		{"key":"langfuse.observation.type","value":{"stringValue":"generation"}},{"key":"langfuse.observation.model.name","value":{"stringValue":"m"}},
		{"key":"%s","value":{"stringValue":"u"}},{"key":"%s","value":{"stringValue":"s"}}]}]}]}]}`
	for _, c := range []struct{ method, path, user, session string }{
		{"POST", "/api/public/otel/v1/traces", "user.id", "session.id"},
		{"POST", "/api/public/otel/v1/traces", "langfuse.user.id", "langfuse.session.id"},
		{"PUT", "/v1/traces", "ai.telemetry.metadata.userId", "ai.telemetry.metadata.sessionId"},
	} {
		r, s := receivertest.Start(nil)
		w := httptest.NewRecorder()
		req := intake.Post(c.path, fmt.Sprintf(span, c.user, c.session))
		req.Method = c.method
		req.SetBasicAuth(key, "secret")
		r.ServeHTTP(w, req)
		if w.Code != 200 || len(s.Events) != 1 {
			t.Fatalf("%+v: got %d %s", c, w.Code, w.Body)
		}
		e := s.Events[0]
		if string(e.UserID) != "u" || string(e.SessionID) != "s" || !strings.Contains(string(e.Properties), `"gen_ai.request.model":"m"`) {
			t.Errorf("%+v: user %q, session %q, %s", c, e.UserID, e.SessionID, e.Properties)
		}
	}
	r, s := receivertest.Start(nil) // OpenRouter tests a connection before it saves it
	w := httptest.NewRecorder()
	req := receivertest.WithKey(intake.Post("/v1/traces", `{"resourceSpans":[]}`))
	req.Header.Set("X-Test-Connection", "true")
	r.ServeHTTP(w, req)
	if w.Code != 200 || len(s.Events)+len(s.Failures) != 0 {
		t.Errorf("a test of the connection: got %d %s", w.Code, w.Body)
	}
}

// An unreadable record of OTLP's JSON is rejected alone.
func TestBrokenRecord(t *testing.T) {
	span := func(id int, more string) string {
		return fmt.Sprintf(`{"traceId":"%s","spanId":"ee0000000000000%d"%s}`, traceHex, id, more)
	}
	body := `{"resourceSpans":[{"scopeSpans":[{"spans":[` + span(1, "") + "," + span(2, `,"flags":NaN`) + "," + span(3, `,"name":"\q"`) + "," + span(4, "") + `]}]}]}`
	r, s := receivertest.Start(nil)
	w := intake.Do(r, receivertest.WithKey(intake.Post("/v1/traces", body, "Content-Type", "application/json")))
	if w.Code != http.StatusOK || len(s.Events) != 2 || len(s.Failures) != 2 || s.Failures[0].Code != "invalid_otlp" || !strings.Contains(string(s.Failures[0].Raw), "NaN") {
		t.Errorf("got %d %s, %d events, %+v", w.Code, w.Body, len(s.Events), s.Failures)
	}
}
