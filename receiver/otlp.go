package receiver

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
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
)

// OpenTelemetry's protocol over HTTP, for traces and logs, as protobuf and as
// JSON: https://opentelemetry.io/docs/specs/otlp/#otlphttp
//
// A request holds records (spans, log records) by the resource and the scope
// that they come from. It is walked down to the records, each of which is
// decoded for itself (otlpevent.go): one that is wrong fails alone, and memory
// is that of one record.
var otlp = []*dialect{traces.dialect(), logs.dialect()}

// tracePaths are OTLP's own, to which OpenRouter's webhook can also PUT, and that
// of Langfuse's SDKs, which send their observations as spans:
// https://langfuse.com/integrations/native/opentelemetry
var tracePaths = []string{"/v1/traces", "/api/public/otel/v1/traces"}

// signal is a kind of record. In protobuf the fields that lead to it have the
// same numbers for all.
type signal struct {
	paths                      []string
	methods                    []string // nil: POST
	resources, scopes, records string   // what JSON calls the lists on the way
	rejected                   string   // and, in an answer, the number of the refused ones
	message                    message
}

var (
	traces = &signal{tracePaths, []string{http.MethodPost, http.MethodPut}, "resourceSpans", "scopeSpans", "spans", "rejectedSpans", spanMessage}
	logs   = &signal{[]string{"/v1/logs"}, nil, "resourceLogs", "scopeLogs", "logRecords", "rejectedLogRecords", logMessage}
)

const protobuf = "application/x-protobuf"

func (s *signal) dialect() *dialect {
	d := &dialect{name: "otlp", paths: s.paths, methods: s.methods, alone: true, decode: s.decodeJSON, answer: s.answerJSON}
	binary := *d
	binary.decode, binary.answer, binary.contentType, binary.anyType = s.decodeProto, s.answerProto, protobuf, true
	d.variant = func(head http.Header) *dialect {
		switch kind, _, _ := mime.ParseMediaType(head.Get("Content-Type")); kind {
		case protobuf, "application/protobuf":
			return &binary
		}
		return nil
	}
	return d
}

// otlpBatch is where the walk through a request stands.
type otlpBatch struct {
	*signal
	q    *request
	json bool // else protobuf

	// As they were sent, for a record that is kept alone.
	resource, resourceSchema, scope, scopeSchema []byte

	resourceAttributes []*commonpb.KeyValue
	sdk, version       []byte
	envelope           []byte   // what each event's envelope begins with
	ofResource         int      // so much of it is the resource's
	seed               [32]byte // a hash of resource and scope

	record        // the one that is judged
	lone    bool  // what was decoded last had lone surrogates
	charged int   // bytes of its text
	made    int64 // of the events so far, and of what is kept of refused ones
}

// walk begins a request.
func (s *signal) walk(q *request, json bool) *otlpBatch {
	b := &otlpBatch{signal: s, q: q, json: json}
	d := *q.dialect
	d.event = b.event
	q.dialect = &d
	return b
}

func badOTLP(format string, args ...any) *errcode.Error {
	return errcode.InvalidOTLP.Errorf(format, args...)
}

func (s *signal) decodeJSON(q *request, body []byte) *errcode.Error {
	if body = wholeBody(body); len(body) == 0 {
		return errcode.EmptyBody.Errorf("the body is empty")
	}
	err := s.walkJSON(q, body)
	if err != nil && err.Status() == http.StatusBadRequest {
		if e := json.Unmarshal(body, &struct{}{}); e != nil { // says it better
			return errcode.InvalidJSON.Errorf("the body is not a JSON object: %s", e)
		}
	}
	return err
}

func (s *signal) walkJSON(q *request, body []byte) *errcode.Error {
	b := s.walk(q, true)
	if err := s.strange(body); err != nil {
		return err
	}
	return b.list(body, s.resources, func(group []byte) *errcode.Error {
		resource, schema, err := sourceJSON(group, "resource")
		if err == nil {
			err = b.enterResource(resource, schema)
		}
		if err != nil {
			return err
		}
		return b.list(group, s.scopes, func(group []byte) *errcode.Error {
			scope, schema, err := sourceJSON(group, "scope")
			if err == nil {
				err = b.enterScope(scope, schema)
			}
			if err != nil {
				return err
			}
			return b.list(group, s.records, b.take)
		})
	})
}

// strange refuses what belongs on another route, all of which would be passed over
// as fields that are not known here.
func (s *signal) strange(body []byte) (err *errcode.Error) {
	eachMember(body, func(key, value []byte) {
		for _, other := range []string{traces.resources, logs.resources, "resourceMetrics", "resourceProfiles"} {
			if other != s.resources && value[0] != 'n' && named(key, other) {
				err = badOTLP("%s takes %q, not %q", s.paths[0], s.resources, other)
			}
		}
	})
	return err
}

// named tells whether a key is that name, or the name that it has in protobuf:
// resource_spans, which readers of protobuf's JSON take as well.
func named(key []byte, name string) bool {
	return string(key) == name || bytes.IndexByte(key, '_') > 0 && strings.EqualFold(strings.ReplaceAll(string(key), "_", ""), name)
}

// sourceJSON is what a group of records comes from.
func sourceJSON(group []byte, name string) (source, schema []byte, err *errcode.Error) {
	eachMember(group, func(key, value []byte) {
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

// list calls f for the elements of an object's array of that name, of each
// where there are more. It goes by brackets and strings alone, so that a record that is no JSON is rejected alone.
func (b *otlpBatch) list(object []byte, name string, f func(element []byte) *errcode.Error) (err *errcode.Error) {
	if len(object) == 0 || object[0] != '{' {
		return badOTLP("around %q: want an object, not %.40q", name, object)
	}
	whole := eachMember(object, func(key, value []byte) {
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
		if err == io.EOF {
			return nil
		}
		n := extent(value)
		if err != nil || n == 0 {
			return errcode.InvalidJSON.Errorf("a list of records is no JSON array: %.40q", array)
		}
		if err := f(value[:values.Take(n)]); err != nil {
			return err
		}
	}
}

// The numbers of the fields that lead to a record, on both levels.
const (
	sourceField = 1 // the resource, the scope
	groupField  = 2 // what comes from it
	schemaField = 3
)

func (s *signal) decodeProto(q *request, body []byte) *errcode.Error {
	b := s.walk(q, false)
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

// source is what a group of records comes from. It may stand behind them, and
// a message that comes in parts is their concatenation.
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

// message is a type of protobuf message, so far as values are in it.
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

// within says of which type the fields of a message are.
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

// maxMessages bounds the messages (attributes and values) within a record, and
// messageMemory is about what each takes: as sent, it can be two bytes.
const (
	maxMessages   = 1 << 18
	messageMemory = 128
)

// messages counts those within one. It stops at maxMessages, and leaves what
// cannot be read, or is too deep, to who decodes it.
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

// unmarshal decodes what was sent into m.
func (b *otlpBatch) unmarshal(sent []byte, of message, m proto.Message) error {
	if limit := b.q.r.opts.MaxEvent; len(sent) > limit {
		return errcode.EventTooLarge.Errorf("it has %d bytes, the limit is %d", len(sent), limit)
	}
	// A level of the event is up to three of messages.
	depth := 4*b.q.r.opts.MaxDepth + 16
	var count int
	if b.json {
		count = strings.Count(view(sent), "{")
	} else {
		count = messages(sent, of, depth)
	}
	if count > maxMessages {
		return errcode.EventTooLarge.Errorf("it has more than %d attributes and values", maxMessages)
	}
	before := b.q.charged
	if err := b.q.charge(before + int64(len(sent)) + int64(count)*messageMemory); err != nil {
		return err
	}
	defer b.q.charge(before)
	var err error
	b.lone = false
	if b.json {
		if sent, err = b.withoutLone(sent); err != nil {
			return err
		}
		err = protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: depth}.Unmarshal(sent, m)
	} else {
		err = proto.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: depth}.Unmarshal(sent, m)
	}
	if err != nil {
		return errcode.InvalidOTLP.Errorf("%s", strings.ReplaceAll(err.Error(), "\u00a0", " "))
	}
	return nil
}

// withoutLone is JSON that was sent with U+FFFD in the place of lone surrogates, which protojson refuses.
func (b *otlpBatch) withoutLone(sent []byte) ([]byte, error) {
	if !bytes.Contains(sent, []byte(`\u`)) && bytes.IndexByte(sent, 0xED) < 0 {
		return sent, nil
	}
	if err := b.q.charge(b.q.charged + int64(len(sent))); err != nil {
		return nil, err
	}
	text := bytes.Clone(sent)
	_, n := jsonscan.ReplaceLoneSurrogates(text, true)
	b.lone = n > 0
	return text, nil
}

// enter decodes what a group of records comes from. Without it there are none.
func (b *otlpBatch) enter(what string, sent []byte, of message, m proto.Message) *errcode.Error {
	if len(sent) == 0 || b.json && sent[0] == 'n' {
		return nil
	}
	switch err := b.unmarshal(sent, of, m); {
	case err == errMemory:
		return busy()
	case err != nil:
		code, text := explain(err)
		return code.Errorf("the %s: %s", what, text)
	}
	return nil
}

func (b *otlpBatch) enterResource(sent, schema []byte) *errcode.Error {
	var m resourcepb.Resource
	if err := b.enter("resource", sent, resourceMessage, &m); err != nil {
		return err
	}
	b.resource, b.resourceSchema, b.resourceAttributes = sent, schema, m.Attributes
	b.sdk, b.version = []byte(textOf(m.Attributes, "telemetry.sdk.name")), []byte(textOf(m.Attributes, "telemetry.sdk.version"))
	w := append(b.envelope[:0], '{')
	w = appendObject(w, "resource", m.Attributes)
	w = b.appendSchema(w, schema)
	b.envelope = appendNumber(w, "resource_dropped_attributes_count", uint64(m.DroppedAttributesCount))
	b.ofResource = len(b.envelope)
	return nil
}

func (b *otlpBatch) enterScope(sent, schema []byte) *errcode.Error {
	var m commonpb.InstrumentationScope
	if err := b.enter("scope", sent, scopeMessage, &m); err != nil {
		return err
	}
	b.scope, b.scopeSchema = sent, schema
	w := append(appendKey(b.envelope[:b.ofResource], "scope"), '{')
	empty := len(w)
	w = appendString(w, "name", m.Name)
	w = appendString(w, "version", m.Version)
	w = appendObject(w, "attributes", m.Attributes)
	w = b.appendSchema(w, schema)
	w = appendNumber(w, "dropped_attributes_count", uint64(m.DroppedAttributesCount))
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

func (b *otlpBatch) appendSchema(w, schema []byte) []byte {
	if b.json {
		schema = plainText(schema)
	}
	return appendString(w, "schema_url", string(schema))
}

// take judges one record.
func (b *otlpBatch) take(sent []byte) *errcode.Error {
	q := b.q
	if err := q.full(); err != nil {
		return err
	}
	var m proto.Message = &tracepb.Span{}
	if b.signal == logs {
		m = &logspb.LogRecord{}
	}
	err := b.unmarshal(sent, b.message, m)
	decoded := err == nil
	if decoded && b.json {
		if decoded = idsOfJSON(m) == nil; !decoded {
			err = b.wrongID(sent)
		}
	}
	if decoded {
		b.write(m, sent)
		b.made += int64(len(b.text))
		err = b.add()
	}
	if err == errMemory {
		return busy()
	}
	if err == nil && b.lone {
		q.repaired++
	}
	if (err == nil || err == errSampled) && q.violation == nil {
		q.count(nil, err)
	} else {
		raw, kind := b.alone(sent, m, decoded)
		b.made += int64(len(raw))
		if q.charge(q.charged+int64(len(raw))) != nil {
			return busy()
		}
		q.note(raw, kind)
		q.count(raw, err)
		if err != nil && err != errSampled {
			q.rejects[len(q.rejects)-1].kind = kind
		}
	}
	// Each has the resource with it, which may be as large as an event.
	if limit := q.r.opts.MaxDecoded; b.made > limit {
		return errcode.DecodedTooLarge.Errorf("the records, each with its resource, take more than the limit of %d bytes", limit)
	}
	return nil
}

// room begins a new piece of scratch where the old one has no n bytes left: what
// is in there belongs to events, and is not copied as more of them come.
func (q *request) room(n int) error {
	if cap(q.scratch)-len(q.scratch) < n {
		n = max(n, smallBuffer, min(2*cap(q.scratch), keepBytes))
		if err := q.charge(q.charged + int64(n)); err != nil {
			return err
		}
		q.scratch = make([]byte, 0, n)
		q.unload() // what was copied need not be in memory twice
	}
	return nil
}

// alone is a body with that record alone, and its content type. It is JSON
// where it can be, for people to read and mend.
func (b *otlpBatch) alone(sent []byte, m proto.Message, decoded bool) (body []byte, kind string) {
	if b.json {
		w := fmt.Appendf(nil, `{%q:[{`, b.resources)
		w = appendRaw(w, "resource", b.resource)
		w = appendRaw(w, "schemaUrl", b.resourceSchema)
		w = append(appendKey(w, b.scopes), "[{"...)
		w = appendRaw(w, "scope", b.scope)
		w = appendRaw(w, "schemaUrl", b.scopeSchema)
		w = append(append(append(appendKey(w, b.records), '['), sent...), "]}]}]}"...)
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

// appendFields writes a group of one: what it comes from, and what comes from it.
func appendFields(w, source, group, schema []byte) []byte {
	for i, v := range [][]byte{source, group, schema} {
		if len(v) > 0 || i+1 == groupField {
			w = protowire.AppendBytes(protowire.AppendTag(w, protowire.Number(i+1), protowire.BytesType), v)
		}
	}
	return w
}

// partly is what an answer says of a request of which a part was refused.
func (q *request) partly() string {
	if q.rejected == 0 {
		return ""
	}
	w := fmt.Appendf(nil, "%d of %d records are refused", q.rejected, q.index)
	for i, e := range q.rejects[:min(len(q.rejects), 5)] {
		w = fmt.Appendf(w, "%s record %d (%s): %s", []string{":", ";"}[min(i, 1)], e.index, e.code, e.message)
	}
	return strings.ToValidUTF8(string(w), "\uFFFD")
}

// statusOf is an error as the protocol has it: an HTTP status, with the code and
// the message of a google.rpc.Status. Clients send again on 429, 502, 503 and 504 only.
func statusOf(q *request, refused *errcode.Error, status int) (int, int, string) {
	message := q.partly()
	if refused != nil {
		message = refused.Code.String() + ": " + strings.ToValidUTF8(refused.Message, "\uFFFD")
	}
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		return status, 3, message // invalid argument
	case http.StatusUnauthorized:
		return status, 16, message // unauthenticated
	case http.StatusForbidden:
		return status, 7, message // permission denied
	case http.StatusRequestTimeout:
		return http.StatusServiceUnavailable, 14, message // or it would not come again
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return status, 14, message // unavailable
	}
	return status, 12, message // unimplemented: the method
}

func isGood(status int) bool { return status == http.StatusOK || status == http.StatusAccepted }

func (s *signal) answerJSON(q *request, refused *errcode.Error, status int, b []byte) (int, []byte) {
	b = append(b[:0], '{')
	if isGood(status) {
		if q.rejected > 0 {
			b = append(appendKey(b, "partialSuccess"), '{')
			b = appendString(b, s.rejected, strconv.Itoa(q.rejected)) // an int64 is a string
			b = append(appendString(b, "errorMessage", q.partly()), '}')
		}
		return http.StatusOK, append(b, "}\n"...)
	}
	status, code, message := statusOf(q, refused, status)
	b = strconv.AppendInt(appendKey(b, "code"), int64(code), 10)
	return status, append(appendString(b, "message", message), "}\n"...)
}

func (s *signal) answerProto(q *request, refused *errcode.Error, status int, b []byte) (int, []byte) {
	if isGood(status) {
		if q.rejected == 0 {
			return http.StatusOK, b[:0]
		}
		part := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(q.rejected))
		part = protowire.AppendString(protowire.AppendTag(part, 2, protowire.BytesType), q.partly())
		return http.StatusOK, protowire.AppendBytes(protowire.AppendTag(b[:0], 1, protowire.BytesType), part)
	}
	status, code, message := statusOf(q, refused, status)
	b = protowire.AppendVarint(protowire.AppendTag(b[:0], 1, protowire.VarintType), uint64(code))
	return status, protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), message)
}
