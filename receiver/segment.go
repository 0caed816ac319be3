package receiver

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
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
//
// Browsers' clients use routes of one letter, RudderStack's beacons a route of
// their own, and pages without a client the pixels of both products.
var segment = []*dialect{
	segmentCalls("batch", "/v1/batch", "/v1/b", "/beacon/v1/batch"), segmentCalls("import", "/v1/import"),
	segmentCalls("track", "/v1/track", "/v1/t"), segmentCalls("identify", "/v1/identify", "/v1/i"),
	segmentCalls("page", "/v1/page", "/v1/p"), segmentCalls("screen", "/v1/screen", "/v1/s"),
	segmentCalls("group", "/v1/group", "/v1/g"), segmentCalls("alias", "/v1/alias", "/v1/a"),
	segmentPixel("track"), segmentPixel("identify"), segmentPixel("page"), segmentPixel("screen"),
	segmentPixel("group"), segmentPixel("alias"),
	rudderPixel("track"), rudderPixel("page"),
	{name: "segment", paths: []string{"/v1/projects/{}/settings"}, methods: []string{http.MethodGet},
		reply: segmentSettings},
	{name: "segment", paths: []string{"/sourceConfig"}, methods: []string{http.MethodGet}, reply: rudderConfig},
}

// segmentCalls is the route of many calls (batch, import) or of one of a type.
func segmentCalls(route string, paths ...string) *dialect {
	d := &dialect{name: "segment", paths: paths, headKey: segmentHeadKey, bodyKey: segmentKey,
		nameKey: "event", answer: segmentAnswer, sniffs: true, event: segmentOf(route)}
	if route == "batch" || route == "import" {
		d.decode = func(q *request, body []byte) *errcode.Error { return q.decodeMember(body, "batch") }
	} else {
		d.decode = (*request).decode
	}
	return d
}

func segmentOf(route string) func(q *request, members []jsonscan.Member) (pipeline.Event, error) {
	return func(q *request, members []jsonscan.Member) (pipeline.Event, error) {
		return segmentEvent(q, members, route)
	}
}

// segmentHeadKey is the write key in the head or the query: beacons have no headers.
func segmentHeadKey(req *http.Request) (key string, given bool) {
	if key, given = keyOf(req); !given {
		key = queryValue(req.URL.RawQuery, "writeKey")
	}
	return key, key != ""
}

// segmentKey is the write key where it is not the user of Basic authentication.
func segmentKey(_ *request, body []byte) string {
	value, _ := find(wholeBody(body), "writeKey")
	return string(plainText(value))
}

func segmentEvent(q *request, members []jsonscan.Member, route string) (pipeline.Event, error) {
	d := q.draft()
	var kind []byte
	var original *jsonscan.Member // RudderStack's browser client sends no other time
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
		d.fail(errcode.UnknownType.Errorf("type %.40q: track, identify, page, screen, group or alias", kind))
	}
	var anonymous, rudder []byte
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
		case "originalTimestamp":
			original = m
		case "context":
			rudder = dig(m.Value, "traits")
			d.session = d.text(asMember("context.sessionId", dig(m.Value, "sessionId")), maxID)
			d.sdk, d.version = plainText(dig(m.Value, "library", "name")), plainText(dig(m.Value, "library", "version"))
		case facts:
			d.spread(m)
		}
	}
	if len(d.user) == 0 {
		d.user = anonymous
	}
	if d.time == pipeline.NoTime && original != nil {
		d.setTime(original)
	} else {
		original = nil
	}
	if string(kind) == "identify" && !hasMember(members, facts) { // RudderStack's are in the context
		d.spread(asMember(facts, rudder))
	}
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "timestamp", "userId", facts, "sentAt", "writeKey":
		case "originalTimestamp":
			if original == nil {
				d.keep(m)
			}
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
func segmentAnswer(q *request, refused *errcode.Error, status int, b []byte) (int, []byte) {
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

func hasMember(members []jsonscan.Member, name string) bool {
	return slices.ContainsFunc(members, func(m jsonscan.Member) bool {
		return string(m.Key) == name && m.Kind != jsonscan.Null
	})
}

// segmentPixel is Segment's pixel: the call is in the query, as base64 of its JSON.
// https://segment.com/docs/connections/sources/catalog/libraries/server/pixel-tracking-api/
func segmentPixel(route string) *dialect {
	return &dialect{name: "segment", paths: []string{"/v1/pixel/" + route}, methods: pixel[0].methods,
		anyType: true, headKey: segmentHeadKey, prepare: queryToBody, nameKey: "event", event: segmentOf(route),
		contentType: "image/gif", answer: pixelAnswer,
		bodyKey: func(q *request, body []byte) string {
			body, _ = q.unwrapped(body)
			return cmp.Or(segmentKey(q, body), q.formKey)
		},
		decode: func(q *request, body []byte) *errcode.Error {
			body, err := q.unwrapped(body)
			if err != nil {
				return err
			}
			return q.decode(body)
		}}
}

// rudderPixel is RudderStack's pixel: each parameter is a member of the call, by
// its path: properties.plan=pro.
// https://www.rudderstack.com/docs/sources/event-streams/pixel/
func rudderPixel(route string) *dialect {
	return &dialect{name: "segment", paths: []string{"/pixel/v1/" + route}, methods: pixel[0].methods,
		query: true, queryKey: "writeKey", anyType: true, headKey: segmentHeadKey, nameKey: "event", event: segmentOf(route),
		decode: decodeRudderPixel, contentType: "image/gif", answer: pixelAnswer}
}

func decodeRudderPixel(q *request, body []byte) *errcode.Error {
	if len(body) > 0 && body[0] == '{' {
		return q.decode(body) // an operator mended it
	}
	if q.charge(q.charged+8*int64(len(body))) != nil {
		return busy()
	}
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return errcode.InvalidQuery.Errorf("the query cannot be read: %.100s", err)
	}
	call := map[string]any{}
	for name, all := range values {
		if text := strings.Join(all, ""); !utf8.ValidString(name) || !utf8.ValidString(text) {
			return errcode.InvalidUTF8.Errorf("parameter %.100q is not valid UTF-8", name)
		}
		var value any = all
		if text := all[0]; len(all) == 1 {
			if value = text; (name == "properties" || name == "traits" || name == "context") && json.Valid([]byte(text)) {
				value = json.RawMessage(text)
			} else if name == "anonymousId" { // some pages quote it
				value = strings.Trim(text, `"`)
			}
		}
		if name != "durability" && !place(call, strings.SplitN(name, ".", maxPixelPath), value) {
			return errcode.DuplicateKey.Errorf("parameter %.100q: another one is above or below it", name)
		}
	}
	event, err := json.Marshal(call)
	if err != nil {
		return errcode.InvalidQuery.Errorf("the query cannot be read: %.100s", err)
	}
	if _, err = q.event(event); err != nil && err != errSampled {
		code, message := explain(err)
		return code.Errorf("%s", message)
	}
	q.count(nil, err)
	return nil
}

// maxPixelPath bounds the objects around a pixel's value.
const maxPixelPath = 16

// place puts a value at a path; false: something else is there.
func place(object map[string]any, path []string, value any) bool {
	below, taken := object[path[0]]
	if len(path) == 1 {
		object[path[0]] = value
		return !taken
	}
	inner, is := below.(map[string]any)
	if !taken {
		inner, is = map[string]any{}, true
		object[path[0]] = inner
	}
	return is && place(inner, path[1:], value)
}

// segmentSettings is what analytics-next asks for first. Events are sent with the
// key that it names.
func segmentSettings(_ *Receiver, req *http.Request) (int, []byte) {
	b := appendText([]byte(`{"integrations":{"Segment.io":{"apiKey":`), pathPart(req.URL.Path, 3))
	return http.StatusOK, append(b, `,"unbundledIntegrations":[],"addBundledMetadata":true}},`+
		`"plan":{"track":{"__default":{"enabled":true}},"identify":{"__default":{"enabled":true}},`+
		`"group":{"__default":{"enabled":true}}},"edgeFunction":{},"analyticsNextEnabled":true,`+
		`"middlewareSettings":{},"enabledMiddleware":{},"metrics":{"sampleRate":0},"remotePlugins":[]}`+"\n"...)
}

// rudderConfig is what RudderStack's browser client asks for first: a source without
// destinations, and no reports on the client itself.
func rudderConfig(_ *Receiver, req *http.Request) (int, []byte) {
	key, _ := segmentHeadKey(req)
	b := appendText([]byte(`{"source":{"id":"penstock","name":"penstock","enabled":true,"writeKey":`), key)
	return http.StatusOK, append(b, `,"workspaceId":"penstock",`+
		`"config":{"statsCollection":{"errors":{"enabled":false},"metrics":{"enabled":false}}},`+
		`"connections":[],"destinations":[],"dataplanes":{}},"updatedAt":"2026-01-01T00:00:00.000Z"}`+"\n"...)
}
