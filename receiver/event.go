package receiver

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// Limits of the envelope, in bytes. They keep what the table sorts and groups
// by to the size that such things have.
const (
	maxName = 256
	maxID   = 1024 // event, session, user
)

// fieldError says what is wrong with a member of an event.
type fieldError struct{ code, message string }

func (e *fieldError) Error() string { return e.message }

func wrong(code, format string, args ...any) error {
	return &fieldError{code, fmt.Sprintf(format, args...)}
}

// explain gives the code and the message that stand in answers and records.
func explain(err error) (code, message string) {
	if e, ok := errors.AsType[*jsonscan.Error](err); ok {
		return e.Code, err.Error()
	}
	if e, ok := errors.AsType[*fieldError](err); ok {
		return e.code, e.message
	}
	return "invalid_event", err.Error()
}

func structural(err error) bool {
	e, ok := errors.AsType[*jsonscan.Error](err)
	return ok && e.Structural()
}

// event reads one event at the start of src and adds it to q.events; n is how
// much of src it takes up, also where it is refused.
func (q *request) event(src []byte) (n int, err error) {
	members, n, err := q.scan.Object(src)
	if err != nil {
		return n, err
	}
	if n > q.opts.MaxEvent {
		return n, wrong("event_too_large", "the event has %d bytes, the limit is %d", n, q.opts.MaxEvent)
	}
	e := pipeline.Event{Project: q.project, ReceivedAt: q.now, Timestamp: pipeline.NoTime, Context: q.context}
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
			return n, err
		}
	}
	if len(e.Name) == 0 {
		return n, wrong("missing_name", "the event has no name: it needs a member \"name\" that is a string of 1 to %d bytes", maxName)
	}
	if len(id) == 0 {
		e.ID = pipeline.NewUUIDv7(q.now)
		if e.Timestamp == pipeline.NoTime {
			e.Timestamp = q.now // nobody can send this event a second time
		}
	}
	if e.Properties, err = q.properties(from, props); err != nil {
		return n, err
	}
	q.events = append(q.events, e)
	return n, nil
}

// property adds a member to the properties that are being written in scratch.
func (q *request) property(m *jsonscan.Member) {
	if q.scratch[len(q.scratch)-1] != '{' {
		q.scratch = append(q.scratch, ',')
	}
	q.scratch = jsonscan.AppendQuoted(q.scratch, m.Key)
	q.scratch = append(q.scratch, ':')
	q.scratch = append(q.scratch, oneLine(m.Value)...)
}

// properties is all of the event beside the envelope: the members of its own
// level, begun at from in scratch, and those of its "properties", if any.
func (q *request) properties(from int, props *jsonscan.Member) ([]byte, error) {
	alone := len(q.scratch) == from+1
	if props != nil && alone {
		q.scratch = q.scratch[:from]
		return oneLine(props.Value), nil
	}
	if props != nil {
		if inner := jsonscan.TrimSpace(props.Value[1 : len(props.Value)-1]); len(inner) > 0 {
			q.scratch = append(q.scratch, ',')
			q.scratch = append(q.scratch, oneLine(inner)...)
		}
	}
	q.scratch = append(q.scratch, '}')
	all := q.scratch[from:len(q.scratch):len(q.scratch)]
	if props != nil {
		if _, _, err := q.inner.Object(all); err != nil {
			return nil, wrong("duplicate_key", "a key is both in \"properties\" and beside it: %s", err)
		}
	}
	return all, nil
}

// oneLine makes a value fit into a line of NDJSON. Outside of strings, where
// alone they can stand unescaped, line ends are white space.
func oneLine(value []byte) []byte {
	for _, end := range []byte{'\n', '\r'} {
		for i := bytes.IndexByte(value, end); i >= 0; {
			value[i] = ' '
			next := bytes.IndexByte(value[i+1:], end)
			if next < 0 {
				break
			}
			i += 1 + next
		}
	}
	return value
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
		if b = m.Value[1 : len(m.Value)-1]; bytes.IndexByte(b, '\\') >= 0 {
			b = jsonscan.AppendUnquoted(nil, m.Value)
		}
	default:
		return nil, wrong("wrong_type", "%q is an %s, want a string", m.Key, m.Kind)
	}
	if len(b) > limit {
		return nil, wrong("field_too_long", "%q has %d bytes, the limit is %d", m.Key, len(b), limit)
	}
	return b, nil
}

// view reads bytes as a string without a copy; it must not outlive them.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
