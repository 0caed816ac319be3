package receiver

import (
	"net/http"
	"strconv"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// maxListed bounds the list of refused events in an answer; the count is whole.
const maxListed = 100

// answer writes the response and returns its status.
func (r *Receiver) answer(w http.ResponseWriter, q *request, refused *refusal) int {
	accepted, rejected, status := len(q.events), q.rejected, http.StatusAccepted
	switch {
	case refused != nil:
		accepted, rejected, status = 0, 0, refused.status // none was judged for good
	case accepted == 0 && q.rejected > 0:
		status = http.StatusBadRequest
	case q.durability == pipeline.Bucket:
		status = http.StatusOK
	}
	h := w.Header()
	h["Content-Type"] = contentTypeJSON
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		h.Set("Retry-After", strconv.Itoa(max(1, int(r.opts.RetryAfter.Seconds()))))
	}
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="penstock"`)
	}
	b := append(q.response, `{"accepted":`...)
	b = strconv.AppendInt(b, int64(accepted), 10)
	b = append(b, `,"rejected":`...)
	b = strconv.AppendInt(b, int64(rejected), 10)
	b = append(b, `,"request_id":"`...)
	b = append(b, q.id...)
	b = append(b, '"')
	if status == http.StatusOK && q.object != "" {
		b = append(b, `,"object":`...)
		b = jsonscan.AppendQuoted(b, []byte(q.object))
	}
	if refused != nil {
		b = append(b, `,"error":`...)
		b = appendError(b, -1, refused.code, refused.message)
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
	q.response = b
	w.WriteHeader(status)
	w.Write(b)
	return status
}

var contentTypeJSON = []string{"application/json"}

func appendError(b []byte, index int, code, message string) []byte {
	b = append(b, '{')
	if index >= 0 {
		b = append(b, `"index":`...)
		b = strconv.AppendInt(b, int64(index), 10)
		b = append(b, ',')
	}
	b = append(b, `"code":`...)
	b = jsonscan.AppendQuoted(b, []byte(code))
	b = append(b, `,"message":`...)
	b = appendText(b, message)
	return append(b, '}')
}

// report hands what was refused to the errors pipeline: each event for itself,
// and a request whose body was read but could not be judged.
func (r *Receiver) report(q *request, req *http.Request, refused *refusal) {
	if refused == nil && len(q.rejects) == 0 {
		return
	}
	f := pipeline.Failure{
		Time: pipeline.Millis(q.now), Stage: "receiver", Project: q.key.Project, RequestID: q.id,
		Method: req.Method, Path: req.URL.Path, ContentType: req.Header.Get("Content-Type"),
		ContentEncoding: req.Header.Get("Content-Encoding"), ClientIP: q.clientIP, UserAgent: req.UserAgent(), Index: -1,
	}
	if refused != nil {
		r.metrics.refused.WithLabelValues(refused.code).Inc()
		// 503 asks for the same bytes again; a body that was not read to its end
		// is the client's to keep, who was told.
		if refused.status == http.StatusServiceUnavailable || !q.whole || len(q.body) == 0 {
			return
		}
		f.Code, f.Message, f.Raw = refused.code, refused.message, q.body
		r.reporter.Report(f)
		return
	}
	for _, e := range q.rejects {
		r.metrics.rejected.WithLabelValues(e.code).Inc()
		f.Code, f.Message, f.Raw, f.Index = e.code, e.message, e.raw, e.index
		r.reporter.Report(f)
	}
}
