// Package otlp accepts OpenTelemetry's protocol over HTTP, for traces and logs, as protobuf and as JSON:
// https://opentelemetry.io/docs/specs/otlp/#otlphttp
//
// A request groups records (spans, log records) by resource and scope. Each record is decoded separately (record.go).
// So a bad record fails alone, and decoding needs the memory of one record.
package otlp

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// Routes are the routes of both signals. OpenRouter's webhook may also PUT traces. Langfuse's SDKs send their
// observations as spans: https://langfuse.com/integrations/native/opentelemetry
func Routes() []*protocol.Route {
	var routes []*protocol.Route
	for _, s := range []*signal{traces, logs} {
		json := &protocol.Route{Name: "otlp", Paths: s.paths, Methods: s.methods, WholeBody: true, Protocol: jsonOf{whole{s}}}
		binary := *json
		binary.Protocol, binary.AnyType, binary.Match = protoOf{whole{s}}, true, isProto
		routes = append(routes, &binary, json)
	}
	return routes
}

// signal is a kind of record. In protobuf, all signals use the same numbers for the fields down to a record.
type signal struct {
	paths                      []string
	methods                    []string // nil: POST
	resources, scopes, records string   // names of the lists in JSON
	rejected                   string   // name of the number of rejected records in an answer
	message                    message
}

var (
	traces = &signal{[]string{"/v1/traces", "/api/public/otel/v1/traces"}, []string{http.MethodPost, http.MethodPut},
		"resourceSpans", "scopeSpans", "spans", "rejectedSpans", spanMessage}
	logs = &signal{[]string{"/v1/logs"}, nil, "resourceLogs", "scopeLogs", "logRecords", "rejectedLogRecords", logMessage}
)

const protobuf = "application/x-protobuf"

func isProto(head http.Header) bool {
	kind, _, _ := mime.ParseMediaType(head.Get("Content-Type"))
	return kind == protobuf || kind == "application/protobuf"
}

// whole is the part that both encodings share. A record is rejected with the body around it.
type whole struct{ *signal }

func (whole) Authenticate(req *http.Request) (key string, given bool) { return protocol.HeadKey(req) }

// Map is unused: a record is redriven as a body with this one record.
func (whole) Map(d *protocol.Draft, _ []jsonscan.Member) {
	d.Fail(errcode.InvalidOTLP.Errorf("a record is no event without the resource around it"))
}

type (
	jsonOf  struct{ whole }
	protoOf struct{ whole }
)

// walk is the position in a request.
type walk struct {
	*signal
	r    *protocol.Request
	to   protocol.Sink
	json bool // false: protobuf

	// As sent, for a record that is kept alone.
	resource, resourceSchema, scope, scopeSchema []byte

	resourceAttributes []*commonpb.KeyValue
	sdk, version       []byte
	envelope           []byte   // beginning of each event's envelope
	ofResource         int      // length of the resource's part
	seed               [32]byte // hash of resource and scope

	record        // the current one
	lone    bool  // the last decoded text had lone surrogates
	charged int   // bytes charged for its text
	made    int64 // bytes of events so far, and of failure records
}

func badOTLP(format string, args ...any) *errcode.Error {
	return errcode.InvalidOTLP.Errorf(format, args...)
}

func (s jsonOf) Events(r *protocol.Request, body []byte, to protocol.Sink) *errcode.Error {
	if body = protocol.Whole(body); len(body) == 0 {
		return errcode.EmptyBody.Errorf("the body is empty")
	}
	err := (&walk{signal: s.signal, r: r, to: to, json: true}).bodyJSON(body)
	if err != nil && err.Status() == http.StatusBadRequest {
		if e := json.Unmarshal(body, &struct{}{}); e != nil { // has the better message
			return errcode.InvalidJSON.Errorf("the body is not a JSON object: %s", e)
		}
	}
	return err
}

func (b *walk) bodyJSON(body []byte) *errcode.Error {
	if err := b.strange(body); err != nil {
		return err
	}
	return b.list(body, b.resources, func(group []byte) *errcode.Error {
		resource, schema, err := sourceJSON(group, "resource")
		if err == nil {
			err = b.enterResource(resource, schema)
		}
		if err != nil {
			return err
		}
		return b.list(group, b.scopes, func(group []byte) *errcode.Error {
			scope, schema, err := sourceJSON(group, "scope")
			if err == nil {
				err = b.enterScope(scope, schema)
			}
			if err != nil {
				return err
			}
			return b.list(group, b.records, b.take)
		})
	})
}

// strange rejects a body that belongs on another route. All its fields would be skipped as unknown.
func (s *signal) strange(body []byte) (err *errcode.Error) {
	protocol.EachMember(body, func(key, value []byte) {
		for _, other := range []string{traces.resources, logs.resources, "resourceMetrics", "resourceProfiles"} {
			if other != s.resources && value[0] != 'n' && named(key, other) {
				err = badOTLP("%s takes %q, not %q", s.paths[0], s.resources, other)
			}
		}
	})
	return err
}

// named reports whether a key is that name or its form in protobuf, such as resource_spans, which JSON parsers of
// protobuf accept as well.
func named(key []byte, name string) bool {
	return string(key) == name || bytes.IndexByte(key, '_') > 0 &&
		strings.EqualFold(strings.ReplaceAll(string(key), "_", ""), name)
}

// sourceJSON is the resource or scope of a group of records.
func sourceJSON(group []byte, name string) (source, schema []byte, err *errcode.Error) {
	protocol.EachMember(group, func(key, value []byte) {
		to := &source
		switch string(key) {
		case name:
		case "schemaUrl":
			to = &schema
		default:
			return
		}
		if *to != nil {
			err = errcode.DuplicateKey.Errorf("around records there is more than one %q", key)
		}
		*to = value
	})
	return source, schema, err
}

// list calls f for the elements of all arrays of that name in an object. It follows only brackets and strings, so a
// broken record is rejected alone.
func (b *walk) list(object []byte, name string, f func(element []byte) *errcode.Error) (err *errcode.Error) {
	if len(object) == 0 || object[0] != '{' {
		return badOTLP("around %q: want an object, not %.40q", name, object)
	}
	whole := protocol.EachMember(object, func(key, value []byte) {
		switch {
		case err != nil || !named(key, name) || value[0] == 'n':
		case value[0] != '[':
			err = badOTLP("%q is %.40q, want an array", name, value)
		default:
			err = elements(value, f)
		}
	})
	if err == nil && !whole {
		return errcode.InvalidJSON.Errorf("around %q is no JSON object: %.40q", name, object)
	}
	return err
}

// elements calls f for the elements of an array.
func elements(array []byte, f func(element []byte) *errcode.Error) *errcode.Error {
	for values := jsonscan.NewValues(array, false); ; {
		value, err := values.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		n := jsonscan.Extent(value)
		if err != nil || n == 0 {
			return errcode.InvalidJSON.Errorf("a list of records is no JSON array: %.40q", array)
		}
		if err := f(value[:values.Take(n)]); err != nil {
			return err
		}
	}
}

// The field numbers down to a record, the same on both levels.
const (
	sourceField = 1 // resource or scope
	groupField  = 2 // its groups or records
	schemaField = 3
)

func (s protoOf) Events(r *protocol.Request, body []byte, to protocol.Sink) *errcode.Error {
	b := &walk{signal: s.signal, r: r, to: to}
	return eachField(body, 1, func(group []byte) *errcode.Error {
		resource, schema, err := source(group)
		if err == nil {
			err = b.enterResource(resource, schema)
		}
		if err != nil {
			return err
		}
		return eachField(group, groupField, func(group []byte) *errcode.Error {
			scope, schema, err := source(group)
			if err == nil {
				err = b.enterScope(scope, schema)
			}
			if err != nil {
				return err
			}
			return eachField(group, groupField, b.take)
		})
	})
}

// source is the resource or scope of a group of records. It may come after them. A message in several parts is their
// concatenation.
func source(group []byte) (message, schema []byte, err *errcode.Error) {
	if err = eachField(group, sourceField, func(part []byte) *errcode.Error {
		message = append(message[:len(message):len(message)], part...)
		return nil
	}); err != nil {
		return nil, nil, err
	}
	err = eachField(group, schemaField, func(v []byte) *errcode.Error { schema = v; return nil })
	return message, schema, err
}

// eachField calls f for the fields of that number that hold bytes.
func eachField(b []byte, number protowire.Number, f func(value []byte) *errcode.Error) *errcode.Error {
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		var value []byte
		if n >= 0 {
			b = b[n:]
			if kind == protowire.BytesType {
				value, n = protowire.ConsumeBytes(b)
			} else {
				n = protowire.ConsumeFieldValue(num, kind, b)
			}
		}
		if n < 0 {
			return badOTLP("the body is not protobuf of OTLP: %s", protowire.ParseError(n))
		}
		if b = b[n:]; num == number && kind == protowire.BytesType {
			if err := f(value); err != nil {
				return err
			}
		}
	}
	return nil
}

// message is a type of protobuf message that can contain values.
type message uint8

const (
	otherMessage message = iota
	spanMessage
	logMessage
	resourceMessage
	scopeMessage
	spanEventMessage
	spanLinkMessage
	keyValueMessage
	anyValueMessage
	arrayMessage
	listMessage
)

// within is the type of the fields of a message.
var within = [...][16]message{
	spanMessage:      {9: keyValueMessage, 11: spanEventMessage, 13: spanLinkMessage},
	logMessage:       {5: anyValueMessage, 6: keyValueMessage},
	resourceMessage:  {1: keyValueMessage},
	scopeMessage:     {3: keyValueMessage},
	spanEventMessage: {3: keyValueMessage},
	spanLinkMessage:  {4: keyValueMessage},
	keyValueMessage:  {2: anyValueMessage},
	anyValueMessage:  {5: arrayMessage, 6: listMessage},
	arrayMessage:     {1: anyValueMessage},
	listMessage:      {1: keyValueMessage},
}

// maxMessages limits the messages (attributes and values) within a record. messageMemory is the approximate memory of
// each. As sent, a message can be two bytes.
const (
	maxMessages   = 1 << 18
	messageMemory = 128
)

// messages counts those within one. It stops at maxMessages, and skips what is unreadable or too deep; the decoder
// reports that.
func messages(b []byte, of message, depth int) (count int) {
	for len(b) > 0 && count <= maxMessages && depth > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return count
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, kind, b); n < 0 {
			return count
		}
		if kind == protowire.BytesType && num < 16 {
			if inner := within[of][num]; inner != otherMessage {
				value, _ := protowire.ConsumeBytes(b)
				count += 1 + messages(value, inner, depth-1)
			}
		}
		b = b[n:]
	}
	return count
}

// unmarshal decodes the bytes as sent into m.
func (b *walk) unmarshal(sent []byte, of message, m proto.Message) *errcode.Error {
	if limit := b.r.MaxEvent; len(sent) > limit {
		return errcode.EventTooLarge.Errorf("it has %d bytes, the limit is %d", len(sent), limit)
	}
	// A level of the event is up to three levels of messages.
	depth := 4*b.r.MaxDepth + 16
	var count int
	if b.json {
		count = strings.Count(string(sent), "{")
	} else {
		count = messages(sent, of, depth)
	}
	if count > maxMessages {
		return errcode.EventTooLarge.Errorf("it has more than %d attributes and values", maxMessages)
	}
	took := int64(len(sent)) + int64(count)*messageMemory
	if b.json {
		took += int64(len(sent)) // for a copy, see withoutLone
	}
	if err := b.r.Charge(took); err != nil {
		return err
	}
	defer b.r.Charge(-took)
	var err error
	b.lone = false
	if b.json {
		err = protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: depth}.Unmarshal(b.withoutLone(sent), m)
	} else {
		err = proto.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: depth}.Unmarshal(sent, m)
	}
	if err != nil {
		return errcode.InvalidOTLP.Errorf("%s", strings.ReplaceAll(err.Error(), "\u00a0", " "))
	}
	return nil
}

// withoutLone replaces lone surrogates, which protojson rejects, by U+FFFD.
func (b *walk) withoutLone(sent []byte) []byte {
	if !bytes.Contains(sent, []byte(`\u`)) && bytes.IndexByte(sent, 0xED) < 0 {
		return sent
	}
	text := bytes.Clone(sent)
	_, n := jsonscan.ReplaceLoneSurrogates(text, true)
	b.lone = n > 0
	return text
}

// enter decodes the resource or scope of a group. Without it there are no records.
func (b *walk) enter(what string, sent []byte, of message, m proto.Message) *errcode.Error {
	if len(sent) == 0 || b.json && sent[0] == 'n' {
		return nil
	}
	err := b.unmarshal(sent, of, m)
	if err == nil || err.Code == errcode.Busy {
		return err
	}
	return err.Code.Errorf("the %s: %s", what, err.Message)
}

func (b *walk) enterResource(sent, schema []byte) *errcode.Error {
	var m resourcepb.Resource
	if err := b.enter("resource", sent, resourceMessage, &m); err != nil {
		return err
	}
	b.resource, b.resourceSchema, b.resourceAttributes = sent, schema, m.Attributes
	b.sdk, b.version = []byte(textOf(m.Attributes, "telemetry.sdk.name")),
		[]byte(textOf(m.Attributes, "telemetry.sdk.version"))
	w := append(b.envelope[:0], '{')
	w = appendObject(w, "resource", m.Attributes)
	w = b.appendSchema(w, schema)
	b.envelope = protocol.AppendNumber(w, "resource_dropped_attributes_count", uint64(m.DroppedAttributesCount))
	b.ofResource = len(b.envelope)
	return nil
}

func (b *walk) enterScope(sent, schema []byte) *errcode.Error {
	var m commonpb.InstrumentationScope
	if err := b.enter("scope", sent, scopeMessage, &m); err != nil {
		return err
	}
	b.scope, b.scopeSchema = sent, schema
	w := append(protocol.AppendKey(b.envelope[:b.ofResource], "scope"), '{')
	empty := len(w)
	w = protocol.AppendString(w, "name", m.Name)
	w = protocol.AppendString(w, "version", m.Version)
	w = appendObject(w, "attributes", m.Attributes)
	w = b.appendSchema(w, schema)
	w = protocol.AppendNumber(w, "dropped_attributes_count", uint64(m.DroppedAttributesCount))
	if len(w) == empty {
		w = w[:b.ofResource]
	} else {
		w = append(w, '}')
	}
	b.envelope = w
	h := sha256.New()
	for _, part := range [][]byte{b.resource, b.resourceSchema, sent, schema} {
		h.Write(binary.AppendUvarint(nil, uint64(len(part))))
		h.Write(part)
	}
	h.Sum(b.seed[:0])
	return nil
}

func (b *walk) appendSchema(w, schema []byte) []byte {
	if b.json {
		schema = protocol.PlainText(schema)
	}
	return protocol.AppendString(w, "schema_url", string(schema))
}

// take reads one record.
func (b *walk) take(sent []byte) *errcode.Error {
	index, err := b.to.Next()
	if err != nil {
		return err
	}
	var m proto.Message = &tracepb.Span{}
	if b.signal == logs {
		m = &logspb.LogRecord{}
	}
	err = b.unmarshal(sent, b.message, m)
	decoded := err == nil
	if decoded && b.json {
		if decoded = idsOfJSON(m) == nil; !decoded {
			err = b.wrongID(sent)
		}
	}
	var v protocol.Verdict
	if decoded {
		b.write(m, sent, index)
		b.made += int64(len(b.text))
		v, err = b.judge()
	}
	if err != nil {
		if err.Code == errcode.Busy {
			return err
		}
		v = protocol.Verdict{Err: err, Reported: true}
	}
	v.Repaired = b.lone
	var raw []byte
	var kind string
	if v.Reported {
		raw, kind = b.alone(sent, m, decoded)
		b.made += int64(len(raw))
	}
	if err := b.to.Done(v, raw, kind); err != nil {
		return err
	}
	// Each record includes the resource, which may be as large as an event.
	if b.made > b.r.MaxBody {
		return errcode.DecodedTooLarge.Errorf("the records, each with its resource, take more than the limit of %d bytes",
			b.r.MaxBody)
	}
	return nil
}

// alone is a body with one record, and its content type. If possible it is JSON, which people can read and fix.
func (b *walk) alone(sent []byte, m proto.Message, decoded bool) (body []byte, kind string) {
	if b.json {
		w := fmt.Appendf(nil, `{%q:[{`, b.resources)
		w = appendRaw(w, "resource", b.resource)
		w = appendRaw(w, "schemaUrl", b.resourceSchema)
		w = append(protocol.AppendKey(w, b.scopes), "[{"...)
		w = appendRaw(w, "scope", b.scope)
		w = appendRaw(w, "schemaUrl", b.scopeSchema)
		w = append(append(append(protocol.AppendKey(w, b.records), '['), sent...), "]}]}]}"...)
		return w, "application/json"
	}
	group := appendFields(nil, b.scope, sent, b.scopeSchema)
	group = appendFields(nil, b.resource, group, b.resourceSchema)
	group = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), group)
	if decoded && idsToJSON(m) == nil {
		var whole proto.Message = &tracepb.TracesData{}
		if b.signal == logs {
			whole = &logspb.LogsData{}
		}
		if proto.Unmarshal(group, whole) == nil {
			switch w := whole.(type) {
			case *tracepb.TracesData:
				w.ResourceSpans[0].ScopeSpans[0].Spans[0] = m.(*tracepb.Span)
			case *logspb.LogsData:
				w.ResourceLogs[0].ScopeLogs[0].LogRecords[0] = m.(*logspb.LogRecord)
			}
			if text, err := (protojson.MarshalOptions{UseEnumNumbers: true}).Marshal(whole); err == nil {
				return text, "application/json"
			}
		}
	}
	return group, protobuf
}

// appendFields writes a group with one record and its source.
func appendFields(w, source, group, schema []byte) []byte {
	for i, v := range [][]byte{source, group, schema} {
		if len(v) > 0 || i+1 == groupField {
			w = protowire.AppendBytes(protowire.AppendTag(w, protowire.Number(i+1), protowire.BytesType), v)
		}
	}
	return w
}
