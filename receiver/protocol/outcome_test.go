package protocol

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/tenant"
)

func TestBaseReply(t *testing.T) {
	many := make([]Reject, MaxListed+5)
	for i := range many {
		many[i] = Reject{Index: i, Code: errcode.MissingName, Message: "no name"}
	}
	for _, c := range []struct {
		o    Outcome
		want string
	}{
		{Outcome{Status: 202, RequestID: "x", Accepted: 2}, `{"accepted":2,"rejected":0,"request_id":"x"}`},
		{Outcome{Status: 200, RequestID: "x", Accepted: 2, Sampled: 1, Object: "o"},
			`{"accepted":2,"rejected":0,"sampled":1,"request_id":"x","object":"o"}`},
		{Outcome{Status: 202, RequestID: "x", Accepted: 1, Rejected: 1, Rejects: many[:1]},
			`{"accepted":1,"rejected":1,"request_id":"x","errors":[{"index":0,"code":"missing_name","message":"no name"}]}`},
		{Outcome{Status: 503, RequestID: "x", Refused: errcode.Busy.Errorf("later")},
			`{"accepted":0,"rejected":0,"request_id":"x","error":{"code":"busy","message":"later"}}`},
	} {
		if got := strings.TrimSpace(string((Base{}).Reply(&c.o, nil).Body)); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
	reply := (Base{}).Reply(&Outcome{Status: 400, Rejected: len(many), Rejects: many}, nil)
	var a struct {
		Errors  []struct{ Index int }
		Omitted int `json:"errors_omitted"`
	}
	if err := json.Unmarshal(reply.Body, &a); err != nil || len(a.Errors) != MaxListed || a.Omitted != 5 ||
		a.Errors[99].Index != 99 {
		t.Errorf("%d are listed and %d omitted, error %v, want %d and 5", len(a.Errors), a.Omitted, err, MaxListed)
	}
}

func TestHeaders(t *testing.T) {
	for _, c := range []struct {
		o    Outcome
		want string // Retry-After, RateLimit-Remaining, WWW-Authenticate
	}{
		{Outcome{Status: 202}, "||"},
		{Outcome{Status: 503, Refused: errcode.Busy.Errorf("")}, "3||"},
		{Outcome{Status: 408, Refused: errcode.Timeout.Errorf("")}, "||"},
		{Outcome{Status: 429, Refused: errcode.RateLimited.Errorf(""),
			Limit: &tenant.Limit{Left: 2, Wait: 1500 * time.Millisecond}}, "2|2|"},
		{Outcome{Status: 401, Refused: errcode.UnknownKey.Errorf("")}, `||Bearer realm="penstock"`},
	} {
		h := http.Header{}
		c.o.SetHeader(h, 3*time.Second)
		if got := strings.Join([]string{h.Get("Retry-After"), h.Get("RateLimit-Remaining"), h.Get("WWW-Authenticate")},
			"|"); got != c.want {
			t.Errorf("status %d: got %s, want %s", c.o.Status, got, c.want)
		}
	}
}
