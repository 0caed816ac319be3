package otlp_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol/protocoltest"
)

// walked passes a body to the protocol alone.
func walked(t testing.TB, h *protocoltest.Host, path, kind string, body []byte) (*protocoltest.Sink, *errcode.Error) {
	t.Helper()
	s := &protocoltest.Sink{Request: h.Request()}
	return s, routeOf(t, path, kind).Protocol.Events(s.Request, body, s)
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Memory is charged before decoding, and returned after each record. If there is none, the request is rejected as a
// whole and retried.
func TestCharges(t *testing.T) {
	large := strings.Repeat("x", 10_000)
	spans := func(n int) *tracepb.TracesData {
		var all []*tracepb.Span
		for i := range n {
			all = append(all, &tracepb.Span{TraceId: traceID, SpanId: []byte{7: byte(i + 1)}, Name: "a",
				Attributes: []*commonpb.KeyValue{attribute("a", textValue(large))}})
		}
		return oneSpan(all...)
	}
	for kind, body := range bodies(t, spans(30)) {
		h := &protocoltest.Host{}
		if s, err := walked(t, h, "/v1/traces", kind, body); err != nil || len(s.Given) != 30 {
			t.Fatalf("%s: %v, %d records", kind, err, len(s.Given))
		}
		one := &protocoltest.Host{}
		if _, err := walked(t, one, "/v1/traces", kind, bodies(t, spans(1))[kind]); err != nil {
			t.Fatal(err)
		}
		if h.Peak < int64(len(large)) || h.Peak > 2*one.Peak || h.Charged > one.Peak || h.Charged < 0 {
			t.Errorf("%s: 30 records take %d bytes at once and %d in the end, one takes %d", kind, h.Peak, h.Charged, one.Peak)
		}
		for limit := int64(1); limit < one.Peak; limit += one.Peak / 7 {
			full := &protocoltest.Host{Limit: limit}
			if s, err := walked(t, full, "/v1/traces", kind, body); err == nil || err.Code != errcode.Busy {
				t.Errorf("%s, %d bytes: %v, %d records, want %s", kind, limit, err, len(s.Given), errcode.Busy)
			}
		}
	}
}

// Protobuf fields may come in any order and in parts. A group's source may follow its records, and a message in two
// fields is their concatenation. Unknown fields are skipped.
func TestFieldsInAnyOrder(t *testing.T) {
	field := func(number protowire.Number, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
	}
	part := func(key, value string) []byte {
		return field(1, marshal(t, &resourcepb.Resource{Attributes: []*commonpb.KeyValue{attribute(key, textValue(value))}}))
	}
	span := field(2, marshal(t, &tracepb.Span{TraceId: traceID, SpanId: spanID, Name: "n"}))
	unknown := protowire.AppendFixed64(protowire.AppendTag(nil, 77, protowire.Fixed64Type), 1)
	// A known number with another type.
	unknown = protowire.AppendVarint(protowire.AppendTag(unknown, 2, protowire.VarintType), 5)
	scope := field(1, marshal(t, &commonpb.InstrumentationScope{Name: "s", Version: "1", DroppedAttributesCount: 2}))
	scoped := append(append(append(unknown, span...), scope...), field(3, []byte("of-scope"))...)
	group := append(append(append(append(part("a", "1"), field(2, scoped)...), unknown...), field(3, []byte("of-resource"))...),
		part("b", "2")...)
	s, err := walked(t, &protocoltest.Host{}, "/v1/traces", protobuf, append(append(unknown, field(1, group)...), unknown...))
	if err != nil || len(s.Given) != 1 {
		t.Fatalf("got %v, %d records", err, len(s.Given))
	}
	var got struct {
		Envelope map[string]any `json:"$envelope"`
	}
	if err := json.Unmarshal([]byte(s.Given[0].Text), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"resource": map[string]any{"a": "1", "b": "2"}, "schema_url": "of-resource",
		"scope": map[string]any{"name": "s", "version": "1", "schema_url": "of-scope", "dropped_attributes_count": 2.0}}
	if diff := cmp.Diff(want, got.Envelope); diff != "" {
		t.Errorf("envelope (-want +got):\n%s", diff)
	}
}

// Of attributes with one name the last counts, among few or many.
func TestAttributesAtRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		want := map[string]float64{}
		var all []*commonpb.KeyValue
		for range rnd.IntN(60) {
			key, value := fmt.Sprintf("k%d", rnd.IntN(30)), rnd.NormFloat64()*1e6
			if rnd.IntN(2) == 0 {
				value = float64(rnd.IntN(1000))
			}
			all, want[key] = append(all, attribute(key, floatValue(value))), value
		}
		m := &logspb.LogsData{ResourceLogs: []*logspb.ResourceLogs{{ScopeLogs: []*logspb.ScopeLogs{{
			LogRecords: []*logspb.LogRecord{{Attributes: all}}}}}}}
		for kind, body := range bodies(t, m) {
			s, err := walked(t, &protocoltest.Host{}, "/v1/logs", kind, body)
			if err != nil || len(s.Given) != 1 || s.Given[0].Err != nil {
				t.Fatalf("%s: got %v, %+v", kind, err, s.Given)
			}
			text := s.Given[0].Text
			if _, _, err := (&jsonscan.Scanner{MaxDepth: 9}).Object([]byte(text)); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			got := map[string]float64{}
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%s: %s (-want +got):\n%s", kind, text, diff)
			}
			for part := range strings.SplitSeq(strings.Trim(text, "{}"), ",") {
				if _, number, _ := strings.Cut(part, ":"); part != "" && !strings.ContainsAny(number, ".e") {
					t.Fatalf("%s: a float reads as an integer", part)
				}
			}
		}
	}
}

// The user of a record: its own attributes win over the resource's, and numbers are valid too.
func TestWhose(t *testing.T) {
	long := strings.Repeat("u", 1025)
	for _, c := range []struct {
		resource, record []*commonpb.KeyValue
		user, session    string
		code             errcode.Code
	}{
		{[]*commonpb.KeyValue{attribute("user.id", textValue("r")), attribute("session.id", intValue(9))}, nil, "r", "9", 0},
		{[]*commonpb.KeyValue{attribute("user.id", textValue("r"))},
			[]*commonpb.KeyValue{attribute("enduser.id", textValue("e"))}, "e", "", 0},
		{nil, []*commonpb.KeyValue{attribute("user.id", textValue("")), attribute("enduser.id", textValue("e"))}, "e", "", 0},
		{nil, []*commonpb.KeyValue{attribute("user.id", floatValue(1.5)), attribute("session.id", nil)}, "", "", 0},
		{nil, []*commonpb.KeyValue{attribute("session.id", textValue("a")), attribute("session.id", textValue("b"))}, "", "b",
			0},
		{[]*commonpb.KeyValue{attribute("session.id", textValue(long))}, nil, "", "", errcode.FieldTooLong},
	} {
		m := oneLog(&logspb.LogRecord{EventName: "e", Attributes: c.record})
		m.ResourceLogs[0].Resource.Attributes = c.resource
		s, err := walked(t, &protocoltest.Host{}, "/v1/logs", protobuf, marshal(t, m))
		if err != nil || len(s.Given) != 1 {
			t.Fatalf("got %v, %d records", err, len(s.Given))
		}
		g := s.Given[0]
		var refused *errcode.Error
		code := errcode.None
		if errors.As(g.Err, &refused) {
			code = refused.Code
		}
		if code != c.code || code == errcode.None && (g.User != c.user || g.Session != c.session) {
			t.Errorf("%v, %v: got user %q, session %q, %v, want %q, %q, %s", c.resource, c.record, g.User, g.Session, g.Err,
				c.user, c.session, c.code)
		}
	}
}
