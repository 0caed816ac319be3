package posthog_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol/protocoltest"
)

// event returns a PostHog event.
func event(i int, name string) string {
	if name == protocoltest.Bad {
		return `{"distinct_id":"u"}`
	}
	return fmt.Sprintf(
		`{"event":%q,"uuid":"0193b3f0-7b5a-7cde-8f01-23456789ab%02d","properties":{"distinct_id":"u","$lib":"web"}}`, name, i)
}

func request(path string) func(key string, events ...string) *http.Request {
	return func(key string, events ...string) *http.Request {
		body := `{"batch":[` + protocoltest.Join(events, ",", event) + `],"sent_at":"2026-11-22T03:45:12Z"`
		if key != "" {
			body += fmt.Sprintf(`,"api_key":%q`, key)
		}
		return protocoltest.Post(path, "application/json", []byte(body+"}"))
	}
}

func TestCapture(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "posthog",
		Reads: protocoltest.Reads, Code: errcode.MissingName, Empty: true,
		Request: request("/i/v0/e/")})
}

func TestRecordings(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "posthog",
		Reads: protocoltest.Reads, Code: errcode.MissingName, Empty: true,
		Request: request("/s/")})
}

// Old clients send an event as a form, in base64.
func TestForm(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "posthog",
		Reads: protocoltest.Reads, Code: errcode.MissingName, Empty: true,
		Request: func(key string, events ...string) *http.Request {
			data := base64.StdEncoding.EncodeToString([]byte("[" + protocoltest.Join(events, ",", event) + "]"))
			form := url.Values{"data": {data}, "compression": {"base64"}}
			if key != "" {
				form.Set("api_key", key)
			}
			return protocoltest.Post("/e/", "application/x-www-form-urlencoded", []byte(form.Encode()))
		}})
}

// Some clients put the key into the properties of each event of an array.
func TestKeyInEachEvent(t *testing.T) {
	protocoltest.Run(t, protocoltest.Protocol{Route: "posthog", Reads: protocoltest.Reads, Code: errcode.MissingName,
		KeyInEvent: true,
		Request: func(key string, events ...string) *http.Request {
			token := ""
			if key != "" {
				token = fmt.Sprintf(`,"token":%q`, key)
			}
			body := "[" + protocoltest.Join(events, ",", func(i int, name string) string {
				if name == protocoltest.Bad {
					return `{"properties":{"distinct_id":"u"` + token + `}}`
				}
				return fmt.Sprintf(`{"event":%q,"uuid":"id-%d","properties":{"distinct_id":"u"%s}}`, name, i, token)
			}) + "]"
			return protocoltest.Post("/e/", "application/json", []byte(body))
		}})
}
