package posthog_test

import (
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/receivertest"
)

func TestConfig(t *testing.T) {
	for _, replay := range []bool{false, true} {
		for _, name := range []string{"phc_1", `a"};alert(1)`, "é"} {
			r, _ := receivertest.Start(func(o *receiver.Options) { o.SessionReplay = replay })
			for _, file := range []string{"config", "config.js"} {
				w := intake.Do(r, httptest.NewRequest("GET", "/array/"+url.PathEscape(name)+"/"+file, nil))
				text, kind := w.Body.String(), "application/json"
				if file == "config.js" {
					quoted, _ := json.Marshal(name)
					before, config, found := strings.Cut(text,
						"window._POSTHOG_REMOTE_CONFIG["+string(quoted)+"]={siteApps:[],config:")
					text, kind = strings.TrimSuffix(config, "}})();\n"), "application/javascript"
					if !found || strings.Contains(before, "alert") {
						t.Errorf("%s: %s", name, w.Body)
					}
				}
				var config struct {
					Token            string
					SessionRecording any
				}
				if err := json.Unmarshal([]byte(text), &config); err != nil || w.Code != 200 ||
					w.Header().Get("Content-Type") != kind {
					t.Errorf("%s: got %d %v %s: %v", file, w.Code, w.Header(), text, err)
				}
				if config.Token != strings.ToValidUTF8(name, "\uFFFD") || (config.SessionRecording == false) == replay {
					t.Errorf("%s: got %+v", file, config)
				}
			}
		}
	}
}

func TestFlags(t *testing.T) {
	for _, target := range []string{"/flags?v=2", "/flags/?v=2&config=true", "/decide?v=3"} {
		r, s := receivertest.Start(nil)
		code, a := receivertest.Send(r, target, `{"token":"x","distinct_id":"u"}`)
		if flags, ok := a["flags"].(map[string]any); code != 200 || !ok || len(flags) != 0 ||
			len(s.Events)+len(s.Failures) != 0 {
			t.Errorf("%s: got %d %v", target, code, a)
		}
	}
}
