package receiver

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
)

// A dialect is an HTTP API as the clients of some product speak it. Each makes
// the same Event of what it is sent; keys, limits, durability, reports and the
// rest of an event's way are the same for all. Penstock's own is native.
type dialect struct {
	name  string
	paths []string // {} stands for a part that holds the key

	methods []string // that are served, besides OPTIONS; nil: POST

	// variant is the dialect that a request's head asks for on this route; nil:
	// this one, always. anyType leaves the content type unjudged: the variant was
	// chosen by it.
	variant func(head http.Header) *dialect
	anyType bool

	// Where the key stands: in the head (nil: where native clients put it), or
	// else in the body, which is read before the key is known then.
	headKey func(req *http.Request) (key string, given bool)
	bodyKey func(q *request, body []byte) string

	// prepare puts into the head what clients say elsewhere of the body; nil: nothing.
	prepare func(req *http.Request)
	// verify judges the whole body, once it is read and its key is known, by
	// what else the request's head says of it; nil: nothing to judge.
	verify func(q *request, req *http.Request) *errcode.Error

	// sniffs says that gzip is found by its first bytes where no header names it.
	sniffs bool

	// decode finds the events in a body and has each judged by q.event, which
	// comes back to event for what it means.
	decode func(q *request, body []byte) *errcode.Error
	event  func(q *request, members []jsonscan.Member) (pipeline.Event, error)
	// nameKey is the member of an event that names it; empty: name.
	nameKey string
	// alone says that what is kept of a refused event is a whole body, with that
	// event alone.
	alone bool

	// query says that events stand in the query and not in a body.
	query bool
	// queryKey is a parameter that holds the key, besides "key"; empty: none.
	queryKey string

	// reply answers a request that brings no events, in place of all the above;
	// it needs no key.
	reply func(r *Receiver, req *http.Request) (status int, body []byte)

	// answer writes what the client expects to hear; nil: what native clients do.
	// status is the native one.
	answer func(q *request, refused *errcode.Error, status int, b []byte) (int, []byte)
	// rereads says that answer reads the body again.
	rereads bool
	// contentType is the answers'; empty: JSON.
	contentType string
}

// envelopeKey is where a dialect's event keeps the members of the client's own
// envelope that have no column.
const envelopeKey = "$envelope"

// dialects are all but native, by their paths without a slash at the end.
var dialects = routes(
	segment,
	posthog, amplitude, gameanalytics, langfuse,
	otlp, pixel,
	litellm, helicone,
)

func routes(products ...[]*dialect) map[string]*dialect {
	m := map[string]*dialect{eventsPath: native}
	for _, d := range slices.Concat(products...) {
		for _, path := range d.paths {
			m[path] = d
		}
	}
	return m
}

// dialectOf is the one that a path belongs to, nil if there is nothing there.
func dialectOf(path string) *dialect {
	if path == eventsPath {
		return native
	}
	return dialects[keyless(strings.TrimSuffix(path, "/"))]
}

// keyless is a path without the key that it may hold: /v2/{}/events.
func keyless(path string) string {
	if dialects[path] != nil {
		return path
	}
	for at := 2; at <= maxKeyAt; at++ { // 0 is before the first slash, and no path begins with a key
		parts := strings.SplitN(path, "/", at+2)
		if len(parts) < at+2 {
			break
		}
		parts[at] = "{}"
		if without := strings.Join(parts, "/"); dialects[strings.TrimSuffix(without, "/")] != nil {
			return without
		}
	}
	return path
}

// maxKeyAt is the last place of a key in a path: /v1/projects/{}/settings.
const maxKeyAt = 3

// pathPart is the key in a path, by its place between slashes.
func pathPart(path string, at int) string { return strings.Split(path, "/")[at] }

// of is the variant for a request with that head.
func (d *dialect) of(head http.Header) *dialect {
	if d.variant != nil {
		if v := d.variant(head); v != nil {
			return v
		}
	}
	return d
}

func (d *dialect) allowed() []string {
	if d.methods == nil {
		return []string{http.MethodPost}
	}
	return d.methods
}

// native is Penstock's own API: POST /v1/events.
var native = &dialect{
	name: "penstock", paths: []string{eventsPath},
	decode:  (*request).decode,
	event:   (*request).envelope,
	variant: nativeVariant,
}

// wholeBody is the body without what surrounds its JSON.
func wholeBody(body []byte) []byte {
	return jsonscan.TrimSpace(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))) // a byte order mark says nothing more
}

// decodeMember judges the elements of the array that is the named member of the
// body's object.
func (q *request) decodeMember(body []byte, name string) *errcode.Error {
	body = wholeBody(body)
	array, err := find(body, name)
	if err == nil {
		err = ambiguous(body)
	}
	if err != nil {
		return err
	}
	if len(array) == 0 || array[0] != '[' {
		return errcode.MissingEvents.Errorf("the body has no array %q", name)
	}
	return q.decodeValues(array, false)
}

// Members around events that may stand once: of two, one would be lost. Of the
// first, only one may bring something.
var (
	bringing = []string{"batch", "events", "event"}
	telling  = []string{"writeKey", "api_key", "token", "metadata"}
)

// ambiguous refuses a body in which it is not clear where its events are, or whose.
func ambiguous(body []byte) (err *errcode.Error) {
	var seen []string
	brings := ""
	eachMember(body, func(key, value []byte) {
		name := string(key)
		list := slices.Contains(bringing, name)
		switch {
		case err != nil || !list && !slices.Contains(telling, name):
			return
		case slices.Contains(seen, name):
			err = errcode.DuplicateKey.Errorf("the body has more than one %q", name)
		case list && value[0] != 'n' && brings != "":
			err = errcode.DuplicateKey.Errorf("the body has both %q and %q: send one of them", brings, name)
		case list && value[0] != 'n':
			brings = name
		}
		seen = append(seen, name)
	})
	return err
}

// find is the last member of that name of the object that is all of body, nil if
// there is none. It goes by brackets and strings alone: what is in the members is
// judged by whoever makes events of them.
func find(body []byte, name string) ([]byte, *errcode.Error) {
	if len(body) == 0 {
		return nil, errcode.EmptyBody.Errorf("the body is empty")
	}
	var found []byte
	whole := eachMember(body, func(key, value []byte) {
		if string(key) == name {
			found = value
		}
	})
	if !whole {
		return nil, errcode.InvalidJSON.Errorf("the body is not a JSON object")
	}
	return found, nil
}

// eachMember calls f for each member of the object that is all of b, and tells
// whether it is one, by brackets and strings.
func eachMember(b []byte, f func(key, value []byte)) bool {
	return eachSent(b, func(key, value []byte) {
		if bytes.IndexByte(key, '\\') >= 0 {
			key = jsonscan.AppendUnquoted(nil, slices.Concat([]byte{'"'}, key, []byte{'"'}))
		}
		f(key, value)
	})
}

// eachSent is eachMember with the keys as they were sent, without their quotes.
func eachSent(b []byte, f func(key, value []byte)) bool {
	if len(b) < 2 || b[0] != '{' {
		return false
	}
	b = jsonscan.TrimSpace(b[1:])
	if len(b) > 0 && b[0] == '}' {
		return len(b) == 1
	}
	for len(b) > 0 && b[0] == '"' {
		n := extent(b)
		if n < 2 {
			return false
		}
		key := b[1 : n-1]
		b = jsonscan.TrimSpace(b[n:])
		if len(b) == 0 || b[0] != ':' {
			return false
		}
		b = jsonscan.TrimSpace(b[1:])
		if n = extent(b); n == 0 {
			return false
		}
		f(key, b[:n])
		b = jsonscan.TrimSpace(b[n:])
		if len(b) > 0 && b[0] == '}' {
			return len(b) == 1
		}
		if len(b) == 0 || b[0] != ',' {
			return false
		}
		b = jsonscan.TrimSpace(b[1:])
	}
	return false
}

// dig is the value at a path below an object that was validated, nil if there is none.
func dig(object []byte, path ...string) (value []byte) {
	for _, name := range path {
		value = nil
		eachMember(object, func(key, v []byte) {
			if string(key) == name {
				value = v
			}
		})
		object = value
	}
	return value
}

// asMember is a value as q.text and parseTime take one; nil is null.
func asMember(name string, value []byte) *jsonscan.Member {
	m := &jsonscan.Member{Key: []byte(name), Value: value}
	switch {
	case len(value) == 0 || value[0] == 'n':
		m.Kind = jsonscan.Null
	case value[0] == '"':
		m.Kind = jsonscan.String
	case value[0] == '{':
		m.Kind = jsonscan.Object
	case value[0] == '[':
		m.Kind = jsonscan.Array
	case value[0] == 't', value[0] == 'f':
		m.Kind = jsonscan.Bool
	default:
		m.Kind = jsonscan.Number
	}
	return m
}

// plainText is the content of a JSON string or the digits of a number; nil of all else.
func plainText(value []byte) []byte {
	switch m := asMember("", value); m.Kind {
	case jsonscan.String:
		return content(m)
	case jsonscan.Number:
		return m.Value
	}
	return nil
}

// draft is an event that a dialect is making. Its properties are begun in the
// request's scratch.
type draft struct {
	q    *request
	from int // where they begin
	kept int // where those of the client's envelope begin; 0: there are none yet

	name, session, user []byte
	id                  []byte // the client's; empty: none
	time                int64  // ms, or pipeline.NoTime
	sdk, version        []byte // the client's library
	err                 error  // the first
}

func (q *request) draft() *draft {
	d := &draft{q: q, from: len(q.scratch), time: pipeline.NoTime}
	q.scratch = append(q.scratch, '{')
	return d
}

// text is the content of a member for a column; a wrong one is the event's error.
func (d *draft) text(m *jsonscan.Member, limit int) []byte {
	b, err := d.q.text(m, limit)
	d.fail(err)
	return b
}

func (d *draft) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

func (d *draft) setTime(m *jsonscan.Member) {
	t, err := parseTime(m)
	d.fail(err)
	d.time = t
}

// spread makes properties of an object's members; what is no object is a
// property itself.
func (d *draft) spread(m *jsonscan.Member) {
	switch m.Kind {
	case jsonscan.Null:
	case jsonscan.Object:
		d.q.spread(m.Value)
	default:
		d.q.property(m)
	}
}

// keep puts a member of the client's envelope beside the properties. All of
// these come behind all properties.
func (d *draft) keep(m *jsonscan.Member) {
	if m.Kind == jsonscan.Null {
		return
	}
	if d.kept == 0 {
		d.q.property(&jsonscan.Member{Key: []byte(envelopeKey), Value: []byte("{"), Kind: jsonscan.Object})
		d.kept = len(d.q.scratch)
	}
	d.q.property(m)
}

// joined is one text of two: no other two make the same.
func joined(a, b []byte) []byte {
	w := strconv.AppendInt(nil, int64(len(a)), 10)
	return append(append(append(w, ' '), a...), b...)
}

// keepID keeps the member that the event's id came from, where that is no UUID
// and another one is made of it.
func (d *draft) keepID(m *jsonscan.Member) {
	if _, err := pipeline.ParseUUID(d.id); err != nil {
		d.keep(m)
	}
}

// event is what the draft comes to.
func (d *draft) event() (pipeline.Event, error) {
	q := d.q
	e := pipeline.Event{Project: q.project, ReceivedAt: q.now, Timestamp: d.time, Context: q.context, Name: d.name, SessionID: d.session, UserID: d.user}
	if d.err != nil {
		return e, d.err
	}
	if d.kept > 0 {
		q.scratch = append(q.scratch, '}')
	}
	q.scratch = append(q.scratch, '}')
	q.settle(d.from)
	e.Properties = q.scratch[d.from:len(q.scratch):len(q.scratch)]
	if own := e.Properties[:max(0, d.kept-d.from-3)]; bytes.Contains(own, []byte(envelopeKey)) || bytes.IndexByte(own, '\\') >= 0 { // a key may be escaped
		if _, _, err := q.inner.Object(e.Properties); err != nil {
			return e, errcode.DuplicateKey.Errorf("the property %q is taken: the client's own envelope goes there", envelopeKey)
		}
	}
	if len(d.sdk) > 0 {
		e.Context = q.sdkContext(d.sdk, d.version)
	}
	if len(d.id) > 0 {
		var err error
		if e.ID, err = pipeline.ParseUUID(d.id); err != nil {
			e.ID = pipeline.UUIDv5(q.project, d.id)
		}
	}
	return e, q.identify(&e, len(d.id) > 0)
}

// sdkContext is the request's context with the client's library.
func (q *request) sdkContext(name, version []byte) []byte {
	from := len(q.scratch)
	b := append(q.scratch, q.context[:len(q.context)-1]...)
	b = append(b, `,"sdk":{"name":`...)
	b = appendText(b, view(name[:min(len(name), maxContext)]))
	if len(version) > 0 {
		b = append(b, `,"version":`...)
		b = appendText(b, view(version[:min(len(version), maxContext)]))
	}
	q.scratch = append(b, "}}"...)
	return q.scratch[from:len(q.scratch):len(q.scratch)]
}
