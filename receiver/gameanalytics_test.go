package receiver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
)

const secret = "secret-key-of-game"

func withSecret(o *Options) { o.Keys[0].Secret = secret }

func signed(body, secret string) string {
	sum := hmac.New(sha256.New, []byte(secret))
	sum.Write([]byte(body))
	return base64.StdEncoding.EncodeToString(sum.Sum(nil))
}

func TestGameAnalytics(t *testing.T) {
	const path = "/v2/" + key + "/events"
	for _, c := range []struct {
		body string
		want said
	}{
		{`[{"v":2,"category":"design","event_id":"a:b","value":1.5,"user_id":"u","session_id":"s","client_ts":1795319112,"event_uuid":"` + someUUID + `","sdk_version":"javascript 4.4.7","custom_fields":{"x":1}}]`,
			said{"design", "u", "s", someUUID, "2026-11-22T03:45:12.000Z", `{"v":2,"event_id":"a:b","value":1.5,"custom_fields":{"x":1}}`, `{"name":"javascript","version":"4.4.7"}`}},
		{`[{"category":"sdk_error","event_uuid":"no","sdk_version":"unity","$envelope":1}]`, said{"sdk_error", "", "", "", "", `{"event_uuid":"no","$envelope":1}`, `{"name":"unity"}`}},
		{`{"category":"user","sdk_version":[1],"user_id":null}`, said{"user", "", "", "", "", `{"sdk_version":[1]}`, ""}},
	} {
		r, s := newTest(withSecret)
		code, a := send(r, path, c.body, "Authorization", signed(c.body, secret))
		if code != 200 || a["accepted"] != 1.0 {
			t.Errorf("%s: got %d %v", c.body, code, a)
		}
		c.want.check(t, c.body, s)

		var packed strings.Builder
		z := gzip.NewWriter(&packed)
		z.Write([]byte(c.body))
		z.Close()
		r, s = newTest(withSecret)
		code, a = send(r, path, packed.String(), "Authorization", signed(packed.String(), secret), "Content-Encoding", "gzip")
		if code != 200 || a["accepted"] != 1.0 {
			t.Errorf("%s, compressed: got %d %v", c.body, code, a)
		}
		c.want.check(t, c.body, s)
	}
}

func TestGameAnalyticsSignature(t *testing.T) {
	const path, body = "/v2/" + key + "/events", `[{"category":"user"}]`
	var packed strings.Builder
	z := gzip.NewWriter(&packed)
	z.Write([]byte(body))
	z.Close()
	for _, c := range []struct {
		target, body, auth, code string
		header                   []string
		with                     func(*Options)
	}{
		{path, body, "", "missing_signature", nil, withSecret},
		{path, body, signed(body, "other"), "wrong_signature", nil, withSecret},
		{path, body, signed(body, ""), "wrong_signature", nil, withSecret},
		{path, body, signed(body, secret)[:20], "wrong_signature", nil, withSecret},
		{path, body, "Bearer " + key, "wrong_signature", nil, withSecret},
		{path, body + " ", signed(body, secret), "wrong_signature", nil, withSecret},
		{path, packed.String(), signed(body, secret), "wrong_signature", []string{"Content-Encoding", "gzip"}, withSecret},
		{path, body, signed(body, ""), "no_secret", nil, nil},
		{path, body, "", "no_secret", nil, nil},
		{"/v2/other/events", body, signed(body, secret), "unknown_key", nil, withSecret},
		{"/v2//events", body, signed(body, secret), "unknown_key", nil, withSecret},
		{"/v2/{}/events", body, signed(body, secret), "unknown_key", nil, withSecret},
		{path, body, signed(body, secret), "unknown_key", nil, func(o *Options) { o.Keys[0] = Key{Project: "game", Hash: HashKey("another"), Secret: secret} }},
	} {
		r, s := newTest(c.with)
		code, a := send(r, c.target, c.body, append(c.header, "Authorization", c.auth)...)
		e, _ := a["error"].(map[string]any)
		if code != 401 || e["code"] != c.code || len(s.events) != 0 {
			t.Errorf("%+v: got %d %v", c, code, a)
		}
		// The bytes are kept, and the key, which the path holds, is not.
		if len(s.failures) != 1 || string(s.failures[0].Raw) != c.body || s.failures[0].Path != "/v2/{}/events" {
			t.Errorf("%+v: failures %+v", c, s.failures)
		}
	}
}

// An answer without a body is what makes the SDKs send again.
func TestGameAnalyticsAnswers(t *testing.T) {
	const path = "/v2/" + key + "/events"
	for _, c := range []struct {
		body   string
		status int
		again  bool
		err    error
	}{
		{`[{"category":"user"},{"category":7.5},{"category":[]}]`, 200, false, nil},
		{`[{"category":""}]`, 400, false, nil},
		{`[`, 400, false, nil},
		{``, 400, false, nil},
		{`[{"category":"user"}]`, 503, true, errors.New("away")},
	} {
		r, s := newTest(withSecret)
		s.err = c.err
		w := httptest.NewRecorder()
		r.ServeHTTP(w, post(path, c.body, "Authorization", signed(c.body, secret)))
		if w.Code != c.status || (w.Body.Len() == 0) != c.again {
			t.Errorf("%s: got %d %q", c.body, w.Code, w.Body)
		}
		if c.status == 400 && (len(s.failures) != 1 || string(s.failures[0].Raw) != strings.Trim(c.body, "[]") && string(s.failures[0].Raw) != c.body) {
			t.Errorf("%s: failures %+v", c.body, s.failures)
		}
	}
}

func TestGameAnalyticsInit(t *testing.T) {
	for _, target := range []string{"/remote_configs/v1/init?game_key=x&interval_seconds=0&configs_hash=", "/v2/" + key + "/init"} {
		r, s := newTest(nil)
		code, a := send(r, target, `{"user_id":"u"}`)
		if ts, _ := a["server_ts"].(float64); code != 200 || ts < float64(time.Now().Unix()-5) || ts > float64(time.Now().Unix()) || len(s.failures) != 0 {
			t.Errorf("%s: got %d %v", target, code, a)
		}
	}
}
