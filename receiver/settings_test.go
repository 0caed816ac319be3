package receiver

import (
	"fmt"
	"math"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/pipeline"
)

func TestNames(t *testing.T) {
	r, s := withProjects(t, nil, Project{Names: []string{"a", "llm_*"}})
	a := sendFile(t, r, one+"\n"+`{"name":"b"}`+"\n"+`{"name":"llm_call"}`)
	if a.Accepted != 2 || a.Codes() != "1:name_not_allowed" || !strings.Contains(a.Errors[0].Message, `it accepts a, llm_*`) {
		t.Errorf("%+v", a)
	}
	if len(s.Failures) != 1 || s.Failures[0].Code != "name_not_allowed" || string(s.Failures[0].Raw) != `{"name":"b"}` {
		t.Errorf("%+v", s.Failures)
	}
	// By the name in the row, for another protocol and for a redrive.
	if code, body := send(r, "/v1/batch", `{"batch":[{"type":"track","event":"a"},{"type":"page"}]}`, "X-API-Key", keyFile); code != 200 || !strings.Contains(fmt.Sprint(body), "name_not_allowed") {
		t.Errorf("%d %v", code, body)
	}
	d := Redrive{ID: pipeline.NewUUIDv7(1), Time: 1, Project: "file", Event: true, Body: []byte(`{"name":"b"}`)}
	if out, err := r.Redrive(t.Context(), d); err != nil || out.Code != "name_not_allowed" {
		t.Errorf("%+v %v", out, err)
	}
}

// A session is all in or all out, in every receiver, and the part is right.
func TestSample(t *testing.T) {
	const sessions, each, keep = 4000, 5, 0.25
	p := Project{Sample: &Sample{By: SampleSession, Keep: keep, Names: []string{"pos*"}}}
	r, s := withProjects(t, nil, p)
	other, _ := withProjects(t, nil, p)
	for i := range each {
		var body strings.Builder
		for j := range sessions {
			fmt.Fprintf(&body, `{"name":"position","session_id":"s-%d","user_id":"u%d"}`+"\n", j, i)
		}
		lines := strings.SplitAfter(body.String(), "\n")
		for from := 0; from < sessions; from += 1000 {
			part := strings.Join(lines[from:from+1000], "")
			a := sendFile(t, r, part)
			if a.Status != 202 || a.Accepted+a.Sampled != 1000 || a.Rejected != 0 || a.Sampled == 0 {
				t.Fatalf("%+v", a)
			}
			if b := sendFile(t, other, part); b.Accepted != a.Accepted {
				t.Errorf("another receiver takes %d, not %d", b.Accepted, a.Accepted)
			}
		}
	}
	count := map[string]int{}
	for _, e := range s.Events {
		count[string(e.SessionID)]++
	}
	for session, n := range count {
		if n != each {
			t.Errorf("%d of the %d events of %s", n, each, session)
		}
	}
	if got, off := float64(len(count))/sessions, 4*math.Sqrt(keep*(1-keep)/sessions); math.Abs(got-keep) > off {
		t.Errorf("%.4f of the sessions are taken, want %.2f", got, keep)
	}
	if a := sendFile(t, r, events(100)); a.Accepted != 100 || a.Sampled != 0 {
		t.Errorf("another name: %+v", a)
	}
}

func TestSampleBy(t *testing.T) {
	in, out := "", "" // texts that a half keeps, and does not
	for i := 0; in == "" || out == ""; i++ {
		if text := fmt.Sprint("x", i); keptByHalf(t, text) {
			in = text
		} else {
			out = text
		}
	}
	for _, c := range []struct {
		by, session, user string
		taken             bool
	}{
		{SampleSession, in, out, true}, {SampleSession, out, in, false}, {SampleSession, "", in, true}, {SampleSession, "", out, false},
		{SampleUser, out, in, true}, {SampleUser, in, out, false},
	} {
		r, _ := withProjects(t, nil, Project{Sample: &Sample{By: c.by, Keep: 0.5}})
		a := sendFile(t, r, fmt.Sprintf(`{"name":"a","session_id":%q,"user_id":%q}`, c.session, c.user))
		if (a.Accepted == 1) != c.taken || a.Accepted+a.Sampled != 1 || a.Status != 202 {
			t.Errorf("%+v: %+v", c, a)
		}
	}
	// By the event: a resend is treated as the first was.
	r, _ := withProjects(t, nil, Project{Sample: &Sample{By: SampleEvent, Keep: 0.5}})
	taken := 0
	for i := range 400 {
		body := fmt.Sprintf(`{"name":"a","session_id":"s","event_id":"e-%d"}`, i)
		a := sendFile(t, r, body)
		if again := sendFile(t, r, body); again.Accepted != a.Accepted {
			t.Fatalf("%+v, then %+v", a, again)
		}
		taken += a.Accepted
	}
	if taken < 140 || taken > 260 {
		t.Errorf("%d of 400", taken)
	}
	if a := sendFile(t, r, events(300)); a.Accepted < 90 || a.Accepted > 210 {
		t.Errorf("without an id: %+v", a)
	}
}

// keptByHalf reports whether a sample of a half keeps a session.
func keptByHalf(t *testing.T, session string) bool {
	r, _ := withProjects(t, nil, Project{Sample: &Sample{By: SampleSession, Keep: 0.5}})
	return sendFile(t, r, fmt.Sprintf(`{"name":"a","session_id":%q}`, session)).Accepted == 1
}

// Events left out by sampling are not rejected: clients of all protocols see success.
func TestSampledAnswers(t *testing.T) {
	r, s := withProjects(t, nil, Project{Sample: &Sample{By: SampleSession, Keep: 0}})
	if a := sendFile(t, r, `{"nme":"x"}`+"\n"+one+" trailing\n"+one, "Content-Type", ndjson); a.Status != 202 || a.Sampled != 2 || a.Codes() != "0:missing_name 2:invalid_json" {
		t.Errorf("%+v", a)
	}
	for _, c := range []struct{ path, body, want string }{
		{"/v1/batch", `{"batch":[{"type":"track","event":"a"}]}`, `"success":true,"accepted":0,"rejected":0,"sampled":1`},
		{"/capture", `{"event":"a","distinct_id":"u","api_key":"` + keyFile + `"}`, `"status":1`},
		{"/2/httpapi", `{"api_key":"` + keyFile + `","events":[{"event_type":"a","user_id":"u"}]}`, `"code":200`},
		{"/api/public/ingestion", `{"batch":[{"id":"x1","type":"trace-create","timestamp":"2026-11-22T03:45:12Z","body":{}}]}`, `"successes":[{"id":"x1","status":201}],"errors":[]`},
	} {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, post(c.path, c.body, "X-API-Key", keyFile))
		if w.Code != 200 && w.Code != 207 || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s", c.path, w.Code, w.Body)
		}
	}
	for _, c := range []struct{ target, kind, body string }{
		{"/v1/pixel.gif?name=a&key=" + keyFile, "", ""},
		{"/v1/traces", "application/json", `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"x","startTimeUnixNano":"1544712660000000000"}]}]}]}`},
		{"/v1/events", "application/cloudevents+json", `{"specversion":"1.0","id":"1","source":"s","type":"a"}`},
		{"/v1/events", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\n" + one + "\r\n--b\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\nx\r\n--b--\r\n"},
	} {
		req := post(c.target, c.body, "X-API-Key", keyFile, "Content-Type", c.kind)
		if c.body == "" {
			req.Method = "GET"
		}
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		if w.Code != 200 && w.Code != 202 || strings.Contains(w.Body.String(), "rejected\":1") || strings.Contains(w.Body.String(), "partialSuccess") {
			t.Errorf("%s %s: %d %s", c.target, c.kind, w.Code, w.Body)
		}
	}
	binary := post("/v1/events", "x", "X-API-Key", keyFile, "Content-Type", "text/plain", "Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "s", "Ce-Type", "a")
	if a := serve(t, r, binary); a.Status != 202 || a.Sampled != 1 {
		t.Errorf("%+v", a)
	}
	if len(s.Events) != 0 || s.Appends != 0 {
		t.Errorf("%d events", len(s.Events))
	}
	d := Redrive{ID: pipeline.NewUUIDv7(1), Time: 1, Project: "file", Event: true, Body: []byte(one)}
	if out, err := r.Redrive(t.Context(), d); err != nil || out.Sampled != 1 || out.Accepted != 0 || out.Code != "" {
		t.Errorf("%+v %v", out, err)
	}
}
