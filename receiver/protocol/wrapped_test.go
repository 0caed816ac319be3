package protocol_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/receivertest"
)

// The bytes decide how JSON is wrapped, whatever head and query say.
func TestWrapped(t *testing.T) {
	const one = `{"event":"a?>","properties":{"token":"` + key + `","distinct_id":"u~~"}}`
	std, safe, escape := base64.StdEncoding.EncodeToString, base64.RawURLEncoding.EncodeToString, url.QueryEscape
	list := `[` + one + `,` + one + `]`
	for _, c := range []struct {
		method, target, body, kind string
		events                     int
	}{
		{"POST", "/e/", intake.Gzip(one), "text/plain", 1},
		{"POST", "/i/v0/e/?ip=0&_=1795630054343&ver=1.449.2", intake.Gzip(list), "text/plain", 2},
		{"POST", "/e/?compression=gzip-js&retry_count=2", intake.Gzip(one), "", 1},
		{"POST", "/e/?compression=gzip-js", one, "text/plain", 1}, // the hint is wrong
		{"POST", "/e/?compression=base64&beacon=1", "data=" + escape(std([]byte(one))), "application/x-www-form-urlencoded",
			1},
		{"POST", "/e/?beacon=1", "data=" + safe([]byte(one)), "text/plain", 1},
		{"POST", "/e/", "data=" + std([]byte(one)), "text/plain", 1}, // with an unescaped plus
		{"POST", "/e/", "data=" + escape(std([]byte(intake.Gzip(one)))) + "&compression=gzip", "application/x-www-form-urlencoded",
			1},
		{"POST", "/e/", "data=" + escape(escape(one)), "application/x-www-form-urlencoded", 1},
		{"POST", "/e/", "data=" + escape(std([]byte(std([]byte(one))))), "application/x-www-form-urlencoded", 1},
		{"POST", "/e/?compression=base64", std([]byte(list)), "text/plain", 2},
		{"POST", "/e/", jsonOfText(one), "application/json", 1},
		{"POST", "/e/", safe([]byte(intake.Gzip(one))), "text/plain", 1},
		{"POST", "/e/", intake.Gzip(intake.Gzip(one)), "text/plain", 1}, // a proxy compressed it again
		{"POST", "/e/", intake.Gzip("data=" + escape(std([]byte(one)))), "text/plain", 1},
		{"POST", "/e/?data=" + escape(std([]byte(one))), "", "", 1},
		{"GET", "/e/?data=" + escape(std([]byte(one))), "", "", 1},
		{"GET", "/e/?ip=1&_=1795630054343&data=" + safe([]byte(list)), "", "", 2},
		{"GET", "/e?data=" + escape(one) + "&compression=none", "", "", 1},
		{"GET", "/capture/?compression=gzip-js&data=" + escape(std([]byte(intake.Gzip(`{"batch":`+list+`}`)))), "", "", 2},
		{"GET", "/track/?data=" + safe([]byte(`{"event":"a?>","distinct_id":"u~~"}`)) + "&api_key=" + key, "", "", 1},
		{"GET", "/e/?token=" + key + "&data=" + escape(`{"event":"a?>","properties":{"distinct_id":"u~~"}}`), "", "", 1},
		{"POST", "/batch/", intake.Gzip(`{"api_key":"` + key + `","batch":` + list + `}`), "application/json", 2},
		{"POST", "/batch/", "data=" + escape(std([]byte(`{"batch":`+list+`}`))), "application/x-www-form-urlencoded", 2},
	} {
		r, s := receivertest.Start(nil)
		req := httptest.NewRequest(c.method, c.target, strings.NewReader(c.body))
		if c.kind != "" {
			req.Header.Set("Content-Type", c.kind)
		}
		w := intake.Do(r, req)
		if w.Code != 200 || len(s.Events) != c.events {
			t.Errorf("%s %s: got %d %s, %d events", c.method, c.target, w.Code, w.Body, len(s.Events))
			continue
		}
		if e := s.Events[0]; string(e.Name) != "a?>" || string(e.UserID) != "u~~" ||
			strings.Contains(string(e.Properties), key) {
			t.Errorf("%s %s: got %s %s %s", c.method, c.target, e.Name, e.UserID, e.Properties)
		}
	}
}

func jsonOfText(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// The answer says why a body is unreadable, although its key is unknown too.
func TestSealed(t *testing.T) {
	for body, want := range map[string]struct {
		status int
		code   string
	}{
		"data=x&compression=lz64": {415, "unsupported_encoding"}, "data=e30&data=e30": {400, "duplicate_key"},
		"data=!": {400, "invalid_form"}, "data=%": {400, "invalid_form"},
		"data=" + strings.Repeat("A", 9<<20): {413, "body_too_large"}, `"{`: {400, "invalid_json"},
		"data=e30": {401, "missing_key"},
	} {
		r, s := receivertest.Start(func(o *receiver.Options) { o.MaxBody = 16 << 20 })
		code, a := receivertest.Send(r, "/e/", body)
		if got := a["error"].(map[string]any)["code"]; code != want.status || got != want.code || len(s.Events) != 0 {
			t.Errorf("%.40s: got %d %v", body, code, a)
		}
	}
}

func TestWrappedRefused(t *testing.T) {
	bomb := intake.Gzip(strings.Repeat(" ", 9<<20))
	std := base64.StdEncoding.EncodeToString
	wrapped := `{"event":"a","api_key":"` + key + `"}`
	for range 5 {
		wrapped = std([]byte(wrapped))
	}
	for _, c := range []struct {
		method, target, body string
		status               int
		code, says           string
	}{
		{"POST", "/e/?compression=lz64", "x", 415, "unsupported_encoding", "gzip"},
		{"POST", "/e/", "data=x&compression=lz64", 415, "unsupported_encoding", "compression=gzip-js"},
		{"GET", "/e/?compression=lz64&data=x&api_key=" + key, "", 415, "unsupported_encoding", "gzip"},
		{"POST", "/e/", bomb, 413, "decoded_too_large", "8388608"},
		{"POST", "/e/", "data=" + url.QueryEscape(std([]byte(bomb))), 413, "decoded_too_large", "as the body"},
		{"POST", "/e/", intake.Gzip(bomb), 413, "decoded_too_large", "as the body"},
		{"POST", "/e/", bomb[:len(bomb)-9], 413, "decoded_too_large", "8388608"},
		{"POST", "/e/", intake.Gzip("{}")[:15], 400, "invalid_encoding", "gzip"},
		{"POST", "/e/", "data=" + url.QueryEscape(std([]byte(intake.Gzip("{}")[:15]))), 400, "invalid_encoding", "gzip"},
		{"POST", "/e/", "data=" + url.QueryEscape(wrapped), 400, "invalid_form", "more than 4 times"},
		{"POST", "/e/", "data=%25zz", 400, "invalid_form", "%zz"},
		{"GET", "/e/?data=e30&data=e30", "", 400, "duplicate_key", "one array"},
		{"GET", "/e/?ip=1", "", 400, "0:invalid_json", ""},
		{"GET", "/e/", "", 400, "empty_body", ""},
	} {
		r, s := receivertest.Start(nil)
		w := intake.Do(r, receivertest.WithKey(httptest.NewRequest(c.method, c.target, strings.NewReader(c.body))))
		var a intake.Answer
		json.Unmarshal(w.Body.Bytes(), &a)
		if w.Code != c.status || a.Codes() != c.code || len(s.Events) != 0 || len(s.Failures) != 1 {
			t.Errorf("%s %.60q: got %d %s, %d failures", c.target, c.body, w.Code, w.Body, len(s.Failures))
			continue
		}
		if f := s.Failures[0]; !strings.Contains(f.Message, c.says) || strings.Contains(string(f.Raw), key) {
			t.Errorf("%s %.60q: %q %.60q", c.target, c.body, f.Message, f.Raw)
		}
	}
}

// A failure of a query is redriven as the form that was kept, without its key.
func TestQueryIsRedriven(t *testing.T) {
	r, s := receivertest.Start(nil)
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest("GET",
		"/e/?ip=1&ap%69_key=wrong&data="+base64.RawURLEncoding.EncodeToString([]byte(`{"event":"a"}`)), nil))
	if w.Code != 401 || len(s.Failures) != 1 || string(s.Failures[0].Raw) != "ip=1&data=eyJldmVudCI6ImEifQ" {
		t.Fatalf("got %d %s, %+v", w.Code, w.Body, s.Failures)
	}
	f := s.Failures[0]
	out, err := r.Redrive(t.Context(),
		receiver.Redrive{ID: [16]byte{1}, Project: "game", Path: f.Path, Body: f.Raw, ContentType: f.ContentType,
			ContentEncoding: f.ContentEncoding})
	if err != nil || out.Accepted != 1 || s.Names() != "a" {
		t.Errorf("redriven %+v %v", out, err)
	}
	// The same for gzip that is not declared.
	packed := intake.Gzip(`{"event":"b"}`)
	if code, _ := receivertest.Send(r, "/e/?api_key=wrong", packed); code != 401 || len(s.Failures) != 2 {
		t.Fatalf("got %d, %d failures", code, len(s.Failures))
	}
	f = s.Failures[1]
	out, err = r.Redrive(t.Context(),
		receiver.Redrive{ID: [16]byte{2}, Project: "game", Path: f.Path, Body: f.Raw, ContentType: f.ContentType,
			ContentEncoding: f.ContentEncoding})
	if f.ContentEncoding != "gzip" || string(f.Raw) != packed || err != nil || out.Accepted != 1 ||
		s.Names() != "a b" {
		t.Errorf("%q redriven %+v %v", f.ContentEncoding, out, err)
	}
}
