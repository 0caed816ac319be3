package receiver

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
	"github.com/penstock/penstock/receiver/tap"
)

// result is the outcome of the request.
func (q *request) result(refused *errcode.Error) *protocol.Outcome {
	q.outcome = protocol.Outcome{RequestID: q.id, Refused: refused, Limit: q.notNow, Found: q.index, Object: q.object,
		Received: q.now, Body: q.body}
	o := &q.outcome
	if refused != nil { // the events' results do not count
		o.Status = refused.Status()
		return o
	}
	o.Accepted, o.Rejected, o.Sampled, o.Rejects = q.accepted, q.rejected, q.sampled, q.rejects
	switch {
	case q.accepted == 0 && q.sampled == 0 && q.rejected > 0:
		o.Status = http.StatusBadRequest
	case q.durability == pipeline.Bucket:
		o.Status = http.StatusOK
	default:
		o.Status = http.StatusAccepted
	}
	return o
}

func (r *Receiver) answer(h http.Header, q *request, refused *errcode.Error) (status int, body []byte) {
	o := q.result(refused)
	o.SetHeader(h, r.opts.RetryAfter)
	if q.route.Query { // an image, of any page's
		h.Set("Cache-Control", "no-store")
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	}
	reply := q.route.Protocol.Reply(o, q.response)
	setContentType(h, reply.ContentType)
	q.response = reply.Body
	return reply.Status, reply.Body
}

func setContentType(h http.Header, kind string) {
	h["Content-Type"] = contentTypeJSON
	if kind != "" {
		h.Set("Content-Type", kind)
	}
}

var contentTypeJSON = []string{"application/json"}

// reported reports whether there is anything to report.
func (q *request) reported(refused *errcode.Error) bool {
	return refused != nil || len(q.rejects)+len(q.violations) > 0
}

// report sends rejected events, each alone, to the errors pipeline. A request that is rejected as a whole is sent with
// its body, unchanged.
func (r *Receiver) report(q *request, req *http.Request, refused *errcode.Error) {
	if !q.reported(refused) {
		return
	}
	f := q.failure(req)
	if r.tap.Watched() {
		q.showRejected(refused)
	}
	if refused != nil {
		q.countCode(r.metrics.refused, refused.Code.String(), 1)
		if !refused.Code.Kept() || q.silent {
			return
		}
		q.lease.Turn(context.Background(), 0)
		f.Code, f.Message, f.ContentEncoding = refused.Code.String(), refused.Message,
			clip(req.Header.Get("Content-Encoding"))
		switch {
		case q.missing != "":
			f.Message += "; its bytes are not kept: " + q.missing
		case !q.whole:
			f.Message += "; its bytes are not kept, for they were not read to the end"
		case len(q.sent) > 0:
			f.Raw = q.sent
		default:
			f.Raw = q.body
		}
		r.reporter.Report(f)
		return
	}
	q.lease.Turn(context.Background(), 0)
	q.reportRejects(f)
	q.reportTaken(f)
}

// showRejected shows rejected events to watchers.
func (q *request) showRejected(refused *errcode.Error) {
	e := tap.Event{Time: time.UnixMilli(q.now).UTC(), Project: q.key.Project, RequestID: q.id, Redriven: q.redrive != nil}
	if refused != nil {
		e.Code, e.Message, e.Whole = refused.Code.String(), refused.Message, true
		q.r.tap.Reject(e, q.body)
		return
	}
	for _, r := range q.rejects {
		e.Code, e.Message = r.Code.String(), r.Message
		q.r.tap.Reject(e, r.Raw)
	}
}

// failure is a failure record with all that the request's head brings to it.
func (q *request) failure(req *http.Request) pipeline.Failure {
	return pipeline.Failure{
		Time: pipeline.Millis(q.now), Stage: "receiver", Project: q.key.Project, RequestID: q.id,
		Method: clip(req.Method), Path: clip(q.r.router.Keyless(req.URL.Path)),
		ContentType: clip(req.Header.Get("Content-Type")),
		ClientIP:    q.clientIP, UserAgent: clip(req.UserAgent()), Headers: q.r.headers(req), Index: -1,
	}
}

// recordSize is the size of a request's failure record without its raw payload, in bytes.
func (q *request) recordSize(req *http.Request) int64 {
	f := q.failure(req)
	n := anonymousRecord/2 + len(f.Method) + len(f.Path) + len(f.ContentType) + len(f.UserAgent)
	for _, h := range f.Headers {
		n += len(h.Name) + len(h.Value)
	}
	return int64(max(anonymousRecord, n))
}

func clip(s string) string { return s[:min(len(s), protocol.MaxHeader)] }

// chosen are further headers that a failure record keeps, because they help to find the client. None carries a key.
var chosen = []string{"Origin", "Referer", "Accept-Language", forwardedFor, forwarded, "X-Request-Id", "Traceparent"}

func (r *Receiver) headers(req *http.Request) []pipeline.Header {
	var all []pipeline.Header
	add := func(name, value string) {
		if value != "" {
			all = append(all, pipeline.Header{Name: name, Value: clip(value)})
		}
	}
	add("Host", req.Host)
	if req.ContentLength >= 0 {
		add("Content-Length", strconv.FormatInt(req.ContentLength, 10))
	}
	for _, name := range chosen {
		value := strings.Join(req.Header.Values(name), ", ")
		if name == "Referer" {
			value, _, _ = strings.Cut(value, "?") // the key may stand in a page's query
		}
		add(name, value)
	}
	for _, name := range r.router.EventHeaders(req.Header) { // they are a part of the event
		all = append(all, pipeline.Header{Name: name, Value: strings.Join(req.Header[name], ",")})
	}
	return all
}
