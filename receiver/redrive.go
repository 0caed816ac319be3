package receiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/protocol"
	"github.com/penstock/penstock/receiver/tenant"
)

// Redrive is a failure record that is sent again.
type Redrive struct {
	ID                           pipeline.UUID // of the failure
	Time                         int64         // of the failure, ms
	Project                      string
	Path                         string // that the client sent to; empty: Penstock's own
	Event                        bool   // Body is one event, not the whole request's body
	ContentType, ContentEncoding string // those of Body
	ClientIP, UserAgent          string
	Headers                      []pipeline.Header // that the failure kept
	Body                         []byte
	Durability                   pipeline.Durability
}

// Redriven is the outcome of a redrive.
type Redriven struct {
	Accepted, Rejected int
	Sampled            int // left out by the project's sample
	RequestID, Object  string
	Code, Message      string // why all, or the first rejected event, was rejected; empty: none
}

// Redrive sends a failure record's bytes the way of a client's request.
//
// If all of it is rejected again, the record stays as it is. If a part is, that part becomes a new failure. An error
// means that events cannot be accepted now.
//
// A repeated redrive gives the same rows. An event without an id gets one made of the failure and its position there;
// without a time as well, it gets the failure's time. An event with an id and without a time keeps that, so that the
// client's own retry is the same row. The project's settings apply, its limits do not.
func (r *Receiver) Redrive(ctx context.Context, d Redrive) (Redriven, error) {
	if d.ID == (pipeline.UUID{}) || d.Project == "" {
		return Redriven{}, errors.New("redrive: the failure has no id or no project")
	}
	// It becomes a request, so that the receiver needs no second way.
	req := (&http.Request{
		URL: &url.URL{Path: redriveName(d.ID)}, Header: http.Header{},
		Body: io.NopCloser(bytes.NewReader(d.Body)), ContentLength: int64(len(d.Body)),
	}).WithContext(ctx)
	for name, value := range map[string]string{"Content-Type": d.ContentType, "Content-Encoding": d.ContentEncoding,
		"User-Agent": d.UserAgent} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	for _, h := range d.Headers {
		if r.router.IsEventHeader(h.Name) {
			req.Header.Set(h.Name, h.Value)
		}
	}
	began := time.Now()
	q := r.begin(began)
	defer r.end(q)
	q.redrive, q.in.Redrive = &d, protocol.RedriveBody
	if d.Event {
		q.in.Redrive = protocol.RedriveEvent
	}
	if route := r.router.Find(d.Path, req.Header); route != nil && route.Protocol != nil {
		q.route = route
	}
	q.key, q.tenant = tenant.Key{Project: d.Project}, r.tenants.Project(d.Project)
	q.lease.Known()
	q.project = append(q.project[:0], d.Project...)
	q.durability, q.clientIP = d.Durability, d.ClientIP
	q.maxBody = max(q.maxBody, int64(len(d.Body))) // an event's bytes may have come compressed
	refusal := q.head(req)
	if refusal == nil {
		refusal = r.take(q, req)
	} else {
		r.keep(q, req)
	}
	o := q.result(refusal)
	out := Redriven{RequestID: q.id, Object: q.object, Accepted: o.Accepted, Rejected: o.Rejected, Sampled: o.Sampled}
	r.metrics.observe(o.Status, q, time.Since(began))
	if out.Accepted+out.Sampled > 0 {
		r.report(q, req, refusal)
	} else if r.tap.Watched() {
		q.showRejected(refusal)
	}
	if o.Status == http.StatusServiceUnavailable {
		return out, fmt.Errorf("redrive %s: %s: %s", d.ID, refusal.Code, refusal.Message)
	}
	if refusal != nil {
		out.Code, out.Message = refusal.Code.String(), refusal.Message
	} else if len(q.rejects) > 0 {
		out.Code, out.Message = q.rejects[0].Code.String(), q.rejects[0].Message
	}
	return out, nil
}

func redriveName(id pipeline.UUID) string { return "redrive/" + id.String() }

// redriven is the id of the event that is being read, which came without one.
func (q *request) redriven() pipeline.UUID {
	return pipeline.UUIDv5(q.project, fmt.Appendf(nil, "%s/%d", redriveName(q.redrive.ID), q.index))
}
