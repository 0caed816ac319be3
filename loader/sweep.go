package loader

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// Lister lists objects by prefix, those with keys greater than after and less
// than before, page by page, in the order of their keys.
type Lister interface {
	List(ctx context.Context, prefix, after, before string, page func([]pipeline.Object) error) error
}

// Entries reads the ledger from key first up to and with last, in order.
type Entries interface {
	Loads(ctx context.Context, first, last string, each func(pipeline.Load) error) error
}

// Span is a time range of objects, by the time in their keys.
type Span struct{ From, To time.Time } // To is not part of it

// days are the prefixes that hold a pipeline's objects of the span.
func (s Span) days(prefix string) []string {
	var all []string
	for d := s.From.UTC().Truncate(24 * time.Hour); d.Before(s.To); d = d.Add(24 * time.Hour) {
		all = append(all, dayPrefix(prefix, d)+"/")
	}
	return all
}

func dayPrefix(prefix string, day time.Time) string {
	return prefix + "dt=" + day.UTC().Format("2006-01-02")
}

// contains tells whether the object belongs to the span. A foreign one counts by
// the day of its folder, and beside the folders of days by when it was stored. A
// folder dt=… of no day belongs to no span.
func (s Span) contains(o pipeline.Object) bool {
	t := o.Modified
	if k, err := pipeline.ParseKey(o.Key); err == nil {
		t = k.Time
	} else if _, rest, ok := strings.Cut(o.Key, "/dt="); ok {
		d, err := time.Parse("2006-01-02", rest[:min(len(rest), 10)])
		return err == nil && d.Add(24*time.Hour).After(s.From) && d.Before(s.To)
	}
	return !t.Before(s.From) && t.Before(s.To)
}

// Objects lists the loadable objects of a pipeline in a span: ours, by the time
// in their keys, and beside their folders what somebody put there by hand. It
// costs what is in the span, not what is in the bucket.
func Objects(ctx context.Context, lister Lister, spec pipeline.Spec, span Span, page func([]pipeline.Object) error) error {
	ours := spec.Prefix + "dt="
	for _, r := range [][2]string{
		{"", ours},
		{dayPrefix(spec.Prefix, span.From), dayPrefix(spec.Prefix, span.To.Add(24*time.Hour))},
		{ours + ":", ""}, // behind all digits
	} {
		err := lister.List(ctx, spec.Prefix, r[0], r[1], func(all []pipeline.Object) error {
			var some []pipeline.Object
			for _, o := range all {
				if pipeline.IsData(spec.Prefix, o.Key) && span.contains(o) {
					some = append(some, o)
				}
			}
			if len(some) == 0 {
				return nil
			}
			return page(some)
		})
		if err != nil {
			return fmt.Errorf("list objects of %s: %w", spec.Name, err)
		}
	}
	return nil
}

// Swept is what a sweep found.
type Swept struct {
	Objects  int `json:"objects"`      // in the span
	Loaded   int `json:"loaded"`       // by the ledger
	Enqueued int `json:"enqueued"`     // not loaded, so told to the queue
	Told     int `json:"told"`         // not loaded, and the queue was told lately
	Young    int `json:"young"`        // not loaded, but stored so lately that it may be on its way
	Dead     int `json:"dead_letters"` // given up: `penstock dlq`
	Dropped  int `json:"dropped"`      // by an operator
}

// Sweep finds the objects of a span that the ledger does not call loaded and
// hands them to enqueue, which says whether it knew; those stored less than
// grace ago only count. It streams: memory is bounded by a page of the listing.
func Sweep(ctx context.Context, spec pipeline.Spec, span Span, grace time.Duration, lister Lister, entries Entries,
	enqueue func(context.Context, pipeline.Notification) (told bool, err error), progress func(Swept)) (Swept, error) {
	s := sweeper{now: time.Now(), grace: grace, entries: entries, enqueue: enqueue}
	err := Objects(ctx, lister, spec, span, func(page []pipeline.Object) error {
		err := s.page(ctx, page)
		if err == nil && progress != nil {
			progress(s.Swept)
		}
		return err
	})
	if err != nil {
		return s.Swept, fmt.Errorf("sweep: %w", err)
	}
	return s.Swept, nil
}

// SweepAll is Sweep of everything below the pipeline's prefix, whatever day its key names.
func SweepAll(ctx context.Context, spec pipeline.Spec, grace time.Duration, lister Lister, entries Entries,
	enqueue func(context.Context, pipeline.Notification) (told bool, err error), progress func(Swept)) (Swept, error) {
	s := sweeper{now: time.Now(), grace: grace, entries: entries, enqueue: enqueue}
	within := func(pipeline.Object) bool { return false }
	err := outside(ctx, lister, spec, within, "", func(objects []pipeline.Object, _ int, _ string) error {
		if len(objects) == 0 {
			return nil
		}
		err := s.page(ctx, objects)
		if err == nil && progress != nil {
			progress(s.Swept)
		}
		return err
	})
	if err != nil {
		return s.Swept, fmt.Errorf("sweep: %w", err)
	}
	return s.Swept, nil
}

// sweeper compares pages of the listing with the ledger.
type sweeper struct {
	Swept
	now     time.Time
	grace   time.Duration
	entries Entries
	enqueue func(context.Context, pipeline.Notification) (told bool, err error)
}

func (s *sweeper) page(ctx context.Context, page []pipeline.Object) error {
	states, err := states(ctx, s.entries, page)
	if err != nil {
		return err
	}
	for _, o := range page {
		s.Objects++
		switch state := states[o.Key]; {
		case state == pipeline.Loaded:
			s.Loaded++
		case state == pipeline.Dead:
			s.Dead++
		case state == pipeline.Dropped:
			s.Dropped++
		case s.now.Sub(o.Modified) < s.grace:
			s.Young++
		default:
			told, err := s.enqueue(ctx, pipeline.Notification{Key: o.Key, ETag: o.ETag, Size: o.Size})
			if err != nil {
				return err
			}
			if told {
				s.Told++
			} else {
				s.Enqueued++
			}
		}
	}
	return nil
}

// states reads what the ledger says of a page of the listing, by one query.
func states(ctx context.Context, entries Entries, page []pipeline.Object) (map[string]pipeline.LoadState, error) {
	states := map[string]pipeline.LoadState{}
	err := entries.Loads(ctx, page[0].Key, page[len(page)-1].Key, func(l pipeline.Load) error {
		states[l.Key] = l.State
		return nil
	})
	return states, err
}
