package cloudevents_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/receivertest"
	"github.com/penstock/penstock/receiver/tenant"
)

const (
	structuredType = "application/cloudevents+json; charset=utf-8"
	batchType      = "application/cloudevents-batch+json"
)

// binaryHead returns the head of an event in binary mode, with additional headers.
func binaryHead(more ...string) []string {
	return append([]string{"ce-specversion", "1.0", "ce-id", "7", "ce-source", "/shop", "ce-type", "bought"}, more...)
}

func TestEvents(t *testing.T) {
	const head = `"specversion":"1.0","id":"7","source":"/shop"`
	id := pipeline.UUIDv5([]byte("game"), []byte("5 /shop7"))
	for _, c := range []struct {
		body                      string
		header                    []string
		user, session, properties string
	}{
		{`{` + head + `,"type":"bought","time":"2026-11-22T03:45:12.345678Z","data":{"n":1,"a":{"b":[1]}},"subject":"s","userid":"u","sessionid":7,"dataschema":null,"datacontenttype":"application/json"}`,
			[]string{"Content-Type", structuredType}, "u", "7",
			`{"n":1,"a":{"b":[1]},"$envelope":{` + head + `,"subject":"s","datacontenttype":"application/json"}}`},
		{`[{` + head + `,"type":"bought","data":"text"}]`, []string{"Content-Type", batchType}, "", "",
			`{"data":"text","$envelope":{` + head + `}}`},
		{`{` + head + `,"type":"bought","data":[1,{}]}`, []string{"Content-Type", structuredType}, "", "",
			`{"data":[1,{}],"$envelope":{` + head + `}}`},
		{`{` + head + `,"type":"bought","data_base64":"AQ==","data":null}`,
			[]string{"Content-Type", strings.ToUpper(structuredType)}, "", "",
			`{"data_base64":"AQ==","$envelope":{` + head + `}}`},
		{`{"n":1}`, binaryHead("Content-Type", "application/json", "ce-userid", "%c3%a9%20x", "ce-time",
			"2026-11-22T03:45:12.345Z", "ce-more", `"a \"b\""`), "é x", "",
			`{"n":1,"$envelope":{"datacontenttype":"application/json","id":"7","more":"a \"b\"","source":"/shop","specversion":"1.0"}}`},
		{"a\nb", binaryHead("Content-Type", "text/plain", "ce-latin", "\xe9%zz"), "", "",
			`{"data":"a\nb","$envelope":{"datacontenttype":"text/plain","id":"7","latin":"é%zz","source":"/shop","specversion":"1.0"}}`},
		{"bare", binaryHead("Content-Type", "application/json"), "", "",
			`{"data":"bare","$envelope":{"datacontenttype":"application/json","id":"7","source":"/shop","specversion":"1.0"}}`},
		{"\x01\xff", binaryHead("Content-Type", "text/plain"), "", "",
			`{"data_base64":"Af8=","$envelope":{"datacontenttype":"text/plain","id":"7","source":"/shop","specversion":"1.0"}}`},
		{"abc", binaryHead("Content-Type", "application/octet-stream"), "", "",
			`{"data_base64":"YWJj","$envelope":{"datacontenttype":"application/octet-stream","id":"7","source":"/shop","specversion":"1.0"}}`},
		{`[1,"x"]`, binaryHead("Content-Type", "application/vnd.x+json"), "", "",
			`{"data":[1,"x"],"$envelope":{"datacontenttype":"application/vnd.x+json","id":"7","source":"/shop","specversion":"1.0"}}`},
		{"", binaryHead(), "", "", `{"$envelope":{"id":"7","source":"/shop","specversion":"1.0"}}`},
	} {
		r, s := receivertest.Start(nil)
		a := receivertest.Events(t, r, c.body, c.header...)
		if a.Status != 202 || a.Accepted != 1 || s.Names() != "bought" {
			t.Errorf("%q %q: got %+v", c.header, c.body, a)
			continue
		}
		e := s.Events[0]
		if string(e.UserID) != c.user || string(e.SessionID) != c.session || e.ID != id ||
			string(e.Properties) != c.properties {
			t.Errorf("%q: got %s %s %s\n%s\nwant\n%s", c.body, e.UserID, e.SessionID, e.ID, e.Properties, c.properties)
		}
		timed := strings.Contains(c.body+strings.Join(c.header, ""), "2026-11-22T")
		if timed != (e.Timestamp == 1795319112345) || !timed && e.Timestamp != pipeline.NoTime {
			t.Errorf("%q: time %d", c.body, e.Timestamp)
		}
	}
}

func TestRejected(t *testing.T) {
	const head = `"specversion":"1.0","id":"7","source":"/shop","type":"a"`
	structured := []string{"Content-Type", structuredType}
	for _, c := range []struct {
		body   string
		header []string
		status int
		codes  string
		kept   string
	}{
		{`[{` + head + `},{"id":"7"},7,{` + head + `,"data":{"\u0024envelope":1}}]`, []string{"Content-Type", batchType}, 202,
			"1:unknown_specversion 2:not_an_object 3:duplicate_key",
			`{"id":"7"}|7|{` + head + `,"data":{"\u0024envelope":1}}`},
		{`{"specversion":"0.3","id":"7","source":"/shop","type":"a"}`, structured, 400, "0:unknown_specversion",
			`{"specversion":"0.3","id":"7","source":"/shop","type":"a"}`},
		{`{"specversion":"1.0","source":"/shop","type":"a"}`, structured, 400, "0:missing_id",
			`{"specversion":"1.0","source":"/shop","type":"a"}`},
		{`{"specversion":"1.0","source":"/shop","id":"1"}`, structured, 400, "0:missing_name",
			`{"specversion":"1.0","source":"/shop","id":"1"}`},
		{`{` + head + `,"data":1,"data_base64":""}`, structured, 400, "0:duplicate_key",
			`{` + head + `,"data":1,"data_base64":""}`},
		{`{` + head + `,"data_base64":{}}`, structured, 400, "0:wrong_type", `{` + head + `,"data_base64":{}}`},
		{`{` + head + `,"data_base64":"!!notb64"}`, structured, 400, "0:invalid_base64",
			`{` + head + `,"data_base64":"!!notb64"}`},
		{`{` + head + `,"data_base64":"AQ"}`, structured, 400, "0:invalid_base64", `{` + head + `,"data_base64":"AQ"}`},
		{`{` + head + `,"data_base64":"A_=="}`, structured, 400, "0:invalid_base64", `{` + head + `,"data_base64":"A_=="}`},
		{`{` + head + `,"data_base64":"AQ==\n"}`, structured, 400, "0:invalid_base64",
			`{` + head + `,"data_base64":"AQ==\n"}`},
		{strings.Repeat("\xff", 2<<20+1), binaryHead("Content-Type", "image/png"), 400, "event_too_large",
			strings.Repeat("\xff", 2<<20+1)},
		{`<a/>`, []string{"Content-Type", "application/cloudevents+xml"}, 415, "unsupported_media_type", `<a/>`},
		{`{"a":1`, binaryHead("Content-Type", "application/json"), 400, "invalid_json", `{"a":1`},
		{`{},"userid":"x"`, binaryHead("Content-Type", "application/json"), 400, "invalid_json", `{},"userid":"x"`},
		{`{"a":1,"a":2}`, binaryHead("Content-Type", "application/json"), 400, "duplicate_key", `{"a":1,"a":2}`},
		{`x`, binaryHead("ce-data", "x"), 400, "invalid_attribute", `x`},
		{`  `, []string{"Content-Type", "application/json", "ce-specversion", "1.0"}, 400, "missing_id", `  `},
	} {
		r, s := receivertest.Start(nil)
		a := receivertest.Events(t, r, c.body, c.header...)
		var kept []string
		for _, f := range s.Failures {
			kept = append(kept, string(f.Raw))
		}
		if a.Status != c.status || a.Codes() != c.codes || strings.Join(kept, "|") != c.kept {
			t.Errorf("%.200s: got %d %s, kept %.200q", c.body, a.Status, a.Codes(), kept)
		}
	}
}

// Events of different sources are different, whatever characters their names contain.
func TestTwoSources(t *testing.T) {
	r, s := receivertest.Start(nil)
	a := intake.Serve(t, r, receivertest.WithKey(intake.Post("/v1/events",
		`[{"specversion":"1.0","source":"a","id":"b c","type":"t"},{"specversion":"1.0","source":"a b","id":"c","type":"t"},{"specversion":"1.0","source":"a","id":"b c","type":"t"}]`, "Content-Type", batchType)))
	if a.Accepted != 3 || s.Events[0].ID == s.Events[1].ID || s.Events[0].ID != s.Events[2].ID {
		t.Errorf("%+v %v", a, s.Events)
	}
}

// Large data that is not text becomes a blob of its type.
func TestBlobs(t *testing.T) {
	const head = `{"specversion":"1.0","id":"7","source":"/shop","type":"bought",`
	picture := strings.Repeat("\x89PNG\xff>>?", 300)
	text := base64.StdEncoding.EncodeToString([]byte(picture))
	structured := []string{"Content-Type", structuredType}
	for _, c := range []struct {
		what, body string
		header     []string
		kind       string
	}{
		{"typed", head + `"data_base64":"` + text + `","datacontenttype":"image/png"}`, structured, "image/png"},
		{"typed before", head + `"datacontenttype":"image/png","data_base64":"` + text + `"}`, structured, "image/png"},
		{"escaped", head + `"data_base64":"` + strings.ReplaceAll(text, "/", `\/`) + `","datacontenttype":"image/\u0070ng"}`,
			structured, "image/png"},
		{"no type", head + `"data_base64":"` + text + `","datacontenttype":null}`, structured, "application/octet-stream"},
		{"batch", `[` + head + `"data_base64":"` + text + `"}]`, []string{"Content-Type", batchType},
			"application/octet-stream"},
		{"binary", picture, binaryHead("Content-Type", "image/png"), "image/png"},
		{"binary, no type", picture, binaryHead(), "application/octet-stream"},
	} {
		r, s := receivertest.Start(func(o *receiver.Options) { o.BlobThreshold = 1000 })
		a := receivertest.Events(t, r, c.body, c.header...)
		if a.Accepted != 1 || len(s.Blobs) != 1 || !strings.HasPrefix(string(s.Events[0].Properties), `{"data_base64":null`) {
			t.Errorf("%s: %+v %+v", c.what, a, s.Events)
			continue
		}
		if b := s.Blobs[0]; b.Kind != pipeline.BlobFile || b.ContentType != c.kind || b.Name != "" ||
			string(b.Data) != picture || b.At != len(`{"data_base64":`) {
			t.Errorf("%s: %+v", c.what, b.Blob)
		}

		// A schema sees the data as sent, and so does a row without blobs.
		for _, o := range []struct {
			threshold int
			schemas   receiver.Schemas
		}{{1000, seesBase64(text)}, {len(text) + 2 + strings.Count(c.body, `\/`), nil}, {0, nil}} {
			r, s = receivertest.Start(func(of *receiver.Options) {
				of.EnforceSchemas, of.BlobThreshold, of.Schemas = true, o.threshold, o.schemas
			})
			a := receivertest.Events(t, r, c.body, c.header...)
			var row map[string]any
			if a.Accepted != 1 || o.schemas == nil && (len(s.Blobs) != 0 ||
				json.Unmarshal(s.Events[0].Properties, &row) != nil || row["data_base64"] != text) {
				t.Errorf("%s: %+v %+v", c.what, a, s.Events)
			}
		}

		// A dropped value becomes no blob. A value next to a dropped path still does.
		for path, want := range map[string]string{"data_base64": ``, "other": `"data_base64":null,`} {
			r, s = receivertest.StartProject(func(o *receiver.Options) { o.BlobThreshold = 1000 },
				tenant.Project{Drop: []string{"properties." + path, "properties.$envelope.id"}})
			receivertest.Events(t, r, c.body, c.header...)
			if len(s.Blobs) != strings.Count(want, "null") ||
				!strings.HasPrefix(string(s.Events[0].Properties), `{`+want+`"$envelope":{`) {
				t.Errorf("%s: dropped %s: %s", c.what, path, s.Events[0].Properties)
			} else if want != "" && (string(s.Blobs[0].Data) != picture || s.Blobs[0].At != len(`{"data_base64":`)) {
				t.Errorf("%s: dropped %s: %+v", c.what, path, s.Blobs[0].Blob)
			}
		}
		r, s = receivertest.StartProject(func(o *receiver.Options) { o.BlobThreshold = 1000 },
			tenant.Project{Hash: []string{"properties.data_base64"}, Salt: receivertest.Salt})
		receivertest.Events(t, r, c.body, c.header...)
		if len(s.Blobs) != 0 || !strings.HasPrefix(string(s.Events[0].Properties), `{"data_base64":"`+receivertest.Hashed(picture)+`",`) {
			t.Errorf("%s: hashed: %s", c.what, s.Events[0].Properties)
		}
	}
}

// seesBase64 is a schema of all events that requires data_base64 to be that text.
type seesBase64 string

func (s seesBase64) Find([]byte) func([]byte) error {
	return func(properties []byte) error {
		var v map[string]any
		if err := json.Unmarshal(properties, &v); err != nil || v["data_base64"] != string(s) {
			return fmt.Errorf("got %.100s", properties)
		}
		return nil
	}
}

// The failure record of an event in binary mode has its attributes.
func TestRedrive(t *testing.T) {
	for _, c := range []struct {
		body   string
		header []string
	}{
		{`{"n":1}`, binaryHead("Content-Type", "application/json", "ce-more", strings.Repeat("m", 3000))},
		{`{"n":1}`, binaryHead()},
		{intake.Gzip(`{"n":1}`), binaryHead("Content-Type", "application/json", "Content-Encoding", "gzip")},
		{`{"specversion":"1.0","id":"7","source":"/shop","type":"bought","data":{"n":1}}`,
			[]string{"Content-Type", structuredType}},
	} {
		r, s := receivertest.Start(nil)
		if a := intake.Serve(t, r, intake.Post("/v1/events", c.body, append(c.header, "X-API-Key", "unknown")...)); a.Status != 401 ||
			len(s.Failures) != 1 {
			t.Fatalf("got %+v, %d failures", a, len(s.Failures))
		}
		f := s.Failures[0]
		out, err := r.Redrive(context.Background(),
			receiver.Redrive{ID: pipeline.NewUUIDv7(1), Project: "game", Path: f.Path, ContentType: f.ContentType,
				ContentEncoding: f.ContentEncoding, Body: f.Raw, Headers: f.Headers})
		if err != nil || out.Accepted != 1 || s.Names() != "bought" ||
			s.Events[0].ID != pipeline.UUIDv5([]byte("game"), []byte("5 /shop7")) ||
			!strings.Contains(strings.Join(c.header, " "), "ce-more") != !strings.Contains(string(s.Events[0].Properties),
				strings.Repeat("m", 3000)) {
			t.Errorf("%q: %+v %v %+v", c.header, out, err, s.Events)
		}
	}
}

func FuzzEvents(f *testing.F) {
	f.Add([]byte(`[{"specversion":"1.0","id":"7","source":"/shop","type":"a","data":{"\u0024envelope":1,"b":"\\"}},{"specversion":"1.0"}]`), "", "", false)
	f.Add([]byte(`{"specversion":"1.0","id":"7","source":"/shop","type":"a","data_base64":"x","time":"2026-11-22T03:45:12Z","userid":1}`), "", "", false)
	f.Add([]byte(`{"a":1}`), "application/json", `"a%20b"`, true)
	f.Add([]byte("\xff"), "text/plain", "\xff%41", true)
	r, s := receivertest.Start(func(o *receiver.Options) { o.MaxEvents, o.MaxEvent, o.MaxDepth = 50, 2000, 20 })
	f.Fuzz(func(t *testing.T, body []byte, kind, attribute string, binary bool) {
		req := receivertest.WithKey(intake.Post("/v1/events", string(body), "Content-Type", batchType))
		if binary {
			req.Header = http.Header{"Authorization": req.Header["Authorization"], "Content-Type": {kind},
				"Ce-Specversion": {"1.0"}, "Ce-Id": {attribute}, "Ce-Source": {"s"}, "Ce-Type": {"t"}, "Ce-Userid": {attribute}}
		}
		s.Forget()
		a := intake.Serve(t, r, req)
		s.CheckSound(t)
		if a.Status != 202 && (a.Status < 400 || a.Status > 499 || len(s.Events) > 0 || len(s.Failures) == 0) ||
			a.Accepted != len(s.Events) || a.Error.Code == "" && a.Rejected != len(s.Failures) {
			t.Fatalf("got %+v, %d events, failure records %s", a, len(s.Events), s.Codes())
		}
		if f := s.Failures; len(f) == 1 && f[0].Index < 0 && string(f[0].Raw) != string(body) {
			t.Fatalf("%q is kept as %q", body, f[0].Raw)
		}
	})
}
