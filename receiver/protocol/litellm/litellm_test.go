package litellm_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol/protocoltest"
)

func TestLiteLLM(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "litellm",
		Reads: protocoltest.Reads, Code: errcode.WrongType, Empty: true,
		Name: "llm_call",
		Request: func(key string, events ...string) *http.Request {
			body := "[" + protocoltest.Join(events, ",", func(i int, name string) string {
				if name == protocoltest.Bad {
					return `{"id":{}}`
				}
				return fmt.Sprintf(`{"id":"id-%d","call_type":"acompletion","model":"gpt","end_user":"u","label":%q}`, i, name)
			}) + "]"
			return protocoltest.Bearer(protocoltest.Post("/litellm", "application/json", []byte(body)), key)
		}})
}
