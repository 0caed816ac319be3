// Package gameanalytics accepts GameAnalytics' collector API:
// https://docs.gameanalytics.com/integrations/api/event-tracking
//
// The key is the game key in the path. The body is signed with the secret key.
//
//	name         category
//	user         user_id
//	session      session_id
//	time         client_ts
//	id           event_uuid
//	properties   all other members
package gameanalytics

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"time"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// Routes are the routes of the API.
func Routes() []*protocol.Route {
	return []*protocol.Route{
		{Name: "gameanalytics", Paths: []string{"/v2/{}/events"}, Protocol: gameanalytics{}, NameMember: "category"},
		{Name: "gameanalytics", Paths: []string{"/v2/{}/init", "/remote_configs/v1/init"}, Answer: initialize},
	}
}

type gameanalytics struct{ protocol.Base }

func (gameanalytics) Authenticate(req *http.Request) (key string, given bool) {
	return protocol.PathPart(req.URL.Path, 2), true
}

// Verify checks the signature of the bytes as sent, before decompression.
func (gameanalytics) Verify(head http.Header, secret string, sent []byte) *errcode.Error {
	if secret == "" {
		return errcode.NoSecret.Errorf(
			"this key has no secret here, and without one no signature can be checked: set it in receiver.keys")
	}
	sum := hmac.New(sha256.New, []byte(secret))
	sum.Write(sent)
	switch given, err := base64.StdEncoding.DecodeString(head.Get("Authorization")); {
	case len(given) == 0 && err == nil:
		return errcode.MissingSignature.Errorf(
			"no signature: Authorization is to be the HMAC-SHA256 of the body with the secret key, in base64")
	case err != nil || !hmac.Equal(given, sum.Sum(nil)):
		return errcode.WrongSignature.Errorf(
			"Authorization is not the HMAC-SHA256, in base64, of the body with this game's secret key")
	}
	return nil
}

func (p gameanalytics) Events(r *protocol.Request, body []byte, to protocol.Sink) *errcode.Error {
	return protocol.Values(p, r, body, to)
}

func (gameanalytics) Map(d *protocol.Draft, members []jsonscan.Member) {
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "category":
			d.SetName(m)
		case "user_id":
			d.User = d.Text(m, protocol.MaxID)
		case "session_id":
			d.Session = d.Text(m, protocol.MaxID)
		case "client_ts":
			d.SetTime(m)
		case "event_uuid":
			if d.SetID(d.Text(m, protocol.MaxID)); len(d.ID()) > 0 && !d.HasUUID() {
				d.Property(m) // keep the original
			}
		case "sdk_version": // javascript 4.4.7
			if d.SDK = protocol.PlainText(m.Value); d.SDK == nil && m.Kind != jsonscan.Null {
				d.Property(m)
			}
			if at := bytes.LastIndexByte(d.SDK, ' '); at > 0 {
				d.SDK, d.Version = d.SDK[:at], d.SDK[at+1:]
			}
		default:
			d.Property(m)
		}
	}
}

// initialize returns the time and an empty configuration. It requires no signature: an SDK that is rejected here would
// not record events at all, while events with a wrong signature are kept.
func initialize(*http.Request) protocol.Reply {
	return protocol.Reply{Status: http.StatusOK,
		Body: fmt.Appendf(nil, `{"enabled":true,"server_ts":%d,"flags":[],"configs":[],`+
			`"configs_hash":"","ab_id":"","ab_variant_id":""}`+"\n", time.Now().Unix())}
}

// Reply has a body only if the client must not send the events again. After an answer without a body, the SDKs keep the
// events for later. After any other answer they drop them.
func (p gameanalytics) Reply(o *protocol.Outcome, b []byte) protocol.Reply {
	if o.Refused != nil && o.Refused.Code.Retryable() {
		return protocol.Reply{Status: o.Status, Body: b}
	}
	reply := p.Base.Reply(o, b)
	reply.Status = o.OK()
	return reply
}
