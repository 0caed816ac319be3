// Package protocol defines the HTTP APIs of other products' clients and our own. Each API is a package below this one.
// It knows four things: its requests (Route), where their key is, where the events are and what they mean (Draft), and
// what its clients expect as answer (Outcome). The receiver does the rest for all: limits, ids, failure records and
// redrives.
package protocol

import (
	"net/http"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
)

// Protocol serves requests with events. It keeps no state of a request.
type Protocol interface {
	// Authenticate returns the key from the request's head.
	Authenticate(req *http.Request) (key string, given bool)
	// Events finds the events in a body and gives each to the sink.
	Events(r *Request, body []byte, to Sink) *errcode.Error
	// Mapper maps the members of an event. A redrive of a single event also uses it.
	Mapper
	// Reply writes the answer. Append it to b, which is an empty buffer.
	Reply(o *Outcome, b []byte) Reply
}

// Mapper fills a draft from the members of an event. It reports errors to the draft.
type Mapper interface {
	Map(d *Draft, members []jsonscan.Member)
}

// MapperFunc adapts a function to Mapper.
type MapperFunc func(d *Draft, members []jsonscan.Member)

// Map calls f.
func (f MapperFunc) Map(d *Draft, members []jsonscan.Member) { f(d, members) }

// Optional methods of a protocol.
type (
	// KeyFinder finds the key in a body if the head has none. An error says why the body cannot be searched.
	KeyFinder interface {
		Key(r *Request, body []byte) (string, *errcode.Error)
	}
	// Verifier checks the whole body against the head, such as a signature. sent is the body as sent.
	Verifier interface {
		Verify(head http.Header, secret string, sent []byte) *errcode.Error
	}
	// Preparer copies into the head what clients say about the body elsewhere.
	Preparer interface {
		Prepare(req *http.Request)
	}
	// Chooser chooses the route of a request by its body.
	Chooser interface {
		Choose(body []byte) *Route
	}
)

// Base has the methods that most protocols share. Embed it.
type Base struct{}

// Authenticate calls HeadKey.
func (Base) Authenticate(req *http.Request) (key string, given bool) { return HeadKey(req) }

// Reply is Penstock's own answer.
func (Base) Reply(o *Outcome, b []byte) Reply {
	return Reply{Status: o.Status, Body: append(o.AppendErrors(o.AppendCounts(append(b, '{'))), "}\n"...)}
}

// Route is a protocol at some paths.
type Route struct {
	Name    string   // product
	Paths   []string // {} stands for the part with the key
	Methods []string // besides OPTIONS; nil: POST
	// Match reports whether a request belongs to this route rather than to others with the same path, by its head; nil:
	// always.
	Match func(head http.Header) bool

	Protocol Protocol // nil: Answer is set
	// Answer replies to requests without events or key.
	Answer func(req *http.Request) Reply

	NameMember string // member with the event's name, for messages; empty: name
	AnyType    bool   // accept any content type: Match has checked it
	FindsGzip  bool   // recognize gzip by its bytes if no header names it
	Query      bool   // the query is the event, and the answer an image for any page
	QueryKey   string // query parameter with the key, in addition to "key"; empty: none
	WholeBody  bool   // keep a rejected event as a whole body with only that event
	RereadBody bool   // Reply reads Outcome.Body
	// EventHeaders belong to an event, so failure records keep them. A name ending in - is a prefix.
	EventHeaders []string
	MaxDepth     int // of an event's JSON before Map turns deep values into text; 0: receiver.max_depth
}

// Allowed returns the methods of the route.
func (r *Route) Allowed() []string {
	if r.Methods == nil {
		return []string{http.MethodPost}
	}
	return r.Methods
}

// Redrive says whether a request is an operator's redrive of a failure record.
type Redrive uint8

// The kinds of redrives.
const (
	NoRedrive    Redrive = iota
	RedriveBody          // the whole body
	RedriveEvent         // one event of it
)

// Request is what a protocol may know about the request.
type Request struct {
	Host
	Header   http.Header
	Lines    bool // NDJSON by its content type
	Redrive  Redrive
	MaxEvent int   // largest event, bytes
	MaxDepth int   // nesting of an event's JSON
	MaxBody  int64 // decompressed, bytes

	wrapped wrapped
}

// Host is the receiver's services for a protocol.
type Host interface {
	// Charge adds n bytes to the request's memory before they are allocated. A negative n returns them.
	Charge(n int64) *errcode.Error
	// Unzip decompresses gzip within a body, up to limit bytes.
	Unzip(data []byte, limit int64) ([]byte, *errcode.Error)
	// IsKey reports whether a text is a key, which must not be stored with an event.
	IsKey(text []byte) bool
}

// Sink receives the events of a body one by one. If it returns an error, the whole request is rejected.
type Sink interface {
	// Values receives the values in a text: consecutive ones, or elements of arrays. With lines, a broken value ends at
	// the next line that begins like a value.
	Values(m Mapper, text []byte, lines bool) *errcode.Error
	// Single receives the only event of a request. If it is rejected, so is the request. what names the text in the
	// message.
	Single(m Mapper, text []byte, what string) *errcode.Error
	// Library sets the client library of all events without one.
	Library(name, version []byte)

	// Next checks the limits for one more record, and returns its index.
	Next() (index int, err *errcode.Error)
	// Record checks a record whose JSON the protocol has written. Done must follow.
	Record(m Mapper, text []byte) Verdict
	// Done finishes a record. raw is a body with only this record, in that content type. It is required if the verdict is
	// Reported.
	Done(v Verdict, raw []byte, contentType string) *errcode.Error
}

// Verdict is the result of a record.
type Verdict struct {
	Err      error // why it is rejected; nil: accepted
	Reported bool  // it becomes a failure record
	Held     bool  // blobs refer to its text, so the text must not change any more
	Repaired bool  // the protocol has replaced something in it
	Sampled  bool  // the project's sampling leaves it out
}

// Values passes all events of a body to the sink: consecutive ones, or elements of arrays.
func Values(m Mapper, r *Request, body []byte, to Sink) *errcode.Error {
	if body = Whole(body); len(body) == 0 {
		return errcode.EmptyBody.Errorf("the body is empty")
	}
	return to.Values(m, body, r.Lines)
}

// Elements passes the elements of a named array in the body's object to the sink.
func Elements(m Mapper, body []byte, name string, to Sink) *errcode.Error {
	body = Whole(body)
	array, err := Find(body, name)
	if err == nil {
		err = ambiguous(body)
	}
	if err != nil {
		return err
	}
	if len(array) == 0 || array[0] != '[' {
		return errcode.MissingEvents.Errorf("the body has no array %q", name)
	}
	return to.Values(m, array, false)
}
