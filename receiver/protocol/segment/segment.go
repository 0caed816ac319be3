// Package segment accepts Segment's HTTP tracking API, which RudderStack's clients use too:
// https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/
//
//	track                    name: the event's; properties: its properties
//	page, screen             name: the call's type; properties: its properties
//	identify, group, alias   name: the call's type; properties: its traits
//	id                       messageId
//	user                     userId, otherwise anonymousId
//	session                  context.sessionId
//
// All other members go to properties.$envelope.
//
// Browser clients use one-letter routes, RudderStack's beacons a separate route, and pages without a client the pixels
// of both products.
package segment

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// Routes are the routes of both products.
func Routes() []*protocol.Route {
	routes := []*protocol.Route{
		callsAt("", "/v1/batch", "/v1/b", "/beacon/v1/batch", "/v1/import"),
		callsAt("track", "/v1/track", "/v1/t"), callsAt("identify", "/v1/identify", "/v1/i"),
		callsAt("page", "/v1/page", "/v1/p"), callsAt("screen", "/v1/screen", "/v1/s"),
		callsAt("group", "/v1/group", "/v1/g"), callsAt("alias", "/v1/alias", "/v1/a"),
		rudderPixelOf("track"), rudderPixelOf("page"),
		{Name: "segment", Paths: []string{"/v1/projects/{}/settings"}, Methods: []string{http.MethodGet}, Answer: settings},
		{Name: "segment", Paths: []string{"/sourceConfig"}, Methods: []string{http.MethodGet}, Answer: rudderConfig},
	}
	for _, kind := range []string{"track", "identify", "page", "screen", "group", "alias"} {
		routes = append(routes, pixelOf(kind))
	}
	return routes
}

func callsAt(kind string, paths ...string) *protocol.Route {
	return &protocol.Route{Name: "segment", Paths: paths, Protocol: calls{kind: kind}, NameMember: "event",
		FindsGzip: true}
}

// calls is the protocol of a route.
type calls struct {
	protocol.Base
	kind string // type of all calls; empty: a batch of any types
}

// Authenticate returns the write key from the head or the query, because beacons have no headers.
func (calls) Authenticate(req *http.Request) (key string, given bool) {
	return protocol.HeadOrQueryKey(req, "writeKey")
}

// Key returns the write key in the body, if it is not the user of Basic authentication.
func (calls) Key(_ *protocol.Request, body []byte) (string, *errcode.Error) {
	value, _ := protocol.Find(protocol.Whole(body), "writeKey")
	return string(protocol.PlainText(value)), nil
}

// Events reads {batch: [call, …]}, or calls of one type.
func (p calls) Events(r *protocol.Request, body []byte, to protocol.Sink) *errcode.Error {
	if p.kind == "" {
		return protocol.Elements(p, body, "batch", to)
	}
	return protocol.Values(p, r, body, to)
}

// Map maps a call's members.
func (p calls) Map(d *protocol.Draft, members []jsonscan.Member) {
	kind, facts := p.kindOf(d, members)
	track := string(kind) == "track"
	if !track {
		d.Name = kind
	}
	var original *jsonscan.Member // the only time that RudderStack's browser client sends
	var anonymous, rudder []byte
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "event":
			if track {
				d.SetName(m)
			}
		case "messageId":
			d.SetID(d.Text(m, protocol.MaxID))
		case "userId":
			d.User = d.Text(m, protocol.MaxID)
		case "anonymousId":
			anonymous = d.Text(m, protocol.MaxID)
		case "timestamp":
			d.SetTime(m)
		case "originalTimestamp":
			original = m
		case "context":
			rudder = protocol.Dig(m.Value, "traits")
			d.Session = d.Text(protocol.AsMember("context.sessionId", protocol.Dig(m.Value, "sessionId")), protocol.MaxID)
			d.SDK, d.Version = protocol.PlainText(protocol.Dig(m.Value, "library", "name")),
				protocol.PlainText(protocol.Dig(m.Value, "library", "version"))
		case facts:
			d.Spread(m)
		}
	}
	if len(d.User) == 0 {
		d.User = anonymous
	}
	if d.Time == pipeline.NoTime && original != nil {
		d.SetTime(original)
	} else {
		original = nil
	}
	if string(kind) == "identify" && !hasMember(members, facts) { // RudderStack has traits in the context
		d.Spread(protocol.AsMember(facts, rudder))
	}
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "timestamp", "userId", facts, "sentAt", "writeKey":
		case "originalTimestamp":
			if original == nil {
				d.Keep(m)
			}
		case "event":
			if !track {
				d.Keep(m)
			}
		case "messageId":
			d.KeepID(m)
		case "integrations":
			if string(m.Value) != "{}" { // most clients send an empty one
				d.Keep(m)
			}
		default:
			d.Keep(m)
		}
	}
}

// kindOf returns the type of a call, and the name of the member with its properties.
func (p calls) kindOf(d *protocol.Draft, members []jsonscan.Member) (kind []byte, facts string) {
	kind = []byte(p.kind)
	for i := range members {
		if m := &members[i]; string(m.Key) == "type" && m.Kind != jsonscan.Null {
			kind = d.Text(m, protocol.MaxName)
		}
	}
	switch string(kind) {
	case "track", "page", "screen":
		return kind, "properties"
	case "identify", "group", "alias":
		return kind, "traits"
	}
	d.Fail(errcode.UnknownType.Errorf("type %.40q: track, identify, page, screen, group or alias", kind))
	return kind, "properties"
}

// Reply is Segment's answer to a good request. Its clients retry on 5xx and 429, and drop a batch on any other 4xx.
func (calls) Reply(o *protocol.Outcome, b []byte) protocol.Reply {
	status := o.OK()
	b = strconv.AppendBool(protocol.AppendKey(append(b, '{'), "success"), status == http.StatusOK)
	return protocol.Reply{Status: status, Body: append(o.AppendErrors(o.AppendCounts(b)), "}\n"...)}
}

func hasMember(members []jsonscan.Member, name string) bool {
	return slices.ContainsFunc(members, func(m jsonscan.Member) bool {
		return string(m.Key) == name && m.Kind != jsonscan.Null
	})
}

// settings answers the first request of analytics-next. The client then sends events with the key in the answer.
func settings(req *http.Request) protocol.Reply {
	b := protocol.AppendText([]byte(`{"integrations":{"Segment.io":{"apiKey":`), protocol.PathPart(req.URL.Path, 3))
	return protocol.Reply{Status: http.StatusOK,
		Body: append(b, `,"unbundledIntegrations":[],"addBundledMetadata":true}},`+
			`"plan":{"track":{"__default":{"enabled":true}},"identify":{"__default":{"enabled":true}},`+
			`"group":{"__default":{"enabled":true}}},"edgeFunction":{},"analyticsNextEnabled":true,`+
			`"middlewareSettings":{},"enabledMiddleware":{},"metrics":{"sampleRate":0},"remotePlugins":[]}`+"\n"...)}
}

// rudderConfig answers the first request of RudderStack's browser client: a source without destinations, and no reports
// about the client itself.
func rudderConfig(req *http.Request) protocol.Reply {
	key, _ := calls{}.Authenticate(req)
	b := protocol.AppendText([]byte(`{"source":{"id":"penstock","name":"penstock","enabled":true,"writeKey":`), key)
	return protocol.Reply{Status: http.StatusOK, Body: append(b, `,"workspaceId":"penstock",`+
		`"config":{"statsCollection":{"errors":{"enabled":false},"metrics":{"enabled":false}}},`+
		`"connections":[],"destinations":[],"dataplanes":{}},"updatedAt":"2026-01-01T00:00:00.000Z"}`+"\n"...)}
}
