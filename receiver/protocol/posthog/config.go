package posthog

import (
	"bytes"
	"net/http"

	"github.com/penstock/penstock/receiver/protocol"
)

// config is the configuration of the project.
type config struct{ record bool }

// recording is the path for session recordings if they are enabled.
func (c config) recording() string {
	if c.record {
		return `{"endpoint":"/s/"}`
	}
	return "false"
}

// flags answers all versions of the request with no feature flags.
func (c config) flags(*http.Request) protocol.Reply {
	return ok([]byte(`{"flags":{},"featureFlags":{},"featureFlagPayloads":{},` +
		`"errorsWhileComputingFlags":false,"config":{},"supportedCompression":["gzip","gzip-js"],"sessionRecording":` +
		c.recording() +
		`,"surveys":false,"toolbarParams":{},"siteApps":[]}` + "\n"))
}

// json is the configuration that posthog-js requests first. It does not check the key: events with a wrong key are
// rejected and kept. Surveys are not mentioned, because even for "false" the client loads their script, which does not
// exist here.
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

// script returns the same configuration as a script.
func (c config) script(req *http.Request) protocol.Reply {
	const all = "window._POSTHOG_REMOTE_CONFIG"
	b := []byte("(function(){" + all + "=" + all + "||{};" + all + "[")
	b = protocol.AppendText(b, protocol.PathPart(req.URL.Path, 2))
	b = append(b, "]={siteApps:[],config:"...)
	b = append(append(b, bytes.TrimSpace(c.append(req))...), "}})();\n"...)
	return protocol.Reply{Status: http.StatusOK, ContentType: "application/javascript", Body: b}
}

func ok(body []byte) protocol.Reply { return protocol.Reply{Status: http.StatusOK, Body: body} }
