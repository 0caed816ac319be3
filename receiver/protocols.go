package receiver

import (
	"github.com/penstock/penstock/receiver/protocol"
	"github.com/penstock/penstock/receiver/protocol/amplitude"
	"github.com/penstock/penstock/receiver/protocol/batch"
	"github.com/penstock/penstock/receiver/protocol/cloudevents"
	"github.com/penstock/penstock/receiver/protocol/gameanalytics"
	"github.com/penstock/penstock/receiver/protocol/helicone"
	"github.com/penstock/penstock/receiver/protocol/langfuse"
	"github.com/penstock/penstock/receiver/protocol/litellm"
	"github.com/penstock/penstock/receiver/protocol/native"
	"github.com/penstock/penstock/receiver/protocol/otlp"
	"github.com/penstock/penstock/receiver/protocol/pixel"
	"github.com/penstock/penstock/receiver/protocol/posthog"
	"github.com/penstock/penstock/receiver/protocol/segment"
)

// newRouter registers every protocol. If two routes have the same path, the first match counts, so the route without a
// Match is the last.
func newRouter(opts *Options) (*protocol.Router, error) {
	return protocol.NewRouter(
		cloudevents.Routes(),
		native.Routes(),
		pixel.Routes(),
		segment.Routes(),
		posthog.Routes(opts.SessionReplay),
		amplitude.Routes(),
		batch.Routes(),
		gameanalytics.Routes(),
		langfuse.Routes(),
		otlp.Routes(),
		litellm.Routes(),
		helicone.Routes(),
	)
}
