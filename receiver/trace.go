package receiver

import (
	"net/http"
	"slices"
	"time"

	"github.com/penstock/penstock/internal/tracing"
	"github.com/penstock/penstock/receiver/errcode"
)

// trace notes in a traced request what is known when it is answered.
func (q *request) trace(req *http.Request, refused *errcode.Error) *tracing.Request {
	t := q.traced
	t.Method, t.Protocol, t.Project, t.ID = req.Method, q.protocol(), q.key.Project, q.id
	t.Durability, t.Bytes = q.durability.String(), len(q.body)
	if !q.lost { // other paths are anything that strangers ask for
		t.Route = q.r.router.Keyless(req.URL.Path)
	}
	if !slices.Contains(q.route.Allowed(), req.Method) { // likewise
		t.Method = "_OTHER"
	}
	if refused != nil {
		t.Code = refused.Code.String()
		return t
	}
	t.Accepted, t.Rejected = q.accepted, q.rejected
	if len(q.rejects) > 0 {
		t.Code = q.rejects[0].Code.String()
	}
	return t
}

// trace sends the spans of a request that was answered.
func (r *Receiver) trace(t *tracing.Request, status int) {
	t.Status, t.Ended = status, time.Now()
	r.opts.Tracer.Request(t)
}
