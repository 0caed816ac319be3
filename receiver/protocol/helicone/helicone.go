// Package helicone accepts Helicone's custom log API:
// https://docs.helicone.ai/getting-started/integration-method/manual-logger-curl
//
// A body is one event, {providerRequest, providerResponse, timing}. Its members and latency_ms become properties. Its
// name is llm_call, or the type of the entry if it is not a call. Id, user and session come from the headers, or from
// the request's meta.
package helicone

import (
	"bytes"
	"strconv"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// Routes are the routes of the log API.
func Routes() []*protocol.Route {
	return []*protocol.Route{{Name: "helicone", Protocol: helicone{},
		EventHeaders: []string{"Helicone-Request-Id", "Helicone-User-Id", "Helicone-Session-Id"},
		Paths:        []string{"/custom/v1/log", "/oai/v1/log", "/anthropic/v1/log", "/googleapis/v1/log"}}}
}

type helicone struct{ protocol.Base }

func (p helicone) Events(r *protocol.Request, body []byte, to protocol.Sink) *errcode.Error {
	return protocol.Values(p, r, body, to)
}

func (helicone) Map(d *protocol.Draft, members []jsonscan.Member) {
	d.Name = []byte(protocol.LLMCall)
	var meta []byte
	var own *jsonscan.Member // the client's own latency_ms, which is unusual
	timed := false
	for i := range members {
		m := &members[i]
		switch string(m.Key) {
		case "providerRequest":
			meta = protocol.Dig(m.Value, "meta")
			if kind := protocol.PlainText(protocol.Dig(m.Value, "json", "_type")); len(kind) > 0 &&
				len(kind) <= protocol.MaxName {
				d.Name = kind // tool, vector_db, data
			}
		case "timing":
			begin, began := timeOf(protocol.Dig(m.Value, "startTime"))
			end, ended := timeOf(protocol.Dig(m.Value, "endTime"))
			if began {
				d.SetTime(&jsonscan.Member{Key: []byte("timing.startTime"), Value: strconv.AppendInt(nil, begin, 10),
					Kind: jsonscan.Number})
			}
			if timed = began && ended && end >= begin; timed {
				d.Property(&jsonscan.Member{Key: []byte("latency_ms"), Value: strconv.AppendInt(nil, end-begin, 10),
					Kind: jsonscan.Number})
			}
		case "latency_ms":
			own = m
			continue
		}
		d.Property(m)
	}
	switch {
	case own != nil && timed:
		d.Keep(own)
	case own != nil:
		d.Property(own)
	}
	said := func(name string, limit int) []byte {
		value := []byte(d.Request.Header.Get(name))
		if len(value) == 0 {
			value = protocol.PlainText(protocol.Dig(meta, name))
		}
		value = bytes.ToValidUTF8(value, []byte("\uFFFD"))
		if len(value) > limit {
			d.Fail(errcode.FieldTooLong.Errorf("%q has %d bytes, the limit is %d", name, len(value), limit))
		}
		return value
	}
	d.SetID(said("Helicone-Request-Id", protocol.MaxID))
	d.User, d.Session = said("Helicone-User-Id", protocol.MaxID), said("Helicone-Session-Id", protocol.MaxID)
}

// timeOf converts {seconds, milliseconds} to milliseconds.
func timeOf(value []byte) (ms int64, ok bool) {
	seconds, err := strconv.ParseInt(string(protocol.PlainText(protocol.Dig(value, "seconds"))), 10, 64)
	if err != nil || seconds < 0 || seconds > pipeline.MaxTime/1000 {
		return 0, false
	}
	rest, err := strconv.ParseFloat(string(protocol.PlainText(protocol.Dig(value, "milliseconds"))), 64)
	if err != nil || rest < 0 || rest >= 1e6 {
		rest = 0
	}
	return seconds*1000 + int64(rest), true
}
