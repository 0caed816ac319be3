package loader

import (
	"context"
	"fmt"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// Lister lists objects by prefix, page by page, in the order of their keys.
type Lister interface {
	List(ctx context.Context, prefix string, page func([]pipeline.Object) error) error
}

// Entries reads the ledger from key first up to and with last, in order.
type Entries interface {
	Loads(ctx context.Context, first, last string, each func(pipeline.Load) error) error
}

// Span is a time range of objects, by the time in their keys.
type Span struct{ From, To time.Time } // To is not part of it

// days are the prefixes that hold a pipeline's objects of the span: a listing
// costs what is in the span, not what is in the bucket.
func (s Span) days(prefix string) []string {
	var all []string
	for d := s.From.UTC().Truncate(24 * time.Hour); d.Before(s.To); d = d.Add(24 * time.Hour) {
		all = append(all, fmt.Sprintf("%sdt=%s/", prefix, d.Format("2006-01-02")))
	}
	return all
}

// contains tells whether the object belongs to the span. A key that is not
// ours counts by when it was stored.
func (s Span) contains(o pipeline.Object) bool {
	t := o.Modified
	if k, err := pipeline.ParseKey(o.Key); err == nil {
		t = k.Time
	}
	return !t.Before(s.From) && t.Before(s.To)
}

// Swept is what a sweep found.
type Swept struct {
	Objects  int `json:"objects"`  // in the span
	Loaded   int `json:"loaded"`   // by the ledger
	Enqueued int `json:"enqueued"` // not loaded, so told to the queue
	Told     int `json:"told"`     // not loaded, and the queue was told lately
	Young    int `json:"young"`    // not loaded, but stored so lately that it may be on its way
}

// Sweep finds the objects of a span that the ledger does not call loaded and
// hands them to enqueue, which says whether it knew; those stored less than grace ago only count. It
// streams: memory is bounded by a page of the listing.
func Sweep(ctx context.Context, spec pipeline.Spec, span Span, grace time.Duration, lister Lister, entries Entries,
	enqueue func(context.Context, pipeline.Notification) (told bool, err error), progress func(Swept)) (Swept, error) {
	var s Swept
	now := time.Now()
	for _, prefix := range span.days(spec.Prefix) {
		err := lister.List(ctx, prefix, func(page []pipeline.Object) error {
			loaded := map[string]bool{}
			err := entries.Loads(ctx, page[0].Key, page[len(page)-1].Key, func(l pipeline.Load) error {
				loaded[l.Key] = l.Loaded
				return nil
			})
			if err != nil {
				return err
			}
			for _, o := range page {
				if _, ok := pipeline.FormatOf(o.Key); !ok || !span.contains(o) {
					continue
				}
				s.Objects++
				switch {
				case loaded[o.Key]:
					s.Loaded++
				case now.Sub(o.Modified) < grace:
					s.Young++
				default:
					told, err := enqueue(ctx, pipeline.Notification{Key: o.Key, ETag: o.ETag, Size: o.Size})
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
			if progress != nil {
				progress(s)
			}
			return nil
		})
		if err != nil {
			return s, fmt.Errorf("sweep %s: %w", prefix, err)
		}
	}
	return s, nil
}
