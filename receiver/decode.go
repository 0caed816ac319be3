package receiver

import (
	"errors"

	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// decode reads the events of a body. A broken event is rejected alone, if its end can be found.
func (q *request) decode(body []byte) *errcode.Error {
	limit := q.scan.MaxDepth
	q.scan.MaxDepth = max(limit, q.route.MaxDepth)
	defer func() { q.scan.MaxDepth = limit }()
	if q.in.Redrive == protocol.RedriveEvent && !q.route.WholeBody {
		return protocol.Values(q.route.Protocol, &q.in, body, q)
	}
	return q.route.Protocol.Events(&q.in, body, q)
}

// eventMemory is the approximate memory of an event besides its bytes. Memory is charged for chargeEvery events at a
// time.
const (
	eventMemory = 256
	chargeEvery = 16
)

// maxRows limits the bytes of all rows of one request, which are in memory at once.
const maxRows = 64 << 20

// full rejects a request with too many events, or with more than fit in memory.
func (q *request) full() *errcode.Error {
	if q.index >= q.r.opts.MaxEvents {
		return errcode.TooManyEvents.Errorf("more than %d events in one request", q.r.opts.MaxEvents)
	}
	if q.inRows > maxRows {
		return errcode.TooMuch.Errorf("more than %d bytes of one request would stay in rows: send fewer events in one",
			maxRows)
	}
	if q.index%chargeEvery == 0 {
		return q.Charge(chargeEvery * eventMemory)
	}
	return nil
}

// count counts one event of the request as accepted, sampled out or rejected. raw are its bytes, of that content type.
func (q *request) count(raw []byte, contentType string, err error) {
	if errors.Is(err, errSampled) {
		q.sampled++
	} else if err != nil {
		q.rejected++
		code, message := errcode.Of(err)
		q.rejects = append(q.rejects, protocol.Reject{Index: q.index, Code: code, Message: message, Raw: raw,
			ContentType: contentType})
		if len(q.rejects)%rejectsAtOnce == 0 && q.lease.Grow(rejectsAtOnce*rejectRoom) != nil {
			q.overfull = true
		}
	}
	q.note(raw, contentType)
	q.index++
}

// drop removes the event that was added last.
func (q *request) drop() {
	q.violation = nil
	q.repaired -= q.mended
	q.events = q.events[:len(q.events)-1]
	for n := len(q.rows.Blobs); n > 0 && q.rows.Blobs[n-1].Event == len(q.events); n-- {
		q.rows.Blobs = q.rows.Blobs[:n-1]
	}
}
