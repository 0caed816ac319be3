package batcher

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/penstock/penstock/batcher/wal"
	"github.com/penstock/penstock/internal/pipeline"
)

// A record of the log is the payload of one Append, or a part of it:
//
//	uvarint number of events, then for each event
//	  id (16) | timestamp (8) | received_at (8) | project name session user context properties
//
// Numbers are little-endian, times ms since 1970. Each of the six byte strings
// is a uvarint and its bytes: 0 says "as in the event before" (project and
// context rarely change within a request), n+1 says n bytes follow.

var errRecord = errors.New("record is not as a batcher writes it")

// maxRecord is how many bytes of events, one more event apart, are in a record:
// who reads the log has one in memory at a time, and what is made of it.
const maxRecord = 1 << 20

// records is what one Append writes.
type records struct {
	buf    []byte // as they stand in the log, but for their seqs
	parts  []part
	newest int64 // received_at of the last event
}

// part is one record.
type part struct{ bytes, events int }

func (r *records) set(events []pipeline.Event) {
	r.buf, r.parts, r.newest = r.buf[:0], r.parts[:0], events[len(events)-1].ReceivedAt
	size := 0
	for i := range events {
		size += about(&events[i])
	}
	r.buf = slices.Grow(r.buf, size) // once: of 60 MiB, what is left behind by growing is several times as much
	for len(events) > 0 {
		n, size := 1, about(&events[0])
		for n < len(events) && size < maxRecord {
			size += about(&events[n])
			n++
		}
		from := len(r.buf)
		r.buf = appendRecord(wal.AppendHeader(r.buf), events[:n])
		wal.Frame(r.buf[from:])
		r.parts = append(r.parts, part{len(r.buf) - from, n})
		events = events[n:]
	}
}

// about is how many bytes an event takes in a record.
func about(e *pipeline.Event) int { return 64 + len(e.Properties) }

// number gives the records their events' seqs, from first on, and tells the next.
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

// parseRecord appends the events of a record to dst; they are views into b.
// Their seqs count up from seq.
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
		ok := true
		for _, f := range [...]struct{ to, before *[]byte }{
			{&e.Project, &before.Project}, {&e.Name, &before.Name},
			{&e.SessionID, &before.SessionID}, {&e.UserID, &before.UserID},
			{&e.Context, &before.Context}, {&e.Properties, new([]byte)},
		} {
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
