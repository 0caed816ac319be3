package amplitude_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/receivertest"
)

const key = receivertest.Key

func TestEvents(t *testing.T) {
	const time = `"time":1795319112345`
	for _, c := range []struct {
		body string
		want intake.Event
	}{
		{`{"api_key":"KEY","events":[{"event_type":"shot","user_id":"u","device_id":"d","session_id":1795319112000,` + time +
			`,"insert_id":"` + intake.UUID +
			`","event_properties":{"n":1},"library":"amplitude-node-ts/1.5.73"}],"options":{},"client_upload_time":"x","request_metadata":{}}`,
			intake.Said("shot", "u", "1795319112000", intake.UUID, "2026-11-22T03:45:12.345Z", `{"n":1,"$envelope":{"device_id":"d"}}`,
				`{"name":"amplitude-node-ts","version":"1.5.73"}`)},
		{`{"api_key":"KEY","events":[{"event_type":"$identify","device_id":"d","session_id":-1,"insert_id":"no uuid","user_properties":{"$set":{"plan":"pro"}},"groups":{"guild":"g"},"library":"http"}]}`,
			intake.Said("$identify", "d", "", "", "",
				`{"$envelope":{"device_id":"d","insert_id":"no uuid","user_properties":{"$set":{"plan":"pro"}},"groups":{"guild":"g"}}}`, `{"name":"http"}`)},
		{`{"api_key":"KEY","events":[{"event_type":"shot","library":{"name":"own"},"session_id":null}]}`,
			intake.Said("shot", "", "", "", "", `{"$envelope":{"library":{"name":"own"}}}`, "")},
		{`{"events":[{"event_type":"shot","user_id":7,"event_properties":null}],"api_key":"KEY"}`,
			intake.Said("shot", "7", "", "", "", `{}`, "")},
	} {
		for _, path := range []string{"/2/httpapi", "/batch", "/batch/"} {
			r, s := receivertest.Start(nil)
			body := strings.ReplaceAll(c.body, "KEY", key)
			code, a := receivertest.Send(r, path, body)
			if code != 200 || a["code"] != 200.0 || a["events_ingested"] != 1.0 ||
				a["payload_size_bytes"] != float64(len(body)) || a["server_upload_time"].(float64) < 1e12 || a["accepted"] != 1.0 {
				t.Errorf("%s: got %d %v", body, code, a)
			}
			c.want.Check(t, path+" "+c.body, s)
		}
	}
}

// An insert_id is unique within its device, otherwise within its user. A UUID is unique alone.
func TestIDs(t *testing.T) {
	r, s := receivertest.Start(nil)
	receivertest.Send(r, "/2/httpapi", `{"api_key":"`+key+`","events":[`+strings.Join([]string{
		`{"event_type":"a","device_id":"d","insert_id":"5"}`,
		`{"event_type":"a","device_id":"e","insert_id":"5"}`,
		`{"event_type":"a","user_id":"d","insert_id":"5"}`,
		`{"event_type":"a","user_id":"e","insert_id":"5"}`,
		`{"event_type":"a","insert_id":"5"}`,
		`{"event_type":"a","insert_id":"1 d5"}`,
		`{"event_type":"a","device_id":"d5","insert_id":"5"}`,
		`{"event_type":"a","device_id":"d","insert_id":"55"}`,
		`{"event_type":"again","insert_id":5,"user_id":"other","device_id":"d"}`,
		`{"event_type":"a","device_id":"d","insert_id":"` + intake.UUID + `"}`,
	}, ",")+`]}`)
	if len(s.Events) != 10 || s.Events[9].ID.String() != intake.UUID {
		t.Fatalf("%+v", s.Events)
	}
	seen := map[pipeline.UUID]bool{}
	for _, e := range s.Events {
		if seen[e.ID] != (string(e.Name) == "again") {
			t.Errorf("%s %s %s", e.Name, e.ID, e.Properties)
		}
		seen[e.ID] = true
	}
}

// The client reads "code", and which events of a rejection to drop.
func TestRejectedEvents(t *testing.T) {
	const good = `{"event_type":"good","insert_id":"1"}`
	for _, c := range []struct {
		events  string
		status  int
		code    string // error_code
		codes   string
		fields  string // events_with_invalid_fields
		missing any
		kept    string
	}{
		{good + `,{"event_type":""},7`, 200, "", "1:missing_name 2:not_an_object", "null", nil, `{"event_type":""}|7`},
		{`{"event_type":[]},{},{"event_type":[]}`, 400, "", "0:wrong_type 1:missing_name 2:wrong_type", `{"event":[0,1,2]}`,
			nil, `{"event_type":[]}|{}|{"event_type":[]}`},
		{`{"event_type":"a","time":"soon"}`, 400, "", "0:invalid_timestamp", `{"event":[0]}`, nil,
			`{"event_type":"a","time":"soon"}`},
	} {
		for _, path := range []string{"/2/httpapi", "/batch"} {
			r, s := receivertest.Start(nil)
			w := intake.Do(r, intake.Post(path, `{"api_key":"`+key+`","events":[`+c.events+`]}`))
			var a struct {
				intake.Answer
				Code    int
				Fields  json.RawMessage `json:"events_with_invalid_fields"`
				Missing any             `json:"missing_field"`
			}
			a.Fields = []byte("null")
			text := strings.Replace(w.Body.String(), `"error":"every event was refused",`, "", 1)
			if err := json.Unmarshal([]byte(text), &a); err != nil || a.Code != c.status || string(a.Fields) != c.fields ||
				a.Missing != c.missing {
				t.Errorf("%s: got %s, %v", c.events, w.Body, err)
			}
			s.CheckRejected(t, c.events, w.Code, a.Answer, c.status, c.codes, c.kept)
		}
	}
}

// Rejected requests: the message is a text. It says, or a missing field does, whether the client must drop the batch.
func TestRejectedRequests(t *testing.T) {
	good := fmt.Sprintf(`{"api_key":%q,"events":[{"event_type":"a"}]}`, key)
	for _, c := range []struct {
		body    string
		status  int
		code    string
		dropped bool // with missing_field
		with    func(*receiver.Options)
		err     error
	}{
		{`{"api_key":"` + key + `","events":{}}`, 400, "missing_events", true, nil, nil},
		{`{"api_key":"no","events":[]}`, 401, "unknown_key", false, nil, nil},
		{`{"events":[]}`, 401, "missing_key", false, nil, nil},
		{`{"api_key":"` + key + `","events":[`, 401, "missing_key", false, nil, nil},
		{good, 413, "body_too_large", false, func(o *receiver.Options) { o.MaxBody = 10 }, nil},
		{`{"api_key":"` + key + `","events":[{"event_type":"a"},{"event_type":"b"}]}`, 413, "too_many_events", false,
			func(o *receiver.Options) { o.MaxEvents = 1 }, nil},
		{good, 503, "unavailable", false, nil, errors.New("away")},
	} {
		for _, path := range []string{"/2/httpapi", "/batch"} {
			if path == "/batch" && c.body[len(c.body)-1] == '[' {
				continue // both look the same
			}
			r, s := receivertest.Start(c.with)
			s.Err = c.err
			code, a := receivertest.Send(r, path, c.body)
			message, _ := a["error"].(string)
			if code != c.status || a["code"] != float64(c.status) || a["error_code"] != c.code || message == "" ||
				(a["missing_field"] != nil) != c.dropped ||
				strings.HasPrefix(message, "Invalid API key") != (code == 401) || a["request_id"] == nil {
				t.Errorf("%s %s: got %d %v", path, c.body, code, a)
			}
			if want := 1; c.status != 503 && len(s.Failures) != want {
				t.Errorf("%s %s: %d failures", path, c.body, len(s.Failures))
			}
		}
	}
}
