package receiver

import (
	"io"
	"net/http"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
)

// Langfuse's ingestion API: https://api.reference.langfuse.com/#tag/ingestion
//
// name is type, user body.userId, session body.sessionId, id the event's;
// properties are its body, and all else is in properties.$envelope.
var langfuse = []*dialect{
	{name: "langfuse", paths: []string{"/api/public/ingestion"}, decode: langfuseDecode, event: langfuseEvent, nameKey: "type", answer: langfuseAnswer, rereads: true},
	{name: "langfuse", paths: []string{"/api/public/health"}, methods: []string{http.MethodGet}, reply: langfuseHealth},
}

func langfuseHealth(*Receiver, *http.Request) (int, []byte) {
	return http.StatusOK, []byte(`{"status":"OK","version":"3"}` + "\n")
}

// langfuseDecode takes {batch: [event, …], metadata}. The metadata are of the
// client's library.
func langfuseDecode(q *request, body []byte) *errcode.Error {
	metadata, err := find(wholeBody(body), "metadata")
	if err != nil {
		return err
	}
	if name := plainText(dig(metadata, "sdk_name")); len(name) > 0 {
		q.context = append([]byte(nil), q.sdkContext(name, plainText(dig(metadata, "sdk_version")))...)
	}
	return q.decodeMember(body, "batch")
}

func langfuseEvent(q *request, members []jsonscan.Member) (pipeline.Event, error) {
	d := q.draft()
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "type":
			d.name = d.text(m, maxName)
		case "id":
			d.id = d.text(m, maxID)
		case "timestamp":
			d.setTime(m)
		case "body":
			d.spread(m)
			eachMember(m.Value, func(name, value []byte) {
				switch string(name) {
				case "userId":
					d.user = d.text(asMember("body.userId", value), maxID)
				case "sessionId":
					d.session = d.text(asMember("body.sessionId", value), maxID)
				}
			})
		}
	}
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "type", "timestamp", "body":
		case "id":
			d.keepID(m)
		default:
			d.keep(m)
		}
	}
	return d.event()
}

// langfuseAnswer is 207 with what became of each event, by its id. On
// "errors" the JavaScript client sends the batch again, three times at most, and
// the Python client does not, for each says 400. What is refused as a whole
// keeps its status.
func langfuseAnswer(q *request, refused *errcode.Error, status int, b []byte) (int, []byte) {
	if refused != nil {
		a := appendText([]byte(`{"message":`), refused.Message)
		return status, append(append(a, ','), b[1:]...)
	}
	a := append([]byte(nil), untold(b)...)
	a = append(a, `,"successes":[`...)
	rejects := q.rejects
	batch, _ := find(wholeBody(q.body), "batch")
	values := jsonscan.NewValues(batch, false)
	for index, taken := 0, 0; taken < q.accepted+q.sampled; index++ {
		element, err := values.Next()
		if err == io.EOF {
			break // a hostile body, of which decode has read parts again and again
		}
		if len(rejects) > 0 && rejects[0].index == index {
			if err == nil {
				passRejected(&values, element, rejects[0].code)
			}
			rejects = rejects[1:]
			continue
		}
		element = element[:values.Take(extent(element))]
		if taken++; taken > 1 {
			a = append(a, ',')
		}
		a = append(a, `{"id":`...)
		a = appendText(a, view(plainText(dig(element, "id"))))
		a = append(a, `,"status":201}`...)
	}
	a = append(a, `],"errors":[`...)
	for i, e := range q.rejects[:min(len(q.rejects), maxListed)] {
		if i > 0 {
			a = append(a, ',')
		}
		a = append(a, `{"id":`...)
		a = appendText(a, view(plainText(dig(e.raw, "id"))))
		a = append(a, `,"status":400,"message":`...)
		a = appendText(a, e.message)
		a = append(a, `,"error":`...)
		a = jsonscan.AppendQuoted(a, []byte(e.code.String()))
		a = append(a, '}')
	}
	return http.StatusMultiStatus, append(a, "]}\n"...)
}

// passRejected passes an element in the same way as its judging did.
func passRejected(values *jsonscan.Values, element []byte, code errcode.Code) {
	if code == errcode.InvalidJSON {
		values.Skip(0)
	} else {
		values.Take(extent(element))
	}
}
