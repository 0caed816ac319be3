package protocol

import (
	"net/http"
	"strconv"
	"time"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/tenant"
)

// Outcome is the result of a request.
type Outcome struct {
	RequestID string
	Status    int            // as in Penstock's own API
	Refused   *errcode.Error // why the whole request is rejected; nil: its events were checked
	Limit     *tenant.Limit  // limit of the project that rejects the request; nil: none

	Accepted, Rejected int
	Sampled            int // left out by the project's sampling
	Found              int // events in total
	Rejects            []Reject
	Object             string // that has the events; empty: unknown

	Received int64  // ms
	Body     []byte // decompressed
}

// Reject is one rejected event.
type Reject struct {
	Index       int
	Code        errcode.Code
	Message     string
	Raw         []byte // part of the body, or built from it
	ContentType string // of Raw; empty: the request's
}

// Reply is an answer.
type Reply struct {
	Status      int
	ContentType string // empty: JSON
	Body        []byte
}

// MaxListed limits the list of rejected events in an answer; the count includes all.
const MaxListed = 100

// Good reports whether the request succeeded, at least partly.
func (o *Outcome) Good() bool { return o.Status == http.StatusOK || o.Status == http.StatusAccepted }

// OK is the status for clients that accept only 200.
func (o *Outcome) OK() int {
	if o.Status == http.StatusAccepted {
		return http.StatusOK
	}
	return o.Status
}

// Listed returns the rejected events that an answer lists.
func (o *Outcome) Listed() []Reject { return o.Rejects[:min(len(o.Rejects), MaxListed)] }

// AppendCounts writes the counts, the request's id and the object as members.
func (o *Outcome) AppendCounts(b []byte) []byte {
	b = AppendInt(b, "accepted", o.Accepted)
	b = AppendInt(b, "rejected", o.Rejected)
	if o.Sampled > 0 {
		b = AppendInt(b, "sampled", o.Sampled)
	}
	b = AppendString(b, "request_id", o.RequestID)
	if o.Status == http.StatusOK {
		b = AppendString(b, "object", o.Object)
	}
	return b
}

// AppendErrors writes why the request or some of its events were rejected.
func (o *Outcome) AppendErrors(b []byte) []byte {
	switch {
	case o.Refused != nil:
		b = append(AppendKey(b, "error"), '{')
		b = append(appendError(b, o.Refused.Code, o.Refused.Message), '}')
		if o.Limit != nil {
			b = appendLimit(b, o.Limit)
		}
	case len(o.Rejects) > 0:
		b = append(AppendKey(b, "errors"), '[')
		for i, e := range o.Listed() {
			if i > 0 {
				b = append(b, ',')
			}
			b = AppendInt(append(b, '{'), "index", e.Index)
			b = append(appendError(b, e.Code, e.Message), '}')
		}
		b = append(b, ']')
		if more := o.Rejected - MaxListed; more > 0 {
			b = AppendInt(b, "errors_omitted", more)
		}
	}
	return b
}

func appendError(b []byte, code errcode.Code, message string) []byte {
	b = jsonscan.AppendQuoted(AppendKey(b, "code"), []byte(code.String()))
	return AppendText(AppendKey(b, "message"), message)
}

// appendLimit writes the limit that rejects the request.
func appendLimit(b []byte, l *tenant.Limit) []byte {
	b = append(AppendKey(b, "limit"), '{')
	b = AppendString(b, "of", l.Of)
	if l.PerDay {
		b = AppendString(b, "per", "day")
	} else {
		b = AppendString(b, "per", "second")
	}
	b = AppendInt(b, "limit", int(l.Limit))
	if !l.PerDay {
		b = AppendInt(b, "burst", int(l.Burst))
	}
	at := time.Now().Add(time.Duration(l.Seconds()) * time.Second).UTC()
	b = AppendInt(b, "left", int(l.Left))
	b = AppendInt(b, "retry_after", int(l.Seconds()))
	return append(AppendString(b, "retry_at", at.Format(pipeline.TimeFormat)), '}')
}

// SetHeader sets Retry-After.
func (o *Outcome) SetHeader(h http.Header, retryAfter time.Duration) {
	if o.Refused == nil {
		return
	}
	if o.Refused.Code.Retryable() && !o.Refused.Code.Kept() {
		h.Set("Retry-After", strconv.Itoa(max(1, int(retryAfter.Seconds()))))
	}
	if l := o.Limit; l != nil {
		seconds := strconv.FormatInt(l.Seconds(), 10)
		h.Set("Retry-After", seconds)
		h.Set("RateLimit-Limit", strconv.FormatInt(l.Limit, 10))
		h.Set("RateLimit-Remaining", strconv.FormatInt(l.Left, 10))
		h.Set("RateLimit-Reset", seconds)
	}
	if o.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="penstock"`)
	}
}
