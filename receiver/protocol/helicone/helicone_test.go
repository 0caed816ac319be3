package helicone_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol/protocoltest"
)

func TestHelicone(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "helicone",
		Reads: protocoltest.Reads, Code: errcode.NotAnObject, Empty: true,
		Name: "llm_call",
		Request: func(key string, events ...string) *http.Request {
			body := "[" + protocoltest.Join(events, ",", func(i int, name string) string {
				if name == protocoltest.Bad {
					return `7`
				}
				return fmt.Sprintf(`{"providerRequest":{"url":"x","json":{"label":%q},"meta":{"Helicone-Request-Id":"id-%d"}}}`,
					name, i)
			}) + "]"
			return protocoltest.Bearer(protocoltest.Post("/custom/v1/log", "application/json", []byte(body)), key)
		}})
}
