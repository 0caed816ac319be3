package otlp

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/llm"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// record becomes an event. Its attributes are properties under their own names. Other fields are properties too, or are
// in the envelope if an attribute has their name.
type record struct {
	attributes          []*commonpb.KeyValue
	text                []byte // the properties written so far
	aside               []byte // members of the envelope
	name, session, user string
	id                  string
	time                int64
	err                 error // first error
}

// write makes the properties of a record.
func (b *walk) write(m proto.Message, sent []byte, index int) {
	b.record = record{text: append(b.text[:0], '{'), time: pipeline.NoTime}
	r := &b.record
	switch m := m.(type) {
	case *tracepb.Span:
		r.span(m)
	case *logspb.LogRecord:
		r.log(m)
		// A client's retry has the same bytes, so it makes the same rows. Two equal records of one request are two events.
		// For a record that was kept alone, the position is unknown.
		if b.r.Redrive != protocol.RedriveEvent {
			h := sha256.New()
			h.Write(b.seed[:])
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(index)))
			h.Write(sent)
			r.id = hex.EncodeToString(h.Sum(nil))
		}
	}
	r.user = r.who(b.resourceAttributes, llm.Users)
	r.session = r.who(b.resourceAttributes, llm.Sessions)
	if len(b.envelope)+len(r.aside) > 1 {
		r.text = append(protocol.AppendKey(r.text, protocol.EnvelopeKey), b.envelope...)
		if len(r.aside) > 0 && len(b.envelope) > 1 {
			r.text = append(r.text, ',')
		}
		r.text = append(append(r.text, r.aside...), '}')
	}
	r.text = append(r.text, '}')
}

// judge passes the record to the sink.
func (b *walk) judge() (protocol.Verdict, *errcode.Error) {
	if more := cap(b.text) - b.charged; more > 0 {
		if err := b.r.Charge(int64(more)); err != nil {
			return protocol.Verdict{}, err
		}
		b.charged = cap(b.text)
	}
	v := b.to.Record(b, b.text)
	if v.Held {
		b.text, b.charged = nil, 0
	}
	if v.Err == nil {
		return v, nil
	}
	code, message := errcode.Of(v.Err)
	if at := strings.LastIndex(message, " at byte "); at >= 0 {
		message = message[:at] // drop the position in text that no client has seen
	}
	return v, code.Errorf("%s", message)
}

// Map takes the members of the properties that were written.
func (b *walk) Map(d *protocol.Draft, members []jsonscan.Member) {
	d.Name, d.Session, d.User = []byte(b.name), []byte(b.session), []byte(b.user)
	d.SetID([]byte(b.id))
	d.Time, d.SDK, d.Version, d.Err = b.time, b.sdk, b.version, b.err
	for i := range members {
		d.Property(&members[i])
	}
}

func (r *record) span(m *tracepb.Span) {
	r.begin(m.Attributes, m.Name, "span")
	trace, span := r.identifier("trace_id", m.TraceId, 16), r.identifier("span_id", m.SpanId, 8)
	if trace == "" || span == "" {
		r.fail(errcode.InvalidID.Errorf("the span has no trace id or no span id"))
	}
	r.id = trace + "/" + span
	r.identifier("parent_span_id", m.ParentSpanId, 8)
	r.setNano("start_time_unix_nano", m.StartTimeUnixNano)
	if m.StartTimeUnixNano > 0 && m.EndTimeUnixNano >= m.StartTimeUnixNano {
		r.own("duration_ms", func(w []byte) []byte {
			return appendFloat(w,
				float64(m.EndTimeUnixNano-m.StartTimeUnixNano)/1e6)
		})
	} else {
		r.setAside("end_time_unix_nano", m.EndTimeUnixNano)
	}
	r.put("kind", strings.ToLower(strings.TrimPrefix(m.Kind.String(), "SPAN_KIND_")))
	r.put("status", strings.ToLower(strings.TrimPrefix(m.Status.GetCode().String(), "STATUS_CODE_")))
	r.put("status_message", m.Status.GetMessage())
	if len(m.Events) > 0 {
		r.own("events", func(w []byte) []byte {
			w = append(w, '[')
			for i, e := range m.Events {
				if i > 0 {
					w = append(w, ',')
				}
				w = protocol.AppendString(append(w, '{'), "name", e.Name)
				w = protocol.AppendNumber(w, "time_unix_nano", e.TimeUnixNano)
				w = appendObject(w, "attributes", e.Attributes)
				w = append(protocol.AppendNumber(w, "dropped_attributes_count", uint64(e.DroppedAttributesCount)), '}')
			}
			return append(w, ']')
		})
	}
	if len(m.Links) > 0 {
		r.own("links", func(w []byte) []byte {
			w = append(w, '[')
			for i, l := range m.Links {
				if i > 0 {
					w = append(w, ',')
				}
				w = protocol.AppendString(append(w, '{'), "trace_id", hex.EncodeToString(l.TraceId))
				w = protocol.AppendString(w, "span_id", hex.EncodeToString(l.SpanId))
				w = protocol.AppendString(w, "trace_state", l.TraceState)
				w = appendObject(w, "attributes", l.Attributes)
				w = protocol.AppendNumber(w, "dropped_attributes_count", uint64(l.DroppedAttributesCount))
				w = append(protocol.AppendNumber(w, "flags", uint64(l.Flags)), '}')
			}
			return append(w, ']')
		})
	}
	r.aside = protocol.AppendString(r.aside, "trace_state", m.TraceState)
	r.setAside("flags", uint64(m.Flags))
	r.setAside("dropped_attributes_count", uint64(m.DroppedAttributesCount))
	r.setAside("dropped_events_count", uint64(m.DroppedEventsCount))
	r.setAside("dropped_links_count", uint64(m.DroppedLinksCount))
}

func (r *record) log(m *logspb.LogRecord) {
	name := m.EventName
	if name == "" {
		name = textOf(m.Attributes, "event.name")
	}
	r.begin(m.Attributes, name, "log")
	if m.Body.GetValue() != nil {
		r.own("body", func(w []byte) []byte { return appendValue(w, m.Body) })
	}
	severity := m.SeverityText
	if severity == "" && m.SeverityNumber != 0 {
		severity = strings.TrimPrefix(m.SeverityNumber.String(), "SEVERITY_NUMBER_")
	}
	r.put("severity", severity)
	if m.SeverityNumber != 0 {
		r.own("severity_number", func(w []byte) []byte { return strconv.AppendInt(w, int64(m.SeverityNumber), 10) })
	}
	r.identifier("trace_id", m.TraceId, 16)
	r.identifier("span_id", m.SpanId, 8)
	if m.TimeUnixNano > 0 {
		r.setNano("time_unix_nano", m.TimeUnixNano)
		r.setAside("observed_time_unix_nano", m.ObservedTimeUnixNano)
	} else {
		r.setNano("observed_time_unix_nano", m.ObservedTimeUnixNano)
	}
	r.setAside("flags", uint64(m.Flags))
	r.setAside("dropped_attributes_count", uint64(m.DroppedAttributesCount))
}

func (r *record) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// begin writes the attributes. If a name is too long for the column, the column gets a shortened name and the envelope
// the whole one: a span's name may be any text.
func (r *record) begin(attributes []*commonpb.KeyValue, name, otherwise string) {
	if name == "" {
		name = otherwise
	}
	if len(name) > protocol.MaxName {
		r.aside = protocol.AppendString(r.aside, "name", name)
		n := protocol.MaxName
		for !utf8.RuneStart(name[n]) {
			n--
		}
		name = name[:n]
	}
	r.name = name
	r.attributes = attributes
	r.text = appendAttributes(r.text, attributes)
	r.rename()
}

// rename adds attributes with older names, or names of other conventions, under their current names.
func (r *record) rename() {
	var found [llm.RenamedNames]struct {
		value *commonpb.AnyValue
		rank  int
	}
	count := 0
	for _, a := range r.attributes {
		at, known := llm.Renames[a.Key]
		if !known {
			continue
		}
		if f := &found[at.Now]; f.value == nil || at.Rank <= f.rank { // of two with one name, the last counts
			if f.value, f.rank = a.Value, at.Rank; f.value == nil {
				f.value = &commonpb.AnyValue{}
			}
			count++
		}
	}
	if count == 0 {
		return
	}
	for i, c := range llm.Renamed {
		v := found[i].value
		if v == nil || found[i].rank == 0 {
			continue
		}
		if c.Now == llm.FinishReasons && v.GetArrayValue() == nil { // older conventions have a single reason
			one := &commonpb.ArrayValue{Values: []*commonpb.AnyValue{v}}
			v = &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: one}}
		}
		r.text = appendValue(protocol.AppendKey(r.text, c.Now), v)
		r.attributes = append(r.attributes[:len(r.attributes):len(r.attributes)], &commonpb.KeyValue{Key: c.Now, Value: v})
	}
}

// own writes the record's other fields.
func (r *record) own(name string, write func(w []byte) []byte) {
	to := &r.text
	if valueOf(r.attributes, name) != nil {
		to = &r.aside
	}
	*to = write(protocol.AppendKey(*to, name))
}

func (r *record) put(name, value string) {
	if value != "" {
		r.own(name, func(w []byte) []byte { return jsonscan.AppendQuoted(w, []byte(value)) })
	}
}

func (r *record) setAside(name string, n uint64) { r.aside = protocol.AppendNumber(r.aside, name, n) }

// setNano sets the time, and keeps the digits that the column's milliseconds lose.
func (r *record) setNano(name string, nano uint64) {
	r.setAside(name, nano)
	if nano > 0 {
		r.time = int64(nano / 1e6)
		if err := pipeline.CheckTime(r.time); err != nil {
			r.fail(errcode.InvalidTimestamp.Errorf("%q is %d: %s", name, nano, err))
		}
	}
}

// identifier writes an id in hexadecimal. An id of zeros counts as none.
func (r *record) identifier(name string, id []byte, size int) string {
	if len(bytes.Trim(id, "\x00")) == 0 {
		return ""
	}
	if len(id) != size {
		r.fail(errcode.InvalidID.Errorf("%s has %d bytes, want %d", name, len(id), size))
	}
	text := hex.EncodeToString(id)
	r.put(name, text)
	return text
}

// who returns the first attribute with a value for a column; otherwise the resource's.
func (r *record) who(resource []*commonpb.KeyValue, names []llm.Attribute) string {
	for _, attributes := range [][]*commonpb.KeyValue{r.attributes, resource} {
		for _, a := range names {
			if text := textOf(attributes, a.Name); len(text) > protocol.MaxID {
				r.fail(errcode.FieldTooLong.Errorf("%q has %d bytes, the limit is %d", a.Name, len(text), protocol.MaxID))
			} else if text != "" {
				return text
			}
		}
	}
	return ""
}

// eachID calls f with each id in a record.
func eachID(m proto.Message, f func(id *[]byte) error) (err error) {
	each := func(ids ...*[]byte) {
		for _, id := range ids {
			if err == nil && len(*id) > 0 {
				err = f(id)
			}
		}
	}
	switch m := m.(type) {
	case *tracepb.Span:
		each(&m.TraceId, &m.SpanId, &m.ParentSpanId)
		for _, l := range m.Links {
			each(&l.TraceId, &l.SpanId)
		}
	case *logspb.LogRecord:
		each(&m.TraceId, &m.SpanId)
	}
	return err
}

// idsOfJSON fixes the ids of a record in JSON. They are hexadecimal there, and were decoded as base64. That loses
// nothing if the length is right, a multiple of four.
func idsOfJSON(m proto.Message) error {
	return eachID(m, func(id *[]byte) error {
		b, err := hexID(base64.StdEncoding.EncodeToString(*id))
		*id = b
		return err
	})
}

func hexID(text string) ([]byte, error) {
	b, err := hex.DecodeString(text)
	if err == nil && len(b) != 8 && len(b) != 16 {
		err = hex.ErrLength
	}
	return b, err
}

// wrongID names the first invalid id of a record, as sent.
func (b *walk) wrongID(sent []byte) *errcode.Error {
	const want = "want 32 hexadecimal digits of a trace, 16 of a span"
	found := errcode.InvalidID.Errorf("an id: %s", want)
	search := func(object []byte) (stop *errcode.Error) {
		protocol.EachMember(object, func(key, value []byte) {
			switch string(key) {
			case "traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id":
				text := protocol.PlainText(value)
				if _, err := hexID(string(text)); err != nil && len(text) > 0 && stop == nil {
					found = errcode.InvalidID.Errorf("%s %.40q: %s", key, text, want)
					stop = &errcode.Error{}
				}
			}
		})
		return stop
	}
	if search(sent) == nil {
		b.list(sent, "links", search)
	}
	return found
}

// idsToJSON is the inverse, for a record that becomes JSON.
func idsToJSON(m proto.Message) error {
	return eachID(m, func(id *[]byte) (err error) {
		*id, err = base64.StdEncoding.DecodeString(hex.EncodeToString(*id))
		return err
	})
}

// valueOf is the last attribute of that name; nil: none.
func valueOf(attributes []*commonpb.KeyValue, name string) *commonpb.AnyValue {
	for i := len(attributes) - 1; i >= 0; i-- {
		if a := attributes[i]; a.Key == name {
			if a.Value == nil {
				return &commonpb.AnyValue{}
			}
			return a.Value
		}
	}
	return nil
}

// textOf is an attribute as text; numbers become their digits.
func textOf(attributes []*commonpb.KeyValue, name string) string {
	switch v := valueOf(attributes, name).GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_IntValue:
		return strconv.FormatInt(v.IntValue, 10)
	}
	return ""
}

// appendRaw writes a member that is JSON already, if there is any.
func appendRaw(w []byte, key string, value []byte) []byte {
	if len(value) == 0 {
		return w
	}
	return append(protocol.AppendKey(w, key), value...)
}

// appendObject writes a member that has attributes, if there are any.
func appendObject(w []byte, key string, attributes []*commonpb.KeyValue) []byte {
	if len(attributes) == 0 {
		return w
	}
	return append(appendAttributes(append(protocol.AppendKey(w, key), '{'), attributes), '}')
}

// fewAttributes is the number up to which attributes are compared one by one.
const fewAttributes = 16

// appendAttributes writes attributes as members. The protocol forbids two with one name; if there are two, the last one
// counts.
func appendAttributes(w []byte, attributes []*commonpb.KeyValue) []byte {
	var last map[string]int
	if len(attributes) > fewAttributes {
		last = make(map[string]int, len(attributes))
		for i, a := range attributes {
			last[a.Key] = i
		}
	}
	for i, a := range attributes {
		if last == nil && valueOf(attributes[i+1:], a.Key) != nil || last != nil && last[a.Key] != i {
			continue
		}
		w = appendValue(protocol.AppendKey(w, a.Key), a.Value)
	}
	return w
}

func appendValue(w []byte, v *commonpb.AnyValue) []byte {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return jsonscan.AppendQuoted(w, []byte(v.StringValue))
	case *commonpb.AnyValue_BoolValue:
		return strconv.AppendBool(w, v.BoolValue)
	case *commonpb.AnyValue_IntValue:
		return strconv.AppendInt(w, v.IntValue, 10)
	case *commonpb.AnyValue_DoubleValue:
		return appendFloat(w, v.DoubleValue)
	case *commonpb.AnyValue_BytesValue:
		w = base64.StdEncoding.AppendEncode(append(w, '"'), v.BytesValue)
		return append(w, '"')
	case *commonpb.AnyValue_ArrayValue:
		w = append(w, '[')
		for i, e := range v.ArrayValue.GetValues() {
			if i > 0 {
				w = append(w, ',')
			}
			w = appendValue(w, e)
		}
		return append(w, ']')
	case *commonpb.AnyValue_KvlistValue:
		return append(appendAttributes(append(w, '{'), v.KvlistValue.GetValues()), '}')
	}
	return append(w, "null"...)
}

// appendFloat writes a float so that it stays one: 1 becomes 1.0.
func appendFloat(w []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(w, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(w, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(w, `"-Infinity"`...)
	}
	from := len(w)
	w = strconv.AppendFloat(w, f, 'g', -1, 64)
	if !bytes.ContainsAny(w[from:], ".e") {
		w = append(w, ".0"...)
	}
	return w
}
