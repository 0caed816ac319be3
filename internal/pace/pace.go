// Package pace keeps work on large bodies from delaying small requests.
package pace

import (
	"io"
	"time"
)

const (
	// part is how many bytes are worked on between two pauses.
	part = 256 << 10
	// longest is the longest pause. It allows 128 MiB a second at least.
	longest = 2 * time.Millisecond
)

// Pace pauses after each part of a large body, for as long as the work on it took. So the work takes at most half of a
// core, and small requests find the disk and the bucket's connections idle in between. A pause is longer than
// runtime.Gosched: the scheduler then looks for requests that have arrived, which it does not do while a goroutine can
// run. The zero value is ready.
type Pace struct {
	done  int       // bytes since the last pause
	since time.Time // zero: before the first pause, which is the longest
}

// Did counts n bytes of work. It pauses when a part is complete.
func (p *Pace) Did(n int) {
	if p.done += n; p.done < part {
		return
	}
	time.Sleep(min(time.Since(p.since), longest))
	p.done, p.since = 0, time.Now()
}

// Reader reads a part of a file at a pace.
type Reader struct {
	section *io.SectionReader
	pace    Pace
}

// NewReader returns a reader of the first size bytes.
func NewReader(from io.ReaderAt, size int64) *Reader {
	return &Reader{section: io.NewSectionReader(from, 0, size)}
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.section.Read(p[:min(len(p), part)])
	r.pace.Did(n)
	return n, err
}

// Seek implements io.Seeker.
func (r *Reader) Seek(offset int64, whence int) (int64, error) { return r.section.Seek(offset, whence) }
