package gameanalytics_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/receivertest"
	"github.com/penstock/penstock/receiver/tenant"
)

const key = receivertest.Key

func signed(body, secret string) string {
	sum := hmac.New(sha256.New, []byte(secret))
	sum.Write([]byte(body))
	return base64.StdEncoding.EncodeToString(sum.Sum(nil))
}

func TestEvents(t *testing.T) {
	const path = "/v2/" + key + "/events"
	for _, c := range []struct {
		body string
		want intake.Event
	}{
		{`[{"v":2,"category":"design","event_id":"a:b","value":1.5,"user_id":"u","session_id":"s","client_ts":1795319112,"event_uuid":"` + intake.UUID + `","sdk_version":"javascript 4.4.7","custom_fields":{"x":1}}]`,
			intake.Said("design", "u", "s", intake.UUID, "2026-11-22T03:45:12.000Z", `{"v":2,"event_id":"a:b","value":1.5,"custom_fields":{"x":1}}`, `{"name":"javascript","version":"4.4.7"}`)},
		{`[{"category":"sdk_error","event_uuid":"no","sdk_version":"unity","$envelope":1}]`, intake.Said("sdk_error", "", "", "", "", `{"event_uuid":"no","$envelope":1}`, `{"name":"unity"}`)},
		{`{"category":"user","sdk_version":[1],"user_id":null}`, intake.Said("user", "", "", "", "", `{"sdk_version":[1]}`, "")},
	} {
		r, s := receivertest.Start(nil)
		code, a := receivertest.Send(r, path, c.body, "Authorization", signed(c.body, receivertest.Secret))
		if code != 200 || a["accepted"] != 1.0 {
			t.Errorf("%s: got %d %v", c.body, code, a)
		}
		c.want.Check(t, c.body, s)

		packed := intake.Gzip(c.body)
		r, s = receivertest.Start(nil)
		code, a = receivertest.Send(r, path, packed, "Authorization", signed(packed, receivertest.Secret), "Content-Encoding", "gzip")
		if code != 200 || a["accepted"] != 1.0 {
			t.Errorf("%s, compressed: got %d %v", c.body, code, a)
		}
		c.want.Check(t, c.body, s)
	}
}

func TestSignature(t *testing.T) {
	const path, body = "/v2/" + key + "/events", `[{"category":"user"}]`
	packed := intake.Gzip(body)
	noSecret := func(o *receiver.Options) { o.Keys[0].Secret = "" }
	for _, c := range []struct {
		target, body, auth, code string
		header                   []string
		with                     func(*receiver.Options)
	}{
		{path, body, "", "missing_signature", nil, nil},
		{path, body, signed(body, "other"), "wrong_signature", nil, nil},
		{path, body, signed(body, ""), "wrong_signature", nil, nil},
		{path, body, signed(body, receivertest.Secret)[:20], "wrong_signature", nil, nil},
		{path, body, "Bearer " + key, "wrong_signature", nil, nil},
		{path, body + " ", signed(body, receivertest.Secret), "wrong_signature", nil, nil},
		{path, packed, signed(body, receivertest.Secret), "wrong_signature", []string{"Content-Encoding", "gzip"}, nil},
		{path, body, signed(body, ""), "no_secret", nil, noSecret},
		{path, body, "", "no_secret", nil, noSecret},
		{"/v2/other/events", body, signed(body, receivertest.Secret), "unknown_key", nil, nil},
		{"/v2//events", body, signed(body, receivertest.Secret), "unknown_key", nil, nil},
		{"/v2/{}/events", body, signed(body, receivertest.Secret), "unknown_key", nil, nil},
		{path, body, signed(body, receivertest.Secret), "unknown_key", nil, func(o *receiver.Options) {
			o.Keys[0].Hash = tenant.HashKey("another")
		}},
	} {
		r, s := receivertest.Start(c.with)
		code, a := receivertest.Send(r, c.target, c.body, append(c.header, "Authorization", c.auth)...)
		e, _ := a["error"].(map[string]any)
		if code != 401 || e["code"] != c.code || len(s.Events) != 0 {
			t.Errorf("%+v: got %d %v", c, code, a)
		}
		// The bytes are kept without the key, which is in the path.
		if len(s.Failures) != 1 || string(s.Failures[0].Raw) != c.body || s.Failures[0].Path != "/v2/{}/events" {
			t.Errorf("%+v: failures %+v", c, s.Failures)
		}
	}
}

// An answer without a body makes the SDKs retry.
func TestAnswers(t *testing.T) {
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
		r, s := receivertest.Start(nil)
		s.Err = c.err
		w := intake.Do(r, intake.Post(path, c.body, "Authorization", signed(c.body, receivertest.Secret)))
		if w.Code != c.status || (w.Body.Len() == 0) != c.again {
			t.Errorf("%s: got %d %q", c.body, w.Code, w.Body)
		}
		if c.status == 400 && (len(s.Failures) != 1 || string(s.Failures[0].Raw) != strings.Trim(c.body, "[]") && string(s.Failures[0].Raw) != c.body) {
			t.Errorf("%s: failures %+v", c.body, s.Failures)
		}
	}
}

func TestInit(t *testing.T) {
	for _, target := range []string{"/remote_configs/v1/init?game_key=x&interval_seconds=0&configs_hash=", "/v2/" + key + "/init"} {
		r, s := receivertest.Start(nil)
		code, a := receivertest.Send(r, target, `{"user_id":"u"}`)
		if ts, _ := a["server_ts"].(float64); code != 200 || ts < float64(time.Now().Unix()-5) || ts > float64(time.Now().Unix()) || len(s.Failures) != 0 {
			t.Errorf("%s: got %d %v", target, code, a)
		}
	}
}
