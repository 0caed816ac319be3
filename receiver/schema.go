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

// Schemas judge events' properties. Find gives what judges those of a name, nil
// where nothing does.
type Schemas interface {
	Find(name []byte) func(properties []byte) error
}

// takenClass is that of a failure whose event was taken all the same.
const takenClass = "taken"

// conform compares an event's properties, as they were sent, with their schema. A receiver that reports only notes
// what is wrong for the failure record.
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

// violation is an event that was taken and does not fit its schema.
type violation struct {
	protocol.Reject
	event int // of q.events
}

// note keeps what an event that was taken is to be reported for. Without bytes
// of its own, it is all of the body.
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

// reportTaken reports the events that were taken and do not fit; of is what is known
// of their request. What a project drops or hashes is nowhere then: such an event is
// reported as its row has it, and its request is not.
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

// appendEvent writes an event as a native one. In the place of what left its row is null.
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
