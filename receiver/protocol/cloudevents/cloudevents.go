// Package cloudevents accepts CloudEvents 1.0 over HTTP on the native route: https://github.com/cloudevents/spec
//
// In structured and batched mode, events are JSON with a special content type. In binary mode, headers are the
// attributes, and the body is the data, of any type. If the one event of a binary request is rejected, so is the whole
// request, because its failure record also needs the headers.
package cloudevents

import (
	"cmp"
	"mime"
	"net/http"
	"strings"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
	"github.com/penstock/penstock/receiver/protocol/native"
)

// Routes are the routes of all modes.
func Routes() []*protocol.Route {
	return []*protocol.Route{
		{Name: "cloudevents", Paths: []string{native.Path}, Match: isStructured, AnyType: true, Protocol: structured{},
			NameMember: "type"},
		{Name: "cloudevents", Paths: []string{native.Path}, Match: isBinary, AnyType: true, Protocol: binary{},
			NameMember:   "type",
			EventHeaders: []string{header}},
	}
}

// isStructured checks the content type. Other CloudEvents formats match no route.
func isStructured(head http.Header) bool {
	switch kind, is := contentType(head); kind {
	case mark + "+json", mark + "-batch+json":
		return is
	}
	return false
}

// isBinary checks the attributes.
func isBinary(head http.Header) bool {
	if head[header+"Specversion"] == nil {
		return false
	}
	_, is := contentType(head)
	return !is
}

const mark = "application/cloudevents"

// contentType returns the content type, and whether it is CloudEvents in any format.
func contentType(head http.Header) (kind string, is bool) {
	kinds := head["Content-Type"]
	if len(kinds) == 0 || len(kinds[0]) <= len(mark) || !strings.EqualFold(kinds[0][:len(mark)], mark) {
		return "", false
	}
	kind, _, _ = mime.ParseMediaType(kinds[0])
	return kind, true
}

type structured struct{ protocol.Base }

func (p structured) Events(r *protocol.Request, body []byte, to protocol.Sink) *errcode.Error {
	return protocol.Values(p, r, body, to)
}

func (p structured) Map(d *protocol.Draft, members []jsonscan.Member) { mapEvent(d, members, nil) }

// mapEvent maps an event's members. bytes are the data if data_base64 is present and empty; nil: data_base64 has them.
func mapEvent(d *protocol.Draft, members []jsonscan.Member, bytes []byte) {
	var version, id, source, kind []byte
	var data *jsonscan.Member
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "specversion":
			version = d.Text(m, protocol.MaxID)
		case "id":
			id = d.Text(m, protocol.MaxID)
		case "source":
			source = d.Text(m, protocol.MaxID)
		case "type":
			d.SetName(m)
		case "time":
			d.SetTime(m)
		case "userid":
			d.User = d.Text(m, protocol.MaxID)
		case "sessionid":
			d.Session = d.Text(m, protocol.MaxID)
		case "data", "data_base64":
			if m.Kind == jsonscan.Null {
				continue
			}
			if data != nil {
				d.Fail(errcode.DuplicateKey.Errorf("the event has both \"data\" and \"data_base64\""))
			}
			data = m
		case "datacontenttype":
			kind = protocol.PlainText(m.Value)
		}
	}
	switch {
	case data == nil:
	case string(data.Key) == "data":
		d.Spread(data)
	default:
		addBytes(d, data, bytes, string(kind))
	}
	switch {
	case !strings.HasPrefix(string(version), "1."):
		d.Fail(errcode.UnknownSpecVersion.Errorf("specversion %.40q: CloudEvents 1.0 are understood", version))
	case len(id) == 0 || len(source) == 0:
		d.Fail(errcode.MissingID.Errorf("the event has no id or no source"))
	}
	d.SetID(protocol.Joined(source, id))
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "type", "time", "userid", "sessionid", "data", "data_base64":
		default:
			d.Keep(m)
		}
	}
}

// addBytes adds data in base64 as a property. Above the threshold, the decoded data becomes a blob of that type.
func addBytes(d *protocol.Draft, m *jsonscan.Member, bytes []byte, contentType string) {
	part := protocol.Part{As: protocol.Base64, Of: m}
	switch {
	case bytes != nil:
		part.As, part.Of = protocol.Data, &jsonscan.Member{Key: m.Key, Value: bytes}
	case m.Kind != jsonscan.String:
		d.Fail(errcode.WrongType.Errorf("%q is of type %s, want a string", m.Key, m.Kind))
		return
	}
	part.File = &protocol.File{ContentType: cmp.Or(protocol.Clip(contentType), "application/octet-stream")}
	d.Parts = append(d.Parts, part)
}
