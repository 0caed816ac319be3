// Package native is Penstock's own API: POST /v1/events.
package native

import (
	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// Path is the path of native events.
const Path = "/v1/events"

// Routes are the routes of the API.
func Routes() []*protocol.Route {
	return []*protocol.Route{
		{Name: "form", Paths: []string{Path}, Match: isForm, AnyType: true, Protocol: form{}},
		{Name: "penstock", Paths: []string{Path}, Protocol: Protocol{}},
	}
}

// Protocol is the API's protocol.
type Protocol struct{ protocol.Base }

// Events reads consecutive events or arrays. A broken event is rejected alone, if its end can be found.
func (p Protocol) Events(r *protocol.Request, body []byte, to protocol.Sink) *errcode.Error {
	return protocol.Values(p, r, body, to)
}

// Map maps members to columns, and all others to properties.
func (Protocol) Map(d *protocol.Draft, members []jsonscan.Member) { mapEvent(d, members, nil) }

func mapEvent(d *protocol.Draft, members []jsonscan.Member, files []file) {
	var nested *jsonscan.Member
	for i := range members {
		m := &members[i]
		switch string(m.Key) {
		case "name":
			d.SetName(m)
		case "timestamp":
			d.SetTime(m)
		case "session_id":
			d.Session = d.Text(m, protocol.MaxID)
		case "user_id":
			d.User = d.Text(m, protocol.MaxID)
		case "event_id":
			if d.SetID(d.Text(m, protocol.MaxID)); len(d.ID()) > 0 && !d.HasUUID() {
				d.Property(m) // keep the original
			}
		case "properties":
			if m.Kind == jsonscan.Object {
				nested = m
			} else {
				d.Spread(m)
			}
		default:
			d.Property(m)
		}
	}
	for i := range files {
		f := &files[i]
		d.Parts = append(d.Parts, protocol.Part{As: protocol.Blob, Of: &f.Member, File: &f.File})
		d.Mixed = true // a file may have a property's name
	}
	if nested != nil {
		d.Mixed = len(d.Parts) > 0
		d.Spread(nested)
	}
}
