package receiver

import (
	"bytes"
	"fmt"
	"net/http"

	"github.com/penstock/penstock/internal/jsonscan"
)

// decode judges the body: one object, an array of objects, or objects one
// after the other (NDJSON). What is wrong with one event refuses that event.
func (q *request) decode(body []byte) *refusal {
	switch body = wholeBody(body); {
	case len(body) == 0:
		return refuse(http.StatusBadRequest, "empty_body", "the body is empty")
	case q.lines:
		return q.decodeLines(body)
	case body[0] == '[':
		return q.decodeArray(body)
	}
	return q.decodeObjects(body)
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
func (q *request) full() *refusal {
	if q.index >= q.r.opts.MaxEvents {
		return refuse(http.StatusRequestEntityTooLarge, "too_many_events", "more than %d events in one request", q.r.opts.MaxEvents)
	}
	if q.inRows > maxRows {
		return refuse(http.StatusRequestEntityTooLarge, "too_much", "more than %d bytes of one request would stay in rows: send fewer events in one", maxRows)
	}
	if q.index%chargeEvery == 0 && q.charge(q.charged+chargeEvery*eventMemory) != nil {
		return busy()
	}
	return nil
}

// decodeLines reads NDJSON: a line is an event or is refused.
func (q *request) decodeLines(body []byte) *refusal {
	for len(body) > 0 {
		line, rest, _ := bytes.Cut(body, []byte{'\n'})
		body = rest
		if line = jsonscan.TrimSpace(line); len(line) == 0 {
			continue
		}
		if err := q.full(); err != nil {
			return err
		}
		applied := len(q.applied)
		n, err := q.event(line)
		if after := jsonscan.TrimSpace(line[n:]); (err == nil || err == errSampled) && len(after) > 0 {
			if err == nil {
				q.drop()
				q.applied = q.applied[:applied]
			}
			err = &jsonscan.Error{Code: jsonscan.InvalidJSON, Offset: n, Message: fmt.Sprintf("something follows the object at byte %d of the line", n)}
		}
		q.count(line, err)
	}
	return nil
}

// decodeObjects reads objects that follow each other, however they are
// spaced. Behind one that cannot be read it goes on at the next line that
// begins with a brace. Such a line may have been read already, as a part of
// the broken object; when as much as the whole body was read twice, objects
// over several lines are given up, so that work stays linear.
func (q *request) decodeObjects(body []byte) *refusal {
	for again, size := 0, len(body); len(body) > 0; {
		if again > size {
			return q.decodeLines(body)
		}
		if err := q.full(); err != nil {
			return err
		}
		n, err := q.event(body)
		if structural(err) {
			stopped := n
			if n = bytes.Index(body, []byte("\n{")) + 1; n == 0 {
				n = len(body)
			}
			again += max(0, stopped-n)
		}
		q.count(jsonscan.TrimSpace(body[:n]), err)
		body = jsonscan.TrimSpace(body[n:])
	}
	return nil
}

// decodeArray reads [event, event, …]. Behind an element that cannot be read
// nothing can: where it ends is not known.
func (q *request) decodeArray(body []byte) *refusal {
	whole := body
	body = jsonscan.TrimSpace(body[1:])
	if len(body) > 0 && body[0] == ']' {
		return q.behindArray(body[1:])
	}
	for {
		if err := q.full(); err != nil {
			return err
		}
		n, err := q.event(body)
		if structural(err) {
			q.count(body, fmt.Errorf("%w; the rest of the array, from byte %d on, cannot be read", err, len(whole)-len(body)))
			return nil
		}
		q.count(body[:n], err)
		body = jsonscan.TrimSpace(body[n:])
		switch {
		case len(body) > 0 && body[0] == ',':
			body = jsonscan.TrimSpace(body[1:])
		case len(body) > 0 && body[0] == ']':
			return q.behindArray(body[1:])
		default:
			at := len(whole) - len(body)
			q.count(body, &jsonscan.Error{Code: jsonscan.InvalidJSON, Offset: at, Message: fmt.Sprintf("want ',' or ']' at byte %d; the rest of the array cannot be read", at)})
			return nil
		}
	}
}

func (q *request) behindArray(rest []byte) *refusal {
	if rest = jsonscan.TrimSpace(rest); len(rest) > 0 {
		q.count(rest, &jsonscan.Error{Code: jsonscan.InvalidJSON, Message: "something follows the array"})
	}
	return nil
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
	q.events = q.events[:len(q.events)-1]
	for n := len(q.blobs); n > 0 && q.blobs[n-1].Event == len(q.events); n-- {
		q.blobs = q.blobs[:n-1]
	}
}
