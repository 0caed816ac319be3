package langfuse_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver/receivertest"
)

const key = receivertest.Key

func TestEvents(t *testing.T) {
	for _, c := range []struct {
		body string
		want intake.Event
	}{
		{`{"batch":[{"id":"` + intake.UUID +
			`","type":"trace-create","timestamp":"2026-11-22T03:45:12.345Z","body":{"id":"t-1","name":"chat","userId":"u","sessionId":"s","input":{"a":[1]}},"metadata":{"x":1}}],"metadata":{"batch_size":1,"sdk_name":"langfuse-js","sdk_version":"3.39.2"}}`,
			intake.Said("trace-create", "u", "s", intake.UUID, "2026-11-22T03:45:12.345Z",
				`{"id":"t-1","name":"chat","userId":"u","sessionId":"s","input":{"a":[1]},"$envelope":{"metadata":{"x":1}}}`,
				`{"name":"langfuse-js","version":"3.39.2"}`)},
		{`{"metadata":null,"batch":[{"id":"no uuid","type":"sdk-log","body":[1],"more":2}]}`,
			intake.Said("sdk-log", "", "", "", "", `{"body":[1],"$envelope":{"id":"no uuid","more":2}}`, "")},
		{"{\"metadata\":{\"sdk_name\":\"\xff\"},\"batch\":[{\"type\":\"x\",\"body\":{}}]}",
			intake.Said("x", "", "", "", "", `{}`, `{"name":"`+"\uFFFD"+`"}`)},
	} {
		r, s := receivertest.Start(nil)
		w := httptest.NewRecorder()
		req := intake.Post("/api/public/ingestion", c.body)
		req.SetBasicAuth(key, "whatever")
		r.ServeHTTP(w, req)
		if w.Code != 207 || !strings.Contains(w.Body.String(), `"errors":[]`) ||
			!strings.Contains(w.Body.String(), `"status":201`) {
			t.Errorf("%s: got %d %s", c.body, w.Code, w.Body)
		}
		c.want.Check(t, c.body, s)
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct{ batch, good, bad, kept string }{
		{`{"id":"1","type":"a"} , {"id":2,"type":[]},7,{"id":"4","type":"b"},{"id":"\u0035"}`, "1 4",
			"2:wrong_type :not_an_object 5:missing_name", `{"id":2,"type":[]}|7|{"id":"\u0035"}`},
		{`{"id":"1"}`, "", "1:missing_name", `{"id":"1"}`},
		{`{"type":"a"},{"id":"2","type":"b"}`, " 2", "", ``},
		{`{"id":"1","type":"a"},{"id":"2","type":}`, "1", "2:invalid_json", `{"id":"2","type":}`},
		{`{"id":"1","type":"a"},{"id":"2","type":NaN},{"id":"3","type":"b"},{"id":"4","x":"\q"}, NaN,{"id":"5","type":"c"}`,
			"1 3 5",
			"2:invalid_json 4:invalid_json :invalid_json", `{"id":"2","type":NaN}|{"id":"4","x":"\q"}|NaN`},
		{`{"id":"1","type":"a"}{"id":"2"}`, "1", "2:invalid_json", `{"id":"2"}`},
		{`{"id":"1","type":"a"}{"id":"2"},{"id":"3","type":"b"}`, "1 3", "2:invalid_json", `{"id":"2"}`},
		{``, "", "", ""},
	} {
		r, s := receivertest.Start(nil)
		w := intake.Do(r, receivertest.WithKey(intake.Post("/api/public/ingestion", `{"batch":[`+c.batch+`]}`)))
		var a struct {
			Accepted, Rejected int
			Successes, Errors  []struct {
				ID, Message, Error string
				Status             int
			}
		}
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != 207 || a.Accepted != len(a.Successes) ||
			a.Rejected != len(a.Errors) || a.Errors == nil || a.Successes == nil {
			t.Errorf("%s: got %d %s, %v", c.batch, w.Code, w.Body, err)
		}
		var good, bad, kept []string
		for _, e := range a.Successes {
			good = append(good, e.ID)
		}
		for _, e := range a.Errors {
			bad = append(bad, e.ID+":"+e.Error)
			if e.Status != 400 || e.Message == "" {
				t.Errorf("%s: %+v", c.batch, e)
			}
		}
		for _, f := range s.Failures {
			kept = append(kept, string(f.Raw))
		}
		if fmt.Sprint(good) != fmt.Sprint(strings.Split(c.good, " ")) && len(good)+len(c.good) > 0 ||
			strings.Join(bad, " ") != c.bad || strings.Join(kept, "|") != c.kept {
			t.Errorf("%s: good %q, bad %q, kept %q", c.batch, good, bad, kept)
		}
	}
}

func TestRejectedRequests(t *testing.T) {
	for body, want := range map[string]string{`{"batch":{}}`: "missing_events", `[]`: "invalid_json", ``: "empty_body",
		`{}`: "missing_events", `{"batch":[]}x`: "invalid_json"} {
		r, s := receivertest.Start(nil)
		w := intake.Do(r, receivertest.WithKey(intake.Post("/api/public/ingestion", body)))
		var a struct {
			Message string
			Error   intake.Error
		}
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != 400 || a.Error.Code != want ||
			a.Message != a.Error.Message || len(s.Failures) != 1 {
			t.Errorf("%s: got %d %s, %v", body, w.Code, w.Body, err)
		}
	}
	r, _ := receivertest.Start(nil)
	if code, _ := receivertest.Send(r, "/api/public/ingestion", `{"batch":[]}`); code != 401 {
		t.Errorf("got %d", code)
	}
	w := intake.Do(r, httptest.NewRequest("GET", "/api/public/health", nil))
	if w.Code != 200 || !json.Valid(w.Body.Bytes()) {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}
