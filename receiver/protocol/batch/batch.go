// Package batch serves /batch, which PostHog's and Amplitude's clients both use. The body decides which protocol it is.
// Before the body is read, answers are Amplitude's, because PostHog's clients look only at the status.
package batch

import (
	"net/http"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
	"github.com/penstock/penstock/receiver/protocol/amplitude"
	"github.com/penstock/penstock/receiver/protocol/posthog"
)

// Routes returns the route.
func Routes() []*protocol.Route {
	return []*protocol.Route{{Name: "batch", Paths: []string{"/batch"}, FindsGzip: true,
		Protocol: batch{amplitude: amplitude.Routes()[0], posthog: posthog.Capture()}}}
}

type batch struct{ amplitude, posthog *protocol.Route }

// Choose checks for the member with Amplitude's events.
func (p batch) Choose(body []byte) *protocol.Route {
	if events, err := protocol.Find(protocol.Whole(body), "events"); err == nil && len(events) > 0 && events[0] != 'n' {
		return p.amplitude
	}
	return p.posthog
}

func (p batch) Authenticate(req *http.Request) (key string, given bool) {
	return p.posthog.Protocol.Authenticate(req)
}

func (p batch) Prepare(req *http.Request) { p.posthog.Protocol.(protocol.Preparer).Prepare(req) }

func (p batch) Key(r *protocol.Request, body []byte) (string, *errcode.Error) {
	return p.Choose(body).Protocol.(protocol.KeyFinder).Key(r, body)
}

func (p batch) Events(r *protocol.Request, body []byte, to protocol.Sink) *errcode.Error {
	return p.Choose(body).Protocol.Events(r, body, to)
}

// Map maps an event that is redriven alone.
func (p batch) Map(d *protocol.Draft, members []jsonscan.Member) {
	for i := range members {
		if string(members[i].Key) == "event_type" {
			p.amplitude.Protocol.Map(d, members)
			return
		}
	}
	p.posthog.Protocol.Map(d, members)
}

func (p batch) Reply(o *protocol.Outcome, b []byte) protocol.Reply {
	return p.amplitude.Protocol.Reply(o, b)
}
