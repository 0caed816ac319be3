package pixel_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol/protocoltest"
)

func TestPixel(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "pixel",
		Reads: protocoltest.Reads, Code: errcode.MissingName, Single: true,
		NoBody: true,
		Request: func(key string, events ...string) *http.Request {
			query := url.Values{"event_id": {"id"}, "campaign": {"spring"}}
			if len(events) > 0 && events[0] != protocoltest.Bad {
				query.Set("name", events[0])
			}
			if key != "" {
				query.Set("key", key)
			}
			return httptest.NewRequest(http.MethodGet, "/v1/pixel.gif?"+query.Encode(), nil)
		}})
}
