package batcher

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/penstock/penstock/internal/pipeline"
)

// A record of the log is the payload of one Append:
//
//	uvarint number of events, then for each event
//	  id (16) | timestamp (8) | received_at (8) | project name session user context properties
//
// Numbers are little-endian, times ms since 1970. Each of the six byte strings
// is a uvarint and its bytes: 0 says "as in the event before" (project and
// context rarely change within a request), n+1 says n bytes follow.

var errRecord = errors.New("record is not as a batcher writes it")

func appendRecord(dst []byte, events []pipeline.Event) []byte {
	size := 0 // to grow once: of 60 MiB, what is left behind by growing is several times as much
	for i := range events {
		size += 64 + len(events[i].Properties)
	}
	dst = binary.AppendUvarint(slices.Grow(dst, size), uint64(len(events)))
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
