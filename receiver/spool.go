package receiver

import (
	"io"
	"time"

	"github.com/penstock/penstock/internal/pace"
	"github.com/penstock/penstock/receiver/admission"
)

// A body beyond spoolAt goes to disk as it arrives and is read from there. So large bodies take one buffer each while
// they arrive, and memory for the pages of one of them while it is decoded. The files have no names.

const (
	spoolAt   = 1 << 20   // bytes
	spoolPart = 256 << 10 // that are read at once
	// slowest is the lowest average rate of a large body, in bytes a second. Options.ReadTimeout also limits each part of
	// it.
	slowest = 32 << 10
)

// spool writes head and then src, up to limit bytes, to disk, and maps the file as dst.
func (q *request) spool(dst *[]byte, head []byte, src io.Reader, limit int64) error {
	s, err := q.lease.Spool()
	if err != nil {
		return err
	}
	if _, err := s.Write(head); err != nil {
		return err
	}
	*dst = nil
	if err := q.lease.Grow(spoolPart); err != nil {
		return err
	}
	defer func() { q.lease.Grow(-spoolPart) }()
	part := make([]byte, spoolPart)
	began := time.Now()
	var pace pace.Pace
	for {
		if q.extend != nil {
			now, most := time.Now(), began.Add(q.r.opts.ReadTimeout+time.Duration(s.Size()/slowest)*time.Second)
			if end := now.Add(q.r.opts.ReadTimeout); end.Before(most) {
				most = end
			}
			q.extend.SetReadDeadline(most)
		}
		n, err := src.Read(part)
		if n > 0 {
			if _, err := s.Write(part[:n]); err != nil {
				return err
			}
		}
		if s.Size() > limit {
			return errDecoded
		}
		pace.Did(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	*dst, err = s.Map()
	return err
}

// rejectRoom is the memory of one rejected or violating event besides its bytes. It is charged for many events at a
// time.
const (
	rejectRoom    = 256
	rejectsAtOnce = 256
)

// letGo ends the turn of a large or medium body after the batcher has copied it. Everything but the body is freed,
// because waiting for the disk or the bucket may take long. If the answer reads a large body again, or the errors
// pipeline needs much of it, the next turn waits for them. Otherwise the remains of many bodies would be in memory at
// once.
func (q *request) letGo() {
	left := int64(len(q.rejects)+len(q.violations)) * rejectRoom
	if left > 0 {
		left += q.in.Copied()
	}
	bodies := q.lease.InMemory(q.sent) + q.lease.InMemory(q.body)
	if len(q.violations) > 0 { // they are reported as their rows have them
		left += max(0, q.lease.Size()-bodies)
	}
	switch q.lease.Class() {
	case admission.Large:
		if left > rejectsAtOnce*rejectRoom || q.route.RereadBody {
			return
		}
	case admission.Medium:
		if left > bodies/2 {
			return
		}
	}
	q.rows.Blobs = nil
	if left == 0 {
		q.in.Forget()
	}
	if len(q.violations) == 0 {
		q.events = nil
		q.rows.Forget()
	}
	q.lease.Resize(min(q.lease.Size(), bodies+left))
	q.lease.Yield()
}

// unspool frees the request's files.
func (q *request) unspool() {
	if q.lease.Spooled() {
		q.sent, q.body = nil, nil // they may be mapped
		q.lease.Remove()
	}
}
