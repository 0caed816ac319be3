package receiver

import (
	"bytes"
	"io"
	"math"

	"github.com/penstock/penstock/internal/jsonscan"
)

// repairedLoneSurrogate is the reason that counts events with lone surrogates.
const repairedLoneSurrogate = "lone_surrogate"

// repair returns an event's text with U+FFFD in place of lone surrogates. The text itself stays as sent, because a
// failure record keeps it. A body on disk gets one copy on disk, because many large copies do not fit in memory.
func (q *request) repair(text []byte) ([]byte, error) {
	if f, at := q.lease.FileOf(text); f != nil {
		if f.Changed == nil {
			if err := q.spool(&f.Changed, nil, &repairReader{of: f, size: f.Size()}, math.MaxInt64); err != nil {
				q.r.log.Warn("large body cannot be repaired", "error", err)
				q.overfull = true
				return nil, errMemory
			}
			q.lease.Unload()
		}
		return f.Changed[at : at+len(text)], nil
	}
	if q.lease.Grow(int64(len(text))) != nil {
		q.overfull = true
		return nil, errMemory
	}
	text = bytes.Clone(text)
	jsonscan.ReplaceLoneSurrogates(text, true)
	return text, nil
}

// repairReader reads a body on disk and replaces its lone surrogates.
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
