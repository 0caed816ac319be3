package segment

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
	"github.com/penstock/penstock/receiver/protocol/pixel"
)

// pixelCalls is Segment's pixel. The query has the call as base64 of its JSON.
// https://segment.com/docs/connections/sources/catalog/libraries/server/pixel-tracking-api/
type pixelCalls struct{ calls }

func pixelOf(kind string) *protocol.Route {
	return &protocol.Route{Name: "segment", Paths: []string{"/v1/pixel/" + kind}, Methods: pixel.Methods, AnyType: true,
		Protocol: pixelCalls{calls{kind: kind}}, NameMember: "event"}
}

func (pixelCalls) Prepare(req *http.Request) { protocol.QueryToBody(req) }

func (p pixelCalls) Key(r *protocol.Request, body []byte) (string, *errcode.Error) {
	body, err := r.Unwrapped(body)
	key, _ := p.calls.Key(r, body)
	return cmp.Or(key, r.FormKey()), err
}

func (p pixelCalls) Events(r *protocol.Request, body []byte, to protocol.Sink) *errcode.Error {
	body, err := r.Unwrapped(body)
	if err != nil {
		return err
	}
	return protocol.Values(p, r, body, to)
}

func (pixelCalls) Reply(o *protocol.Outcome, b []byte) protocol.Reply { return pixel.Image(o, b) }

// rudderPixel is RudderStack's pixel. Each parameter is a member of the call by its path, such as properties.plan=pro.
// https://www.rudderstack.com/docs/sources/event-streams/pixel/
type rudderPixel struct {
	protocol.Base
	kind string
}

func rudderPixelOf(kind string) *protocol.Route {
	return &protocol.Route{Name: "segment", Paths: []string{"/pixel/v1/" + kind}, Methods: pixel.Methods, AnyType: true,
		Query: true, QueryKey: "writeKey", Protocol: rudderPixel{kind: kind}, NameMember: "event"}
}

func (rudderPixel) Authenticate(req *http.Request) (key string, given bool) {
	return calls{}.Authenticate(req)
}

func (p rudderPixel) Map(d *protocol.Draft, members []jsonscan.Member) {
	calls{kind: p.kind}.Map(d, members)
}

func (rudderPixel) Reply(o *protocol.Outcome, b []byte) protocol.Reply { return pixel.Image(o, b) }

func (p rudderPixel) Events(r *protocol.Request, body []byte, to protocol.Sink) *errcode.Error {
	if len(body) > 0 && body[0] == '{' {
		return protocol.Values(p, r, body, to) // an operator has edited the event
	}
	if err := r.Charge(8 * int64(len(body))); err != nil {
		return err
	}
	event, err := callOf(string(body))
	if err != nil {
		return err
	}
	return to.Single(p, event, "the query")
}

// callOf turns a query into a call.
func callOf(query string) ([]byte, *errcode.Error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errcode.InvalidQuery.Errorf("the query cannot be read: %.100s", err)
	}
	call := map[string]any{}
	for name, all := range values {
		if text := strings.Join(all, ""); !utf8.ValidString(name) || !utf8.ValidString(text) {
			return nil, errcode.InvalidUTF8.Errorf("parameter %.100q is not valid UTF-8", name)
		}
		var value any = all
		if text := all[0]; len(all) == 1 {
			if value = text; (name == "properties" || name == "traits" || name == "context") && json.Valid([]byte(text)) {
				value = json.RawMessage(text)
			} else if name == "anonymousId" { // some pages quote its value
				value = strings.Trim(text, `"`)
			}
		}
		if name != "durability" && !place(call, strings.SplitN(name, ".", maxPixelPath), value) {
			return nil, errcode.DuplicateKey.Errorf("parameter %.100q: another one is above or below it", name)
		}
	}
	event, err := json.Marshal(call)
	if err != nil {
		return nil, errcode.InvalidQuery.Errorf("the query cannot be read: %.100s", err)
	}
	return event, nil
}

// maxPixelPath is the deepest nesting of a pixel's value.
const maxPixelPath = 16

// place stores a value at a path. It returns false if another value is in the way.
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
