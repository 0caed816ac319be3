package audit

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// Selection selects the objects of a re-ingest: by Keys, otherwise by Prefix, otherwise by Span of one pipeline.
type Selection struct {
	Keys   []string
	Prefix string
	Spec   pipeline.Spec // for Span
	Span   Span
}

// Objects calls each with the selected objects: a page of one pipeline at a time, sorted by key. missing gets the error
// of a key whose metadata cannot be read; if it returns an error, the listing ends.
func (s Selection) Objects(ctx context.Context, bucket Bucket, each func(pipeline.Spec, []pipeline.Object) error,
	missing func(key string, err error) error) error {
	switch {
	case len(s.Keys) > 0:
		return s.byKey(ctx, bucket, each, missing)
	case s.Prefix != "":
		spec, err := pipeline.SpecOf(s.Prefix)
		if err != nil {
			return err
		}
		return Below(spec, s.Prefix).Objects(ctx, bucket, func(page []pipeline.Object) error { return each(spec, page) })
	}
	return InSpan(s.Spec, s.Span).Objects(ctx, bucket, func(page []pipeline.Object) error { return each(s.Spec, page) })
}

// keyPage is the most objects of a page that is not from a listing.
const keyPage = 1000

func (s Selection) byKey(ctx context.Context, bucket Bucket, each func(pipeline.Spec, []pipeline.Object) error,
	missing func(key string, err error) error) error {
	bySpec := map[pipeline.Spec][]string{}
	for _, key := range slices.Compact(slices.Sorted(slices.Values(s.Keys))) {
		spec, err := pipeline.SpecOf(key)
		if err != nil {
			return err
		}
		bySpec[spec] = append(bySpec[spec], key)
	}
	for _, spec := range pipeline.Specs() {
		for keys := range slices.Chunk(bySpec[spec], keyPage) {
			page, err := heads(ctx, bucket, keys, missing)
			if err != nil {
				return err
			}
			if len(page) == 0 {
				continue
			}
			if err := each(spec, page); err != nil {
				return err
			}
		}
	}
	return nil
}

// heads reads objects' metadata, several at a time.
func heads(ctx context.Context, bucket Bucket, keys []string,
	missing func(key string, err error) error) ([]pipeline.Object, error) {
	all := make([]pipeline.Object, len(keys))
	errs := make([]error, len(keys))
	var g errgroup.Group
	g.SetLimit(16)
	for i, key := range keys {
		g.Go(func() error { all[i], errs[i] = bucket.Head(ctx, key); return nil })
	}
	g.Wait()
	var there []pipeline.Object
	for i, err := range errs {
		if err == nil {
			there = append(there, all[i])
		} else if err := missing(keys[i], err); err != nil {
			return nil, err
		}
	}
	return there, nil
}

// Presence says which objects have rows.
type Presence interface {
	// Objects returns the objects from first through last that have rows in the table.
	Objects(ctx context.Context, table, first, last string) (map[string]bool, error)
	Expired(ctx context.Context, table string) (pipeline.Expiry, error)
}

// Items reads the ledger and the table for a page of one pipeline's objects, and decides about each.
func (p Plan) Items(ctx context.Context, spec pipeline.Spec, page []pipeline.Object, ledger Ledger,
	table Presence) ([]Item, error) {
	entries, err := Entries(ctx, ledger, page)
	if err != nil {
		return nil, err
	}
	present, err := table.Objects(ctx, spec.Name, page[0].Key, page[len(page)-1].Key)
	if err != nil {
		return nil, err
	}
	if p.Expired, err = table.Expired(ctx, spec.Name); err != nil {
		return nil, err
	}
	return p.Decide(page, entries, present), nil
}

// Collapsed reports whether a loaded object has no rows because clients' resends replaced all of them, or the table's
// TTL deleted them. If the table was lost, the resends are missing too. An object that cannot be read is not collapsed:
// loading it reports the error.
func Collapsed(ctx context.Context, source Source, table interface {
	Known
	Expired(ctx context.Context, table string) (pipeline.Expiry, error)
}, it Item) (bool, error) {
	expiry, err := table.Expired(ctx, it.Entry.Pipeline)
	if err != nil {
		return false, err
	}
	l := lookup{table: table, name: it.Entry.Pipeline}
	enough, expired := errors.New("an event is not there"), 0
	_, err = source.Read(ctx, it.Object.Key, func(e *pipeline.Event) error {
		if expiry.Covers(e.ReceivedAt, e.Time()) {
			expired++
			return nil
		}
		if err := l.add(ctx, e); err != nil || l.known == l.asked {
			return err
		}
		return enough
	})
	if err == nil {
		err = l.flush(ctx)
	}
	if retry.ClassOf(err) == retry.Outage {
		return false, err
	}
	return err == nil && l.known == l.asked && int(l.asked)+expired > 0, nil
}
