// Package amplitude accepts Amplitude's HTTP API V2, and its batch API, which is the same on /batch:
// https://amplitude.com/docs/apis/analytics/http-v2
//
//	name         event_type
//	user         user_id, otherwise device_id
//	session      session_id
//	id           insert_id; if it is not a UUID, it is unique only within the device
//	properties   event_properties, and all other members in properties.$envelope
package amplitude

import (
	"bytes"
	"net/http"
	"strconv"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// Routes are the routes of the API except /batch, which PostHog has as well.
func Routes() []*protocol.Route { return []*protocol.Route{route()} }

func route() *protocol.Route {
	return &protocol.Route{Name: "amplitude", Paths: []string{"/2/httpapi"}, Protocol: Protocol{},
		NameMember: "event_type"}
}

// Protocol is the API's protocol.
type Protocol struct{ protocol.Base }

// Events reads {events: [event, …]}.
func (p Protocol) Events(r *protocol.Request, body []byte, to protocol.Sink) *errcode.Error {
	return protocol.Elements(p, body, "events", to)
}

// Key returns api_key.
func (Protocol) Key(_ *protocol.Request, body []byte) (string, *errcode.Error) {
	value, _ := protocol.Find(protocol.Whole(body), "api_key")
	return string(protocol.PlainText(value)), nil
}

// Map maps an event's members.
func (Protocol) Map(d *protocol.Draft, members []jsonscan.Member) {
	var device []byte
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "event_type":
			d.SetName(m)
		case "user_id":
			d.User = d.Text(m, protocol.MaxID)
		case "device_id":
			device = d.Text(m, protocol.MaxID)
		case "session_id":
			if string(m.Value) != "-1" { // no session
				d.Session = d.Text(m, protocol.MaxID)
			}
		case "insert_id":
			d.SetID(d.Text(m, protocol.MaxID))
		case "time":
			d.SetTime(m)
		case "library": // amplitude-ts/2.0.0
			name := protocol.PlainText(m.Value)
			at := bytes.LastIndexByte(name, '/')
			if d.SDK = name; at > 0 {
				d.SDK, d.Version = name[:at], name[at+1:]
			}
		case "event_properties":
			d.Spread(m)
		}
	}
	if len(d.ID()) > 0 && !d.HasUUID() {
		if len(device) == 0 { // then Amplitude uses the user as device
			d.SetID(protocol.Joined(d.User, d.ID()))
		}
		d.SetID(protocol.Joined(device, d.ID()))
	}
	if len(d.User) == 0 {
		d.User = device
	}
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "event_type", "user_id", "session_id", "time", "event_properties":
		case "library":
			if protocol.PlainText(m.Value) == nil { // not a text
				d.Keep(m)
			}
		case "insert_id":
			d.KeepID(m)
		default:
			d.Keep(m)
		}
	}
}

// Reply is Amplitude's answer. Its clients read the body's "code" rather than the status:
//
//   - 200: the batch is done, including events rejected among good ones.
//   - 400: drop the listed events, or all if "missing_field" is set or the key is wrong. Send the rest again.
//   - 413: send again in halves.
//   - 408, 429 and 5xx: send again.
func (Protocol) Reply(o *protocol.Outcome, b []byte) protocol.Reply {
	status := o.OK()
	b = protocol.AppendInt(append(b, '{'), "code", status)
	switch {
	case o.Refused != nil:
		message := o.Refused.Message
		switch status {
		case http.StatusUnauthorized:
			message = "Invalid API key: " + message
		case http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests,
			http.StatusServiceUnavailable:
		default: // another attempt would be rejected too
			b = protocol.AppendString(b, "missing_field", o.Refused.Code.String())
		}
		b = protocol.AppendText(protocol.AppendKey(b, "error"), message)
		b = protocol.AppendString(b, "error_code", o.Refused.Code.String())
		return protocol.Reply{Status: status, Body: append(o.AppendCounts(b), "}\n"...)}
	case status == http.StatusBadRequest:
		b = append(b, `,"error":"every event was refused","events_with_invalid_fields":{"event":[`...)
		for i, e := range o.Rejects { // list all: the client sends others again
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(e.Index), 10)
		}
		b = append(b, "]}"...)
	default:
		b = protocol.AppendInt(b, "events_ingested", o.Accepted)
		b = protocol.AppendInt(b, "payload_size_bytes", len(o.Body))
		b = protocol.AppendInt(b, "server_upload_time", int(o.Received))
	}
	return protocol.Reply{Status: status, Body: append(o.AppendErrors(o.AppendCounts(b)), "}\n"...)}
}
