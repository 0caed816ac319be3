package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// Ledger reads the load ledger for keys from first through last, in order.
type Ledger interface {
	Loads(ctx context.Context, first, last string, each func(pipeline.Load) error) error
}

// Enqueue puts a notification into a queue. It reports whether the queue knew
// the notification already.
type Enqueue func(ctx context.Context, n pipeline.Notification) (known bool, err error)

// SweepOptions say what a sweep compares, and where it sends notifications.
type SweepOptions struct {
	Scope    Scope
	Bucket   Lister
	Ledger   Ledger
	Grace    time.Duration // younger objects are only counted; 0: count none as young
	Enqueue  Enqueue
	Progress func(Swept) // called after each page; nil: no calls
}

// Swept is the result of a sweep.
type Swept struct {
	Objects  int `json:"objects"`      // in the scope
	Loaded   int `json:"loaded"`       // by the ledger
	Enqueued int `json:"enqueued"`     // not loaded, and new to the queue
	Told     int `json:"told"`         // not loaded, and known to the queue
	Young    int `json:"young"`        // not loaded, but stored within the grace, so perhaps on the way
	Dead     int `json:"dead_letters"` // given up: `penstock dlq`
	Dropped  int `json:"dropped"`      // by an operator
}

// Sweep enqueues the bucket's objects that the ledger does not list as loaded. It streams: its memory is bounded by a
// page of the listing.
func Sweep(ctx context.Context, o SweepOptions) (Swept, error) {
	s := sweeper{SweepOptions: o, now: time.Now()}
	err := o.Scope.Objects(ctx, o.Bucket, func(page []pipeline.Object) error {
		err := s.page(ctx, page)
		if err == nil && o.Progress != nil {
			o.Progress(s.Swept)
		}
		return err
	})
	if err != nil {
		return s.Swept, fmt.Errorf("sweep: %w", err)
	}
	return s.Swept, nil
}

// sweeper compares pages of a listing with the ledger.
type sweeper struct {
	SweepOptions
	Swept
	now time.Time
}

func (s *sweeper) page(ctx context.Context, page []pipeline.Object) error {
	entries, err := Entries(ctx, s.Ledger, page)
	if err != nil {
		return err
	}
	for _, o := range page {
		s.Objects++
		e, known := entries[o.Key]
		switch {
		case known && e.State == pipeline.Loaded:
			s.Loaded++
		case known && e.State == pipeline.Dead:
			s.Dead++
		case known && e.State == pipeline.Dropped:
			s.Dropped++
		case s.now.Sub(o.Modified) < s.Grace:
			s.Young++
		default:
			told, err := s.Enqueue(ctx, pipeline.Notification{Key: o.Key, ETag: o.ETag, Size: o.Size})
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

// Entries reads the ledger's entries for a page of a listing, by one query.
func Entries(ctx context.Context, ledger Ledger, page []pipeline.Object) (map[string]pipeline.Load, error) {
	entries := map[string]pipeline.Load{}
	err := ledger.Loads(ctx, page[0].Key, page[len(page)-1].Key, func(l pipeline.Load) error {
		entries[l.Key] = l
		return nil
	})
	return entries, err
}
