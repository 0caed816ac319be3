package posthog_test

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver/receivertest"
	"github.com/penstock/penstock/receiver/tenant"
)

const key = receivertest.Key

func TestEvents(t *testing.T) {
	for _, c := range []struct {
		target, body string
		want         intake.Event
	}{
		{"/batch/", `{"api_key":"KEY","batch":[{"event":"shot","distinct_id":"u","properties":{"n":1,"$lib":"posthog-node","$lib_version":"5","$session_id":"s"},"type":"capture","library":"x","library_version":"y","timestamp":"2026-11-22T03:45:12.345Z","uuid":"` + intake.UUID + `"}],"sent_at":"2026-11-22T03:45:13Z"}`,
			intake.Said("shot", "u", "s", intake.UUID, "2026-11-22T03:45:12.345Z",
				`{"n":1,"$lib":"posthog-node","$lib_version":"5","$session_id":"s","$envelope":{"type":"capture"}}`, "")},
		{"/batch", `{"token":"KEY","batch":[{"event":"shot","properties":{"distinct_id":7},"library":"x","library_version":"y","uuid":"no","$set":{"a":1}}]}`,
			intake.Said("shot", "7", "", "", "", `{"distinct_id":7,"$set":{"a":1},"$envelope":{"uuid":"no"}}`,
				`{"name":"x","version":"y"}`)},
		{"/batch", `{"token":"KEY","batch":[{"event":"shot","library":{"x":1},"library_version":[2]}]}`,
			intake.Said("shot", "", "", "", "", `{"$envelope":{"library":{"x":1},"library_version":[2]}}`, "")},
		{"/capture", `{"api_key":"KEY","event":"shot","distinct_id":"u","offset":5}`,
			intake.Said("shot", "u", "", "", "", `{"$envelope":{"offset":5}}`, "")},
		{"/e/?ip=1&ver=1.0", `[{"event":"shot","properties":{"token":"KEY","distinct_id":"u","$lib":"web"}}]`,
			intake.Said("shot", "u", "", "", "", `{"distinct_id":"u","$lib":"web"}`, `{"name":"web"}`)},
		{"/e/", `{"event":"shot","properties":{"token":"KEY"}}`, intake.Said("shot", "", "", "", "", `{}`, "")},
		{"/i/v0/e/", `{"batch":[{"event":"shot","properties":{"token":"KEY"}}]}`, intake.Said("shot", "", "", "", "", `{}`, "")},
		{"/i/v0/e/?api_key=KEY", `{"event":"shot"}`, intake.Said("shot", "", "", "", "", `{}`, "")},
		{"/track?token=KEY", "\xef\xbb\xbf {\"event\":\"shot\"}", intake.Said("shot", "", "", "", "", `{}`, "")},
		{"/batch?api_key=KEY", `{"batch":[{"event":"shot"}]}`, intake.Said("shot", "", "", "", "", `{}`, "")},
		{"/i/v1/analytics/events?key=KEY",
			`{"created_at":"x","batch":[{"event":"shot","session_id":"s","distinct_id":"u","options":{},"properties":{}}]}`,
			intake.Said("shot", "u", "s", "", "", `{"$envelope":{"options":{}}}`, "")},
		{"/e/", "data=" + url.QueryEscape(
			base64.StdEncoding.EncodeToString([]byte(`{"event":"sh>>>ot?","properties":{"token":"`+key+`"}}`))) +
			"&compression=base64", intake.Said("sh>>>ot?", "", "", "", "", `{}`, "")},
		{"/e/", "data=" + base64.StdEncoding.EncodeToString([]byte(`[{"event":"sh>>>ot?","api_key":"`+key+`"}]`)),
			intake.Said("sh>>>ot?", "", "", "", "", `{}`, "")},
		{"/e/", "ip=1&compression=base64&data=" +
			base64.StdEncoding.EncodeToString([]byte(`{"event":"shot","api_key":"`+key+`"}`)),
			intake.Said("shot", "", "", "", "", `{}`, "")},
		{"/capture", "api_key=KEY&data=" + url.QueryEscape(`{"event":"shot","distinct_id":"a&data=b"}`),
			intake.Said("shot", "a&data=b", "", "", "", `{}`, "")},
		{"/batch", "data=" + url.QueryEscape(`{"batch":[{"event":"shot"}]}`) + "&token=KEY",
			intake.Said("shot", "", "", "", "", `{}`, "")},
		{"/e/", `{"event":"shot","api_key":"KEY","distinct_id":"a&data=b"}`, intake.Said("shot", "a&data=b", "", "", "", `{}`, "")},
		{"/track/", "data=" + url.QueryEscape(`{"event":"shot","api_key":"KEY"}`), intake.Said("shot", "", "", "", "", `{}`, "")},
	} {
		r, s := receivertest.Start(nil)
		code, a := receivertest.Send(r, strings.ReplaceAll(c.target, "KEY", key), strings.ReplaceAll(c.body, "KEY", key), "Content-Type",
			"application/x-www-form-urlencoded")
		if code != 200 || a["status"] != 1.0 || a["accepted"] != 1.0 {
			t.Errorf("%s %s: got %d %v", c.target, c.body, code, a)
		}
		c.want.Properties = strings.ReplaceAll(c.want.Properties, "KEY", key)
		c.want.Check(t, c.target+" "+c.body, s)
	}
}

// posthog-js names its compression in the query; the failure names it too.
func TestCompression(t *testing.T) {
	for _, body := range []string{`{"api_key":"` + key + `","batch":[{"event":"a"}]}`,
		`{"api_key":"` + key + `","batch":7}`} {
		packed := intake.Gzip(body)
		for _, target := range []string{"/i/v0/e/?compression=gzip-js&_=1", "/batch/?compression=gzip-js"} {
			r, s := receivertest.Start(nil)
			code, a := receivertest.Send(r, target, packed, "Content-Type", "text/plain")
			if strings.Contains(body, "[") {
				if code != 200 || s.Names() != "a" {
					t.Errorf("%s: got %d %v", target, code, a)
				}
			} else if code != 400 || len(s.Failures) != 1 || s.Failures[0].ContentEncoding != "gzip" ||
				string(s.Failures[0].Raw) != packed {
				t.Errorf("%s: got %d %v %+v", target, code, a, s.Failures)
			}
		}
	}
}

func TestRejected(t *testing.T) {
	for _, c := range []struct {
		path, body string
		status     int
		codes      string
		kept       string
	}{
		{"/batch", `{"batch":[{"event":"good"},{"event":7,"uuid":[]},{"properties":{"a":1}},7]}`, 200,
			"1:wrong_type 2:missing_name 3:not_an_object", `{"event":7,"uuid":[]}|{"properties":{"a":1}}|7`},
		{"/e", `{"batch":[{}]}`, 400, "0:missing_name", `{}`},
		{"/e", `{"batch":{}}`, 400, "missing_events", `{"batch":{}}`},
		{"/e", `{"batch":[`, 400, "0:invalid_json", `{"batch":[`},
		{"/e", `7`, 400, "0:not_an_object", `7`},
		{"/e", ``, 400, "empty_body", ``},
		{"/e", `[[]]`, 400, "0:not_an_object", `[]`},
		{"/e", `data=%zz`, 400, "invalid_form", `data=%zz`},
		{"/e", `data=!!`, 400, "invalid_form", `data=!!`},
		{"/e", `data=`, 400, "empty_body", `data=`},
		{"/e", `data=x&compression=lz64`, 415, "unsupported_encoding", `data=x&compression=lz64`},
		{"/e", `data=x&ip=1&data=y`, 400, "duplicate_key", `data=x&ip=1&data=y`},
		{"/batch", `{}`, 400, "0:missing_name", `{}`},
		{"/e", `{"event":"a","type":"x","properties":{"$envelope":1}}`, 400, "0:duplicate_key",
			`{"event":"a","type":"x","properties":{"$envelope":1}}`},
		{"/e", `{"event":"a","properties":{"$session_id":{}}}`, 400, "0:wrong_type",
			`{"event":"a","properties":{"$session_id":{}}}`},
	} {
		r, s := receivertest.Start(nil)
		w := intake.Do(r, receivertest.WithKey(intake.Post(c.path, c.body)))
		var a intake.Answer
		json.Unmarshal(w.Body.Bytes(), &a)
		s.CheckRejected(t, c.path+" "+c.body, w.Code, a, c.status, c.codes, c.kept)
	}
}

func TestKeys(t *testing.T) {
	for _, body := range []string{`{"event":"a"}`, `[`, `[7]`, `[]`, `{"api_key":{},"batch":[[]]}`, `{"batch":[`,
		`{"properties":7}`, `data=`, `{"api_key":"no","event":"a"}`} {
		r, s := receivertest.Start(nil)
		if code, a := receivertest.Send(r, "/i/v0/e", body); code != 401 || a["status"] != 0.0 || len(s.Failures) != 1 ||
			string(s.Failures[0].Raw) != body {
			t.Errorf("%s: got %d %v %+v", body, code, a, s.Failures)
		}
	}
}

// Looking for a key in a body happens before authentication, so its time must be linear in the size.
func TestKeyIsLinear(t *testing.T) {
	for _, body := range []string{strings.Repeat(`{"batch":[`, 200_000),
		strings.Repeat(`{"batch":[`, 200_000) + strings.Repeat(`]}`, 200_000), strings.Repeat(`[`, 2_000_000),
		strings.Repeat(`{"properties":`, 150_000)} {
		r, _ := receivertest.Start(nil)
		began := time.Now()
		if code, _ := receivertest.Send(r, "/batch", body); code != 401 || time.Since(began) > 5*time.Second {
			t.Errorf("%.20s: got %d after %s", body, code, time.Since(began))
		}
	}
}

// The key is not stored as a property. Other values under its name are.
func TestToken(t *testing.T) {
	for _, c := range []struct{ properties, want string }{
		{`{"a":1,"token":"KEY","b":{"token":"x"}}`, `{"a":1,"b":{"token":"x"}}`},
		{`{ "to\u006ben" : "KEY" , "a b" : [ 1 ] }`, `{"a b" : [ 1 ]}`},
		{`{"token":"KEY"}`, `{}`},
		{`{"api_key":"OTHER","token":"KEY","a\"b":1}`, `{"a\"b":1}`},
		{`{"token":"phc_of_posthog","n":-0}`, `{"n":-0}`},
		{`{"token":"gold","n":1}`, `{"token":"gold","n":1}`},
		{`{"token":7}`, `{"token":7}`},
		{`{"token":null,"api_key":["KEY"]}`, `{"token":null,"api_key":["KEY"]}`},
	} {
		r, s := receivertest.Start(nil)
		properties := strings.NewReplacer("KEY", key, "OTHER", receivertest.DiskKey).Replace(c.properties)
		code, a := receivertest.Send(r, "/e/?api_key="+key, `{"event":"shot","properties":`+properties+`}`)
		if want := strings.ReplaceAll(c.want, "KEY", key); code != 200 || len(s.Events) != 1 ||
			string(s.Events[0].Properties) != want {
			t.Errorf("%s: got %d %v %s, want %s", c.properties, code, a, s.Events[0].Properties, want)
		}
	}
}

// An event's identity is the same in each resend, even if old clients send neither a time nor a UUID.
func TestIdentity(t *testing.T) {
	insert := pipeline.UUIDv5([]byte("game"), []byte("x7rd3xywn88815b3")).String()
	for _, c := range []struct{ event, id, time string }{
		{`"uuid":"` + intake.UUID + `","properties":{"$insert_id":"x","$time":1}`, intake.UUID, "1970-01-01T00:00:01.000Z"},
		{`"offset":300,"properties":{"$insert_id":"x7rd3xywn88815b3","$time":1795630054.343}`, insert,
			"2026-11-25T18:07:34.343Z"},
		{`"timestamp":"2026-01-02T03:04:05.678Z","sent_at":"2026-01-02T04:04:05.678Z","offset":3,"properties":{"$insert_id":"x7rd3xywn88815b3","$time":7}`, insert, "2026-01-02T03:04:05.678Z"},
		{`"uuid":"` + intake.UUID + `","properties":{"$time":"soon"}`, intake.UUID, ""},
		{`"uuid":"` + intake.UUID + `","properties":{"$time":{}}`, intake.UUID, ""},
		{`"uuid":null,"properties":{"$insert_id":""}`, "", "now"},
	} {
		r, s := receivertest.Start(nil)
		code, a := receivertest.Send(r, "/e/?api_key="+key, `{"event":"shot",`+c.event+`}`)
		if code != 200 || len(s.Events) != 1 {
			t.Errorf("%s: got %d %v", c.event, code, a)
			continue
		}
		e := s.Events[0]
		if c.id != "" && e.ID.String() != c.id {
			t.Errorf("%s: id %s, want %s", c.event, e.ID, c.id)
		}
		got := ""
		if e.Timestamp == e.ReceivedAt {
			got = "now"
		} else if e.Timestamp != pipeline.NoTime {
			got = pipeline.Millis(e.Timestamp).Format(pipeline.TimeFormat)
		}
		if got != c.time {
			t.Errorf("%s: time %q, want %q", c.event, got, c.time)
		}
	}
}

// Clients would drop their events after 429 or 408: see Reply.
func TestWaits(t *testing.T) {
	r, _ := receivertest.Start(nil)
	if err := r.SetProjects([]tenant.Project{{Name: "game", Events: tenant.Rate{PerSecond: 1, Burst: 1}}}, nil); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{200, 503} {
		w := intake.Do(r, intake.Post("/e/?api_key="+key, `{"event":"a"}`))
		if w.Code != want || (w.Header().Get("Retry-After") == "") != (want == 200) {
			t.Errorf("request %d: got %d %s, Retry-After %q", i, w.Code, w.Body, w.Header().Get("Retry-After"))
		}
	}
}
