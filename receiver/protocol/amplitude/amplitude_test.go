package amplitude_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol/protocoltest"
)

// reads is the reaction of Amplitude's clients: they read "code" in the body.
func reads(_ *http.Response, answer []byte) protocoltest.Meaning {
	var a struct{ Code int }
	json.Unmarshal(answer, &a)
	switch {
	case a.Code == http.StatusOK:
		return protocoltest.Done
	case a.Code == http.StatusRequestEntityTooLarge:
		return protocoltest.Halve
	case a.Code == http.StatusRequestTimeout, a.Code == http.StatusTooManyRequests, a.Code >= 500:
		return protocoltest.Again
	}
	return protocoltest.Drop
}

func TestAmplitude(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "amplitude", Reads: reads, Code: errcode.MissingName, Empty: true,
		Request: func(key string, events ...string) *http.Request {
			body := `{"events":[` + protocoltest.Join(events, ",", func(i int, name string) string {
				if name == protocoltest.Bad {
					return `{"user_id":"u"}`
				}
				return fmt.Sprintf(`{"event_type":%q,"insert_id":"id-%d","device_id":"d","time":1795319112345}`, name, i)
			}) + `],"options":{"min_id_length":1}`
			if key != "" {
				body += fmt.Sprintf(`,"api_key":%q`, key)
			}
			return protocoltest.Post("/2/httpapi", "application/json", []byte(body+"}"))
		}})
}
