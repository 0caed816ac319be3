package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// Notebook is a claim that carries a note from one holder to the next.
type Notebook interface {
	Note() string
	SetNote(note string)
	Renew(ctx context.Context) (held bool, err error)
	Expire(ctx context.Context) error // releases the claim and keeps the note
}

// FullSweepOptions configure a full sweep.
type FullSweepOptions struct {
	Bucket  Lister
	Ledger  Ledger
	Claim   func(context.Context) (Notebook, bool, error)
	Enqueue Enqueue // ErrEnqueueLater pauses the pass

	Every time.Duration // from the end of one pass to the start of the next
	Retry time.Duration // after an interrupted pass, or while another process makes one
	Rate  int           // most list requests a second; each lists 1000 keys
	Span  time.Duration // left out, because the periodic sweep covers it
	Grace time.Duration // objects younger than this may still be on their way
	TTL   time.Duration // of the claim without renewal
}

// FullSweep finds objects that the periodic sweep never lists, because their keys name a day outside its span: imports
// into folders of earlier days, batches that stayed in a write-ahead log for longer than the span, objects of days
// without a running loader.
//
// A pass lists the pipeline's whole prefix. It compares with the ledger the objects that were stored since the last
// clean pass, by the store's LastModified. It makes no request for a single object. Only one process at a time makes a
// pass, under a claim. The claim's note has the progress, so a pass continues where another process stopped.
type FullSweep struct {
	spec pipeline.Spec
	opts FullSweepOptions
	log  *slog.Logger

	listed, found prometheus.Counter
	finished      prometheus.Gauge
}

// NewFullSweep returns the full sweep of one pipeline.
func NewFullSweep(spec pipeline.Spec, opts FullSweepOptions, log *slog.Logger, reg prometheus.Registerer) *FullSweep {
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"pipeline": spec.Name}, reg)
	f := &FullSweep{spec: spec, opts: opts, log: log.With("pipeline", spec.Name),
		listed: prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_full_sweep_listed_objects_total",
			Help: "Objects outside sweep.span that full sweeps listed."}),
		found: prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_full_sweep_found_objects_total",
			Help: "Objects outside sweep.span that full sweeps found not loaded, and enqueued."}),
		finished: prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_full_sweep_last_success_timestamp_seconds",
			Help: "Unix time at which the last complete full sweep known to this process ended; 0: none."}),
	}
	reg.MustRegister(f.listed, f.found, f.finished)
	return f
}

// ErrEnqueueLater says that the queue accepts no more objects now.
var ErrEnqueueLater = errors.New("no more objects can be enqueued now")

// clockSkew is the largest difference between the clocks of loaders and store.
const clockSkew = time.Hour

// passNote is the progress of full sweeps, kept in the claim.
type passNote struct {
	Since    time.Time `json:"since"`              // a pass found all objects stored before loaded
	Finished time.Time `json:"finished"`           // the last complete pass; zero: none
	Began    time.Time `json:"began"`              // start of the current pass; zero: none
	Cursor   string    `json:"cursor,omitempty"`   // of the current pass: keys up to this one are done
	Listed   int       `json:"listed,omitempty"`   // by the current pass, outside the span
	NotYet   int       `json:"not_yet,omitempty"`  // of these, not loaded
	Enqueued int       `json:"enqueued,omitempty"` // of these, new to the queue
}

// Run makes passes until the context ends.
func (f *FullSweep) Run(ctx context.Context) {
	wait := f.opts.Retry/2 + time.Duration(time.Now().UnixNano())%(f.opts.Retry/2+1) // spreads the loaders
	for retry.Sleep(ctx, wait) == nil {
		next, err := f.turn(ctx)
		wait = min(f.opts.Retry, f.opts.Every)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, ErrEnqueueLater): // the next turn continues here
		case err != nil:
			f.log.Warn("full sweep interrupted; it will continue where it stopped", "error", err)
		default:
			wait = max(wait, time.Until(next))
		}
	}
}

// turn makes or continues a pass if it is due and no other process makes it. It returns when the next one is due.
func (f *FullSweep) turn(ctx context.Context) (next time.Time, err error) {
	claim, held, err := f.opts.Claim(ctx)
	if err != nil || !held {
		return time.Time{}, err
	}
	defer func() {
		quick, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if e := claim.Expire(quick); e != nil {
			f.log.Warn("the claim of the full sweep was not given back; it expires", "error", e, "ttl", f.opts.TTL)
		}
	}()
	var note passNote
	if text := claim.Note(); text != "" {
		if err := json.Unmarshal([]byte(text), &note); err != nil {
			f.log.Warn("the note of the last full sweep cannot be read; this one checks everything",
				"note", text, "error", err)
			note = passNote{}
		}
	}
	if !note.Finished.IsZero() {
		f.finished.Set(float64(note.Finished.Unix()))
	}
	if due := note.Finished.Add(f.opts.Every); note.Began.IsZero() && time.Now().Before(due) {
		return due, nil
	}
	if note.Began.IsZero() {
		note.Began = time.Now().UTC()
	}
	err = f.pass(ctx, claim, &note)
	if err == nil {
		// A pass that lists nothing outside the span never reads the ledger. But its end promises that no object is
		// forgotten. Within the span that depends on ordinary sweeps, which need the ledger.
		err = f.opts.Ledger.Loads(ctx, f.spec.Prefix, f.spec.Prefix, func(pipeline.Load) error { return nil })
	}
	if err == nil {
		f.end(&note)
	}
	f.write(claim, note)
	return note.Finished.Add(f.opts.Every), err
}

// end records the end of a complete pass in the note.
func (f *FullSweep) end(note *passNote) {
	level := slog.LevelInfo
	if note.NotYet > 0 {
		level = slog.LevelWarn
	}
	fields := []any{"listed_outside_span", note.Listed, "span", f.opts.Span, "not_loaded", note.NotYet,
		"enqueued", note.Enqueued, "began", note.Began}
	if !note.Since.IsZero() { // otherwise objects of all times were compared
		fields = append(fields, "stored_since", note.Since)
	}
	f.log.Log(context.Background(), level, "full sweep finished", fields...)
	since := note.Since
	if note.NotYet == 0 {
		// Only now is it certain that no earlier object is forgotten: an enqueued notification may be lost before its object
		// is loaded.
		since = note.Began.Add(-clockSkew - f.opts.Grace)
	}
	*note = passNote{Since: since, Finished: time.Now().UTC()}
	f.finished.Set(float64(note.Finished.Unix()))
}

func (f *FullSweep) write(claim Notebook, note passNote) {
	text, err := json.Marshal(note)
	if err != nil {
		panic(err) // cannot happen: it has only times, numbers and a text
	}
	claim.SetNote(string(text))
}

// pass lists the remaining keys of a pass.
func (f *FullSweep) pass(ctx context.Context, claim Notebook, note *passNote) error {
	now := time.Now()
	span := Span{now.Add(-f.opts.Span), now.Add(time.Hour)}
	renewed := now
	return outside(f.spec, span.contains).List(ctx, f.opts.Bucket, note.Cursor, func(p Page) error {
		began := time.Now()
		if err := f.page(ctx, p.Objects, note); err != nil {
			return err
		}
		note.Cursor = p.Last
		if time.Since(renewed) > f.opts.TTL/3 {
			f.write(claim, *note)
			if held, err := claim.Renew(ctx); err != nil || !held {
				return errors.Join(errors.New("the claim was lost"), err)
			}
			renewed = time.Now()
		}
		return retry.Sleep(ctx, time.Second/time.Duration(f.opts.Rate)-time.Since(began))
	})
}

// page enqueues a page's objects that were stored recently and are not loaded.
func (f *FullSweep) page(ctx context.Context, objects []pipeline.Object, note *passNote) error {
	var since []pipeline.Object
	for _, o := range objects {
		if !o.Modified.Before(note.Since) {
			since = append(since, o)
		}
	}
	if len(since) > 0 {
		s := sweeper{now: time.Now(), SweepOptions: SweepOptions{Ledger: f.opts.Ledger, Grace: f.opts.Grace,
			Enqueue: f.opts.Enqueue}}
		err := s.page(ctx, since)
		f.found.Add(float64(s.Enqueued))
		note.NotYet += s.Enqueued + s.Told
		note.Enqueued += s.Enqueued
		if err != nil {
			return fmt.Errorf("full sweep: %w", err)
		}
	}
	f.listed.Add(float64(len(objects)))
	note.Listed += len(objects)
	return nil
}
