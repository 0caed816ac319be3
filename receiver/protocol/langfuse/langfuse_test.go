package langfuse_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol/protocoltest"
)

func TestLangfuse(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "langfuse",
		Reads: protocoltest.Reads, Code: errcode.MissingName, Empty: true,
		Request: func(key string, events ...string) *http.Request {
			body := `{"batch":[` + protocoltest.Join(events, ",", func(i int, name string) string {
				if name == protocoltest.Bad {
					return `{"id":"bad"}`
				}
				return fmt.Sprintf(`{"id":"id-%d","type":%q,"timestamp":"2026-11-22T03:45:12Z","body":{"userId":"u"}}`, i, name)
			}) + `],"metadata":{"sdk_name":"python"}}`
			return protocoltest.Basic(protocoltest.Post("/api/public/ingestion", "application/json", []byte(body)), key)
		}})
}
