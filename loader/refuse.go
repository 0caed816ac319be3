package loader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/codec/foreign"
	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/faultpoint"
)

// Of one object: more refused rows than that are no bad rows among good ones,
// but a table that does not fit the data. Its object is given up as a whole,
// to be redriven when the table is mended.
const (
	maxRefused = 1000
	maxTrials  = 4096 // inserts into trials
)

// keepWait bounds how long a load waits until its refused rows are on disk.
const keepWait = 5 * time.Second

// refuse finds the rows of a chunk that the table refuses, by halves, reports
// them, and writes them into the ledger: from then on every attempt leaves
// the same rows out, so that any row of a chunk still means all of it. The
// halves are inserted into a trial that keeps nothing, not into the table.
func (l *Loader) refuse(ctx context.Context, entry *pipeline.Load, c *chunk, events iter.Seq2[[]pipeline.Event, error], cause error) error {
	trial, err := l.table.Try(ctx, l.spec.Name)
	if err != nil {
		if retry.ClassOf(cause) == retry.Unknown {
			cause = retry.As(retry.Outage, cause)
		}
		return fmt.Errorf("%w (which row it is cannot be found out: %w)", cause, err)
	}
	defer func() {
		if err := trial.Close(context.WithoutCancel(ctx)); err != nil {
			l.log.Warn("a trial table is left; it is dropped after an hour", "error", err)
		}
	}()
	var refused []pipeline.Failure
	trials := 0
	var halve func(part []pipeline.Event, why error) error
	try := func(part []pipeline.Event) error {
		if trials++; trials > maxTrials {
			return fault("refused_rows", "more than %d trials did not find all rows that are refused: %w", maxTrials, cause)
		}
		err := trial.Insert(ctx, entry.Key, part)
		if err != nil && retry.ClassOf(err) != retry.Outage {
			return halve(part, err)
		}
		return err
	}
	halve = func(part []pipeline.Event, why error) error {
		if len(part) == 1 {
			f := l.refusal(entry, part[0].Row, part[0].Project, ClientForm(&part[0]), why)
			f.ClientIP, f.UserAgent = client(&part[0])
			refused = append(refused, f)
			if len(entry.Refused)+len(refused) > maxRefused {
				return fault("refused_rows", "more than %d rows are refused: %w", maxRefused, why)
			}
			return nil
		}
		if err := try(part[:len(part)/2]); err != nil {
			return err
		}
		return try(part[len(part)/2:])
	}
	for part, err := range events {
		if err != nil {
			return err
		}
		if retry.ClassOf(cause) == retry.Unknown && trials == 0 {
			// Nobody knows this error. If an event without properties goes in, it is the
			// data's; if not, the table's, and then waiting is all that helps.
			plain := part[0]
			plain.Properties, plain.Context = []byte("{}"), []byte("{}")
			if err := trial.Insert(ctx, entry.Key, []pipeline.Event{plain}); err != nil {
				return retry.As(retry.Outage, cause)
			}
		}
		if err := try(part); err != nil {
			return err
		}
	}
	if len(refused) == 0 {
		// A materialized view behind the table, or the server changed its mind.
		return fmt.Errorf("the table refuses rows %d to %d as a whole, but none of them alone: %w", c.first, c.end-1, cause)
	}
	return l.leaveOut(ctx, entry, refused)
}

// maxWaiting bounds the rejected rows that wait for the first event, in bytes.
const maxWaiting = 16 << 20

// rejections are the rows of a foreign file that are no events. They are kept
// back until an event shows that the file is what it was taken for: binary data
// read as text would be a thousand failures.
type rejections struct {
	l      *Loader
	entry  *pipeline.Load
	any    bool // an event of the file was found
	waits  []pipeline.Failure
	failed string // why the first row is none
	rows   int64  // rejected by now
	bytes  int    // in waits
}

// take takes what the last Decode left out, beside so many events.
func (r *rejections) take(ctx context.Context, dec codec.Decoder, events int) error {
	from, ok := dec.(*foreign.Decoder)
	if !ok {
		return nil
	}
	if n := from.Repaired(); n > 0 {
		r.l.metrics.repaired.WithLabelValues("lone_surrogate").Add(float64(n))
	}
	for _, row := range from.Rejected() {
		if r.rows++; r.rows == 1 {
			r.failed = row.Message
		}
		if !slices.Contains(r.entry.Refused, row.Row) {
			f := r.l.refusal(r.entry, row.Row, nil, row.Raw, errors.New(row.Message))
			f.Code = row.Code
			r.waits = append(r.waits, f)
			r.bytes += len(row.Raw)
		}
	}
	r.any = r.any || events > 0
	if len(r.entry.Refused)+len(r.waits) > maxRefused {
		if !r.any {
			return r.end()
		}
		return fault("refused_rows", "more than %d of its rows are no events; the first: %s", maxRefused, r.failed)
	}
	if !r.any && r.bytes < maxWaiting || len(r.waits) == 0 {
		return nil
	}
	waits := r.waits
	r.waits, r.bytes = nil, 0
	return r.l.leaveOut(ctx, r.entry, waits)
}

// end judges a file of which nothing is left.
func (r *rejections) end() error {
	if r.any || r.rows == 0 {
		return nil
	}
	return faultFinal("no_valid_rows", "none of its %d rows is an event; the first: %s", r.rows, r.failed)
}

// client is what the event's context says of who sent it.
func client(e *pipeline.Event) (ip, userAgent string) {
	var c struct {
		IP        string `json:"ip"`
		UserAgent string `json:"user_agent"`
	}
	json.Unmarshal(e.Context, &c) // whatever is missing is empty
	return c.IP, c.UserAgent
}

// refusal is a refused row as a failure. Its id is that of the row, so that
// reporting it twice is one row of errors.
func (l *Loader) refusal(entry *pipeline.Load, row uint32, project, raw []byte, why error) pipeline.Failure {
	return pipeline.Failure{ID: pipeline.UUIDv5(nil, fmt.Appendf(nil, "refused/%s/%d", entry.Token(), row)), Time: time.Now().UTC(),
		Stage: "loader", Code: "refused_row", Message: why.Error(), Project: string(project), Raw: raw, Index: -1,
		Object: entry.Key, Row: int64(row), Attempt: int(entry.Attempts), ServerCode: retry.CodeOf(why), Class: retry.Permanent.String(), Loader: l.opts.Name}
}

// leaveOut reports rows and lets the ledger remember them.
func (l *Loader) leaveOut(ctx context.Context, entry *pipeline.Load, refused []pipeline.Failure) error {
	if l.report != nil {
		keep, cancel := context.WithTimeout(ctx, keepWait)
		defer cancel()
		// The rows are in the object whatever becomes of the report, and the ledger
		// says which: events must not wait for the errors pipeline.
		if err := l.report.Keep(keep, refused); err != nil {
			l.log.Error("refused rows could not be reported; they are in the object", "key", entry.Key, "rows", len(refused), "error", err)
		}
	}
	for _, f := range refused {
		l.log.Warn("row refused", "key", entry.Key, "row", f.Row, "code", f.Code, "error", f.Message)
		entry.Refused = append(entry.Refused, uint32(f.Row))
	}
	slices.Sort(entry.Refused)
	l.metrics.refused.Add(float64(len(refused)))
	if err := l.ledger.SaveLoad(ctx, *entry); err != nil {
		return err
	}
	faultpoint.Hit("loader.refused")
	return nil
}

// without takes the refused rows, which are sorted, out of events.
func without(events []pipeline.Event, refused []uint32) []pipeline.Event {
	if len(refused) == 0 {
		return events
	}
	return slices.DeleteFunc(events, func(e pipeline.Event) bool {
		_, found := slices.BinarySearch(refused, e.Row)
		return found
	})
}

// ClientForm is an event as a client would send it, for `penstock errors
// redrive`: it goes through the receiver once more.
func ClientForm(e *pipeline.Event) []byte {
	b := append([]byte(nil), `{"event_id":"`...)
	b = e.ID.Append(b)
	b = append(b, `","name":`...)
	b = jsonscan.AppendQuoted(b, e.Name)
	if e.Timestamp != pipeline.NoTime {
		b = append(b, `,"timestamp":`...)
		b = strconv.AppendInt(b, e.Timestamp, 10)
	}
	if len(e.SessionID) > 0 {
		b = append(b, `,"session_id":`...)
		b = jsonscan.AppendQuoted(b, e.SessionID)
	}
	if len(e.UserID) > 0 {
		b = append(b, `,"user_id":`...)
		b = jsonscan.AppendQuoted(b, e.UserID)
	}
	b = append(b, `,"properties":`...)
	b = append(b, e.Properties...)
	return append(b, '}')
}
