package receiver

import (
	"encoding/base64"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/traffic"
	"github.com/penstock/penstock/receiver/protocol"
)

// event sends one event and returns it, or its error code.
func event(t *testing.T, body string) (pipeline.Event, string) {
	t.Helper()
	r, s := newTest(nil)
	a := serve(t, r, withKey(post("/v1/events", body)))
	if len(s.Events) == 1 && a.Status == 202 {
		return s.Events[0], ""
	}
	if len(a.Errors) != 1 || len(s.Events) != 0 || a.Status != 400 {
		t.Fatalf("%s: got %+v", body, a)
	}
	return pipeline.Event{}, a.Errors[0].Code
}

func TestProperties(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"none", `{"name":"a"}`, `{}`},
		{"flat", `{"x":1,"name":"a","y":[ 1, 2 ]}`, `{"x":1,"y":[ 1, 2 ]}`},
		{"nested", `{"name":"a","properties":{"x":1, "y":2}}`, `{"x":1, "y":2}`},
		{"nested, empty", `{"name":"a","properties":{ }}`, `{ }`},
		{"nested, null", `{"name":"a","properties":null}`, `{}`},
		{"both", `{"x":1,"properties":{"y":2},"name":"a","z":3}`, `{"x":1,"z":3,"y":2}`},
		{"both, empty", `{"x":1,"properties":{ },"name":"a"}`, `{"x":1}`},
		{"not an object", `{"name":"a","properties":[1]}`, `{"properties":[1]}`},
		{"not an object, text", `{"name":"a","properties":"x","y":1}`, `{"properties":"x","y":1}`},
		{"the envelope's names within", `{"name":"a","properties":{"name":"b","timestamp":"x"}}`,
			`{"name":"b","timestamp":"x"}`},
		{"properties within", `{"name":"a","properties":{"properties":{"x":1}}}`, `{"properties":{"x":1}}`},
		{"escaped keys", `{"name":"a","\u0078\n\"":1}`, `{"\u0078\n\"":1}`},
		{"escaped envelope", `{"\u006eame":"a","properti\u0065s":{"x":1}}`, `{"x":1}`},
		{"letters", `{"name":"a","ключ":"знач\u00e9"}`, `{"ключ":"знач\u00e9"}`},
		{"large numbers as they are", `{"name":"a","x":18446744073709551615,"y":1.10,"z":-0}`,
			`{"x":18446744073709551615,"y":1.10,"z":-0}`},
		{"lines, flat", "{\"name\":\"a\",\n\"x\":\r\n[\n1,\r2]\n}", "{\"x\":  [ 1, 2]}"},
		{"lines, nested", "{\"name\":\"a\",\"properties\":{\r\n\"x\":\n1}}", `{  "x": 1}`},
		{"lines, both", "{\"name\":\"a\",\"y\":{\n},\"properties\":{\n\"x\":\n\"\\n\"\n}}", `{"y":{ },"x": "\n"}`},
		{"escapes within strings", `{"name":"a","x":"a\nb\r\u000a\\n"}`, `{"x":"a\nb\r\u000a\\n"}`},
		{"line separators are text", "{\"name\":\"a\",\"x\":\"\u2028\u0085\"}", "{\"x\":\"\u2028\u0085\"}"},
		{"a NUL in text", `{"name":"a","x":"\u0000"}`, `{"x":"\u0000"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, code := event(t, c.body)
			if got := string(e.Properties); got != c.want || code != "" {
				t.Errorf("got %s %s, want %s", got, code, c.want)
			}
			if string(e.Name) != "a" || string(e.Project) != "game" {
				t.Errorf("name %q, project %q", e.Name, e.Project)
			}
		})
	}
}

func TestEnvelope(t *testing.T) {
	id := strings.Repeat("x", protocol.MaxID)
	for _, c := range []struct{ body, want string }{ // want: name|session|user, or the code
		{`{"name":"a","session_id":"s","user_id":"u"}`, "a|s|u"},
		{`{"name":"a","session_id":null,"user_id":null,"timestamp":null,"event_id":null}`, "a||"},
		{`{"name":"a","session_id":17,"user_id":-1.50}`, "a|17|-1.50"},
		{`{"name":"a\u00e9\ud83d\ude00\"","user_id":"a\/b"}`, "aé😀\"||a/b"},
		{`{"name":7}`, "7||"},
		{`{"name":"a","user_id":"` + id + `"}`, "a||" + id},
		{`{"name":"` + strings.Repeat("x", protocol.MaxName) + `"}`, strings.Repeat("x", protocol.MaxName) + "||"},
		// by its content
		{`{"name":"` + strings.Repeat(`\u0041`, protocol.MaxName) + `"}`, strings.Repeat("A", protocol.MaxName) + "||"},
		{`{"name":"` + strings.Repeat("x", protocol.MaxName+1) + `"}`, "field_too_long"},
		{`{"name":"a","user_id":"` + id + `x"}`, "field_too_long"},
		{`{"name":"a","session_id":"` + id + `x"}`, "field_too_long"},
		{`{"name":"a","event_id":"` + id + `x"}`, "field_too_long"},
		{`{}`, "missing_name"},
		{`{"x":{"name":"a"}}`, "missing_name"},
		{`{"properties":{"name":"a"}}`, "missing_name"},
		{`{"Name":"a"}`, "missing_name"},
		{`{"name":""}`, "missing_name"},
		{`{"name":null}`, "missing_name"},
		{`{"name":true}`, "wrong_type"},
		{`{"name":["a"]}`, "wrong_type"},
		{`{"name":"a","user_id":{}}`, "wrong_type"},
		{`{"name":"a","session_id":false}`, "wrong_type"},
		{`{"name":"a","event_id":[]}`, "wrong_type"},
		{`{"name":"a","timestamp":{}}`, "wrong_type"},
	} {
		e, code := event(t, c.body)
		got := code
		if code == "" {
			got = fmt.Sprintf("%s|%s|%s", e.Name, e.SessionID, e.UserID)
		}
		if got != c.want {
			t.Errorf("%.80s: got %q, want %q", c.body, got, c.want)
		}
	}
}

func TestEventID(t *testing.T) {
	const u = "0193b3f0-7b5a-7cde-8f01-23456789abcd"
	v5 := func(id string) string { return pipeline.UUIDv5([]byte("game"), []byte(id)).String() }
	for _, c := range []struct{ id, want, props string }{
		{`"` + u + `"`, u, `{}`},
		{`"` + strings.ToUpper(u) + `"`, u, `{}`},
		{`"00000000-0000-0000-0000-000000000000"`, "00000000-0000-0000-0000-000000000000", `{}`},
		{`"order-7"`, v5("order-7"), `{"event_id":"order-7"}`},
		{`"{` + u + `}"`, v5("{" + u + "}"), `{"event_id":"{` + u + `}"}`},
		{`"o\u0072der\n"`, v5("order\n"), `{"event_id":"o\u0072der\n"}`},
		{`"` + u[:34] + `-d"`, v5(u[:34] + "-d"), `{"event_id":"` + u[:34] + `-d"}`}, // once a panic
		{`"------------------------------------"`, v5(strings.Repeat("-", 36)),
			`{"event_id":"------------------------------------"}`},
		{`42`, v5("42"), `{"event_id":42}`},
		{`"42"`, v5("42"), `{"event_id":"42"}`},
	} {
		for range 2 { // repeat
			e, code := event(t, `{"name":"a","event_id":`+c.id+`}`)
			if e.ID.String() != c.want || string(e.Properties) != c.props {
				t.Errorf("%s: got %s %s %s, want %s %s", c.id, e.ID, e.Properties, code, c.want, c.props)
			}
			if e.Timestamp != pipeline.NoTime {
				t.Errorf("%s: a resend would have another time: %d", c.id, e.Timestamp)
			}
		}
	}
	for _, id := range []string{"", `,"event_id":null`, `,"event_id":""`} {
		before := time.Now().UnixMilli()
		e, _ := event(t, `{"name":"a"`+id+`}`)
		ms := int64(e.ID[0])<<40 | int64(e.ID[1])<<32 | int64(e.ID[2])<<24 | int64(e.ID[3])<<16 | int64(e.ID[4])<<8 | int64(
			e.ID[5])
		if e.ID[6]>>4 != 7 || e.ID[8]>>6 != 2 || ms < before || ms != e.ReceivedAt || string(e.Properties) != "{}" {
			t.Errorf("%q: got %s, received at %d, properties %s", id, e.ID, e.ReceivedAt, e.Properties)
		}
		if e.Timestamp != e.ReceivedAt {
			t.Errorf("%q: time %d, want that of its coming, %d", id, e.Timestamp, e.ReceivedAt)
		}
	}
}

// Which texts are times is tested in internal/pipeline.
func TestTimestamp(t *testing.T) {
	const at = 1795514400123 // 2026-11-24T10:00:00.123Z
	for _, c := range []struct {
		value string
		want  int64
		code  string
	}{
		{`"2026-11-24T10:00:00.123Z"`, at, ""},
		{`"2026-11-24T12:00:00.123\u002B02:00"`, at, ""}, // as .NET writes a plus
		{`"2026-11-24T10:00:00.123:Z"`, at, ""},
		{`"2026-11-24T10:00:00.123"`, at, ""},
		{`"2026-11-24T10:00:00.123+0000"`, at, ""},
		{`"2026-11-24 10:00:00.123"`, at, ""},
		{`""`, pipeline.NoTime, ""},
		{`null`, pipeline.NoTime, ""},
		{`1795514400.123456`, at, ""},
		{`1795514400123456789`, at, ""},
		{`"1795514400.123456789"`, at, ""},
		{`1.7955144001e9`, at - 23, ""},
		{`-1`, -1000, ""},
		{`-2208988800`, pipeline.MinTime, ""},
		{`10413791999.999`, pipeline.MaxTime, ""},
		{`"yesterday"`, 0, "invalid_timestamp"},
		{`"2026-13-24T10:00:00Z"`, 0, "invalid_timestamp"},
		{`"2026-11-24T9:00:00Z"`, 0, "invalid_timestamp"},
		{`"0x10"`, 0, "invalid_timestamp"},
		{`1e300`, 0, "invalid_timestamp"},
		{`"` + strings.Repeat("9", 100_000) + `"`, 0, "invalid_timestamp"},
		{`true`, 0, "wrong_type"},
		{`{}`, 0, "wrong_type"},
	} {
		e, code := event(t, `{"name":"a","event_id":"x","timestamp":`+c.value+`}`)
		if code != c.code || code == "" && e.Timestamp != c.want {
			t.Errorf("%.60s: got %d %q, want %d %q", c.value, e.Timestamp, code, c.want, c.code)
		}
	}
}

// A message names the member, its value and the accepted forms, in the terms of the client's API.
func TestTimestampMessage(t *testing.T) {
	for _, c := range []struct{ path, body, want string }{
		{"/v1/events", `{"name":"a","timestamp":"soon"}`, `"timestamp" is "soon": want a time as 2026-11-22T03:45:12.345Z, ` +
			`or the seconds, milliseconds, microseconds or nanoseconds since 1970`},
		{"/v1/events", `{"name":"a","timestamp":1e300}`, `"timestamp" is "1e300": want a time within the years 1900 to 2299`},
		{"/v1/track", `{"event":"a","userId":"u","timestamp":"soon"}`, `"timestamp" is "soon"`},
		{"/v1/events", `{"specversion":"1.0","id":"1","source":"s","type":"t","time":"soon"}`, `"time" is "soon"`},
	} {
		r, s := newTest(nil)
		header := []string{"Authorization", "Bearer " + key}
		switch {
		case c.path == "/v1/track":
			header[1] = "Basic " + base64.StdEncoding.EncodeToString([]byte(key+":"))
		case strings.Contains(c.body, "specversion"):
			header = append(header, "Content-Type", "application/cloudevents+json")
		}
		r.ServeHTTP(httptest.NewRecorder(), post(c.path, c.body, header...))
		if len(s.Failures) != 1 || !strings.HasPrefix(s.Failures[0].Message, c.want) {
			t.Errorf("%s %s: got %+v, want %s", c.path, c.body, s.Failures, c.want)
		}
	}
}

func TestNoTime(t *testing.T) {
	for _, time := range []string{"", `,"timestamp":null`, `,"timestamp":""`} {
		if e, _ := event(t, `{"name":"a","event_id":"x"`+time+`}`); e.Timestamp != pipeline.NoTime || e.ReceivedAt <= 0 {
			t.Errorf("%q: got %d, received %d", time, e.Timestamp, e.ReceivedAt)
		}
	}
}

// BenchmarkEvent is one event's way from its line to an Event.
func BenchmarkEvent(b *testing.B) {
	r, _ := newTest(nil)
	q := newRequest(r)
	g := traffic.New("bench", 1)
	var lines [][]byte
	size := 0
	for range 1000 {
		lines = append(lines, g.Append(nil))
		size += len(lines[len(lines)-1])
	}
	for name, step := range map[string]func([]byte) error{
		"scan":  func(line []byte) error { _, _, err := q.scan.Object(line); return err },
		"event": func(line []byte) error { _, err := q.event(q.route.Protocol, line); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(size / len(lines)))
			for i := 0; b.Loop(); i++ {
				q.events, q.rows.Buf = q.events[:0], q.rows.Buf[:0]
				if err := step(lines[i%len(lines)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
