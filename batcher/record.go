package batcher

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"

	"github.com/penstock/penstock/batcher/wal"
	"github.com/penstock/penstock/internal/pipeline"
)

// A record of the log is the payload of one Append, or a part of it:
//
//	record = [blobs] events
//	events = uvarint number of events, then for each event
//	  id (16) | timestamp (8) | received_at (8) | project name session user context properties
//	blobs  = 0 | uvarint length | JSON of []storedBlob
//
// Numbers are little-endian, times ms since 1970. Each of an event's six byte
// strings is a uvarint and its bytes: 0 says "as in the event before" (project
// and context rarely change within a request), n+1 says n bytes follow. No
// record has 0 events, so a 0 announces blobs.

var errRecord = errors.New("record is not as a batcher writes it")

// maxRecord is how many bytes of events, apart from the last event, a record has. A reader of the log has one record
// and its events in memory.
const maxRecord = 1 << 20

// storedBlob is a blob in the log of blobs.
type storedBlob struct {
	Event   int              `json:"event"`   // from the record's first one
	At      int              `json:"at"`      // in its properties: the hole for the reference
	Segment uint64           `json:"segment"` // of the log of blobs
	Ref     pipeline.BlobRef `json:"ref"`     // without its object; the range is that in the segment
}

// records is what one Append writes.
type records struct {
	buf    []byte // as they stand in the log, but for their seqs
	parts  []part
	events int
	blobs  int64 // bytes
	newest int64 // received_at of the last event
}

// part is one record.
type part struct{ bytes, events int }

func (r *records) set(events []pipeline.Event, blobs []storedBlob) {
	*r = records{buf: r.buf[:0], parts: r.parts[:0], events: len(events), newest: events[len(events)-1].ReceivedAt}
	size := 0
	for i := range events {
		size += about(&events[i])
	}
	for i := range blobs {
		r.blobs += blobs[i].Ref.Bytes
	}
	r.buf = slices.Grow(r.buf, size) // once: of 60 MiB, what is left behind by growing is several times as much
	for first := 0; first < len(events); {
		n, size := 1, about(&events[first])
		for first+n < len(events) && size < maxRecord {
			size += about(&events[first+n])
			n++
		}
		from := len(r.buf)
		r.buf = wal.AppendHeader(r.buf)
		own := 0
		for own < len(blobs) && blobs[own].Event < first+n {
			own++
		}
		r.buf = appendBlobs(r.buf, blobs[:own], first)
		r.buf = appendRecord(r.buf, events[first:first+n])
		wal.Frame(r.buf[from:])
		r.parts = append(r.parts, part{len(r.buf) - from, n})
		first, blobs = first+n, blobs[own:]
	}
}

// about is the approximate size of an event in a record, in bytes.
func about(e *pipeline.Event) int { return 64 + len(e.Properties) }

// number sets the seqs of the records' events, beginning with first, and returns the next seq.
func (r *records) number(first uint64) uint64 {
	rest := r.buf
	for _, p := range r.parts {
		wal.SetSeq(rest, first)
		rest, first = rest[p.bytes:], first+uint64(p.events)
	}
	return first
}

func appendRecord(dst []byte, events []pipeline.Event) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(events)))
	var before pipeline.Event
	for i := range events {
		e := &events[i]
		dst = append(dst, e.ID[:]...)
		dst = binary.LittleEndian.AppendUint64(dst, uint64(e.Timestamp))
		dst = binary.LittleEndian.AppendUint64(dst, uint64(e.ReceivedAt))
		dst = appendBytes(dst, before.Project, e.Project)
		dst = appendBytes(dst, before.Name, e.Name)
		dst = appendBytes(dst, before.SessionID, e.SessionID)
		dst = appendBytes(dst, before.UserID, e.UserID)
		dst = appendBytes(dst, before.Context, e.Context)
		dst = appendBytes(dst, nil, e.Properties)
		before = *e
	}
	return dst
}

func appendBytes(dst, before, b []byte) []byte {
	if len(b) > 0 && string(before) == string(b) {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, uint64(len(b))+1)
	return append(dst, b...)
}

// appendBlobs writes the blobs of a record whose first event has the index first in the Append.
func appendBlobs(dst []byte, blobs []storedBlob, first int) []byte {
	if len(blobs) == 0 {
		return dst
	}
	for i := range blobs {
		blobs[i].Event -= first
	}
	text, _ := json.Marshal(blobs) // strings and numbers: it cannot fail
	dst = binary.AppendUvarint(append(dst, 0), uint64(len(text)))
	return append(dst, text...)
}

// parseBlobs parses the blobs at the front of a record; rest are its events.
func parseBlobs(b []byte) (blobs []storedBlob, rest []byte, err error) {
	if len(b) == 0 || b[0] != 0 {
		return nil, b, nil
	}
	n, k := binary.Uvarint(b[1:])
	if b = b[1:]; k <= 0 || n > uint64(len(b)-k) {
		return nil, nil, errRecord
	}
	if err := json.Unmarshal(b[k:k+int(n)], &blobs); err != nil {
		return nil, nil, errors.Join(errRecord, err)
	}
	return blobs, b[k+int(n):], nil
}

// parseRecord appends the events of a record without blobs to dst; they are views into b. Their seqs count up from seq.
func parseRecord(dst []pipeline.Event, seq uint64, b []byte) ([]pipeline.Event, error) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)) {
		return dst, errRecord
	}
	b = b[k:]
	var before pipeline.Event
	for i := range n {
		if len(b) < 32 {
			return dst, errRecord
		}
		e := pipeline.Event{Seq: seq + i}
		copy(e.ID[:], b)
		e.Timestamp = int64(binary.LittleEndian.Uint64(b[16:]))
		e.ReceivedAt = int64(binary.LittleEndian.Uint64(b[24:]))
		b = b[32:]
		if err := pipeline.CheckReceived(e.ReceivedAt); err != nil {
			return dst, err
		}
		for _, f := range [...]struct{ to, before *[]byte }{
			{&e.Project, &before.Project}, {&e.Name, &before.Name},
			{&e.SessionID, &before.SessionID}, {&e.UserID, &before.UserID},
			{&e.Context, &before.Context}, {&e.Properties, new([]byte)},
		} {
			var ok bool
			if *f.to, b, ok = parseBytes(*f.before, b); !ok {
				return dst, errRecord
			}
		}
		dst = append(dst, e)
		before = e
	}
	if len(b) > 0 {
		return dst, errRecord
	}
	return dst, nil
}

func parseBytes(before, b []byte) (field, rest []byte, ok bool) {
	n, k := binary.Uvarint(b)
	switch {
	case k <= 0:
		return nil, nil, false
	case n == 0:
		return before, b[k:], true
	case n-1 > uint64(len(b)-k):
		return nil, nil, false
	}
	end := k + int(n-1)
	return b[k:end:end], b[end:], true
}
