package receiver

import (
	"encoding/base64"
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/penstock/penstock/internal/pipeline"
)

// said is what a dialect is to make of one event. Empty fields are not looked at.
type said struct{ name, user, session, id, time, properties, sdk string }

func (w said) check(t *testing.T, what string, s *sink) {
	t.Helper()
	if len(s.events) != 1 {
		t.Errorf("%s: %d events", what, len(s.events))
		return
	}
	e := s.events[0]
	if string(e.Name) != w.name || string(e.UserID) != w.user || string(e.SessionID) != w.session ||
		string(e.Properties) != w.properties {
		t.Errorf("%s: got %s %q %q %s", what, e.Name, e.UserID, e.SessionID, e.Properties)
	}
	if w.id != "" && e.ID.String() != w.id {
		t.Errorf("%s: id %s", what, e.ID)
	}
	if w.time != "" && pipeline.Millis(e.Timestamp).Format(pipeline.TimeFormat) != w.time {
		t.Errorf("%s: time %s", what, pipeline.Millis(e.Timestamp))
	}
	if w.sdk != "" && !strings.HasSuffix(string(e.Context), `"sdk":`+w.sdk+`}`) {
		t.Errorf("%s: context %s", what, e.Context)
	}
}

const someUUID = "0192d4b0-7c1e-7a55-9d0e-0242ac120002"

func TestPostHog(t *testing.T) {
	for _, c := range []struct {
		target, body string
		want         said
	}{
		{"/batch/", `{"api_key":"KEY","batch":[{"event":"shot","distinct_id":"u","properties":{"n":1,"$lib":"posthog-node","$lib_version":"5","$session_id":"s"},"type":"capture","library":"x","library_version":"y","timestamp":"2026-11-22T03:45:12.345Z","uuid":"` + someUUID + `"}],"sent_at":"2026-11-22T03:45:13Z"}`,
			said{"shot", "u", "s", someUUID, "2026-11-22T03:45:12.345Z",
				`{"n":1,"$lib":"posthog-node","$lib_version":"5","$session_id":"s","$envelope":{"type":"capture"}}`, ""}},
		{"/batch", `{"token":"KEY","batch":[{"event":"shot","properties":{"distinct_id":7},"library":"x","library_version":"y","uuid":"no","$set":{"a":1}}]}`,
			said{"shot", "7", "", "", "", `{"distinct_id":7,"$set":{"a":1},"$envelope":{"uuid":"no"}}`,
				`{"name":"x","version":"y"}`}},
		{"/capture", `{"api_key":"KEY","event":"shot","distinct_id":"u","offset":5}`,
			said{"shot", "u", "", "", "", `{"$envelope":{"offset":5}}`, ""}},
		{"/e/?ip=1&ver=1.0", `[{"event":"shot","properties":{"token":"KEY","distinct_id":"u","$lib":"web"}}]`,
			said{"shot", "u", "", "", "", `{"distinct_id":"u","$lib":"web"}`, `{"name":"web"}`}},
		{"/e/", `{"event":"shot","properties":{"token":"KEY"}}`, said{"shot", "", "", "", "", `{}`, ""}},
		{"/i/v0/e/", `{"batch":[{"event":"shot","properties":{"token":"KEY"}}]}`, said{"shot", "", "", "", "", `{}`, ""}},
		{"/i/v0/e/?api_key=KEY", `{"event":"shot"}`, said{"shot", "", "", "", "", `{}`, ""}},
		{"/track?token=KEY", "\xef\xbb\xbf {\"event\":\"shot\"}", said{"shot", "", "", "", "", `{}`, ""}},
		{"/batch?api_key=KEY", `{"batch":[{"event":"shot"}]}`, said{"shot", "", "", "", "", `{}`, ""}},
		{"/i/v1/analytics/events?key=KEY",
			`{"created_at":"x","batch":[{"event":"shot","session_id":"s","distinct_id":"u","options":{},"properties":{}}]}`,
			said{"shot", "u", "s", "", "", `{"$envelope":{"options":{}}}`, ""}},
		{"/e/", "data=" + url.QueryEscape(
			base64.StdEncoding.EncodeToString([]byte(`{"event":"sh>>>ot?","properties":{"token":"`+key+`"}}`))) +
			"&compression=base64", said{"sh>>>ot?", "", "", "", "", `{}`, ""}},
		{"/e/", "data=" + base64.StdEncoding.EncodeToString([]byte(`[{"event":"sh>>>ot?","api_key":"`+key+`"}]`)),
			said{"sh>>>ot?", "", "", "", "", `{}`, ""}},
		{"/e/", "ip=1&compression=base64&data=" +
			base64.StdEncoding.EncodeToString([]byte(`{"event":"shot","api_key":"`+key+`"}`)),
			said{"shot", "", "", "", "", `{}`, ""}},
		{"/capture", "api_key=KEY&data=" + url.QueryEscape(`{"event":"shot","distinct_id":"a&data=b"}`),
			said{"shot", "a&data=b", "", "", "", `{}`, ""}},
		{"/batch", "data=" + url.QueryEscape(`{"batch":[{"event":"shot"}]}`) + "&token=KEY",
			said{"shot", "", "", "", "", `{}`, ""}},
		{"/e/", `{"event":"shot","api_key":"KEY","distinct_id":"a&data=b"}`, said{"shot", "a&data=b", "", "", "", `{}`, ""}},
		{"/track/", "data=" + url.QueryEscape(`{"event":"shot","api_key":"KEY"}`), said{"shot", "", "", "", "", `{}`, ""}},
	} {
		r, s := newTest(nil)
		code, a := send(r, strings.ReplaceAll(c.target, "KEY", key), strings.ReplaceAll(c.body, "KEY", key), "Content-Type",
			"application/x-www-form-urlencoded")
		if code != 200 || a["status"] != 1.0 || a["accepted"] != 1.0 {
			t.Errorf("%s %s: got %d %v", c.target, c.body, code, a)
		}
		c.want.properties = strings.ReplaceAll(c.want.properties, "KEY", key)
		c.want.check(t, c.target+" "+c.body, s)
	}
}

// posthog-js names its compression in the query; the failure names it too.
func TestPostHogCompression(t *testing.T) {
	for _, body := range []string{`{"api_key":"` + key + `","batch":[{"event":"a"}]}`,
		`{"api_key":"` + key + `","batch":7}`} {
		var packed strings.Builder
		z := gzip.NewWriter(&packed)
		z.Write([]byte(body))
		z.Close()
		for _, target := range []string{"/i/v0/e/?compression=gzip-js&_=1", "/batch/?compression=gzip-js"} {
			r, s := newTest(nil)
			code, a := send(r, target, packed.String(), "Content-Type", "text/plain")
			if strings.Contains(body, "[") {
				if code != 200 || names(s.events) != "a" {
					t.Errorf("%s: got %d %v", target, code, a)
				}
			} else if code != 400 || len(s.failures) != 1 || s.failures[0].ContentEncoding != "gzip" ||
				string(s.failures[0].Raw) != packed.String() {
				t.Errorf("%s: got %d %v %+v", target, code, a, s.failures)
			}
		}
	}
}

func TestPostHogRefused(t *testing.T) {
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
		r, s := newTest(nil)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, withKey(post(c.path, c.body)))
		var a answer
		json.Unmarshal(w.Body.Bytes(), &a)
		checkRefused(t, c.path+" "+c.body, s, w.Code, a, c.status, c.codes, c.kept)
	}
}

func checkRefused(t *testing.T, what string, s *sink, code int, a answer, status int, codes, raw string) {
	t.Helper()
	var kept []string
	for _, f := range s.failures {
		kept = append(kept, string(f.Raw))
	}
	if code != status || a.codes() != codes || strings.Join(kept, "|") != raw {
		t.Errorf("%s: got %d %s, kept %q", what, code, a.codes(), kept)
	}
}

func TestPostHogKeys(t *testing.T) {
	for _, body := range []string{`{"event":"a"}`, `[`, `[7]`, `[]`, `{"api_key":{},"batch":[[]]}`, `{"batch":[`,
		`{"properties":7}`, `data=`, `{"api_key":"no","event":"a"}`} {
		r, s := newTest(nil)
		if code, a := send(r, "/i/v0/e", body); code != 401 || a["status"] != 0.0 || len(s.failures) != 1 ||
			string(s.failures[0].Raw) != body {
			t.Errorf("%s: got %d %v %+v", body, code, a, s.failures)
		}
	}
}

// Whose key is looked for in a body is nobody yet: that takes time by its size alone.
func TestPostHogKeyIsLinear(t *testing.T) {
	for _, body := range []string{strings.Repeat(`{"batch":[`, 200_000),
		strings.Repeat(`{"batch":[`, 200_000) + strings.Repeat(`]}`, 200_000), strings.Repeat(`[`, 2_000_000),
		strings.Repeat(`{"properties":`, 150_000)} {
		r, _ := newTest(nil)
		began := time.Now()
		if code, _ := send(r, "/batch", body); code != 401 || time.Since(began) > 5*time.Second {
			t.Errorf("%.20s: got %d after %s", body, code, time.Since(began))
		}
	}
}

// A key is not a property. What only has the name of one is.
func TestPostHogToken(t *testing.T) {
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
		r, s := newTest(nil)
		properties := strings.NewReplacer("KEY", key, "OTHER", keyDisk).Replace(c.properties)
		code, a := send(r, "/e/?api_key="+key, `{"event":"shot","properties":`+properties+`}`)
		if want := strings.ReplaceAll(c.want, "KEY", key); code != 200 || len(s.events) != 1 ||
			string(s.events[0].Properties) != want {
			t.Errorf("%s: got %d %v %s, want %s", c.properties, code, a, s.events[0].Properties, want)
		}
	}
}

// What identifies an event is the same in each resend of it, also where old
// clients send neither a time nor a UUID.
func TestPostHogIdentity(t *testing.T) {
	insert := pipeline.UUIDv5([]byte("game"), []byte("x7rd3xywn88815b3")).String()
	for _, c := range []struct{ event, id, time string }{
		{`"uuid":"` + someUUID + `","properties":{"$insert_id":"x","$time":1}`, someUUID, "1970-01-01T00:00:01.000Z"},
		{`"offset":300,"properties":{"$insert_id":"x7rd3xywn88815b3","$time":1795630054.343}`, insert,
			"2026-11-25T18:07:34.343Z"},
		{`"timestamp":"2026-01-02T03:04:05.678Z","sent_at":"2026-01-02T04:04:05.678Z","offset":3,"properties":{"$insert_id":"x7rd3xywn88815b3","$time":7}`, insert, "2026-01-02T03:04:05.678Z"},
		{`"uuid":"` + someUUID + `","properties":{"$time":"soon"}`, someUUID, ""},
		{`"uuid":"` + someUUID + `","properties":{"$time":{}}`, someUUID, ""},
		{`"uuid":null,"properties":{"$insert_id":""}`, "", "now"},
	} {
		r, s := newTest(nil)
		code, a := send(r, "/e/?api_key="+key, `{"event":"shot",`+c.event+`}`)
		if code != 200 || len(s.events) != 1 {
			t.Errorf("%s: got %d %v", c.event, code, a)
			continue
		}
		e := s.events[0]
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

// A chunk of a recording is kept as the text that was sent, in the row or as a blob.
func TestPostHogReplay(t *testing.T) {
	steps := `[{"type":2,"data":{"node":{"attributes":{},"a.b":null,"a":{"b":1}}}, "timestamp":1795630206889},{"type":3,"data":"\u0000\u001f\u008b\"", "timestamp":1795630206890}]`
	for _, c := range []struct {
		body  string
		blobs int
		time  string
	}{
		{`{"event":"$snapshot","uuid":"` + someUUID +
			`","timestamp":"2026-11-22T03:45:12.345Z","properties":{"$session_id":"s","distinct_id":"u","$snapshot_data":STEPS,"token":"KEY","$snapshot_bytes":5}}`, 0, "2026-11-22T03:45:12.345Z"},
		{`[{"event":"$snapshot","uuid":"` + someUUID +
			`","properties":{"$session_id":"s","distinct_id":"u","$snapshot_data":STEPS,"token":"KEY","$snapshot_bytes":5}}]`, 0,
			"2026-11-25T18:10:06.889Z"},
		{`{"event":"$snapshot","uuid":"` + someUUID +
			`","properties":{"$session_id":"s","distinct_id":"u","$snapshot_data":STEPS,"$snapshot_bytes":5}}`, 1,
			"2026-11-25T18:10:06.889Z"},
	} {
		r, s := newTest(func(o *Options) {
			if c.blobs > 0 {
				o.BlobThreshold = 40
			}
		})
		code, a := send(r, "/s/?api_key="+key, zipped(strings.NewReplacer("KEY", key, "STEPS", steps).Replace(c.body)),
			"Content-Type", "text/plain")
		if code != 200 || len(s.events) != 1 || len(s.blobs) != c.blobs {
			t.Errorf("%s: got %d %v, %d blobs", c.body, code, a, len(s.blobs))
			continue
		}
		e := s.events[0]
		var properties map[string]any
		if err := json.Unmarshal(e.Properties, &properties); err != nil {
			t.Fatal(err)
		}
		text, _ := properties["$snapshot_data"].(string)
		if c.blobs > 0 {
			text = string(s.blobs[0].data)
			if b := s.blobs[0]; b.Kind != pipeline.BlobText || b.ContentType != "application/json" ||
				b.Size != int64(len(steps)) {
				t.Errorf("blob %+v", b.Blob)
			}
		}
		if text != steps || properties["$snapshot_bytes"] != 5.0 || properties["token"] != nil {
			t.Errorf("%s: got %s, steps %s", c.body, e.Properties, text)
		}
		if got := pipeline.Millis(e.Timestamp).Format(pipeline.TimeFormat); string(e.SessionID) != "s" ||
			string(e.UserID) != "u" || e.ID.String() != someUUID || got != c.time {
			t.Errorf("%s: got %s %s %s %s", c.body, e.SessionID, e.UserID, e.ID, got)
		}
	}
}

// A page is deeper than an event may be. Nothing else of a recording is.
func TestPostHogReplayDepth(t *testing.T) {
	page := func(depth int) string { return strings.Repeat(`{"childNodes":[`, depth) + strings.Repeat(`]}`, depth) }
	for _, c := range []struct{ target, properties, codes string }{
		{"/s/", `{"$snapshot_data":[{"type":2,"data":{"node":` + page(400) + `}}]}`, ""},
		{"/s/", `{"$snapshot_data":` + page(1100) + `}`, "0:too_deep"},
		{"/s/", `{"$snapshot_data":[],"other":` + page(100) + `}`, "0:too_deep"},
		{"/e/", `{"other":` + page(100) + `}`, "0:too_deep"},
	} {
		r, s := newTest(nil)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, withKey(post(c.target, `{"event":"$snapshot","properties":`+c.properties+`}`)))
		var a answer
		json.Unmarshal(w.Body.Bytes(), &a)
		if a.codes() != c.codes || (w.Code == 200) != (c.codes == "") || len(s.events)+len(s.failures) != 1 {
			t.Errorf("%.60s: got %d %s", c.properties, w.Code, w.Body)
		}
	}
}

// Clients that get a 429 or 408 would drop their events: see posthogAnswer.
func TestPostHogWaits(t *testing.T) {
	r, _ := newTest(nil)
	if err := r.SetProjects([]Project{{Name: "game", Events: Rate{PerSecond: 1, Burst: 1}}}, nil); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{200, 503} {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, post("/e/?api_key="+key, `{"event":"a"}`))
		if w.Code != want || (w.Header().Get("Retry-After") == "") != (want == 200) {
			t.Errorf("request %d: got %d %s, Retry-After %q", i, w.Code, w.Body, w.Header().Get("Retry-After"))
		}
	}
}

func TestPostHogConfig(t *testing.T) {
	for _, replay := range []bool{false, true} {
		for _, name := range []string{"phc_1", `a"};alert(1)`, "é"} {
			r, _ := newTest(func(o *Options) { o.SessionReplay = replay })
			for _, file := range []string{"config", "config.js"} {
				w := httptest.NewRecorder()
				r.ServeHTTP(w, httptest.NewRequest("GET", "/array/"+url.PathEscape(name)+"/"+file, nil))
				text, kind := w.Body.String(), "application/json"
				if file == "config.js" {
					quoted, _ := json.Marshal(name)
					before, config, found := strings.Cut(text,
						"window._POSTHOG_REMOTE_CONFIG["+string(quoted)+"]={siteApps:[],config:")
					text, kind = strings.TrimSuffix(config, "}})();\n"), "application/javascript"
					if !found || strings.Contains(before, "alert") {
						t.Errorf("%s: %s", name, w.Body)
					}
				}
				var config struct {
					Token            string
					SessionRecording any
				}
				if err := json.Unmarshal([]byte(text), &config); err != nil || w.Code != 200 ||
					w.Header().Get("Content-Type") != kind {
					t.Errorf("%s: got %d %v %s: %v", file, w.Code, w.Header(), text, err)
				}
				if config.Token != strings.ToValidUTF8(name, "\uFFFD") || (config.SessionRecording == false) == replay {
					t.Errorf("%s: got %+v", file, config)
				}
			}
		}
	}
}

func TestPostHogFlags(t *testing.T) {
	for _, target := range []string{"/flags?v=2", "/flags/?v=2&config=true", "/decide?v=3"} {
		r, s := newTest(nil)
		code, a := send(r, target, `{"token":"x","distinct_id":"u"}`)
		if flags, ok := a["flags"].(map[string]any); code != 200 || !ok || len(flags) != 0 ||
			len(s.events)+len(s.failures) != 0 {
			t.Errorf("%s: got %d %v", target, code, a)
		}
	}
}
