package native_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol/protocoltest"
)

func TestNative(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "penstock", Reads: protocoltest.Reads, Code: errcode.MissingName,
		Request: func(key string, events ...string) *http.Request {
			body := protocoltest.Join(events, "\n", func(i int, name string) string {
				if name == protocoltest.Bad {
					return `{"event_id":"bad"}`
				}
				return fmt.Sprintf(`{"name":%q,"event_id":"id-%d","properties":{"level":17,"class":"mage"}}`, name, i)
			})
			return protocoltest.Bearer(protocoltest.Post("/v1/events", "application/x-ndjson", []byte(body)), key)
		}})
}

func TestForm(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "form",
		Reads: protocoltest.Reads, Code: errcode.MissingName, Single: true,
		Request: func(key string, events ...string) *http.Request {
			const part = "--b\r\nContent-Disposition: form-data; name=%q\r\n\r\n%s\r\n"
			body := protocoltest.Join(events, "", func(i int, name string) string {
				if name == protocoltest.Bad {
					return fmt.Sprintf(part, "event", `{}`)
				}
				return fmt.Sprintf(part, "event", fmt.Sprintf(`{"name":%q,"event_id":"id-%d"}`, name, i))
			}) + fmt.Sprintf(part, "replay", "bytes of a replay") + "--b--\r\n"
			return protocoltest.Bearer(protocoltest.Post("/v1/events", "multipart/form-data; boundary=b", []byte(body)), key)
		}})
}
