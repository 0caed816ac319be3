package receiver

import (
	"bytes"
	"io"
	"math"
	"unsafe"

	"github.com/penstock/penstock/internal/jsonscan"
)

// repairedLoneSurrogate is the reason under which events are counted that had lone surrogates.
const repairedLoneSurrogate = "lone_surrogate"

// repair returns an event's text with U+FFFD in the place of its lone surrogates. The text itself stays as it was sent,
// because a rejected event is kept so. A body on disk gets a copy on disk, once, because many large copies do not fit
// into memory.
func (q *request) repair(text []byte) ([]byte, error) {
	for _, s := range q.spools {
		at, ok := s.offset(text)
		if !ok {
			continue
		}
		if s.repaired == nil {
			if err := q.spool(&s.repaired, nil, &repairReader{of: s.file, size: int64(len(s.data))}, math.MaxInt64); err != nil {
				q.r.log.Warn("cannot repair a large body", "error", err)
				q.overfull = true
				return nil, errMemory
			}
			q.unload()
		}
		return s.repaired[at : at+len(text)], nil
	}
	if q.charge(q.charged+int64(len(text))) != nil {
		q.overfull = true
		return nil, errMemory
	}
	text = bytes.Clone(text)
	jsonscan.ReplaceLoneSurrogates(text, true)
	return text, nil
}

// offset is where the text begins in the body, if it is a part of it.
func (s *spooled) offset(text []byte) (at int, ok bool) {
	if len(s.data) == 0 || len(text) == 0 {
		return 0, false
	}
	// #nosec G103 -- to find where a part of a slice begins in it
	begin, from := uintptr(unsafe.Pointer(&s.data[0])), uintptr(unsafe.Pointer(&text[0]))
	return int(from - begin), from >= begin && from-begin <= uintptr(len(s.data)-len(text))
}

// repairReader reads a body on disk without its lone surrogates.
type repairReader struct {
	of       io.ReaderAt
	at, size int64
}

func (r *repairReader) Read(p []byte) (int, error) {
	n := int(min(int64(len(p)), r.size-r.at))
	if n == 0 {
		return 0, io.EOF
	}
	if _, err := r.of.ReadAt(p[:n], r.at); err != nil {
		return 0, err
	}
	done, _ := jsonscan.ReplaceLoneSurrogates(p[:n], r.at+int64(n) == r.size)
	r.at += int64(done)
	return done, nil
}
