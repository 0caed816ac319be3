package receiver

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
)

// GameAnalytics' collector API: https://docs.gameanalytics.com/integrations/api/event-tracking
//
// The game key, in the path, is the key; the body is signed with the secret
// key. name is category, user user_id, session session_id, time client_ts, id
// event_uuid; all other members are properties.
var gameanalytics = []*dialect{
	{name: "gameanalytics", paths: []string{"/v2/{}/events"}, headKey: gameanalyticsKey, verify: gameanalyticsVerify,
		decode: (*request).decode, event: gameanalyticsEvent, nameKey: "category", answer: gameanalyticsAnswer},
	{name: "gameanalytics", paths: []string{"/v2/{}/init", "/remote_configs/v1/init"}, reply: gameanalyticsInit},
}

func gameanalyticsKey(req *http.Request) (key string, given bool) {
	return strings.SplitN(req.URL.Path, "/", 4)[2], true
}

// gameanalyticsVerify checks the signature: of the bytes as they were sent,
// compressed ones too.
func gameanalyticsVerify(q *request, req *http.Request) *errcode.Error {
	if q.key.Secret == "" {
		return errcode.NoSecret.Errorf("this key has no secret here, and without one no signature can be checked: set it in receiver.keys")
	}
	sum := hmac.New(sha256.New, []byte(q.key.Secret))
	if q.encoding != "" {
		sum.Write(q.sent)
	} else {
		sum.Write(q.body)
	}
	switch given, err := base64.StdEncoding.DecodeString(req.Header.Get("Authorization")); {
	case len(given) == 0 && err == nil:
		return errcode.MissingSignature.Errorf("no signature: Authorization is to be the HMAC-SHA256 of the body with the secret key, in base64")
	case err != nil || !hmac.Equal(given, sum.Sum(nil)):
		return errcode.WrongSignature.Errorf("Authorization is not the HMAC-SHA256, in base64, of the body with this game's secret key")
	}
	return nil
}

func gameanalyticsEvent(q *request, members []jsonscan.Member) (pipeline.Event, error) {
	d := q.draft()
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "category":
			d.name = d.text(m, maxName)
		case "user_id":
			d.user = d.text(m, maxID)
		case "session_id":
			d.session = d.text(m, maxID)
		case "client_ts":
			d.setTime(m)
		case "event_uuid":
			if d.id = d.text(m, maxID); len(d.id) > 0 {
				if _, err := pipeline.ParseUUID(d.id); err != nil {
					q.property(m) // the original is kept
				}
			}
		case "sdk_version": // javascript 4.4.7
			if d.sdk = plainText(m.Value); d.sdk == nil && m.Kind != jsonscan.Null {
				q.property(m)
			}
			if at := bytes.LastIndexByte(d.sdk, ' '); at > 0 {
				d.sdk, d.version = d.sdk[:at], d.sdk[at+1:]
			}
		default:
			q.property(m)
		}
	}
	return d.event()
}

// gameanalyticsInit says what time it is, and that nothing is configured. It
// asks for no signature: an SDK that is refused here gathers no events at all,
// where those that it sends in vain are kept.
func gameanalyticsInit(*Receiver, *http.Request) (int, []byte) {
	return http.StatusOK, fmt.Appendf(nil, `{"enabled":true,"server_ts":%d,"flags":[],"configs":[],"configs_hash":"","ab_id":"","ab_variant_id":""}`+"\n", time.Now().Unix())
}

// gameanalyticsAnswer has a body only where the events are not wanted again:
// by an answer without one the SDKs keep them for later, and by all others
// they are done with them.
func gameanalyticsAnswer(_ *request, _ *errcode.Error, status int, b []byte) (int, []byte) {
	switch status {
	case http.StatusAccepted:
		return http.StatusOK, b
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return status, b[:0]
	}
	return status, b
}
