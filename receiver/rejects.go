package receiver

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// maxAlike is how many failures of one code a request stores one by one. All others of that code share one record.
// Otherwise 150 KB of empty objects would become 50,000 rows.
const maxAlike = 100

// alike counts the failures of a request by code. A request has few codes.
type alike []struct {
	code      errcode.Code
	single, n int // stored one by one, and all
}

// add counts one failure, and reports whether it is stored alone. After fits was false once, no other failure of that
// code is.
func (a *alike) add(code errcode.Code, fits bool) bool {
	for i := range *a {
		if c := &(*a)[i]; c.code == code {
			fits = fits && c.single == c.n && c.n < maxAlike
			if c.n++; fits {
				c.single++
			}
			return fits
		}
	}
	single := 0
	if fits {
		single = 1
	}
	*a = append(*a, struct {
		code      errcode.Code
		single, n int
	}{code, single, 1})
	return fits
}

// rest calls f for each code with too many failures, with those that are not stored alone.
func (a alike) rest(all []protocol.Reject, f func(single int, rest []protocol.Reject)) {
	for _, c := range a {
		if c.n > c.single {
			f(c.single, beyond(all, c.code, c.single))
		}
	}
}

// reportRejects reports the rejected events. of describes their request.
func (q *request) reportRejects(of pipeline.Failure) {
	var counts alike
	left := q.rawLimit()
	for _, e := range q.rejects {
		if !counts.add(e.Code, len(counts) == 0 || int64(len(e.Raw)) <= left) {
			continue
		}
		left -= int64(len(e.Raw))
		f := of
		f.ContentType = cmp.Or(e.ContentType, of.ContentType)
		f.Code, f.Message, f.Raw, f.Index = e.Code.String(), e.Message, e.Raw, e.Index
		q.r.reporter.Report(f)
	}
	for _, c := range counts {
		q.countCode(q.r.metrics.rejected, c.code.String(), c.n)
	}
	body := q.body
	counts.rest(q.rejects, func(single int, rest []protocol.Reject) {
		f := of
		f.Count, f.Code, f.Message = len(rest), rest[0].Code.String(), shared(rest, single)
		if q.route.WholeBody { // events are incomplete without the body around them
			f.Raw, body = body, nil
			if f.Raw == nil {
				f.Message += "; the body is in another record of this request"
			}
			q.r.reporter.Report(f)
			return
		}
		f.Index = rest[0].Index
		q.withJoined(rest, &f)
	})
}

// minRaw bytes of failures may be stored one by one, whatever the size of their request.
const minRaw = 64 << 10

// rawLimit limits the raw bytes of a request's events that are stored one by one, after the first. In some protocols
// each event repeats what surrounds all events: 100 small records with a large resource would be 100 times the request.
func (q *request) rawLimit() int64 {
	if q.route.WholeBody {
		return max(minRaw, int64(len(q.body)))
	}
	return math.MaxInt64
}

// reportTakenRest reports accepted events beyond maxAlike that do not fit their schema. Their bytes are in the table.
func (q *request) reportTakenRest(of pipeline.Failure, counts alike) {
	all := make([]protocol.Reject, len(q.violations))
	for i, v := range q.violations {
		all[i] = v.Reject
	}
	counts.rest(all, func(single int, rest []protocol.Reject) {
		f := of
		f.Count, f.Code, f.Message = len(rest), rest[0].Code.String(), shared(rest, single)
		q.r.reporter.Report(f)
	})
}

// beyond returns the failures of a code after the first skip.
func beyond(all []protocol.Reject, code errcode.Code, skip int) (rest []protocol.Reject) {
	for _, e := range all {
		switch {
		case e.Code != code:
		case skip > 0:
			skip--
		default:
			rest = append(rest, e)
		}
	}
	return rest
}

func shared(rest []protocol.Reject, single int) string {
	return fmt.Sprintf("%d events of one request, at indexes %d to %d, after %d others with this code; the first: %s",
		len(rest), rest[0].Index, rest[len(rest)-1].Index, single, rest[0].Message)
}

// withJoined reports one failure with the bytes of several rejected events, so that a redrive sends these and no
// accepted ones. Large ones are joined on disk.
func (q *request) withJoined(rest []protocol.Reject, f *pipeline.Failure) {
	size := int64(0)
	for _, e := range rest {
		size += int64(len(e.Raw)) + 1
	}
	src := &rejectReader{rest: rest}
	var err error
	if size > spoolAt && q.r.opts.SpoolDir != "" {
		err = q.spool(&f.Raw, nil, src, math.MaxInt64)
	} else if err = q.lease.Grow(size); err == nil {
		defer func() { q.lease.Grow(-size) }()
		b := bytes.NewBuffer(make([]byte, 0, size))
		io.Copy(b, struct{ io.Reader }{src})
		f.Raw = b.Bytes()
	}
	if err != nil {
		f.Raw = nil
		f.Message += "; their bytes are not kept: " + err.Error()
		q.r.reporter.Drop("raw")
	}
	q.r.reporter.Report(*f)
}

// rejectReader reads rejected events, each followed by a newline.
type rejectReader struct {
	rest []protocol.Reject
	at   int // in the first of them
}

func (j *rejectReader) Read(p []byte) (n int, err error) {
	for n < len(p) && len(j.rest) > 0 {
		raw := j.rest[0].Raw
		if j.at < len(raw) {
			m := copy(p[n:], raw[j.at:])
			n, j.at = n+m, j.at+m
			continue
		}
		p[n] = '\n'
		n++
		j.rest, j.at = j.rest[1:], 0
	}
	if n == 0 && len(j.rest) == 0 {
		err = io.EOF
	}
	return n, err
}
