// Package langfuse accepts Langfuse's ingestion API: https://api.reference.langfuse.com/#tag/ingestion
//
//	name         type
//	user         body.userId
//	session      body.sessionId
//	id           the event's id
//	properties   body, and all other members in properties.$envelope
package langfuse

import (
	"errors"
	"io"
	"net/http"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// Routes are the routes of the API.
func Routes() []*protocol.Route {
	return []*protocol.Route{
		{Name: "langfuse", Paths: []string{"/api/public/ingestion"}, Protocol: langfuse{}, NameMember: "type",
			RereadBody: true},
		{Name: "langfuse", Paths: []string{"/api/public/health"}, Methods: []string{http.MethodGet}, Answer: health},
	}
}

func health(*http.Request) protocol.Reply {
	return protocol.Reply{Status: http.StatusOK, Body: []byte(`{"status":"OK","version":"3"}` + "\n")}
}

type langfuse struct{ protocol.Base }

// Events reads {batch: [event, …], metadata}. The metadata describes the client's library.
func (p langfuse) Events(r *protocol.Request, body []byte, to protocol.Sink) *errcode.Error {
	metadata, err := protocol.Find(protocol.Whole(body), "metadata")
	if err != nil {
		return err
	}
	if name := protocol.PlainText(protocol.Dig(metadata, "sdk_name")); len(name) > 0 {
		to.Library(name, protocol.PlainText(protocol.Dig(metadata, "sdk_version")))
	}
	return protocol.Elements(p, body, "batch", to)
}

func (langfuse) Map(d *protocol.Draft, members []jsonscan.Member) {
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "type":
			d.SetName(m)
		case "id":
			d.SetID(d.Text(m, protocol.MaxID))
		case "timestamp":
			d.SetTime(m)
		case "body":
			d.Spread(m)
			protocol.EachMember(m.Value, func(name, value []byte) {
				switch string(name) {
				case "userId":
					d.User = d.Text(protocol.AsMember("body.userId", value), protocol.MaxID)
				case "sessionId":
					d.Session = d.Text(protocol.AsMember("body.sessionId", value), protocol.MaxID)
				}
			})
		}
	}
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "type", "timestamp", "body":
		case "id":
			d.KeepID(m)
		default:
			d.Keep(m)
		}
	}
}

// Reply is 207 with the result of each event, by its id. If it lists errors, the JavaScript client sends the batch
// again, at most three times. The Python client does not, because each error has status 400. If the whole request is
// rejected, Reply keeps its status.
func (langfuse) Reply(o *protocol.Outcome, b []byte) protocol.Reply {
	b = append(b, '{')
	if o.Refused != nil {
		b = protocol.AppendText(protocol.AppendKey(b, "message"), o.Refused.Message)
		return protocol.Reply{Status: o.Status, Body: append(o.AppendErrors(o.AppendCounts(b)), "}\n"...)}
	}
	b = append(protocol.AppendKey(o.AppendCounts(b), "successes"), '[')
	b = appendSuccesses(b, o)
	b = append(protocol.AppendKey(append(b, ']'), "errors"), '[')
	for i, e := range o.Listed() {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"id":`...)
		b = protocol.AppendText(b, string(protocol.PlainText(protocol.Dig(e.Raw, "id"))))
		b = append(b, `,"status":400,"message":`...)
		b = protocol.AppendText(b, e.Message)
		b = append(protocol.AppendString(b, "error", e.Code.String()), '}')
	}
	return protocol.Reply{Status: http.StatusMultiStatus, Body: append(b, "]}\n"...)}
}

// appendSuccesses lists the accepted events. It reads their ids from the body again.
func appendSuccesses(b []byte, o *protocol.Outcome) []byte {
	rejects := o.Rejects
	batch, _ := protocol.Find(protocol.Whole(o.Body), "batch")
	values := jsonscan.NewValues(batch, false)
	for index, taken := 0, 0; taken < o.Accepted+o.Sampled; index++ {
		element, err := values.Next()
		if errors.Is(err, io.EOF) {
			break // a hostile body that needs repeated reading
		}
		if len(rejects) > 0 && rejects[0].Index == index {
			if err == nil {
				passRejected(&values, element, rejects[0].Code)
			}
			rejects = rejects[1:]
			continue
		}
		element = element[:values.Take(jsonscan.Extent(element))]
		if taken++; taken > 1 {
			b = append(b, ',')
		}
		b = append(b, `{"id":`...)
		b = protocol.AppendText(b, string(protocol.PlainText(protocol.Dig(element, "id"))))
		b = append(b, `,"status":201}`...)
	}
	return b
}

// passRejected skips an element in the same way as decoding did.
func passRejected(values *jsonscan.Values, element []byte, code errcode.Code) {
	if code == errcode.InvalidJSON {
		values.Skip(0)
	} else {
		values.Take(jsonscan.Extent(element))
	}
}
