package receiver

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
)

// Limits of the envelope, in bytes. They keep what the table sorts and groups
// by to the size that such things have.
const (
	maxName = 256
	maxID   = 1024 // event, session, user
)

// explain gives the code and the message that stand in answers and records.
func explain(err error) (code errcode.Code, message string) {
	if e, ok := errors.AsType[*jsonscan.Error](err); ok {
		if code, ok := errcode.Named(e.Code); ok {
			return code, err.Error()
		}
	}
	if e, ok := errors.AsType[*errcode.Error](err); ok {
		return e.Code, e.Message
	}
	return errcode.InvalidEvent, err.Error()
}

func structural(err error) bool {
	e, ok := errors.AsType[*jsonscan.Error](err)
	return ok && e.Structural()
}

// event reads one event at the start of src and adds it to q.events; n is how
// much of src it takes up, also where it is refused.
func (q *request) event(src []byte) (n int, err error) {
	// One byte more than allowed tells what is too large, and no more is read
	// of it: the scanner takes many times an object's bytes.
	limit := q.r.opts.MaxEvent
	members, n, err := q.scan.Object(src[:min(len(src), limit+1)])
	q.largest = max(q.largest, n)
	if n > limit {
		if n = extent(src); n == 0 {
			n = len(src)
			return n, &jsonscan.Error{Code: jsonscan.InvalidJSON, Offset: n, Message: fmt.Sprintf("unexpected end of JSON at byte %d, in an event beyond the limit of %d bytes", n, limit)}
		}
		return n, wrong("event_too_large", "the event has %d bytes, the limit is %d", n, limit)
	}
	if err != nil {
		return n, err
	}
	q.mended = 0
	if q.scan.LoneSurrogates() {
		text, err := q.repair(src[:n])
		if err == nil {
			members, _, err = q.scan.Object(text)
		}
		if err != nil {
			return n, err
		}
		q.mended = 1
	}
	if q.room(min(n, keepBytes/4)+1<<10) != nil {
		q.overfull = true
		return n, errMemory
	}
	from, blobs, applied, piece := len(q.scratch), len(q.blobs), len(q.applied), cap(q.scratch)
	for q.threshold = q.r.opts.BlobThreshold; ; q.threshold /= 8 {
		e, err := q.make(members)
		if err == nil && len(e.Properties)+(len(q.blobs)-blobs)*blobRoom > maxRow {
			err = wrong("event_too_large", "%d bytes are left of the event when its values above %d are taken out, the limit is %d", len(e.Properties), q.threshold, maxRow)
			if q.threshold > minThreshold {
				q.scratch, q.blobs, q.applied = q.scratch[:from], q.blobs[:blobs], q.applied[:applied]
				continue
			}
		}
		if err == nil && q.scan.Dotted() {
			if path := jsonscan.SharedPath(e.Properties); path != nil {
				err = wrong("duplicate_key", "the path %.200q is there twice, for keys are joined by dots where properties are stored: give one of them another name", path)
			}
		}
		if err == nil && q.r.opts.Schemas != nil {
			err = q.conform(&e, blobs, func() (pipeline.Event, error) { return q.dialect.event(q, members) })
		}
		if err != nil {
			q.scratch, q.blobs, q.applied = q.scratch[:from], q.blobs[:blobs], q.applied[:applied]
			return n, err
		}
		if grown := cap(q.scratch); grown > piece && q.charge(q.charged+int64(grown)) != nil {
			q.overfull = true
			return n, errMemory
		}
		if n := len(q.events); n == cap(q.events) {
			q.events = slices.Grow(q.events, n+1) // append's own steps leave five times as much behind
		}
		q.events = append(q.events, e)
		q.inRows += len(e.Properties)
		q.repaired += q.mended
		return n, nil
	}
}

// extent is where the value at the start of src ends, by its brackets and
// strings alone; 0 where it does not.
func extent(src []byte) int {
	depth := 0
	for i := 0; i < len(src); i++ {
		switch src[i] {
		case '"':
			for i++; i < len(src) && src[i] != '"'; i++ {
				if src[i] == '\\' {
					i++
				}
			}
			if i >= len(src) {
				return 0
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth == 0 {
				return i // of the array around a bare number
			}
			depth--
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
			continue
		default:
			continue
		}
		if depth == 0 {
			return i + 1
		}
	}
	if depth == 0 {
		return len(src) // a bare number
	}
	return 0
}

// envelope makes an event of an object's members.
func (q *request) envelope(members []jsonscan.Member) (e pipeline.Event, err error) {
	e = pipeline.Event{Project: q.project, ReceivedAt: q.now, Timestamp: pipeline.NoTime, Context: q.context}
	var id []byte
	var props *jsonscan.Member
	from := len(q.scratch)
	q.scratch = append(q.scratch, '{')
	for i := range members {
		m := &members[i]
		switch string(m.Key) {
		case "name":
			e.Name, err = q.text(m, maxName)
		case "timestamp":
			e.Timestamp, err = parseTime(m)
		case "session_id":
			e.SessionID, err = q.text(m, maxID)
		case "user_id":
			e.UserID, err = q.text(m, maxID)
		case "event_id":
			if id, err = q.text(m, maxID); err == nil && len(id) > 0 {
				if e.ID, err = pipeline.ParseUUID(id); err != nil {
					e.ID, err = pipeline.UUIDv5(q.project, id), nil
					q.property(m) // the original is kept
				}
			}
		case "properties":
			if m.Kind == jsonscan.Object {
				props = m
			} else if m.Kind != jsonscan.Null {
				q.property(m)
			}
		default:
			q.property(m)
		}
		if err != nil {
			return e, err
		}
	}
	if err = q.identify(&e, len(id) > 0); err != nil {
		return e, err
	}
	q.takeFiles()
	e.Properties, err = q.properties(from, props)
	return e, err
}

// identify gives an event that came without an id one of its own, and sees to
// its name.
func (q *request) identify(e *pipeline.Event, known bool) error {
	if len(e.Name) == 0 {
		return wrong("missing_name", "the event has no name: it needs a member %q that is a string of 1 to %d bytes", cmp.Or(q.dialect.nameKey, "name"), maxName)
	}
	if known {
		return nil
	}
	now := q.now
	if q.redrive != nil {
		e.ID, now = q.redriven(), q.redrive.Time
	} else {
		e.ID = pipeline.NewUUIDv7(now)
	}
	if e.Timestamp == pipeline.NoTime {
		e.Timestamp = now // no client can send this event a second time
	}
	return nil
}

// property adds a member to the properties that are being written in scratch.
func (q *request) property(m *jsonscan.Member) {
	q.comma()
	q.scratch = jsonscan.AppendQuoted(q.scratch, m.Key)
	q.scratch = append(q.scratch, ':')
	q.line(m.Value)
}

// properties is all of the event beside the envelope: the members of its own
// level, begun at from in scratch, and those of its "properties", if any.
func (q *request) properties(from int, props *jsonscan.Member) ([]byte, error) {
	alone := len(q.scratch) == from+1
	if props != nil && alone && !q.large(props.Value) {
		q.scratch = q.scratch[:from]
		if !hasLineEnd(props.Value) {
			return props.Value, nil
		}
		q.flat(props.Value)
		return q.scratch[from:len(q.scratch):len(q.scratch)], nil
	}
	if props != nil {
		q.spread(props.Value)
	}
	q.scratch = append(q.scratch, '}')
	q.settle(from)
	all := q.scratch[from:len(q.scratch):len(q.scratch)]
	if props != nil && !alone {
		if _, _, err := q.inner.Object(all); err != nil {
			what := err.Error() // the byte that it names is none of the client's
			return nil, wrong("duplicate_key", "%s: in \"properties\" and beside it", what[:strings.LastIndex(what, " at byte ")])
		}
	}
	return all, nil
}

// line writes a value into scratch, without what is large in it.
func (q *request) line(value []byte) {
	if q.large(value) {
		q.cut(value)
	} else {
		q.flat(value)
	}
}

// flat writes a text into scratch so that it fits into a line of NDJSON.
// Outside of strings, where alone they can stand unescaped, line ends are
// white space.
func (q *request) flat(value []byte) {
	from := len(q.scratch)
	q.scratch = append(q.scratch, value...)
	if hasLineEnd(value) {
		for i, c := range q.scratch[from:] {
			if c == '\n' || c == '\r' {
				q.scratch[from+i] = ' '
			}
		}
	}
}

func hasLineEnd(b []byte) bool {
	return bytes.IndexByte(b, '\n') >= 0 || bytes.IndexByte(b, '\r') >= 0
}

// text is the content of a member that names something. Numbers are taken by
// their digits, for many clients count their users; null is as good as absent.
func (q *request) text(m *jsonscan.Member, limit int) ([]byte, error) {
	var b []byte
	switch m.Kind {
	case jsonscan.Null:
		return nil, nil
	case jsonscan.Number:
		b = m.Value
	case jsonscan.String:
		b = content(m)
	default:
		return nil, wrong("wrong_type", "%q is of type %s, want a string", m.Key, m.Kind)
	}
	if len(b) > limit {
		return nil, wrong("field_too_long", "%q has %d bytes, the limit is %d", m.Key, len(b), limit)
	}
	return b, nil
}

// content is that of a string.
func content(m *jsonscan.Member) []byte {
	b := m.Value[1 : len(m.Value)-1]
	if bytes.IndexByte(b, '\\') >= 0 {
		b = jsonscan.AppendUnquoted(nil, m.Value)
	}
	return b
}

// view reads bytes as a string without a copy; it must not outlive them.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
