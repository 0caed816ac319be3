package receiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"

)

// A body beyond spoolAt goes to disk as it arrives, and is read from there: what
// large events take of memory is one buffer each while they come, and the pages
// of one of them while it is judged. The files have no names.

const (
	spoolAt   = 1 << 20   // bytes
	spoolPart = 256 << 10 // that are read at once
	// slowest is what a large body has to bring in a second on the average, in
	// bytes, besides Options.ReadTimeout for each part of it.
	slowest = 32 << 10
)

// errSpool says that a large body found no room on disk.
var errSpool = errors.New("no room on disk for a large body")

// spooled is a body on disk, mapped into memory.
type spooled struct {
	file *os.File
	data []byte
	size int64 // counted in Receiver.spooled

	stranger bool // it is counted in strangers.spooled, too

	repaired []byte // the data without lone surrogates, of the same length; nil: nobody needs them
}

func (s *spooled) write(r *Receiver, p []byte) error {
	n := int64(len(p))
	s.size += n
	if r.spooled.Add(n) > r.opts.MaxSpool || s.stranger && r.strangers.spooled.Add(n) > r.opts.MaxSpool/4 {
		return errSpool
	}
	if _, err := s.file.Write(p); err != nil {
		return fmt.Errorf("%w: %w", errSpool, err)
	}
	return nil
}

// unaccount counts a stranger's body as a client's from now on.
func (s *spooled) unaccount(r *Receiver) {
	if s.stranger {
		s.stranger = false
		r.strangers.spooled.Add(-s.size)
	}
}

// spool brings head and then all of src, up to limit bytes, to disk, and maps it
// as dst.
func (q *request) spool(dst *[]byte, head []byte, src io.Reader, limit int64) error {
	file, err := os.CreateTemp(q.r.opts.SpoolDir, "body-*")
	if err != nil {
		return fmt.Errorf("%w: %w", errSpool, err)
	}
	os.Remove(file.Name())
	q.spools = append(q.spools, &spooled{file: file, stranger: q.key.Project == ""})
	s := q.spools[len(q.spools)-1]
	if err := s.write(q.r, head); err != nil {
		return err
	}
	*dst = nil
	if err := q.charge(q.charged + spoolPart); err != nil {
		return err
	}
	defer func() { q.charge(q.charged - spoolPart) }()
	part := make([]byte, spoolPart)
	began := time.Now()
	for {
		if q.extend != nil {
			now, most := time.Now(), began.Add(q.r.opts.ReadTimeout+time.Duration(s.size/slowest)*time.Second)
			if end := now.Add(q.r.opts.ReadTimeout); end.Before(most) {
				most = end
			}
			q.extend.SetReadDeadline(most)
		}
		n, err := src.Read(part)
		if n > 0 {
			if err := s.write(q.r, part[:n]); err != nil {
				return err
			}
		}
		if s.size > limit {
			return errDecoded
		}
		runtime.Gosched() // a body that is there already comes without a pause
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if s.data, err = syscall.Mmap(int(file.Fd()), 0, int(s.size), syscall.PROT_READ, syscall.MAP_SHARED); err != nil {
		return fmt.Errorf("%w: map: %w", errSpool, err)
	}
	*dst = s.data
	return nil
}

// enter waits until no other large body is judged.
func (r *Receiver) enter(ctx context.Context, q *request) error {
	if len(q.spools) == 0 || q.entered {
		return nil
	}
	select {
	case r.large <- struct{}{}:
		q.entered = true
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// mediumAt is from where on, in bytes, bodies in memory are judged only so many
// at once as there are processors. What judging them takes is several times a
// body, and more of them at once would not be done earlier.
const mediumAt = 64 << 10

// enterMedium waits until it is the turn of a body that is judged from memory.
func (r *Receiver) enterMedium(ctx context.Context, q *request) error {
	if q.entered || len(q.body) <= mediumAt {
		return nil
	}
	select {
	case r.medium <- struct{}{}:
		q.held = true
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rejectRoom is what one event takes of memory, in bytes, that is refused or does
// not fit its schema, besides its own; they are counted so many at once.
const (
	rejectRoom    = 256
	rejectsAtOnce = 256
)

// letGo ends the judging of a large or medium body that the batcher has taken: the
// next one may be judged, and all but the body is freed. What follows may take
// long: the disk, the bucket. Where the answer reads a large body again, or the errors
// pipeline needs much of what judging has left, the next one waits until they are
// done, or what many of them left would be in memory at once.
func (q *request) letGo() {
	left := int64(len(q.rejects)+len(q.violations)) * rejectRoom
	if left > 0 {
		left += q.in.Copied()
	}
	bodies := q.inMemory(q.sent) + q.inMemory(q.body)
	if len(q.violations) > 0 { // they are reported as their rows have them
		left += max(0, q.charged-bodies)
	}
	if q.entered && (left > rejectsAtOnce*rejectRoom || q.route.RereadBody) || q.held && left > bodies/2 {
		return
	}
	q.rows.Blobs = nil
	if left == 0 {
		q.in.Forget()
	}
	if len(q.violations) == 0 {
		q.events = nil
		q.rows.Forget()
	}
	q.charge(min(q.charged, bodies+left))
	q.leave()
}

// leave makes place for the next body to be judged.
func (q *request) leave() {
	if q.apart > 0 {
		q.r.memory.Add(q.apart) // it is beside that of the next
		q.apart = 0
	}
	if q.held {
		q.held = false
		<-q.r.medium
	}
	if q.entered {
		q.entered = false
		q.unload()
		<-q.r.large
	}
}

// inMemory is what a body's bytes take there.
func (q *request) inMemory(body []byte) int64 {
	for _, s := range q.spools {
		if len(s.data) > 0 && len(body) > 0 && &s.data[0] == &body[0] {
			return 0
		}
	}
	return int64(cap(body))
}

// unload frees the pages of a body that was judged: what is still needed of it is
// read again, from the file system's own memory mostly.
func (q *request) unload() {
	for _, s := range q.spools {
		if s.data != nil {
			syscall.Madvise(s.data, syscall.MADV_DONTNEED)
		}
	}
}

// unspool gives back what the request has on disk.
func (q *request) unspool() {
	if len(q.spools) == 0 {
		return
	}
	q.sent, q.body = nil, nil // they may be mapped
	for _, s := range q.spools {
		if s.data != nil {
			syscall.Munmap(s.data)
		}
		s.file.Close()
		s.unaccount(q.r)
		q.r.spooled.Add(-s.size)
	}
	q.spools = nil
}
