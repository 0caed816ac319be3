package receiver

import (
	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// Segment's HTTP tracking API, which RudderStack's clients speak as well:
// https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/
//
//	track: name is the event's; properties are its properties
//	page, screen: name is the call's type; properties are its properties
//	identify, group, alias: name is the call's type; properties are its traits
//
// messageId is the event's id, userId, or else anonymousId, its user, and
// context.sessionId its session. All else is in properties.$envelope.
var segment = []*dialect{
	segmentCalls("batch"), segmentCalls("import"),
	segmentCalls("track"), segmentCalls("identify"), segmentCalls("page"), segmentCalls("screen"), segmentCalls("group"), segmentCalls("alias"),
}

// segmentCalls is the route of many calls (batch, import) or of one of a type.
func segmentCalls(route string) *dialect {
	d := &dialect{name: "segment", paths: []string{"/v1/" + route}, bodyKey: segmentKey, nameKey: "event", answer: segmentAnswer,
		event: func(q *request, members []jsonscan.Member) (pipeline.Event, error) {
			return segmentEvent(q, members, route)
		}}
	if route == "batch" || route == "import" {
		d.decode = func(q *request, body []byte) *refusal { return q.decodeMember(body, "batch") }
	} else {
		d.decode = (*request).decode
	}
	return d
}

// segmentKey is the write key where it is not the user of Basic authentication.
func segmentKey(_ *request, body []byte) string {
	value, _ := find(wholeBody(body), "writeKey")
	return string(plainText(value))
}

func segmentEvent(q *request, members []jsonscan.Member, route string) (pipeline.Event, error) {
	d := q.draft()
	var kind []byte
	if route != "batch" && route != "import" {
		kind = []byte(route)
	}
	for i := range members {
		if m := &members[i]; string(m.Key) == "type" && m.Kind != jsonscan.Null {
			kind = d.text(m, maxName)
		}
	}
	d.name = kind
	facts := "properties"
	switch string(kind) {
	case "track":
		d.name = nil // the event's own
	case "page", "screen":
	case "identify", "group", "alias":
		facts = "traits"
	default:
		d.fail(wrong("unknown_type", "type %.40q: track, identify, page, screen, group or alias", kind))
	}
	var anonymous []byte
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "event":
			if string(kind) == "track" {
				d.name = d.text(m, maxName)
			}
		case "messageId":
			d.id = d.text(m, maxID)
		case "userId":
			d.user = d.text(m, maxID)
		case "anonymousId":
			anonymous = d.text(m, maxID)
		case "timestamp":
			d.setTime(m)
		case "context":
			d.session = d.text(asMember("context.sessionId", dig(m.Value, "sessionId")), maxID)
			d.sdk, d.version = plainText(dig(m.Value, "library", "name")), plainText(dig(m.Value, "library", "version"))
		case facts:
			d.spread(m)
		}
	}
	if len(d.user) == 0 {
		d.user = anonymous
	}
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "timestamp", "userId", facts, "sentAt", "writeKey":
		case "event":
			if string(kind) != "track" {
				d.keep(m)
			}
		case "messageId":
			d.keepID(m)
		case "integrations":
			if string(m.Value) != "{}" { // most clients send it empty
				d.keep(m)
			}
		default:
			d.keep(m)
		}
	}
	return d.event()
}

// segmentAnswer is what Segment says of a good request; its clients send again
// on 5xx and 429, and drop a batch on any other 4xx.
func segmentAnswer(q *request, refused *refusal, status int, b []byte) (int, []byte) {
	if status == 202 {
		status = 200
	}
	if status == 200 {
		b = append([]byte(`{"success":true,`), b[1:]...)
	} else {
		b = append([]byte(`{"success":false,`), b[1:]...)
	}
	return status, b
}
