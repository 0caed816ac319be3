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

// Limits for one object. Beyond them, the table does not fit the data. The object fails as a whole; redrive it when the
// table is fixed.
const (
	maxRefused = 1000 // rows
	maxTrials  = 4096 // inserts into the validation table
)

// keepWait is how long an attempt waits until its rejected rows are on disk.
const keepWait = 5 * time.Second

// refuse finds the rows of a chunk that the table rejects, reports them, and writes them into the ledger. From then on
// every attempt omits the same rows, so any row of a chunk still proves all of it. Rows are found by bisection in a
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
		// Either a materialized view behind the table fails, or the server's answer has changed.
		return fmt.Errorf("the table refuses rows %d to %d as a whole, but none of them alone: %w", c.first, c.end-1, cause)
	}
	return a.leaveOut(ctx, s.refused)
}

// search finds rejected rows by bisection.
type search struct {
	*attempt
	trial   Trial
	cause   error // why the table rejects the chunk
	trials  int
	refused []pipeline.Failure
}

// look searches a part of the chunk.
func (s *search) look(ctx context.Context, part []pipeline.Event) error {
	if retry.ClassOf(s.cause) == retry.Unknown && s.trials == 0 {
		// The error's code is unknown. If the table accepts an event without properties, the data is at fault. Otherwise the
		// table is, and only waiting helps.
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

// client returns the sender's address and user agent from the event's context.
func client(e *pipeline.Event) (ip, userAgent string) {
	var c struct {
		IP        string `json:"ip"`
		UserAgent string `json:"user_agent"`
	}
	json.Unmarshal(e.Context, &c) // missing fields stay empty
	return c.IP, c.UserAgent
}

// refusal turns a rejected row into a failure record. Its id is derived from the row, so reporting it twice makes one
// row in errors.
func (a *attempt) refusal(row uint32, project, raw []byte, why error) pipeline.Failure {
	return pipeline.Failure{ID: pipeline.UUIDv5(nil, fmt.Appendf(nil, "refused/%s/%d", a.entry.Token(), row)),
		Time: time.Now().UTC(), Stage: "loader", Code: "refused_row", Message: why.Error(), Project: string(project),
		Raw: raw, Index: -1, Object: a.entry.Key, Row: int64(row), Attempt: int(a.entry.Attempts),
		ServerCode: retry.CodeOf(why), Class: retry.Permanent.String(), Loader: a.opts.Name}
}

// leaveOut reports rows and writes their numbers into the ledger.
func (a *attempt) leaveOut(ctx context.Context, refused []pipeline.Failure) error {
	if a.parts.Report != nil {
		keep, cancel := context.WithTimeout(ctx, keepWait)
		defer cancel()
		// The object keeps the rows even if the report fails, and the ledger has their numbers. Events must not wait for the
		// errors pipeline.
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

// without removes the rejected rows, which are sorted, from events.
func without(events []pipeline.Event, refused []uint32) []pipeline.Event {
	if len(refused) == 0 {
		return events
	}
	return slices.DeleteFunc(events, func(e pipeline.Event) bool {
		_, found := slices.BinarySearch(refused, e.Row)
		return found
	})
}

// ClientForm returns an event in the form that clients send, so that `penstock errors redrive` can send it to the
// receiver.
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
