// Package pixel accepts events from pages and mails that can only load an image.
package pixel

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
	"github.com/penstock/penstock/receiver/protocol/native"
)

// Methods are the methods that load an image.
var Methods = []string{http.MethodGet, http.MethodHead}

// Routes are the pixel's routes. Its query is an event as in the native API. All values are strings. A repeated
// parameter becomes an array, unless it is a column.
func Routes() []*protocol.Route {
	return []*protocol.Route{{Name: "pixel", Paths: []string{"/v1/pixel.gif"}, Methods: Methods, Query: true,
		AnyType: true, Protocol: pixel{}}}
}

type pixel struct{ native.Protocol }

// Reply is an image.
func (pixel) Reply(o *protocol.Outcome, b []byte) protocol.Reply { return Image(o, b) }

// Image is the answer of every pixel, whatever happened to the event.
func Image(o *protocol.Outcome, b []byte) protocol.Reply {
	status := o.Status
	if o.Good() {
		status = http.StatusOK
	}
	return protocol.Reply{Status: status, ContentType: "image/gif", Body: append(b, transparent...)}
}

// transparent is the smallest image that all browsers accept.
const transparent = "GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00" +
	"!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"

func (p pixel) Events(r *protocol.Request, body []byte, to protocol.Sink) *errcode.Error {
	if r.Redrive != protocol.NoRedrive && len(body) > 0 && body[0] == '{' {
		return p.Protocol.Events(r, body, to) // an operator has edited the event
	}
	event, err := eventOf(string(body))
	if err != nil {
		return err
	}
	return to.Single(p, event, "the query")
}

// eventOf turns a query into an event.
func eventOf(query string) ([]byte, *errcode.Error) {
	var names []string
	values := map[string][]string{}
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		var err error
		if name, err = url.QueryUnescape(name); err == nil {
			value, err = url.QueryUnescape(value)
		}
		if err != nil {
			return nil, errcode.InvalidQuery.Errorf("parameter %.100q: %s", part, err)
		}
		if name == "" && value == "" || name == "durability" {
			continue
		}
		if values[name] == nil {
			names = append(names, name)
		}
		values[name] = append(values[name], value)
	}
	w := []byte{'{'}
	for _, name := range names {
		all := values[name]
		switch w = protocol.AppendKey(w, name); {
		case len(all) == 1:
			w = jsonscan.AppendQuoted(w, []byte(all[0]))
		case name == "name" || name == "user_id" || name == "session_id" || name == "timestamp" || name == "event_id":
			return nil, errcode.DuplicateKey.Errorf("the parameter %q occurs %d times", name, len(all))
		default:
			for i, value := range all {
				w = append(w, "[,"[min(i, 1)])
				w = jsonscan.AppendQuoted(w, []byte(value))
			}
			w = append(w, ']')
		}
	}
	return append(w, '}'), nil
}
