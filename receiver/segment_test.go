package receiver

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/protocol"
)

// send posts and returns the answer as it is.
func send(r *Receiver, target, body string, header ...string) (int, map[string]any) {
	w := httptest.NewRecorder()
	r.ServeHTTP(w, post(target, body, header...))
	var a map[string]any
	json.Unmarshal(w.Body.Bytes(), &a)
	return w.Code, a
}

func TestSegment(t *testing.T) {
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
		r, s := newTest(nil)
		body := strings.Replace(c.body, `"userId"`, ts+`,"userId"`, 1)
		code, a := send(r, "/v1/"+c.path, body, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(key+":")))
		if code != 200 || a["success"] != true || len(s.events) != 1 {
			t.Errorf("%s: got %d %v", c.body, code, a)
			continue
		}
		e := s.events[0]
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

func TestSegmentRefused(t *testing.T) {
	for _, c := range []struct {
		path, body string
		status     int
		codes      string
		kept       string // raw of the failures
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
		r, s := newTest(nil)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, withKey(post("/v1/"+c.path, c.body)))
		var a answer
		json.Unmarshal(w.Body.Bytes(), &a)
		var kept []string
		for _, f := range s.failures {
			kept = append(kept, string(f.Raw))
			if f.Path != "/v1/"+c.path {
				t.Errorf("%s: path %s", c.body, f.Path)
			}
		}
		if w.Code != c.status || a.codes() != c.codes || strings.Join(kept, "|") != c.kept {
			t.Errorf("%s: got %d %s, kept %q", c.body, w.Code, a.codes(), kept)
		}
	}
}

// What is said of a wrong type is what was sent.
func TestSegmentWrongType(t *testing.T) {
	for _, c := range []struct{ event, code, says string }{
		{`{"type":5}`, "unknown_type", `type "5":`},
		{`{"type":"batch"}`, "unknown_type", `type "batch":`},
		{`{"type":null}`, "unknown_type", `type "":`},
		{`{}`, "unknown_type", `type "":`},
		{`{"type":["track"]}`, "wrong_type", `"type" is of type array`},
	} {
		r, s := newTest(nil)
		send(r, "/v1/batch", `{"batch":[`+c.event+`]}`, "X-API-Key", key)
		if len(s.failures) != 1 || s.failures[0].Code != c.code || !strings.HasPrefix(s.failures[0].Message, c.says) {
			t.Errorf("%s: %+v", c.event, s.failures)
		}
	}
}

func TestKeyInBody(t *testing.T) {
	r, s := newTest(nil)
	code, _ := send(r, "/v1/batch", `{"writeKey":"`+key+`","batch":[{"type":"track","event":"a"}]}`)
	if code != 200 || len(s.events) != 1 || string(s.events[0].Project) != "game" {
		t.Errorf("got %d, %d events", code, len(s.events))
	}
	for body, want := range map[string]string{`{"batch":[{"type":"track","event":"a"}]}`: "missing_key",
		`{"writeKey":"no","batch":[]}`: "unknown_key", `{`: "missing_key"} {
		r, s := newTest(nil)
		code, a := send(r, "/v1/batch", body)
		if got := a["error"].(map[string]any)["code"]; code != 401 || got != want {
			t.Errorf("%s: got %d %v", body, code, got)
		}
		if len(s.events) != 0 || len(s.failures) != 1 || string(s.failures[0].Raw) != body {
			t.Errorf("%s: %d events, failures %+v", body, len(s.events), s.failures)
		}
		// What is kept of strangers has a limit.
		r, s = newTest(func(o *Options) { o.AnonymousRate = 0 })
		send(r, "/v1/batch", body)
		if len(s.failures) != 0 || len(s.dropped) != 1 {
			t.Errorf("%s: %d failures, dropped %v", body, len(s.failures), s.dropped)
		}
	}
	// The key's project may ask for more than the request names.
	r, _ = newTest(nil)
	if code, a := send(r, "/v1/batch?durability=memory",
		`{"writeKey":"`+keyDisk+`","batch":[{"type":"track","event":"a"}]}`); code != 403 {
		t.Errorf("got %d %v", code, a)
	}
}

// A failure of a dialect is redriven the way that it came.
func TestRedriveDialect(t *testing.T) {
	for _, d := range []Redrive{
		{Body: []byte(`{"type":"track","event":"a"}`), Event: true, Path: "/v1/batch"},
		{Body: []byte(`{"batch":[{"type":"track","event":"a"}]}`), Path: "/v1/batch/"},
		{Body: []byte(`{"event":"a"}`), Path: "/v1/track"},
		{Body: []byte(`{"event":"a"}`), Event: true, Path: "/batch"},
		{Body: []byte(`{"batch":[{"event":"a"}]}`), Path: "/batch/"},
		{Body: []byte(`data=` + base64.StdEncoding.EncodeToString([]byte(`{"event":"a"}`))),
			ContentType: "application/x-www-form-urlencoded", Path: "/e/"},
		{Body: []byte(`{"event_type":"a"}`), Event: true, Path: "/batch"},
		{Body: []byte(`{"events":[{"event_type":"a"}]}`), Path: "/batch"},
		{Body: []byte(`{"event_type":"a"}`), Event: true, Path: "/2/httpapi"},
		{Body: []byte(`[{"category":"a"}]`), Path: "/v2/{}/events"},
		{Body: []byte(`{"category":"a"}`), Event: true, Path: "/v2/{}/events"},
		{Body: []byte(`{"batch":[{"type":"a"}]}`), Path: "/api/public/ingestion"},
		{Body: []byte(`{"type":"a"}`), Event: true, Path: "/api/public/ingestion"},
		{Body: []byte(`{"name":"a"}`), Path: "/v1/events"},
		{Body: []byte(`{"name":"a"}`)},
	} {
		d.ID, d.Time, d.Project = pipeline.NewUUIDv7(1), 1, "game"
		r, s := newTest(nil)
		out, err := r.Redrive(context.Background(), d)
		if err != nil || out.Accepted != 1 || names(s.events) != "a" || string(s.events[0].Project) != "game" {
			t.Errorf("%s: %+v %v %s", d.Body, out, err, names(s.events))
		}
	}
}

// Browsers' clients and pixels have routes and places for keys of their own.
func TestSegmentBrowsers(t *testing.T) {
	std := base64.StdEncoding.EncodeToString
	const call = `{"writeKey":"` + key + `","event":"a","type":"track","userId":"u","properties":{"n":1}}`
	const batch = `{"batch":[{"type":"track","event":"a","userId":"u","properties":{"n":1}}]}`
	for _, c := range []struct{ method, target, body, want string }{ // want: name user session time properties
		{"POST", "/v1/t", call, `a u   {"n":1,"$envelope":{"type":"track"}}`},
		{"POST", "/v1/p/", `{"writeKey":"KEY","anonymousId":"x","userId":null}`,
			`page x   {"$envelope":{"anonymousId":"x"}}`},
		{"POST", "/v1/i?writeKey=KEY", `{"userId":"u","traits":{"a":1}}`, `identify u   {"a":1}`},
		{"POST", "/v1/s?writeKey=KEY", `{"name":"x"}`, `screen    {"$envelope":{"name":"x"}}`},
		{"POST", "/v1/g?writeKey=KEY", `{"groupId":"g"}`, `group    {"$envelope":{"groupId":"g"}}`},
		{"POST", "/v1/a?writeKey=KEY", `{"previousId":"p"}`, `alias    {"$envelope":{"previousId":"p"}}`},
		{"POST", "/v1/b", `{"writeKey":"KEY",` + batch[1:], `a u   {"n":1,"$envelope":{"type":"track"}}`},
		{"POST", "/v1/b?writeKey=KEY", zipped(batch), `a u   {"n":1,"$envelope":{"type":"track"}}`},
		{"POST", "/beacon/v1/batch?writeKey=KEY", batch, `a u   {"n":1,"$envelope":{"type":"track"}}`},
		// RudderStack's browser client: another time, and traits elsewhere.
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
		r, s := newTest(nil)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(c.method, strings.ReplaceAll(c.target, "KEY", key),
			strings.NewReader(strings.ReplaceAll(c.body, "KEY", key))))
		if image := c.method != "POST"; w.Code != 200 || len(s.events) != 1 || image != (w.Body.String() == transparent) ||
			r.admission.Memory() != 0 {
			t.Errorf("%s: got %d %s, %d events, failures %+v", c.target, w.Code, w.Body, len(s.events), s.failures)
			continue
		}
		e := s.events[0]
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

func TestSegmentPixelRefused(t *testing.T) {
	for _, c := range []struct {
		target string
		status int
		code   string
		kept   string
	}{
		{"/pixel/v1/track?event=a", 401, "missing_key", "event=a"},
		{"/pixel/v1/track?event=a&writeKey=no", 401, "unknown_key", "event=a"},
		{"/pixel/v1/track?writeKey=KEY", 400, "missing_name", ""},
		{"/pixel/v1/track?writeKey=KEY&event=a&event=b", 400, "wrong_type", "event=a&event=b"},
		{"/pixel/v1/track?writeKey=KEY&event=a&properties.a=1&properties.a.b=2", 400, "duplicate_key",
			"event=a&properties.a=1&properties.a.b=2"},
		{"/pixel/v1/track?writeKey=KEY&event=a&properties=%7B%7D&properties.a=2", 400, "duplicate_key",
			"event=a&properties=%7B%7D&properties.a=2"},
		{"/pixel/v1/track?writeKey=KEY&event=%ff", 400, "invalid_utf8", "event=%ff"},
		{"/pixel/v1/track?writeKey=KEY&event=%zz", 400, "invalid_query", "event=%zz"},
		{"/v1/pixel/track?data=!!&writeKey=KEY", 400, "invalid_form", "data=!!"},
		{"/v1/pixel/track?data=e30", 401, "missing_key", "data=e30"},
		{"/v1/pixel/track?data=e30&writeKey=KEY", 400, "missing_name", `{}`},
	} {
		r, s := newTest(nil)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest("GET", strings.ReplaceAll(c.target, "KEY", key), nil))
		if w.Code != c.status || w.Body.String() != transparent || len(s.events) != 0 || len(s.failures) != 1 ||
			s.failures[0].Code != c.code || string(s.failures[0].Raw) != c.kept {
			t.Errorf("%s: got %d %s, failures %+v", c.target, w.Code, w.Body, s.failures)
		}
	}
}

// What the browsers' clients ask for first names the key that they send with.
func TestSegmentSettings(t *testing.T) {
	for _, c := range []struct {
		target, auth string
		path         []string
	}{
		{"/v1/projects/k%22y/settings", "", []string{"integrations", "Segment.io", "apiKey"}},
		{"/sourceConfig/?p=npm&writeKey=k%22y", "", []string{"source", "writeKey"}},
		{"/sourceConfig?p=npm", "k\"y", []string{"source", "writeKey"}},
	} {
		r, s := newTest(nil)
		req := httptest.NewRequest("GET", c.target, nil)
		if c.auth != "" {
			req.SetBasicAuth(c.auth, "")
		}
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		if got := protocol.PlainText(protocol.Dig(protocol.Whole(w.Body.Bytes()), c.path...)); w.Code != 200 ||
			!json.Valid(w.Body.Bytes()) || string(got) != `k"y` || len(s.failures) != 0 {
			t.Errorf("%s: got %d %s", c.target, w.Code, w.Body)
		}
	}
}

// FuzzQueries throws queries at the routes that take events from one: each is an
// event, or is kept.
func FuzzQueries(f *testing.F) {
	routes := []string{"/pixel/v1/track", "/pixel/v1/page", "/v1/pixel/track", "/v1/pixel/page", "/e/", "/s/",
		"/v1/pixel.gif"}
	for at := range routes {
		for _, query := range []string{"event=a&name=a&properties.a.b=1&properties.a=2",
			"event=a&properties=%7B%22a%22:1%7D&context.=1&.=2&a..b=3", "data=eyJldmVudCI6ImEifQ", "data=%25%37B&_=1",
			"data=H4sIAAAAAAAA&event=%ff", "data=%22%7B%7D%22", "=&&=a&data", ";"} {
			f.Add(at, query)
		}
	}
	f.Fuzz(func(t *testing.T, at int, query string) {
		target := &url.URL{Path: routes[uint(at)%uint(len(routes))], RawQuery: query}
		req := withKey(httptest.NewRequest("GET", "/", nil))
		req.URL = target
		r, s := newTest(nil)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		if r.admission.Memory() != 0 || w.Code >= 500 || w.Code == 200 && len(s.failures) > 0 && len(s.events) == 0 ||
			w.Code >= 400 && len(s.failures) == 0 {
			t.Fatalf("%s: got %d %s, %d events, %d failures, %d bytes in memory", target, w.Code, w.Body, len(s.events),
				len(s.failures), r.admission.Memory())
		}
		for _, e := range s.events {
			if !json.Valid(e.Properties) {
				t.Fatalf("%s: properties %s", target, e.Properties)
			}
		}
	})
}
