package gameanalytics_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"testing"

	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol/protocoltest"
)

// reads is the reaction of the SDKs: after an answer without a body they keep the events for later.
func reads(a *http.Response, answer []byte) protocoltest.Meaning {
	switch {
	case len(answer) == 0:
		return protocoltest.Again
	case a.StatusCode == http.StatusOK:
		return protocoltest.Done
	}
	return protocoltest.Drop
}

func TestGameAnalytics(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "gameanalytics",
		Reads: reads, Code: errcode.MissingName, Empty: true, InPath: true,
		Sign: func(req *http.Request, secret string, body []byte) {
			sum := hmac.New(sha256.New, []byte(secret))
			sum.Write(body)
			req.Header.Set("Authorization", base64.StdEncoding.EncodeToString(sum.Sum(nil)))
		},
		Request: func(key string, events ...string) *http.Request {
			body := "[" + protocoltest.Join(events, ",", func(i int, name string) string {
				if name == protocoltest.Bad {
					return `{"client_ts":1795319112}`
				}
				return fmt.Sprintf(`{"category":%q,"event_uuid":"id-%d","user_id":"u","sdk_version":"unity 7.3.1"}`, name, i)
			}) + "]"
			return protocoltest.Post("/v2/"+key+"/events", "application/json", []byte(body))
		}})
}
