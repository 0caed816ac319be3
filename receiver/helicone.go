package receiver

import (
	"bytes"
	"strconv"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
)

// Helicone's custom log API: https://docs.helicone.ai/getting-started/integration-method/manual-logger-curl
//
// A body is one event, {providerRequest, providerResponse, timing}, and its
// members are properties, with latency_ms. name is llm_call, or the type of what
// was logged instead of a call. Id, user and session are in the headers, or in
// the request's meta.
var helicone = []*dialect{
	{
		name: "helicone", decode: (*request).decode, event: heliconeEvent,
		paths: []string{"/custom/v1/log", "/oai/v1/log", "/anthropic/v1/log", "/googleapis/v1/log"},
	},
}

// heliconeHeader is what the headers begin with that belong to an event.
const heliconeHeader = "Helicone-"

func heliconeEvent(q *request, members []jsonscan.Member) (pipeline.Event, error) {
	d := q.draft()
	d.name = []byte(llmCall)
	var meta []byte
	for i := range members {
		m := &members[i]
		switch string(m.Key) {
		case "providerRequest":
			meta = dig(m.Value, "meta")
			if kind := plainText(dig(m.Value, "json", "_type")); len(kind) > 0 && len(kind) <= maxName {
				d.name = kind // tool, vector_db, data
			}
		case "timing":
			begin, began := heliconeTime(dig(m.Value, "startTime"))
			end, ended := heliconeTime(dig(m.Value, "endTime"))
			if began {
				d.setTime(&jsonscan.Member{Key: []byte("timing.startTime"), Value: strconv.AppendInt(nil, begin, 10),
					Kind: jsonscan.Number})
			}
			if began && ended && end >= begin {
				q.property(&jsonscan.Member{Key: []byte("latency_ms"), Value: strconv.AppendInt(nil, end-begin, 10),
					Kind: jsonscan.Number})
			}
		}
		if string(m.Key) != "latency_ms" {
			q.property(m)
		}
	}
	said := func(name string, limit int) []byte {
		value := []byte(q.header.Get(name))
		if len(value) == 0 {
			value = plainText(dig(meta, name))
		}
		if len(value) > limit {
			d.fail(errcode.FieldTooLong.Errorf("%q has %d bytes, the limit is %d", name, len(value), limit))
		}
		return bytes.ToValidUTF8(value, []byte("\uFFFD"))
	}
	d.id, d.user, d.session = said("Helicone-Request-Id", maxID), said("Helicone-User-Id", maxID),
		said("Helicone-Session-Id", maxID)
	return d.event()
}

// heliconeTime is {seconds, milliseconds} as milliseconds.
func heliconeTime(value []byte) (ms int64, ok bool) {
	seconds, err := strconv.ParseInt(string(plainText(dig(value, "seconds"))), 10, 64)
	if err != nil || seconds < 0 || seconds > pipeline.MaxTime/1000 {
		return 0, false
	}
	rest, err := strconv.ParseFloat(string(plainText(dig(value, "milliseconds"))), 64)
	if err != nil || rest < 0 || rest >= 1e6 {
		rest = 0
	}
	return seconds*1000 + int64(rest), true
}
