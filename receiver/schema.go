package receiver

import "github.com/penstock/penstock/internal/pipeline"

// Schemas judge events' properties. Find gives what judges those of a name, nil
// where nothing does.
type Schemas interface {
	Find(name []byte) func(properties []byte) error
}

// schemaViolation is the code of events that their schema does not take.
const schemaViolation = "schema_violation"

// takenClass is that of a failure whose event was taken all the same.
const takenClass = "taken"

// conform holds an event's properties against their schema, as they were sent:
// where something was taken or cut out of them, they are made once more. blobs is how
// many there were before this event. In a receiver that reports only, what is
// wrong is noted for the failure.
func (q *request) conform(e *pipeline.Event, blobs int, again func() (pipeline.Event, error)) error {
	check := q.r.opts.Schemas.Find(e.Name)
	if check == nil {
		return nil
	}
	properties := e.Properties
	if len(q.blobs) > blobs || q.tenant != nil && q.tenant.redaction != nil {
		scratch, cut, threshold := q.scratch, q.blobs, q.threshold
		q.blobs, q.threshold = nil, 0
		whole, err := again()
		q.scratch, q.blobs, q.threshold = scratch, cut, threshold
		if err != nil {
			return err
		}
		properties = whole.Properties
	}
	err := check(properties)
	if err == nil {
		return nil
	}
	q.r.metrics.violations.WithLabelValues(string(e.Name)).Inc()
	if q.r.opts.EnforceSchemas {
		return wrong(schemaViolation, "the properties of %q do not fit their schema: %s", e.Name, err)
	}
	q.violation = wrong(schemaViolation, "the properties of %q do not fit their schema: %s; the event was taken", e.Name, err)
	return nil
}

// note keeps what an event that was taken is to be reported for. Without bytes
// of its own, it is all of the body.
func (q *request) note(raw []byte, kind string) {
	if q.violation == nil {
		return
	}
	code, message := explain(q.violation)
	q.violations = append(q.violations, reject{q.index, code, message, raw, kind})
	q.violation = nil
}
