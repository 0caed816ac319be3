package receiver

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"net/http"
	"net/url"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// PostHog's capture API: https://posthog.com/docs/api/capture
//
// name is event, user distinct_id, session properties.$session_id, id uuid;
// properties are its properties, and all else is in properties.$envelope.
// /batch is Amplitude's as well; see batchRoute.
var posthog = []*dialect{
	posthogCapture, batchRoute,
	{name: "posthog", paths: []string{"/flags", "/decide"}, reply: posthogFlags},
}

var posthogCapture = &dialect{
	name: "posthog", paths: []string{"/capture", "/track", "/e", "/i/v0/e", "/i/v0/ai/batch", "/i/v1/analytics/events"},
	headKey: posthogHeadKey, bodyKey: posthogKey, prepare: posthogPrepare,
	decode: posthogDecode, event: posthogEvent, nameKey: "event", answer: posthogAnswer,
}

// posthogPrepare sees to what posthog-js compresses: it says so in the query,
// for a header would cost it a preflight.
func posthogPrepare(req *http.Request) {
	switch queryValue(req.URL.RawQuery, "compression") {
	case "gzip", "gzip-js":
		if req.Header.Get("Content-Encoding") == "" {
			req.Header.Set("Content-Encoding", "gzip")
		}
	}
}

func posthogHeadKey(req *http.Request) (key string, given bool) {
	if key, given = keyOf(req); !given {
		if key = queryValue(req.URL.RawQuery, "api_key"); key == "" {
			key = queryValue(req.URL.RawQuery, "token")
		}
	}
	return key, key != ""
}

// posthogKey is that of the body, or else of its first event.
func posthogKey(q *request, body []byte) string {
	body, err := posthogBody(q, body)
	if err != nil {
		return ""
	}
	key, batch := posthogToken(body)
	if key == nil {
		key, _ = posthogToken(batch)
	}
	return cmp.Or(string(plainText(key)), q.formKey)
}

// posthogToken is the key of an object, or of an array's first, and its batch.
func posthogToken(body []byte) (key, batch []byte) {
	if len(body) > 0 && body[0] == '[' {
		body = jsonscan.TrimSpace(body[1:])
		body = body[:extent(body)]
	}
	eachMember(body, func(name, value []byte) {
		switch string(name) {
		case "api_key", "token":
			key = value
		case "properties":
			if key == nil {
				key = dig(value, "token")
			}
		case "batch":
			batch = value
		}
	})
	return key, batch
}

// posthogBody is the JSON of a body. Old clients send a form, data=…, in base64,
// with other fields in any order.
func posthogBody(q *request, body []byte) ([]byte, *refusal) {
	body = wholeBody(body)
	if q.form != nil {
		return q.form, nil
	}
	if len(body) == 0 || body[0] == '{' || body[0] == '[' || !bytes.HasPrefix(body, []byte("data=")) && !bytes.Contains(body, []byte("&data=")) {
		return body, nil
	}
	if q.charge(q.charged+4*int64(len(body))) != nil { // the copies that are made here
		return nil, busy()
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "invalid_form", "the form cannot be read: %.100s", err)
	}
	if len(form["data"]) > 1 {
		return nil, refuse(http.StatusBadRequest, jsonscan.DuplicateKey, "the form has more than one \"data\"")
	}
	if c := form.Get("compression"); c != "" && c != "base64" {
		return nil, refuse(http.StatusUnsupportedMediaType, "unsupported_encoding", "the form's compression %.40q: send base64, or gzip without a form", c)
	}
	data := wholeBody([]byte(form.Get("data")))
	if len(data) == 0 || data[0] != '{' && data[0] != '[' {
		data = bytes.ReplaceAll(data, []byte(" "), []byte("+")) // a plus that was not escaped
		if data, err = base64.StdEncoding.AppendDecode([]byte{}, data); err != nil {
			return nil, refuse(http.StatusBadRequest, "invalid_form", "the form's data is not valid base64: %s", err)
		}
	}
	q.form, q.formKey = wholeBody(data), cmp.Or(form.Get("api_key"), form.Get("token"))
	return q.form, nil
}

// posthogDecode takes {batch: [event, …]}, an array of events, or one.
func posthogDecode(q *request, body []byte) *refusal {
	body, err := posthogBody(q, body)
	if err != nil {
		return err
	}
	if batch, _ := find(body, "batch"); batch != nil {
		return q.decodeMember(body, "batch")
	}
	return q.decode(body)
}

func posthogEvent(q *request, members []jsonscan.Member) (pipeline.Event, error) {
	d := q.draft()
	var user []byte
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "event":
			d.name = d.text(m, maxName)
		case "distinct_id":
			user = d.text(m, maxID)
		case "session_id":
			d.session = d.text(m, maxID)
		case "uuid":
			d.id = d.text(m, maxID)
		case "timestamp":
			d.setTime(m)
		case "library":
			d.sdk = plainText(m.Value)
		case "library_version":
			d.version = plainText(m.Value)
		case "properties":
			d.spread(m)
			eachMember(m.Value, func(name, value []byte) {
				switch string(name) {
				case "distinct_id":
					d.user = d.text(asMember("distinct_id", value), maxID)
				case "$session_id":
					d.session = d.text(asMember("$session_id", value), maxID)
				case "$lib":
					d.sdk = plainText(value)
				case "$lib_version":
					d.version = plainText(value)
				}
			})
		}
	}
	if len(user) > 0 {
		d.user = user
	}
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "event", "distinct_id", "session_id", "timestamp", "properties", "library", "library_version", "api_key", "token", "sent_at":
		case "uuid":
			d.keepID(m)
		default:
			d.keep(m)
		}
	}
	return d.event()
}

// posthogFlags says that there are no feature flags, in the words of all
// versions of the question.
func posthogFlags(*Receiver, *http.Request) (int, []byte) {
	return http.StatusOK, []byte(`{"flags":{},"featureFlags":{},"featureFlagPayloads":{},"errorsWhileComputingFlags":false,"config":{},"supportedCompression":["gzip","gzip-js"],"sessionRecording":false,"surveys":false,"toolbarParams":{},"siteApps":[]}` + "\n")
}

// posthogAnswer is what PostHog says of a good request. Its clients look at the
// status: they send again on 408, 429 and 5xx, in halves on 413, and drop a
// batch on any other 4xx.
func posthogAnswer(_ *request, _ *refusal, status int, b []byte) (int, []byte) {
	if status == http.StatusAccepted {
		status = http.StatusOK
	}
	if status == http.StatusOK {
		b = append([]byte(`{"status":1,`), b[1:]...)
	} else {
		b = append([]byte(`{"status":0,`), b[1:]...)
	}
	return status, b
}
