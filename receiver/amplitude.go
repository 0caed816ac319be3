package receiver

import (
	"bytes"
	"net/http"
	"strconv"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
)

// Amplitude's HTTP API V2, and its batch API, which is the same on /batch:
// https://amplitude.com/docs/apis/analytics/http-v2
//
// name is event_type, user user_id or else device_id, session session_id, id
// insert_id, which is the device's own where it is no UUID; properties are event_properties, and all else is in
// properties.$envelope.
var amplitude = []*dialect{amplitudeEvents}

var amplitudeEvents = &dialect{
	name: "amplitude", paths: []string{"/2/httpapi"}, bodyKey: amplitudeKey, event: amplitudeEvent, nameKey: "event_type", answer: amplitudeAnswer,
	decode: func(q *request, body []byte) *errcode.Error { return q.decodeMember(body, "events") },
}

// batchRoute is /batch, to which clients of PostHog and of Amplitude send. What
// the body holds tells whose it is. As long as it is not read, answers are
// Amplitude's: PostHog's clients look at the status alone.
var batchRoute = &dialect{
	name: "batch", paths: []string{"/batch"}, headKey: posthogHeadKey, prepare: posthogPrepare, sniffs: true,
	answer: amplitudeAnswer,
	bodyKey: func(q *request, body []byte) string {
		q.dialect = batchDialect(body)
		return q.dialect.bodyKey(q, body)
	},
	decode: func(q *request, body []byte) *errcode.Error {
		q.dialect = batchDialect(body)
		return q.dialect.decode(q, body)
	},
	event: func(q *request, members []jsonscan.Member) (pipeline.Event, error) { // that is redriven alone
		for i := range members {
			if string(members[i].Key) == "event_type" {
				return amplitudeEvent(q, members)
			}
		}
		return posthogEvent(q, members)
	},
}

func batchDialect(body []byte) *dialect {
	if events, err := find(wholeBody(body), "events"); err == nil && len(events) > 0 && events[0] != 'n' {
		return amplitudeEvents
	}
	return posthogCapture
}

func amplitudeKey(_ *request, body []byte) string {
	value, _ := find(wholeBody(body), "api_key")
	return string(plainText(value))
}

func amplitudeEvent(q *request, members []jsonscan.Member) (pipeline.Event, error) {
	d := q.draft()
	var device []byte
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "event_type":
			d.name = d.text(m, maxName)
		case "user_id":
			d.user = d.text(m, maxID)
		case "device_id":
			device = d.text(m, maxID)
		case "session_id":
			if string(m.Value) != "-1" { // is none
				d.session = d.text(m, maxID)
			}
		case "insert_id":
			d.id = d.text(m, maxID)
		case "time":
			d.setTime(m)
		case "library": // amplitude-ts/2.0.0
			name := plainText(m.Value)
			at := bytes.LastIndexByte(name, '/')
			if d.sdk = name; at > 0 {
				d.sdk, d.version = name[:at], name[at+1:]
			}
		case "event_properties":
			d.spread(m)
		}
	}
	if _, err := pipeline.ParseUUID(d.id); err != nil && len(d.id) > 0 {
		if len(device) == 0 { // Amplitude makes a device of the user then
			d.id = joined(d.user, d.id)
		}
		d.id = joined(device, d.id)
	}
	if len(d.user) == 0 {
		d.user = device
	}
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "event_type", "user_id", "session_id", "time", "library", "event_properties":
		case "insert_id":
			d.keepID(m)
		default:
			d.keep(m)
		}
	}
	return d.event()
}

// amplitudeAnswer is in Amplitude's words, for its clients look at the body
// more than at the status. What they do by "code": 200, all are done with, and
// so are those that were refused beside good ones. 400: they drop those that
// are listed, or all where "missing_field" is set or the key is wrong, and send
// the rest again. 413: again in halves. 408, 429 and 5xx: again.
func amplitudeAnswer(q *request, refused *errcode.Error, status int, b []byte) (int, []byte) {
	if status == http.StatusAccepted {
		status = http.StatusOK
	}
	a := strconv.AppendInt([]byte(`{"code":`), int64(status), 10)
	switch {
	case refused != nil:
		message := refused.Message
		switch status {
		case http.StatusUnauthorized:
			message = "Invalid API key: " + message
		case http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		default: // sent again it would be refused again
			a = append(a, `,"missing_field":`...)
			a = jsonscan.AppendQuoted(a, []byte(refused.Code.String()))
		}
		a = append(a, `,"error":`...)
		a = appendText(a, message)
		a = append(a, `,"error_code":`...)
		a = jsonscan.AppendQuoted(a, []byte(refused.Code.String()))
		a = append(a, ',')
		a = append(a, untold(b)[1:]...)
		return status, append(a, "}\n"...)
	case status == http.StatusBadRequest:
		a = append(a, `,"error":"every event was refused","events_with_invalid_fields":{"event":[`...)
		for i, e := range q.rejects { // all: those that are not listed come again
			if i > 0 {
				a = append(a, ',')
			}
			a = strconv.AppendInt(a, int64(e.index), 10)
		}
		a = append(a, "]}"...)
	default:
		a = append(a, `,"events_ingested":`...)
		a = strconv.AppendInt(a, int64(q.accepted), 10)
		a = append(a, `,"payload_size_bytes":`...)
		a = strconv.AppendInt(a, int64(len(q.body)), 10)
		a = append(a, `,"server_upload_time":`...)
		a = strconv.AppendInt(a, q.now, 10)
	}
	return status, append(append(a, ','), b[1:]...)
}
