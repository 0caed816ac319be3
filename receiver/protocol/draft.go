package protocol

import (
	"math"
	"strconv"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
)

// Limits of an event's columns, in bytes. Tables are sorted and grouped by these values.
const (
	MaxName = 256
	MaxID   = 1024 // event, session, user
)

// LLMCall is the name of a model's calls if their protocol has no name for them.
const LLMCall = "llm_call"

// EnvelopeKey is the property for members of the client's envelope without a column.
const EnvelopeKey = "$envelope"

// Draft is an event as a protocol describes it. It refers to the event's text without copying, so the receiver can
// write it more than once.
type Draft struct {
	Request *Request

	Name, Session, User []byte
	Time                int64  // ms, or pipeline.NoTime
	SDK, Version        []byte // client library; empty: the request's
	Err                 error  // first error

	Parts    []Part             // of the properties, in order
	Envelope []*jsonscan.Member // members of EnvelopeKey, after all properties
	Mixed    bool               // parts may repeat a key, so check

	id     []byte // from the client; empty: none
	uuid   pipeline.UUID
	isUUID bool
}

// Part is a piece of an event's properties.
type Part struct {
	As   As
	Of   *jsonscan.Member // JSON value, except in Data and Blob
	File *File            // for Base64, Data and Blob
}

// File describes bytes that are stored as a blob.
type File struct{ ContentType, Name string }

// As says how a part is written.
type As uint8

// The ways to write a part.
const (
	Member  As = iota // "key":value
	Members           // the members of the object Value
	Text              // "key":"value", the JSON as a text
	Base64            // "key":"value", a JSON string in base64; a file if it is large
	Data              // "key":"base64 of value"; a file if it is large
	Blob              // "key":reference, a file of any size
)

// Reset starts another event.
func (d *Draft) Reset(r *Request) {
	d.Request, d.Time, d.Err, d.Mixed = r, pipeline.NoTime, nil, false
	d.Name, d.Session, d.User, d.SDK, d.Version = nil, nil, nil, nil, nil
	d.Parts, d.Envelope = d.Parts[:0], d.Envelope[:0]
	d.id, d.isUUID = nil, false
}

// Fail rejects the event. The first error counts.
func (d *Draft) Fail(err error) {
	if d.Err == nil {
		d.Err = err
	}
}

// Text returns a member's content for a column; a wrong type rejects the event. Numbers become text, because many
// clients number their users. null means absent.
func (d *Draft) Text(m *jsonscan.Member, limit int) []byte {
	var b []byte
	switch m.Kind {
	case jsonscan.Null:
		return nil
	case jsonscan.Number:
		b = m.Value
	case jsonscan.String:
		b = m.Text()
	default:
		d.Fail(errcode.WrongType.Errorf("%q is of type %s, want a string", m.Key, m.Kind))
		return nil
	}
	if len(b) > limit {
		d.Fail(errcode.FieldTooLong.Errorf("%q has %d bytes, the limit is %d", m.Key, len(b), limit))
		return nil
	}
	return b
}

// SetName sets the event's name to the content of a member. The receiver checks its length.
func (d *Draft) SetName(m *jsonscan.Member) { d.Name = d.Text(m, math.MaxInt) }

// SetTime sets the event's time to a member's.
func (d *Draft) SetTime(m *jsonscan.Member) {
	t, err := ParseTime(m)
	d.Fail(err)
	d.Time = t
}

// Property adds a member to the properties.
func (d *Draft) Property(m *jsonscan.Member) {
	d.Parts = append(d.Parts, Part{Of: m})
}

// Spread adds an object's members to the properties. Any other value becomes one property.
func (d *Draft) Spread(m *jsonscan.Member) {
	switch m.Kind {
	case jsonscan.Null:
	case jsonscan.Object:
		d.Parts = append(d.Parts, Part{As: Members, Of: m})
	default:
		d.Property(m)
	}
}

// Keep stores a member of the client's envelope.
func (d *Draft) Keep(m *jsonscan.Member) {
	if m.Kind != jsonscan.Null {
		d.Envelope = append(d.Envelope, m)
	}
}

// KeepID keeps the original id if it is not a UUID, because then a UUID is derived from it.
func (d *Draft) KeepID(m *jsonscan.Member) {
	if !d.HasUUID() {
		d.Keep(m)
	}
}

// SetID sets the client's id of the event; empty: none.
func (d *Draft) SetID(id []byte) {
	d.id, d.isUUID = id, false
	if len(id) > 0 {
		var err error
		d.uuid, err = pipeline.ParseUUID(id)
		d.isUUID = err == nil
	}
}

// ID returns the client's id of the event.
func (d *Draft) ID() []byte { return d.id }

// HasUUID reports whether the client's id is a UUID.
func (d *Draft) HasUUID() bool { return d.isUUID }

// UUID returns the event's id, if the client gave one.
func (d *Draft) UUID(project []byte) (id pipeline.UUID, given bool) {
	if d.isUUID || len(d.id) == 0 {
		return d.uuid, d.isUUID
	}
	return pipeline.UUIDv5(project, d.id), true
}

// Joined joins two texts. Different pairs never give the same result.
func Joined(a, b []byte) []byte {
	w := strconv.AppendInt(nil, int64(len(a)), 10)
	return append(append(append(w, ' '), a...), b...)
}

// ParseTime parses an event's time. Null and an empty text mean no time.
func ParseTime(m *jsonscan.Member) (ms int64, err error) {
	text := m.Value
	switch m.Kind {
	case jsonscan.Null:
		return pipeline.NoTime, nil
	case jsonscan.Number:
		ms, err = pipeline.ParseEpoch(text)
	case jsonscan.String:
		text = m.Text()
		ms, err = pipeline.ParseTime(text)
	default:
		return 0, errcode.WrongType.Errorf("%q is of type %s, want a string or a number", m.Key, m.Kind)
	}
	if err != nil {
		return 0, errcode.InvalidTimestamp.Errorf("%q is %.40q: %s", m.Key, text, err)
	}
	return ms, nil
}
