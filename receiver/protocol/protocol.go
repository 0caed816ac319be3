// Package protocol describes the HTTP APIs that clients of other products, and
// our own, speak. Each is a folder below this one and knows four things: which
// requests are its own (Route), where their key is, where their events are and
// what each means (Draft), and what its clients expect to read (Outcome).
// Limits, ids, failure records and redrives are the receiver's, the same for all.
package protocol

import (
	"net/http"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
)

// Protocol serves requests that bring events. It has no state of a request.
type Protocol interface {
	// Authenticate finds the key in the request's head.
	Authenticate(req *http.Request) (key string, given bool)
	// Events finds the events in a body and gives each to the sink.
	Events(r *Request, body []byte, to Sink) *errcode.Error
	// Mapper says what the members of an event mean. A redrive of a single event uses it, too.
	Mapper
	// Reply writes the answer. b is an empty buffer to append it to.
	Reply(o *Outcome, b []byte) Reply
}

// Mapper fills a draft from the members of an event. What is wrong with them is the draft's error.
type Mapper interface {
	Map(d *Draft, members []jsonscan.Member)
}

// MapperFunc is a function as a Mapper.
type MapperFunc func(d *Draft, members []jsonscan.Member)

// Map calls f.
func (f MapperFunc) Map(d *Draft, members []jsonscan.Member) { f(d, members) }

// A protocol can have these methods besides.
type (
	// KeyFinder finds the key in a body whose head has none. An error says why the body could not be searched.
	KeyFinder interface {
		Key(r *Request, body []byte) (string, *errcode.Error)
	}
	// Verifier judges the whole body by what else the head says of it. sent is the body as it was sent.
	Verifier interface {
		Verify(head http.Header, secret string, sent []byte) *errcode.Error
	}
	// Preparer puts into the head what clients say elsewhere of the body.
	Preparer interface {
		Prepare(req *http.Request)
	}
	// Chooser hands a body that was read to the route that it belongs to.
	Chooser interface {
		Choose(body []byte) *Route
	}
)

// Base has the methods that most protocols share. Embed it.
type Base struct{}

// Authenticate is HeadKey.
func (Base) Authenticate(req *http.Request) (key string, given bool) { return HeadKey(req) }

// Reply is Penstock's own answer.
func (Base) Reply(o *Outcome, b []byte) Reply {
	return Reply{Status: o.Status, Body: append(o.AppendErrors(o.AppendCounts(append(b, '{'))), "}\n"...)}
}

// Route is what is served at some paths.
type Route struct {
	Name    string   // of the product
	Paths   []string // {} stands for a part that holds the key
	Methods []string // besides OPTIONS; nil: POST
	// Match says by the head whether the request is this route's, where others have the same path; nil: it is.
	Match func(head http.Header) bool

	Protocol Protocol // nil: Answer is set
	// Answer replies to a request that brings no events and needs no key.
	Answer func(req *http.Request) Reply

	NameMember string // that names an event, for messages; empty: name
	AnyType    bool   // the content type is not judged: Match has done it
	FindsGzip  bool   // gzip is found by its first bytes if no header names it
	Query      bool   // the event is the query, and the answer an image of any page
	QueryKey   string // the parameter that holds the key besides "key"; empty: none
	WholeBody  bool   // a rejected event is kept as a whole body with that event alone
	RereadBody bool   // Reply reads Outcome.Body
	// EventHeaders belong to an event, so failure records keep them. A name that ends with - stands for all that begin so.
	EventHeaders []string
	MaxDepth     int // of an event's JSON before Map has made text of what is deep; 0: receiver.max_depth
}

// Allowed are the methods of the route.
func (r *Route) Allowed() []string {
	if r.Methods == nil {
		return []string{http.MethodPost}
	}
	return r.Methods
}

// Redrive says whether an operator sends a failure record once more.
type Redrive uint8

// The kinds of redrives.
const (
	NoRedrive    Redrive = iota
	RedriveBody          // the whole body
	RedriveEvent         // one event of it
)

// Request is what a protocol may know of the request.
type Request struct {
	Host
	Header   http.Header
	Lines    bool // the body is NDJSON by its content type
	Redrive  Redrive
	MaxEvent int   // bytes of one event
	MaxDepth int   // of an event's JSON
	MaxBody  int64 // bytes, decompressed

	wrapped wrapped
}

// Host is what the receiver does for a protocol.
type Host interface {
	// Charge counts n more bytes of the request's memory, before they are taken; it gives back if n is negative.
	Charge(n int64) *errcode.Error
	// Unzip decompresses gzip within a body, to limit bytes at most.
	Unzip(data []byte, limit int64) ([]byte, *errcode.Error)
	// IsKey reports whether a text is a key, which must not be stored with an event.
	IsKey(text []byte) bool
}

// Sink takes the events of a body, one after the other. A request is rejected
// as a whole by the errors that it returns.
type Sink interface {
	// Values takes the values in a text, one behind the other or as elements of arrays. With lines, a broken value ends
	// at the next line that begins like one.
	Values(m Mapper, text []byte, lines bool) *errcode.Error
	// Single takes the only event of a request. If it is rejected, so is the request; what names the text in the message.
	Single(m Mapper, text []byte, what string) *errcode.Error
	// Library sets the client library of all events that name none.
	Library(name, version []byte)

	// Next says whether one more record is within the limits, and its index.
	Next() (index int, err *errcode.Error)
	// Record judges a record whose JSON the protocol has written. Done must follow.
	Record(m Mapper, text []byte) Verdict
	// Done counts a record. raw is a body with it alone, of that content type; it is needed if the verdict is Reported.
	Done(v Verdict, raw []byte, contentType string) *errcode.Error
}

// Verdict is what became of a record.
type Verdict struct {
	Err      error // why it is rejected; nil: it is not
	Reported bool  // a failure record is made of it
	Held     bool  // parts of its text are blobs: the text must not change any more
	Repaired bool  // the protocol has replaced something in it
	Sampled  bool  // the project's sample leaves it out
}

// Values gives all of a body to the sink: events, one behind the other or as elements of arrays.
func Values(m Mapper, r *Request, body []byte, to Sink) *errcode.Error {
	if body = Whole(body); len(body) == 0 {
		return errcode.EmptyBody.Errorf("the body is empty")
	}
	return to.Values(m, body, r.Lines)
}

// Elements gives the elements of the array that is the named member of the body's object to the sink.
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
