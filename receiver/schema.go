package receiver

import (
	"cmp"
	"strconv"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/document"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
	"github.com/penstock/penstock/receiver/protocol/native"
)

// Schemas check events' properties. Find returns the schema of a name; nil: none.
type Schemas interface {
	Find(name []byte) func(properties []byte) error
}

// takenClass is the class of a failure whose event was accepted.
const takenClass = "taken"

// conform checks an event's properties, as sent, by their schema. In mode "report" it only notes the violation for the
// failure record.
func (q *request) conform(e *pipeline.Event) (err error) {
	if q.r.opts.Schemas == nil {
		return nil
	}
	check := q.r.opts.Schemas.Find(e.Name)
	if check == nil {
		return nil
	}
	if q.redacts() || q.rows.Cut() {
		err = q.rows.AsSent(true, check)
	} else {
		err = check(e.Properties)
	}
	if err == nil {
		return nil
	}
	q.r.metrics.violations.WithLabelValues(string(e.Name)).Inc()
	if q.r.opts.EnforceSchemas {
		return errcode.SchemaViolation.Errorf("the properties of %q do not fit their schema: %s", e.Name, err)
	}
	what := err.Error()
	if q.redacts() {
		what = "where is not told, for the project drops or hashes values"
		if v, ok := err.(interface {
			Plain(func([]string) []string) string
		}); ok {
			what = v.Plain(q.tenant.Edits.Known)
		}
	}
	q.violation = errcode.SchemaViolation.Errorf("the properties of %q do not fit their schema: %s; the event was taken",
		e.Name, what)
	return nil
}

// redacts reports whether the project drops or hashes values.
func (q *request) redacts() bool { return q.tenant != nil && q.tenant.Edits != nil }

// violation is an accepted event that does not fit its schema.
type violation struct {
	protocol.Reject
	event int // of q.events
}

// note notes an accepted event for a report. If it has no separate bytes, it is the whole body.
func (q *request) note(raw []byte, kind string) {
	if q.violation == nil {
		return
	}
	code, message := errcode.Of(q.violation)
	q.violations = append(q.violations,
		violation{protocol.Reject{Index: q.index, Code: code, Message: message, Raw: raw, ContentType: kind},
			len(q.events) - 1})
	q.violation = nil
}

// reportTaken reports accepted events that do not fit their schema. of describes their request. Dropped or hashed
// values must not appear, so the report has the event as stored, and nothing of the request.
func (q *request) reportTaken(of pipeline.Failure) {
	of.Class = takenClass
	var counts alike
	left := q.rawLimit()
	for _, v := range q.violations {
		if !counts.add(v.Code, len(counts) == 0 || int64(len(v.Raw)) <= left) {
			continue
		}
		left -= int64(len(v.Raw))
		f := of
		f.Code, f.Message, f.Index, f.Raw = v.Code.String(), v.Message, v.Index, v.Raw
		f.ContentType = cmp.Or(v.ContentType, of.ContentType)
		switch {
		case q.redacts():
			f.Path, f.ContentType, f.ClientIP, f.UserAgent, f.Headers = native.Path, "application/json", "", "", nil
			f.Raw = appendEvent(nil, &q.events[v.event])
		case v.Raw == nil:
			f.Raw, f.Index = q.body, -1
		}
		q.r.reporter.Report(f)
	}
	q.reportTakenRest(of, counts)
}

// appendEvent writes an event in the native form. Blobs become null.
func appendEvent(b []byte, e *pipeline.Event) []byte {
	b = jsonscan.AppendQuoted(append(b, `{"name":`...), e.Name)
	b = append(e.ID.Append(append(b, `,"event_id":"`...)), '"')
	if e.Timestamp != pipeline.NoTime {
		b = strconv.AppendInt(append(b, `,"timestamp":`...), e.Timestamp, 10)
	}
	for _, m := range []struct {
		key   string
		value []byte
	}{{document.SessionPath, e.SessionID}, {document.UserPath, e.UserID}} {
		if len(m.value) > 0 {
			b = jsonscan.AppendQuoted(append(append(append(b, `,"`...), m.key...), `":`...), m.value)
		}
	}
	return append(append(append(b, `,"properties":`...), e.Properties...), '}')
}
