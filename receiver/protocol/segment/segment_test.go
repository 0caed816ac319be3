package segment_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol/protocoltest"
)

func call(i int, name string) string {
	if name == protocoltest.Bad {
		return `{"type":"odd"}`
	}
	return fmt.Sprintf(`{"type":"track","event":%q,"messageId":"id-%d","userId":"u","properties":{"plan":"pro"}}`, name, i)
}

func TestBatch(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "segment",
		Reads: protocoltest.Reads, Code: errcode.UnknownType, Empty: true,
		Request: func(key string, events ...string) *http.Request {
			body := `{"batch":[` + protocoltest.Join(events, ",", call) + `],"sentAt":"2026-11-22T03:45:12Z"`
			if key != "" {
				body += fmt.Sprintf(`,"writeKey":%q`, key)
			}
			return protocoltest.Post("/v1/batch", "application/json", []byte(body+"}"))
		}})
}

func TestTrack(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "segment", Reads: protocoltest.Reads, Code: errcode.UnknownType,
		Request: func(key string, events ...string) *http.Request {
			body := protocoltest.Join(events, "\n", call)
			return protocoltest.Basic(protocoltest.Post("/v1/track", "text/plain", []byte(body)), key)
		}})
}

func TestPixel(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "segment",
		Reads: protocoltest.Reads, Code: errcode.UnknownType, NoBody: true,
		Empty: true,
		Request: func(key string, events ...string) *http.Request {
			query := url.Values{"data": {base64.StdEncoding.EncodeToString([]byte("[" + protocoltest.Join(events, ",", call) +
				"]"))}}
			if key != "" {
				query.Set("writeKey", key)
			}
			return httptest.NewRequest(http.MethodGet, "/v1/pixel/track?"+query.Encode(), nil)
		}})
}

func TestRudderPixel(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "segment",
		Reads: protocoltest.Reads, Code: errcode.MissingName, Single: true,
		NoBody: true,
		Request: func(key string, events ...string) *http.Request {
			query := url.Values{"messageId": {"id"}, "anonymousId": {"u"}, "properties.plan": {"pro"}}
			if len(events) > 0 && events[0] != protocoltest.Bad {
				query.Set("event", events[0])
			}
			if key != "" {
				query.Set("writeKey", key)
			}
			return httptest.NewRequest(http.MethodGet, "/pixel/v1/track?"+query.Encode(), nil)
		}})
}
