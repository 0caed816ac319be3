package loader

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/faultpoint"
)

// Limits for one object. Beyond them the table does not fit the data, and the object
// fails as a whole, to be redriven when the table is fixed.
const (
	maxRefused = 1000 // rows
	maxTrials  = 4096 // inserts into the validation table
)

// keepWait bounds how long an attempt waits until its refused rows are on disk.
const keepWait = 5 * time.Second

// refuse finds the rows of a chunk that the table refuses, reports them, and writes
// them into the ledger. From then on every attempt leaves the same rows out, so that
// any row of a chunk still means all of it. The rows are searched by halves in a
// validation table, not in the table itself.
func (a *attempt) refuse(ctx context.Context, c *chunk, cause error) error {
	trial, err := a.parts.Table.Try(ctx, a.spec.Name)
	if err != nil {
		if retry.ClassOf(cause) == retry.Unknown {
			cause = retry.As(retry.Outage, cause)
		}
		return fmt.Errorf("%w (which row it is cannot be found out: %w)", cause, err)
	}
	defer func() {
		if err := trial.Close(context.WithoutCancel(ctx)); err != nil {
			a.log.Warn("a validation table is left; it is dropped after an hour", "error", err)
		}
	}()
	s := search{attempt: a, trial: trial, cause: cause}
	for part, err := range a.again(c) {
		if err != nil {
			return err
		}
		if err := s.look(ctx, part); err != nil {
			return err
		}
	}
	if len(s.refused) == 0 {
		// A materialized view behind the table, or the server changed its mind.
		return fmt.Errorf("the table refuses rows %d to %d as a whole, but none of them alone: %w", c.first, c.end-1, cause)
	}
	return a.leaveOut(ctx, s.refused)
}

// search finds refused rows by halves.
type search struct {
	*attempt
	trial   Trial
	cause   error // why the table refuses the chunk
	trials  int
	refused []pipeline.Failure
}

// look searches a part of the chunk.
func (s *search) look(ctx context.Context, part []pipeline.Event) error {
	if retry.ClassOf(s.cause) == retry.Unknown && s.trials == 0 {
		// The error is unknown. If an event without properties is accepted, the data is the cause. If not, the table is, and
		// only waiting helps.
		plain := part[0]
		plain.Properties, plain.Context = []byte("{}"), []byte("{}")
		if err := s.trial.Insert(ctx, s.entry.Key, []pipeline.Event{plain}); err != nil {
			return retry.As(retry.Outage, s.cause)
		}
	}
	return s.try(ctx, part)
}

func (s *search) try(ctx context.Context, part []pipeline.Event) error {
	if s.trials++; s.trials > maxTrials {
		return fault("refused_rows", "more than %d trials did not find all rows that are refused: %w", maxTrials, s.cause)
	}
	err := s.trial.Insert(ctx, s.entry.Key, part)
	if err != nil && retry.ClassOf(err) != retry.Outage {
		return s.halve(ctx, part, err)
	}
	return err
}

func (s *search) halve(ctx context.Context, part []pipeline.Event, why error) error {
	if len(part) > 1 {
		if err := s.try(ctx, part[:len(part)/2]); err != nil {
			return err
		}
		return s.try(ctx, part[len(part)/2:])
	}
	f := s.refusal(part[0].Row, part[0].Project, ClientForm(&part[0]), why)
	f.ClientIP, f.UserAgent = client(&part[0])
	s.refused = append(s.refused, f)
	if len(s.entry.Refused)+len(s.refused) > maxRefused {
		return fault("refused_rows", "more than %d rows are refused: %w", maxRefused, why)
	}
	return nil
}

// client reads from the event's context who sent it.
func client(e *pipeline.Event) (ip, userAgent string) {
	var c struct {
		IP        string `json:"ip"`
		UserAgent string `json:"user_agent"`
	}
	json.Unmarshal(e.Context, &c) // whatever is missing is empty
	return c.IP, c.UserAgent
}

// refusal is a refused row as a failure record. Its id follows from the row, so that
// reporting it twice makes one row in errors.
func (a *attempt) refusal(row uint32, project, raw []byte, why error) pipeline.Failure {
	return pipeline.Failure{ID: pipeline.UUIDv5(nil, fmt.Appendf(nil, "refused/%s/%d", a.entry.Token(), row)),
		Time: time.Now().UTC(), Stage: "loader", Code: "refused_row", Message: why.Error(), Project: string(project),
		Raw: raw, Index: -1, Object: a.entry.Key, Row: int64(row), Attempt: int(a.entry.Attempts),
		ServerCode: retry.CodeOf(why), Class: retry.Permanent.String(), Loader: a.opts.Name}
}

// leaveOut reports rows, and writes their numbers into the ledger.
func (a *attempt) leaveOut(ctx context.Context, refused []pipeline.Failure) error {
	if a.parts.Report != nil {
		keep, cancel := context.WithTimeout(ctx, keepWait)
		defer cancel()
		// The rows are in the object whatever becomes of the report, and the ledger
		// says which: events must not wait for the errors pipeline.
		if err := a.parts.Report.Keep(keep, refused); err != nil {
			a.log.Error("refused rows could not be reported; they are in the object",
				"key", a.entry.Key, "rows", len(refused), "error", err)
		}
	}
	for _, f := range refused {
		a.log.Warn("row rejected", "key", a.entry.Key, "row", f.Row, "code", f.Code, "error", f.Message)
		a.entry.Refused = append(a.entry.Refused, uint32(f.Row))
	}
	slices.Sort(a.entry.Refused)
	a.metrics.refused.Add(float64(len(refused)))
	if err := a.parts.Ledger.SaveLoad(ctx, a.entry); err != nil {
		return err
	}
	faultpoint.Hit("loader.refused")
	return nil
}

// without deletes the refused rows, which are sorted, from events.
func without(events []pipeline.Event, refused []uint32) []pipeline.Event {
	if len(refused) == 0 {
		return events
	}
	return slices.DeleteFunc(events, func(e pipeline.Event) bool {
		_, found := slices.BinarySearch(refused, e.Row)
		return found
	})
}

// ClientForm is an event as a client would send it, so that `penstock errors redrive`
// can send it to the receiver once more.
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
