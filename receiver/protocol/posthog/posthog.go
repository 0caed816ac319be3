// Package posthog accepts PostHog's capture API: https://posthog.com/docs/api/capture
//
//	name         event
//	user         distinct_id
//	session      properties.$session_id
//	id           uuid, otherwise properties.$insert_id
//	properties   properties, $set and $set_once, and all other members in properties.$envelope
//
// /s receives the chunks of session recordings. Amplitude uses /batch as well: see package batch.
package posthog

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// Routes are the routes of the API except /batch. If record is set, clients are asked to record sessions.
func Routes(record bool) []*protocol.Route {
	recordings := &protocol.Route{Name: "posthog", Paths: []string{"/s"}, Methods: getOrPost, Protocol: capture{},
		NameMember: "event", FindsGzip: true, MaxDepth: recordingDepth}
	get := []string{http.MethodGet}
	c := config{record}
	return []*protocol.Route{
		Capture(), recordings,
		{Name: "posthog", Paths: []string{"/flags", "/decide"}, Methods: getOrPost, Answer: c.flags},
		{Name: "posthog", Paths: []string{"/array/{}/config"}, Methods: get, Answer: c.json},
		{Name: "posthog", Paths: []string{"/array/{}/config.js"}, Methods: get, Answer: c.script},
	}
}

// Capture returns the route of events.
func Capture() *protocol.Route {
	return &protocol.Route{Name: "posthog", Methods: getOrPost, Protocol: capture{}, NameMember: "event", FindsGzip: true,
		Paths: []string{"/capture", "/track", "/e", "/i/v0/e", "/i/v0/ai/batch", "/i/v1/analytics/events"}}
}

var getOrPost = []string{http.MethodGet, http.MethodPost}

// recordingDepth is the deepest nesting of a recording's steps. A step may hold a whole page, whose elements are nested
// more deeply than an event's values may be. It is stored as text, so no stored value is nested as deeply.
const recordingDepth = 2000

type capture struct{ protocol.Base }

// Prepare rejects the unsupported compression lz64 of old clients by the header. Gzip is recognized by its bytes.
func (capture) Prepare(req *http.Request) {
	protocol.QueryToBody(req)
	if c := protocol.QueryValue(req.URL.RawQuery, "compression"); !slices.Contains(protocol.Compressions, c) {
		req.Header.Set("Content-Encoding", c)
	}
}

func (capture) Authenticate(req *http.Request) (key string, given bool) {
	return protocol.HeadOrQueryKey(req, "api_key", "token")
}

// Key returns the key of the body, otherwise of its first event.
func (capture) Key(r *protocol.Request, body []byte) (string, *errcode.Error) {
	body, err := r.Unwrapped(body)
	if err != nil {
		return "", err
	}
	key, batch := token(body)
	if key == nil {
		key, _ = token(batch)
	}
	return cmp.Or(string(protocol.PlainText(key)), r.FormKey()), nil
}

// token returns the key of an object, or of an array's first element, and the batch.
func token(body []byte) (key, batch []byte) {
	if len(body) > 0 && body[0] == '[' {
		body = jsonscan.TrimSpace(body[1:])
		body = body[:jsonscan.Extent(body)]
	}
	protocol.EachMember(body, func(name, value []byte) {
		switch string(name) {
		case "api_key", "token":
			key = value
		case "properties":
			if key == nil {
				key = protocol.Dig(value, "token")
			}
		case "batch":
			batch = value
		}
	})
	return key, batch
}

// Events reads {batch: [event, …]}, an array of events, or one event.
func (p capture) Events(r *protocol.Request, body []byte, to protocol.Sink) *errcode.Error {
	body, err := r.Unwrapped(body)
	if err != nil {
		return err
	}
	if batch, _ := protocol.Find(body, "batch"); len(batch) > 0 && batch[0] != 'n' {
		return protocol.Elements(p, body, "batch", to)
	}
	return protocol.Values(p, r, body, to)
}

// Map maps an event's members.
func (capture) Map(to *protocol.Draft, members []jsonscan.Member) {
	d := &draft{Draft: to}
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "event":
			d.SetName(m)
		case "distinct_id":
			d.own = d.Text(m, protocol.MaxID)
		case "session_id":
			d.Session = d.Text(m, protocol.MaxID)
		case "uuid":
			d.SetID(d.Text(m, protocol.MaxID))
		case "timestamp":
			d.SetTime(m)
		case "library":
			d.SDK = protocol.PlainText(m.Value)
		case "library_version":
			d.Version = protocol.PlainText(m.Value)
		case "properties":
			d.facts(m)
		}
	}
	d.finish()
	for i := range members { // PostHog has them next to the properties
		if m := &members[i]; d.moves(m) {
			d.Property(m)
		}
	}
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "event", "distinct_id", "session_id", "timestamp", "properties", "api_key", "token", "sent_at":
		case "library", "library_version":
			if protocol.PlainText(m.Value) == nil { // not a text
				d.Keep(m)
			}
		case "uuid":
			if d.named {
				d.KeepID(m)
			} else {
				d.Keep(m)
			}
		default:
			if !d.moves(m) {
				d.Keep(m)
			}
		}
	}
}

// draft collects what an event's properties say about the event.
type draft struct {
	*protocol.Draft
	own      []byte // distinct_id next to the properties; it wins over the one in them
	insert   []byte // $insert_id
	named    bool   // the id is the uuid
	clock    []byte // $time: the client's clock, in seconds
	snapshot []byte // $snapshot_data
	set      [2]bool
}

// moved are members of an event that PostHog stores in its properties.
var moved = [...]string{"$set", "$set_once"}

func (d *draft) moves(m *jsonscan.Member) bool {
	at := slices.Index(moved[:], string(m.Key))
	return at >= 0 && !d.set[at] && m.Kind != jsonscan.Null
}

// facts writes an event's properties, without the key that clients put there.
func (d *draft) facts(m *jsonscan.Member) {
	var key bool
	protocol.EachMember(m.Value, func(name, value []byte) {
		switch string(name) {
		case "distinct_id":
			d.User = d.Text(protocol.AsMember("distinct_id", value), protocol.MaxID)
		case "$session_id":
			d.Session = d.Text(protocol.AsMember("$session_id", value), protocol.MaxID)
		case "$insert_id":
			d.insert = protocol.PlainText(value)
		case "$time":
			d.clock = value
		case "$lib":
			d.SDK = protocol.PlainText(value)
		case "$lib_version":
			d.Version = protocol.PlainText(value)
		case "token", "api_key":
			key = key || d.Request.IsKey(protocol.PlainText(value))
		case "$snapshot_data":
			d.snapshot = value
		case moved[0]:
			d.set[0] = true
		case moved[1]:
			d.set[1] = true
		}
	})
	if !key && !isRecording(d.snapshot) {
		d.Spread(m)
		return
	}
	protocol.EachMember(m.Value, func(name, value []byte) {
		switch string(name) {
		case "token", "api_key":
			if d.Request.IsKey(protocol.PlainText(value)) {
				return
			}
		case "$snapshot_data":
			if isRecording(value) {
				d.Parts = append(d.Parts, protocol.Part{As: protocol.Text, Of: &jsonscan.Member{Key: name, Value: value}})
				return
			}
		}
		d.Property(&jsonscan.Member{Key: name, Value: value})
	})
}

// isRecording reports whether a value has steps of a recording that are not yet text.
func isRecording(value []byte) bool { return len(value) > 0 && (value[0] == '[' || value[0] == '{') }

// finish decides between members with the same meaning.
func (d *draft) finish() {
	if len(d.own) > 0 {
		d.User = d.own
	}
	if d.named = len(d.ID()) > 0; !d.named && len(d.insert) <= protocol.MaxID {
		d.SetID(d.insert)
	}
	if d.Time != pipeline.NoTime {
		return
	}
	// Clients that send an event's age (offset) instead of its time also send their clock's time. Unlike the age, it is
	// the same in each retry.
	clock := d.clock
	if clock == nil && isRecording(d.snapshot) {
		clock = protocol.Dig(firstElement(d.snapshot), "timestamp")
	}
	if t, err := protocol.ParseTime(protocol.AsMember("timestamp", clock)); err == nil {
		d.Time = t
	}
}

// firstElement returns the first element of an array, or a value that is not an array.
func firstElement(value []byte) []byte {
	if value[0] != '[' {
		return value
	}
	value = jsonscan.TrimSpace(value[1:])
	return value[:jsonscan.Extent(value)]
}

// Reply is PostHog's answer to a good request. Its clients look at the status. They retry on 5xx, posthog-node in
// halves on 413, and drop a batch on any other 4xx. Only some retry on 408 and 429, so these become 503.
func (capture) Reply(o *protocol.Outcome, b []byte) protocol.Reply {
	status, good := o.OK(), 0
	switch {
	case status == http.StatusOK:
		good = 1
	case o.Refused != nil && o.Refused.Code.Retryable():
		status = http.StatusServiceUnavailable
	}
	b = protocol.AppendInt(append(b, '{'), "status", good)
	return protocol.Reply{Status: status, Body: append(o.AppendErrors(o.AppendCounts(b)), "}\n"...)}
}
