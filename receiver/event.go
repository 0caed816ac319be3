package receiver

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/document"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

func structural(err error) bool {
	e, ok := errors.AsType[*jsonscan.Error](err)
	return ok && e.Structural()
}

// event parses one event at the start of src and adds it to q.events. n is its length, also if it is rejected.
func (q *request) event(m protocol.Mapper, src []byte) (n int, err error) {
	// One byte above the limit shows that an event is too large. The rest is not scanned, because the scanner needs a
	// multiple of an object's bytes.
	limit := q.r.opts.MaxEvent
	members, n, err := q.scan.Object(src[:min(len(src), limit+1)])
	q.largest = max(q.largest, n)
	if n > limit {
		return tooLarge(src, limit)
	}
	if err != nil {
		return n, err
	}
	q.mended = 0
	text := src[:n]
	if q.scan.LoneSurrogates() {
		if text, err = q.repair(text); err == nil {
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
	at, w := len(q.events), q.rows
	if at == cap(q.events) {
		q.events = slices.Grow(q.events, at+1) // append's own steps leave five times as much behind
	}
	e := &q.events[:at+1][at]
	from, blobs, applied, piece := len(w.Buf), len(w.Blobs), len(w.Applied), cap(w.Buf)
	w.Begin(at, text, q.scan.Large(), !q.scan.Spaced())
	if err := q.make(e, len(text)); err != nil {
		w.Buf, w.Blobs, w.Applied = w.Buf[:from], w.Blobs[:blobs], w.Applied[:applied]
		return n, err
	}
	if grown := cap(w.Buf); grown > piece && q.lease.Grow(int64(grown)) != nil {
		q.overfull = true
		return n, errMemory
	}
	q.events = q.events[:at+1]
	q.inRows += len(e.Properties)
	q.repaired += q.mended
	return n, nil
}

// tooLarge rejects the event at the start of src.
func tooLarge(src []byte, limit int) (n int, err error) {
	if n = jsonscan.Extent(src); n > 0 {
		return n, errcode.EventTooLarge.Errorf("the event has %d bytes, the limit is %d", n, limit)
	}
	n = len(src)
	return n, &jsonscan.Error{Code: jsonscan.InvalidJSON, Offset: n, Message: fmt.Sprintf(
		"unexpected end of JSON at byte %d, in an event beyond the limit of %d bytes", n, limit)}
}

// make writes the event of the draft, by the project's settings. size is the event's length in bytes.
func (q *request) make(e *pipeline.Event, size int) error {
	if err := q.write(e, &q.draft); err != nil {
		return err
	}
	rules, err := q.settings(e, size)
	if err != nil {
		return err
	}
	row, left, threshold := q.rows.Row(rules)
	if left > document.MaxRow {
		return errcode.EventTooLarge.Errorf("%d bytes are left of the event when its values above %d are taken out, "+
			"the limit is %d", left, threshold, document.MaxRow)
	}
	e.Properties = row
	if q.scan.Dotted() {
		if path := jsonscan.SharedPath(row); path != nil {
			return errcode.DuplicateKey.Errorf("two properties have the path %.200q, because keys are stored joined "+
				"by dots; rename one of them", path)
		}
	}
	return q.conform(e)
}

// room starts a new scratch buffer if the current one has less than n bytes left. Events refer to the current one, so
// it is not copied.
func (q *request) room(n int) error {
	if cap(q.rows.Buf)-len(q.rows.Buf) < n {
		n = max(n, smallBuffer, min(2*cap(q.rows.Buf), keepBytes))
		if err := q.lease.Grow(int64(n)); err != nil {
			return err
		}
		q.rows.Buf = make([]byte, 0, n)
		q.lease.Unload() // copied bytes need not be in memory twice
	}
	return nil
}

// view converts bytes to a string without a copy. The string must not outlive the bytes.
func view(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b)) // #nosec G103 -- the bytes outlive it, unchanged
}
