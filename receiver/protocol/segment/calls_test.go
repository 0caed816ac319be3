package segment_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/protocol"
	"github.com/penstock/penstock/receiver/receivertest"
)

const key = receivertest.Key

func TestCalls(t *testing.T) {
	const ts = `"timestamp":"2026-11-22T03:45:12.345Z"`
	for _, c := range []struct{ path, body, name, user, session, properties string }{
		{"track", `{"event":"shot","userId":"u","properties":{"n":1},"context":{"library":{"name":"lib","version":"1"},"sessionId":17}}`, "shot", "u", "17",
			`{"n":1,"$envelope":{"context":{"library":{"name":"lib","version":"1"},"sessionId":17}}}`},
		{"batch", `{"batch":[{"type":"track","event":"shot","anonymousId":"a","properties":null,"integrations":{}}]}`, "shot",
			"a", "", `{"$envelope":{"type":"track","anonymousId":"a"}}`},
		{"page/", `{"name":"Shop","userId":null,"anonymousId":"a","properties":{}}`, "page", "a", "",
			`{"$envelope":{"name":"Shop","anonymousId":"a"}}`},
		{"identify", `{"userId":7,"traits":{"plan":"pro"}}`, "identify", "7", "", `{"plan":"pro"}`},
		{"batch", `{"batch":[{"type":"group","groupId":"g","userId":"u","properties":[1]}],"sentAt":"x"}`, "group", "u", "",
			`{"$envelope":{"type":"group","groupId":"g","properties":[1]}}`},
		{"batch", "\xef\xbb\xbf {\"batch\" : [ {\"type\":\"alias\",\"messageId\":\"m\"} ] } ", "alias", "", "",
			`{"$envelope":{"type":"alias","messageId":"m"}}`},
	} {
		r, s := receivertest.Start(nil)
		body := strings.Replace(c.body, `"userId"`, ts+`,"userId"`, 1)
		code, a := receivertest.Send(r, "/v1/"+c.path, body, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(key+":")))
		if code != 200 || a["success"] != true || len(s.Events) != 1 {
			t.Errorf("%s: got %d %v", c.body, code, a)
			continue
		}
		e := s.Events[0]
		if string(e.Name) != c.name || string(e.UserID) != c.user || string(e.SessionID) != c.session ||
			string(e.Properties) != c.properties {
			t.Errorf("%s: got %s %s %s %s", c.body, e.Name, e.UserID, e.SessionID, e.Properties)
		}
		if strings.Contains(body, ts) &&
			pipeline.Millis(e.Timestamp).Format(pipeline.TimeFormat) != "2026-11-22T03:45:12.345Z" {
			t.Errorf("%s: time %d", body, e.Timestamp)
		}
		if strings.Contains(c.body, "library") &&
			!strings.Contains(string(e.Context), `"sdk":{"name":"lib","version":"1"}}`) {
			t.Errorf("context %s", e.Context)
		}
	}
}

func TestRejectedCalls(t *testing.T) {
	for _, c := range []struct {
		path, body string
		status     int
		codes      string
		kept       string // raw payload of the failure records
	}{
		{"batch", `{"batch":[{"type":"track","event":"good"},{"type":"x"},{"type":"track"},7]}`, 200,
			"1:unknown_type 2:missing_name 3:not_an_object", `{"type":"x"}|{"type":"track"}|7`},
		{"batch", `{"batch":[{"type":"track"}]}`, 400, "0:missing_name", `{"type":"track"}`},
		{"batch", `{"batch":{}}`, 400, "missing_events", `{"batch":{}}`},
		{"batch", `[{"type":"track","event":"a"}]`, 400, "invalid_json", `[{"type":"track","event":"a"}]`},
		{"batch", `{"batch":[`, 400, "invalid_json", `{"batch":[`},
		{"batch", ``, 400, "empty_body", ``},
		{"track", `{"event":"a","properties":{"$envelope":1},"type":"track"}`, 400, "0:duplicate_key",
			`{"event":"a","properties":{"$envelope":1},"type":"track"}`},
		{"track", `{"event":"a","messageId":[1]}`, 400, "0:wrong_type", `{"event":"a","messageId":[1]}`},
	} {
		r, s := receivertest.Start(nil)
		w := intake.Do(r, receivertest.WithKey(intake.Post("/v1/"+c.path, c.body)))
		var a intake.Answer
		json.Unmarshal(w.Body.Bytes(), &a)
		var kept []string
		for _, f := range s.Failures {
			kept = append(kept, string(f.Raw))
			if f.Path != "/v1/"+c.path {
				t.Errorf("%s: path %s", c.body, f.Path)
			}
		}
		if w.Code != c.status || a.Codes() != c.codes || strings.Join(kept, "|") != c.kept {
			t.Errorf("%s: got %d %s, kept %q", c.body, w.Code, a.Codes(), kept)
		}
	}
}

// The error about a wrong type quotes the value as sent.
func TestWrongType(t *testing.T) {
	for _, c := range []struct{ event, code, says string }{
		{`{"type":5}`, "unknown_type", `type "5":`},
		{`{"type":"batch"}`, "unknown_type", `type "batch":`},
		{`{"type":null}`, "unknown_type", `type "":`},
		{`{}`, "unknown_type", `type "":`},
		{`{"type":["track"]}`, "wrong_type", `"type" is of type array`},
	} {
		r, s := receivertest.Start(nil)
		receivertest.Send(r, "/v1/batch", `{"batch":[`+c.event+`]}`, "X-API-Key", key)
		if len(s.Failures) != 1 || s.Failures[0].Code != c.code || !strings.HasPrefix(s.Failures[0].Message, c.says) {
			t.Errorf("%s: %+v", c.event, s.Failures)
		}
	}
}

func TestKeyInBody(t *testing.T) {
	r, s := receivertest.Start(nil)
	code, _ := receivertest.Send(r, "/v1/batch", `{"writeKey":"`+key+`","batch":[{"type":"track","event":"a"}]}`)
	if code != 200 || len(s.Events) != 1 || string(s.Events[0].Project) != "game" {
		t.Errorf("got %d, %d events", code, len(s.Events))
	}
	for body, want := range map[string]string{`{"batch":[{"type":"track","event":"a"}]}`: "missing_key",
		`{"writeKey":"no","batch":[]}`: "unknown_key", `{`: "missing_key"} {
		r, s := receivertest.Start(nil)
		code, a := receivertest.Send(r, "/v1/batch", body)
		if got := a["error"].(map[string]any)["code"]; code != 401 || got != want {
			t.Errorf("%s: got %d %v", body, code, got)
		}
		if len(s.Events) != 0 || len(s.Failures) != 1 || string(s.Failures[0].Raw) != body {
			t.Errorf("%s: %d events, failures %+v", body, len(s.Events), s.Failures)
		}
		// The number of failure records without a valid key is limited.
		r, s = receivertest.Start(func(o *receiver.Options) { o.AnonymousRate = 0 })
		receivertest.Send(r, "/v1/batch", body)
		if len(s.Failures) != 0 || len(s.Dropped) != 1 {
			t.Errorf("%s: %d failures, dropped %v", body, len(s.Failures), s.Dropped)
		}
	}
	// The key's project may require more than the request contains.
	r, _ = receivertest.Start(nil)
	if code, a := receivertest.Send(r, "/v1/batch?durability=memory",
		`{"writeKey":"`+receivertest.DiskKey+`","batch":[{"type":"track","event":"a"}]}`); code != 403 {
		t.Errorf("got %d %v", code, a)
	}
}

// Browser clients and pixels have separate routes and places for keys.
func TestBrowsers(t *testing.T) {
	std := base64.StdEncoding.EncodeToString
	const call = `{"writeKey":"` + key + `","event":"a","type":"track","userId":"u","properties":{"n":1}}`
	const batch = `{"batch":[{"type":"track","event":"a","userId":"u","properties":{"n":1}}]}`
	for _, c := range []struct{ method, target, body, want string }{ // want: name, user, session, time, properties
		{"POST", "/v1/t", call, `a u   {"n":1,"$envelope":{"type":"track"}}`},
		{"POST", "/v1/p/", `{"writeKey":"KEY","anonymousId":"x","userId":null}`,
			`page x   {"$envelope":{"anonymousId":"x"}}`},
		{"POST", "/v1/i?writeKey=KEY", `{"userId":"u","traits":{"a":1}}`, `identify u   {"a":1}`},
		{"POST", "/v1/s?writeKey=KEY", `{"name":"x"}`, `screen    {"$envelope":{"name":"x"}}`},
		{"POST", "/v1/g?writeKey=KEY", `{"groupId":"g"}`, `group    {"$envelope":{"groupId":"g"}}`},
		{"POST", "/v1/a?writeKey=KEY", `{"previousId":"p"}`, `alias    {"$envelope":{"previousId":"p"}}`},
		{"POST", "/v1/b", `{"writeKey":"KEY",` + batch[1:], `a u   {"n":1,"$envelope":{"type":"track"}}`},
		{"POST", "/v1/b?writeKey=KEY", intake.Gzip(batch), `a u   {"n":1,"$envelope":{"type":"track"}}`},
		{"POST", "/beacon/v1/batch?writeKey=KEY", batch, `a u   {"n":1,"$envelope":{"type":"track"}}`},
		// RudderStack's browser client has time and traits in other places.
		{"POST", "/v1/identify?writeKey=KEY",
			`{"userId":"u","anonymousId":"x","context":{"traits":{"plan":"pro"},"sessionId":17},"originalTimestamp":"2026-11-25T18:08:05.102Z","sentAt":"2026-11-25T18:08:06Z"}`,
			`identify u 17 2026-11-25T18:08:05.102Z {"plan":"pro","$envelope":{"anonymousId":"x","context":{"traits":{"plan":"pro"},"sessionId":17}}}`},
		{"POST", "/v1/track?writeKey=KEY",
			`{"event":"a","userId":"","anonymousId":"x","timestamp":"2026-11-25T18:08:05.102Z","originalTimestamp":"2026-11-25T18:08:09Z"}`,
			`a x  2026-11-25T18:08:05.102Z {"$envelope":{"anonymousId":"x","originalTimestamp":"2026-11-25T18:08:09Z"}}`},
		{"GET", "/pixel/v1/track?writeKey=KEY&event=a&anonymousId=%22x%22&properties.plan=pro&properties.a.b=1&properties.a.c=2&properties.tag=x&properties.tag=y&context.sessionId=17&durability=disk&_=1", "",
			`a x 17  {"a":{"b":"1","c":"2"},"plan":"pro","tag":["x","y"],"$envelope":{"_":"1","anonymousId":"x","context":{"sessionId":"17"}}}`},
		{"GET", "/pixel/v1/page?%77riteKey=KEY&userId=u&name=Shop&properties=%7B%22n%22:1%7D&originalTimestamp=2026-11-25T18:08:05.102Z", "",
			`page u  2026-11-25T18:08:05.102Z {"n":1,"$envelope":{"name":"Shop"}}`},
		{"HEAD", "/pixel/v1/page?writeKey=KEY&userId=u&properties=no+object", "", `page u   {"properties":"no object"}`},
		{"GET", "/v1/pixel/track?data=" + url.QueryEscape(std([]byte(call))), "",
			`a u   {"n":1,"$envelope":{"type":"track"}}`},
		{"GET", "/v1/pixel/page?writeKey=KEY&data=" + strings.TrimRight(std([]byte(`{"userId":"u"}`)), "="), "",
			`page u   {}`},
	} {
		r, s := receivertest.Start(nil)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(c.method, strings.ReplaceAll(c.target, "KEY", key),
			strings.NewReader(strings.ReplaceAll(c.body, "KEY", key))))
		if image := c.method != "POST"; w.Code != 200 || len(s.Events) != 1 || image != (w.Body.String() == intake.Transparent) {
			t.Errorf("%s: got %d %s, %d events, failures %+v", c.target, w.Code, w.Body, len(s.Events), s.Failures)
			continue
		}
		e := s.Events[0]
		at := ""
		if e.Timestamp != e.ReceivedAt {
			at = pipeline.Millis(e.Timestamp).Format(pipeline.TimeFormat)
		}
		if got := strings.Join([]string{string(e.Name), string(e.UserID), string(e.SessionID), at, string(e.Properties)},
			" "); got != c.want {
			t.Errorf("%s %s\n got %s\nwant %s", c.target, c.body, got, c.want)
		}
	}
}

// The settings that browser clients request first contain the key that they then send.
func TestSettings(t *testing.T) {
	for _, c := range []struct {
		target, auth string
		path         []string
	}{
		{"/v1/projects/k%22y/settings", "", []string{"integrations", "Segment.io", "apiKey"}},
		{"/sourceConfig/?p=npm&writeKey=k%22y", "", []string{"source", "writeKey"}},
		{"/sourceConfig?p=npm", "k\"y", []string{"source", "writeKey"}},
	} {
		r, s := receivertest.Start(nil)
		req := httptest.NewRequest("GET", c.target, nil)
		if c.auth != "" {
			req.SetBasicAuth(c.auth, "")
		}
		w := intake.Do(r, req)
		if got := protocol.PlainText(protocol.Dig(protocol.Whole(w.Body.Bytes()), c.path...)); w.Code != 200 ||
			!json.Valid(w.Body.Bytes()) || string(got) != `k"y` || len(s.Failures) != 0 {
			t.Errorf("%s: got %d %s", c.target, w.Code, w.Body)
		}
	}
}
