package receiver

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/tenant"
)

// maxListed bounds the list of refused events in an answer; the count is whole.
const maxListed = 100

// outcome is what became of a request's events, as its answer says it.
func (q *request) outcome(refused *errcode.Error) (accepted, rejected, status int) {
	switch {
	case refused != nil:
		return 0, 0, refused.Status() // none was judged for good
	case q.accepted == 0 && q.sampled == 0 && q.rejected > 0:
		return 0, q.rejected, http.StatusBadRequest
	case q.durability == pipeline.Bucket:
		return q.accepted, q.rejected, http.StatusOK
	}
	return q.accepted, q.rejected, http.StatusAccepted
}

// answer makes the response.
func (r *Receiver) answer(h http.Header, q *request, refused *errcode.Error) (status int, body []byte) {
	accepted, rejected, status := q.outcome(refused)
	h["Content-Type"] = contentTypeJSON
	if retryable(refused) {
		h.Set("Retry-After", strconv.Itoa(max(1, int(r.opts.RetryAfter.Seconds()))))
	}
	if q.notNow != nil {
		limitHeader(h, q.notNow)
	}
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="penstock"`)
	}
	b := append(q.response, `{"accepted":`...)
	b = strconv.AppendInt(b, int64(accepted), 10)
	b = append(b, `,"rejected":`...)
	b = strconv.AppendInt(b, int64(rejected), 10)
	if refused == nil && q.sampled > 0 {
		b = append(b, `,"sampled":`...)
		b = strconv.AppendInt(b, int64(q.sampled), 10)
	}
	b = append(b, `,"request_id":"`...)
	b = append(b, q.id...)
	b = append(b, '"')
	if status == http.StatusOK && q.object != "" {
		b = append(b, `,"object":`...)
		b = jsonscan.AppendQuoted(b, []byte(q.object))
	}
	if refused != nil {
		b = append(b, `,"error":`...)
		b = appendError(b, -1, refused.Code, refused.Message)
		if q.notNow != nil {
			b = appendLimit(b, q.notNow)
		}
	} else if len(q.rejects) > 0 {
		b = append(b, `,"errors":[`...)
		for i, e := range q.rejects[:min(len(q.rejects), maxListed)] {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendError(b, e.index, e.code, e.message)
		}
		b = append(b, ']')
		if more := q.rejected - maxListed; more > 0 {
			b = append(b, `,"errors_omitted":`...)
			b = strconv.AppendInt(b, int64(more), 10)
		}
	}
	b = append(b, "}\n"...)
	if q.dialect.answer != nil {
		status, b = q.dialect.answer(q, refused, status, b)
	}
	if q.dialect.contentType != "" {
		h.Set("Content-Type", q.dialect.contentType)
	}
	if q.dialect.query { // an image, of any page's
		h.Set("Cache-Control", "no-store")
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	}
	q.response = b
	return status, b
}

// untold is an answer without what it says of refusals, and without its last
// brace, for a dialect that says it otherwise. No text within the answer can
// look like this: its quotes are escaped.
func untold(b []byte) []byte {
	if at := bytes.Index(b, []byte(`,"error`)); at >= 0 {
		return b[:at]
	}
	return b[:len(b)-len("}\n")]
}

var contentTypeJSON = []string{"application/json"}

func appendError(b []byte, index int, code errcode.Code, message string) []byte {
	b = append(b, '{')
	if index >= 0 {
		b = append(b, `"index":`...)
		b = strconv.AppendInt(b, int64(index), 10)
		b = append(b, ',')
	}
	b = append(b, `"code":`...)
	b = jsonscan.AppendQuoted(b, []byte(code.String()))
	b = append(b, `,"message":`...)
	b = appendText(b, message)
	return append(b, '}')
}

// appendLimit writes what an answer says of the limit that rejects its request.
func appendLimit(b []byte, l *tenant.Limit) []byte {
	per := "second"
	if l.PerDay {
		per = "day"
	}
	b = fmt.Appendf(b, `,"limit":{"of":%q,"per":%q,"limit":%d`, l.Of, per, l.Limit)
	if !l.PerDay {
		b = fmt.Appendf(b, `,"burst":%d`, l.Burst)
	}
	at := time.Now().Add(time.Duration(l.Seconds()) * time.Second).UTC()
	return fmt.Appendf(b, `,"left":%d,"retry_after":%d,"retry_at":%q}`, l.Left, l.Seconds(), at.Format(pipeline.TimeFormat))
}

// limitHeader tells the same to clients that look at headers only.
func limitHeader(h http.Header, l *tenant.Limit) {
	seconds := strconv.FormatInt(l.Seconds(), 10)
	h.Set("Retry-After", seconds)
	h.Set("RateLimit-Limit", strconv.FormatInt(l.Limit, 10))
	h.Set("RateLimit-Remaining", strconv.FormatInt(l.Left, 10))
	h.Set("RateLimit-Reset", seconds)
}

// retryable reports whether the client hears when to come again: Retry-After.
func retryable(refused *errcode.Error) bool {
	return refused != nil && refused.Code.Retryable() && !refused.Code.Kept()
}

// reported tells whether there is anything to report.
func (q *request) reported(refused *errcode.Error) bool {
	return refused != nil || len(q.rejects)+len(q.violations) > 0
}

// report hands what was refused to the errors pipeline: each event for itself,
// and a request as a whole with its body as it was sent.
func (r *Receiver) report(q *request, req *http.Request, refused *errcode.Error) {
	if !q.reported(refused) {
		return
	}
	f := pipeline.Failure{
		Time: pipeline.Millis(q.now), Stage: "receiver", Project: q.key.Project, RequestID: q.id,
		Method: req.Method, Path: clip(keyless(req.URL.Path)), ContentType: clip(req.Header.Get("Content-Type")),
		ClientIP: q.clientIP, UserAgent: clip(req.UserAgent()), Headers: headers(req), Index: -1,
	}
	if refused != nil {
		r.metrics.refused.WithLabelValues(refused.Code.String()).Inc()
		if !refused.Code.Kept() || q.silent {
			return
		}
		r.enter(context.Background(), q)
		f.Code, f.Message, f.ContentEncoding = refused.Code.String(), refused.Message, clip(req.Header.Get("Content-Encoding"))
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
	r.enter(context.Background(), q)
	q.reportRejects(f)
	q.reportTaken(f)
}

// maxHeader bounds, in bytes, what a failure keeps of one header.
const maxHeader = 1 << 10

func clip(s string) string { return s[:min(len(s), maxHeader)] }

// chosen are the headers that a failure keeps besides those that it has fields
// for: what helps to find who sent it. None of them carries a key.
var chosen = []string{"Origin", "Referer", "Accept-Language", forwardedFor, forwarded, "X-Request-Id", "Traceparent",
	"Helicone-Request-Id", "Helicone-User-Id", "Helicone-Session-Id"} // these name an event's id, user and session

func headers(req *http.Request) []pipeline.Header {
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
	for _, name := range cloudHeaders(req.Header) { // they are a part of the event
		all = append(all, pipeline.Header{Name: name, Value: strings.Join(req.Header[name], ",")})
	}
	return all
}
