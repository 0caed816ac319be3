package posthog

import (
	"bytes"
	"net/http"

	"github.com/penstock/penstock/receiver/protocol"
)

// config is what the project has switched on.
type config struct{ record bool }

// recording is where clients send recordings of sessions, if they are to.
func (c config) recording() string {
	if c.record {
		return `{"endpoint":"/s/"}`
	}
	return "false"
}

// flags says that there are no feature flags, in the words of all
// versions of the question.
func (c config) flags(*http.Request) protocol.Reply {
	return ok([]byte(`{"flags":{},"featureFlags":{},"featureFlagPayloads":{},` +
		`"errorsWhileComputingFlags":false,"config":{},"supportedCompression":["gzip","gzip-js"],"sessionRecording":` +
		c.recording() +
		`,"surveys":false,"toolbarParams":{},"siteApps":[]}` + "\n"))
}

// json is what posthog-js asks for first: what the project has switched on.
// Nobody's key is judged here: events that are sent with a wrong one are rejected,
// and kept. Surveys are not named: at a plain "false" the
// client still loads their script, which is not here.
func (c config) json(req *http.Request) protocol.Reply { return ok(c.append(req)) }

func (c config) append(req *http.Request) []byte {
	b := protocol.AppendText([]byte(`{"token":`), protocol.PathPart(req.URL.Path, 2))
	return append(b, `,"sessionRecording":`+c.recording()+defaults+"\n"...)
}

const defaults = `,"supportedCompression":["gzip","gzip-js"],"analytics":{"endpoint":"/i/v0/e/"},` +
	`"elementsChainAsString":true,"autocapture_opt_out":false,"autocaptureExceptions":false,` +
	`"capturePerformance":false,"captureDeadClicks":false,"heatmaps":false,"productTours":false,` +
	`"conversations":false,"logs":{"captureConsoleLogs":false},"defaultIdentifiedOnly":true,` +
	`"isAuthenticated":false,"toolbarParams":{},"siteApps":[]}`

// script is the same as a script.
func (c config) script(req *http.Request) protocol.Reply {
	const all = "window._POSTHOG_REMOTE_CONFIG"
	b := []byte("(function(){" + all + "=" + all + "||{};" + all + "[")
	b = protocol.AppendText(b, protocol.PathPart(req.URL.Path, 2))
	b = append(b, "]={siteApps:[],config:"...)
	b = append(append(b, bytes.TrimSpace(c.append(req))...), "}})();\n"...)
	return protocol.Reply{Status: http.StatusOK, ContentType: "application/javascript", Body: b}
}

func ok(body []byte) protocol.Reply { return protocol.Reply{Status: http.StatusOK, Body: body} }
