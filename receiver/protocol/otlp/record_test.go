package otlp

import (
	"bytes"
	"encoding/hex"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Ids in JSON are hexadecimal, and protojson reads them as base64. Both conversions lose nothing.
func TestIDsOfJSON(t *testing.T) {
	trace, span := bytes.Repeat([]byte{0x5b}, 16), bytes.Repeat([]byte{0xee}, 8)
	s := &tracepb.Span{TraceId: trace, SpanId: span}
	if err := idsToJSON(s); err != nil || hex.EncodeToString(s.TraceId) == hex.EncodeToString(trace) {
		t.Fatalf("to JSON: %v, trace id %x", err, s.TraceId)
	}
	if err := idsOfJSON(s); err != nil || !bytes.Equal(s.TraceId, trace) || !bytes.Equal(s.SpanId, span) {
		t.Errorf("and back: %v, got %x and %x, want %x and %x", err, s.TraceId, s.SpanId, trace, span)
	}
	wrong := &tracepb.Span{TraceId: []byte("abc")}
	if err := idsOfJSON(wrong); err == nil {
		t.Error("an id of another length is accepted")
	}
}
