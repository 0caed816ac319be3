package cloudevents_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol/protocoltest"
)

func TestBatched(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "cloudevents",
		Reads: protocoltest.Reads, Code: errcode.MissingName, Empty: true,
		Request: func(key string, events ...string) *http.Request {
			body := "[" + protocoltest.Join(events, ",", func(i int, name string) string {
				if name == protocoltest.Bad {
					return `{"specversion":"1.0","id":"7","source":"/shop"}`
				}
				return fmt.Sprintf(`{"specversion":"1.0","id":"%d","source":"/shop","type":%q,"data":{"price":7}}`, i, name)
			}) + "]"
			return protocoltest.Bearer(protocoltest.Post("/v1/events", "application/cloudevents-batch+json", []byte(body)), key)
		}})
}

func TestBinary(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "cloudevents",
		Reads: protocoltest.Reads, Code: errcode.MissingName, Single: true,
		Request: func(key string, events ...string) *http.Request {
			req := protocoltest.Post("/v1/events", "application/json",
				[]byte(`{"price":7,"currency":"EUR","items":["sword","shield","potion","map"]}`))
			for name, value := range map[string]string{"Ce-Specversion": "1.0", "Ce-Id": "7", "Ce-Source": "/shop"} {
				req.Header.Set(name, value)
			}
			if len(events) > 0 && events[0] != protocoltest.Bad {
				req.Header.Set("Ce-Type", events[0])
			}
			return protocoltest.Bearer(req, key)
		}})
}
