package batch_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol/protocoltest"
)

func request(list string, event func(i int, name string) string) func(key string, events ...string) *http.Request {
	return func(key string, events ...string) *http.Request {
		body := fmt.Sprintf(`{%q:[%s],"sent_at":"2026-11-22T03:45:12Z"`, list, protocoltest.Join(events, ",", event))
		if key != "" {
			body += fmt.Sprintf(`,"api_key":%q`, key)
		}
		return protocoltest.Post("/batch", "application/json", []byte(body+"}"))
	}
}

func TestPostHog(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "batch",
		Reads: protocoltest.Reads, Code: errcode.MissingName, Empty: true,
		Request: request("batch", func(i int, name string) string {
			if name == protocoltest.Bad {
				return `{"distinct_id":"u"}`
			}
			return fmt.Sprintf(`{"event":%q,"uuid":"id-%d","distinct_id":"u"}`, name, i)
		})})
}

func TestAmplitude(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "batch",
		Reads: protocoltest.Reads, Code: errcode.FieldTooLong, Empty: true,
		Request: request("events", func(i int, name string) string {
			if name == protocoltest.Bad {
				return fmt.Sprintf(`{"event_type":"%0300d","user_id":"u"}`, i)
			}
			return fmt.Sprintf(`{"event_type":%q,"insert_id":"id-%d","user_id":"u"}`, name, i)
		})})
}
