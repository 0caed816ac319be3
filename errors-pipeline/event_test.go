package errorspipeline

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

func TestEvent(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 45, 12, 345e6, time.UTC)
	full := pipeline.Failure{
		Time: at, Stage: "receiver", Code: "invalid_json", Message: `byte "x" at 3`, Project: "game",
		RequestID: "r1", Method: "POST", Path: "/v1/events", ContentType: "text/plain", ContentEncoding: "gzip",
		ClientIP: "::1", UserAgent: "curl/8 \xff", Index: 7, Count: 3,
	}
	props := map[string]any{"stage": "receiver", "message": `byte "x" at 3`, "request_id": "r1", "method": "POST",
		"path": "/v1/events", "content_type": "text/plain", "content_encoding": "gzip", "index": float64(7),
		"count": float64(3)}
	for _, c := range []struct {
		name, raw string
		member    string // that holds raw; empty: none
	}{
		{"none", "", ""},
		{"text", "{\"a\":\n\t\"\u00fc\u2028\"", "raw"},
		{"replacement character", "\uFFFD", "raw"},
		{"other control characters", "\x01\x1f\x7f", "raw"},
		{"binary", "\x1f\x8b\x08\xff", "raw_base64"},
		{"nul", "a\x00b", "raw_base64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := full
			f.Raw = []byte(c.raw)
			e, _ := Event(&f, 1<<20)
			if string(e.Project) != "game" || string(e.Name) != "invalid_json" || e.Timestamp != at.UnixMilli() ||
				e.ReceivedAt != at.UnixMilli() {
				t.Errorf("got %+v", e)
			}
			var got map[string]any
			if err := json.Unmarshal(e.Properties, &got); err != nil {
				t.Fatalf("properties %s: %v", e.Properties, err)
			}
			for _, text := range [][]byte{e.Properties, e.Context} {
				if _, n, err := new(jsonscan.Scanner).Object(text); err != nil || n != len(text) {
					t.Errorf("%s: %v", text, err)
				}
			}
			raw, _ := got[c.member].(string)
			if c.member == "raw_base64" {
				b, err := base64.StdEncoding.DecodeString(raw)
				if err != nil {
					t.Fatal(err)
				}
				raw = string(b)
			}
			if raw != c.raw {
				t.Errorf("raw: got %q, want %q", raw, c.raw)
			}
			delete(got, c.member)
			if !reflect.DeepEqual(got, props) {
				t.Errorf("got %v, want %v", got, props)
			}
			if got, want := string(e.Context), `{"ip":"::1","user_agent":"curl/8 `+"\uFFFD"+`"}`; got != want {
				t.Errorf("context: got %s, want %s", got, want)
			}
		})
	}
}

func TestEventOfARequestAsAWhole(t *testing.T) {
	e, _ := Event(&pipeline.Failure{Time: time.UnixMilli(1), Code: "busy", Index: -1}, 1<<20)
	if string(e.Properties) != "{}" || string(e.Context) != "{}" {
		t.Errorf("got %s %s", e.Properties, e.Context)
	}
}

func TestEventFields(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 45, 12, 345e6, time.UTC)
	id := pipeline.UUIDv5([]byte("p"), []byte("x"))
	for _, c := range []struct {
		name      string
		f         pipeline.Failure
		threshold int64
		want      string
	}{
		{"headers", pipeline.Failure{Index: -1,
			Headers: []pipeline.Header{{Name: "Host", Value: `a"b`}, {Name: "Origin"}, {Name: "X-Request-Id", Value: "\xff"}}},
			1 << 20,
			`{"headers":{"Host":"a\"b","X-Request-Id":"\uFFFD"}}`},
		{"a row of a load", pipeline.Failure{Index: -1, Object: "events/o", Row: 0, Attempt: 2, ServerCode: 27,
			Class: "permanent"}, 1 << 20,
			`{"source_object":"events/o","source_row":0,"attempt":2,"server_code":27,"class":"permanent"}`},
		{"an object of a load", pipeline.Failure{Index: -1, Object: "events/o", Row: -1, Attempt: 1, Class: "unknown"},
			1 << 20,
			`{"source_object":"events/o","attempt":1,"server_code":0,"class":"unknown"}`},
		{"a blob", pipeline.Failure{Index: -1, Raw: []byte("abc")}, 2,
			`{"raw_bytes":3,"raw_blob":null}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.f.ID, c.f.Time = id, at
			e, _ := Event(&c.f, c.threshold)
			if got := string(e.Properties); got != strings.ReplaceAll(c.want, `\uFFFD`, "\uFFFD") {
				t.Errorf("got %s, want %s", got, c.want)
			}
			// The same failure again is the same row.
			if e.ID != id || e.Timestamp != pipeline.NoTime || e.ReceivedAt != at.UnixMilli() {
				t.Errorf("got %+v", e)
			}
		})
	}
}
