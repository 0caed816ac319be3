package receiver

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/protocol"
)

func structural(err error) bool {
	e, ok := errors.AsType[*jsonscan.Error](err)
	return ok && e.Structural()
}

// event reads one event at the start of src and adds it to q.events; n is how
// much of src it takes up, also where it is refused.
func (q *request) event(m protocol.Mapper, src []byte) (n int, err error) {
	// One byte more than allowed tells what is too large, and no more is read
	// of it: the scanner takes many times an object's bytes.
	limit := q.r.opts.MaxEvent
	members, n, err := q.scan.Object(src[:min(len(src), limit+1)])
	q.largest = max(q.largest, n)
	if n > limit {
		if n = jsonscan.Extent(src); n == 0 {
			n = len(src)
			return n, &jsonscan.Error{Code: jsonscan.InvalidJSON, Offset: n, Message: fmt.Sprintf("unexpected end of JSON at byte %d, in an event beyond the limit of %d bytes", n, limit)}
		}
		return n, wrong("event_too_large", "the event has %d bytes, the limit is %d", n, limit)
	}
	if err != nil {
		return n, err
	}
	q.mended = 0
	if q.scan.LoneSurrogates() {
		text, err := q.repair(src[:n])
		if err == nil {
			members, _, err = q.scan.Object(text)
		}
		if err != nil {
			return n, err
		}
		q.mended = 1
	}
	if q.room(min(n, keepBytes/4)+1<<10) != nil {
		q.overfull = true
		return n, errMemory
	}
	q.draft.Reset(&q.in)
	m.Map(&q.draft, members)
	at := len(q.events)
	if at == cap(q.events) {
		q.events = slices.Grow(q.events, at+1) // append's own steps leave five times as much behind
	}
	e := &q.events[:at+1][at]
	from, blobs, applied, piece := len(q.scratch), len(q.blobs), len(q.applied), cap(q.scratch)
	for q.threshold = q.r.opts.BlobThreshold; ; q.threshold /= 8 {
		err := q.make(e)
		if err == nil && len(e.Properties)+(len(q.blobs)-blobs)*blobRoom > maxRow {
			err = wrong("event_too_large", "%d bytes are left of the event when its values above %d are taken out, the limit is %d", len(e.Properties), q.threshold, maxRow)
			if q.threshold > minThreshold {
				q.scratch, q.blobs, q.applied = q.scratch[:from], q.blobs[:blobs], q.applied[:applied]
				continue
			}
		}
		if err == nil && q.scan.Dotted() {
			if path := jsonscan.SharedPath(e.Properties); path != nil {
				err = wrong("duplicate_key", "the path %.200q is there twice, for keys are joined by dots where properties are stored: give one of them another name", path)
			}
		}
		if err == nil && q.r.opts.Schemas != nil {
			err = q.conform(e, blobs, func() (whole pipeline.Event, err error) { err = q.write(&whole, &q.draft); return whole, err })
		}
		if err != nil {
			q.scratch, q.blobs, q.applied = q.scratch[:from], q.blobs[:blobs], q.applied[:applied]
			return n, err
		}
		if grown := cap(q.scratch); grown > piece && q.charge(q.charged+int64(grown)) != nil {
			q.overfull = true
			return n, errMemory
		}
		q.events = q.events[:at+1]
		q.inRows += len(e.Properties)
		q.repaired += q.mended
		return n, nil
	}
}

// line writes a value into scratch, without what is large in it.
func (q *request) line(value []byte) {
	if q.large(value) {
		q.cut(value)
	} else {
		q.flat(value)
	}
}

// flat writes a text into scratch so that it fits into a line of NDJSON.
// Outside of strings, where alone they can stand unescaped, line ends are
// white space.
func (q *request) flat(value []byte) {
	from := len(q.scratch)
	q.scratch = append(q.scratch, value...)
	if hasLineEnd(value) {
		for i, c := range q.scratch[from:] {
			if c == '\n' || c == '\r' {
				q.scratch[from+i] = ' '
			}
		}
	}
}

func hasLineEnd(b []byte) bool {
	return bytes.IndexByte(b, '\n') >= 0 || bytes.IndexByte(b, '\r') >= 0
}

// room begins a new piece of scratch where the old one has no n bytes left: what
// is in there belongs to events, and is not copied as more of them come.
func (q *request) room(n int) error {
	if cap(q.scratch)-len(q.scratch) < n {
		n = max(n, smallBuffer, min(2*cap(q.scratch), keepBytes))
		if err := q.charge(q.charged + int64(n)); err != nil {
			return err
		}
		q.scratch = make([]byte, 0, n)
		q.unload() // what was copied need not be in memory twice
	}
	return nil
}

// view reads bytes as a string without a copy; it must not outlive them.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
