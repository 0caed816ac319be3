package receiver

import (
	"fmt"
	"io"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
)

// decode judges the body: events, one behind the other or as elements of arrays, however they are spaced. Whatever is
// wrong with an event rejects that event alone, as far as its end can be found.
func (q *request) decode(body []byte) *errcode.Error {
	if body = wholeBody(body); len(body) == 0 {
		return errcode.EmptyBody.Errorf("the body is empty")
	}
	return q.decodeValues(body, q.lines)
}

// eventMemory is about what an event takes besides its bytes, or a refused
// one; chargeEvery is how many are charged at once.
const (
	eventMemory = 256
	chargeEvery = 16
)

// maxRows bounds what one request brings into rows, in bytes: it is in memory at once.
const maxRows = 64 << 20

// full refuses a request with too many events for it, or for the receiver's memory.
func (q *request) full() *errcode.Error {
	if q.index >= q.r.opts.MaxEvents {
		return errcode.TooManyEvents.Errorf("more than %d events in one request", q.r.opts.MaxEvents)
	}
	if q.inRows > maxRows {
		return errcode.TooMuch.Errorf("more than %d bytes of one request would stay in rows: send fewer events in one", maxRows)
	}
	if q.index%chargeEvery == 0 && q.charge(q.charged+chargeEvery*eventMemory) != nil {
		return busy()
	}
	return nil
}

// decodeValues judges each of the values in a text as an event.
func (q *request) decodeValues(text []byte, lines bool) *errcode.Error {
	values := jsonscan.NewValues(text, lines)
	for {
		value, err := values.Next()
		if err == io.EOF {
			return nil
		}
		if err := q.full(); err != nil {
			return err
		}
		if err == nil {
			value, err = q.value(&values, value)
		}
		q.count(jsonscan.TrimSpace(value), err)
	}
}

// value judges the value at the start of text, and returns its bytes.
func (q *request) value(values *jsonscan.Values, text []byte) (value []byte, err error) {
	n, err := q.event(text)
	if !structural(err) {
		return text[:values.Take(n)], err
	}
	n, found := values.Skip(n)
	if !found {
		err = fmt.Errorf("%w; the %d bytes up to the next event that can be found are rejected with it", err, n)
	}
	return text[:n], err
}

// count notes one event of the request: good, left out or refused.
func (q *request) count(raw []byte, err error) {
	if err == errSampled {
		q.sampled++
	} else if err != nil {
		q.rejected++
		code, message := explain(err)
		q.rejects = append(q.rejects, reject{q.index, code, message, raw, ""})
		if len(q.rejects)%rejectsAtOnce == 0 && q.charge(q.charged+rejectsAtOnce*rejectRoom) != nil {
			q.overfull = true
		}
	}
	q.note(raw, "")
	q.index++
}

// drop takes back the event that was taken last.
func (q *request) drop() {
	q.violation = nil
	q.repaired -= q.mended
	q.events = q.events[:len(q.events)-1]
	for n := len(q.blobs); n > 0 && q.blobs[n-1].Event == len(q.events); n-- {
		q.blobs = q.blobs[:n-1]
	}
}
