package audit

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// Lister lists objects by prefix, a page at a time, sorted by key. Keys are greater than after and less than before;
// empty: no bound.
type Lister interface {
	List(ctx context.Context, prefix, after, before string, page func([]pipeline.Object) error) error
}

// Scope is a part of one pipeline's objects in the bucket. A listing reads all of its key ranges; the filter then
// removes objects.
type Scope struct {
	spec     pipeline.Spec
	ranges   []keyRange
	includes func(pipeline.Object) bool // nil: all objects in the ranges
}

// keyRange is the keys with a prefix, after one key and before another.
type keyRange struct{ prefix, after, before string }

// All is every object below the pipeline's prefix, whatever day its key names.
func All(spec pipeline.Spec) Scope { return Below(spec, spec.Prefix) }

// Below is every object below a prefix, which must begin with the pipeline's.
func Below(spec pipeline.Spec, prefix string) Scope {
	return Scope{spec: spec, ranges: []keyRange{{prefix: prefix}}}
}

// InSpan is the objects of a span. Penstock's own belong to it by the time in their keys, imports by their folder or by
// when they were stored. Its ranges cover the folders of the span's days, and everything outside the folders of days.
func InSpan(spec pipeline.Spec, span Span) Scope {
	days := spec.Prefix + "dt="
	return Scope{spec: spec, includes: span.contains, ranges: []keyRange{
		{spec.Prefix, "", days},
		{spec.Prefix, dayPrefix(spec.Prefix, span.From), dayPrefix(spec.Prefix, span.To.Add(24*time.Hour))},
		{spec.Prefix, days + ":", ""}, // a colon sorts after all digits
	}}
}

// outside is every object that within rejects. It lists the whole prefix, because folders may have any names, which
// sort between those of the days.
func outside(spec pipeline.Spec, within func(pipeline.Object) bool) Scope {
	s := All(spec)
	s.includes = func(o pipeline.Object) bool { return !within(o) }
	return s
}

// Page is a page of a listing without objects outside the scope.
type Page struct {
	Objects []pipeline.Object // to load, by pipeline.IsData
	Others  []pipeline.Object // temporary files, folders and the like
	Last    string            // the last key listed: List continues after it
}

// List calls each with every page of the scope, sorted by key, including empty pages. after is Page.Last of an
// interrupted listing; empty: start.
func (s Scope) List(ctx context.Context, lister Lister, after string, each func(Page) error) error {
	for _, r := range s.ranges {
		if r.before != "" && r.before <= after {
			continue
		}
		err := lister.List(ctx, r.prefix, max(r.after, after), r.before, func(all []pipeline.Object) error {
			return each(s.page(all))
		})
		if err != nil {
			return fmt.Errorf("list objects of %s: %w", s.spec.Name, err)
		}
	}
	return nil
}

func (s Scope) page(all []pipeline.Object) Page {
	p := Page{Last: all[len(all)-1].Key}
	for _, o := range all {
		switch {
		case s.includes != nil && !s.includes(o):
		case pipeline.IsData(s.spec.Prefix, o.Key):
			p.Objects = append(p.Objects, o)
		default:
			p.Others = append(p.Others, o)
		}
	}
	return p
}

// Objects calls each with the objects to load, a page at a time; no page is empty.
func (s Scope) Objects(ctx context.Context, lister Lister, each func([]pipeline.Object) error) error {
	return s.List(ctx, lister, "", func(p Page) error {
		if len(p.Objects) == 0 {
			return nil
		}
		return each(p.Objects)
	})
}

// Span is a time range of objects, by the time in their keys.
type Span struct{ From, To time.Time } // To is exclusive

// days are the UTC days that overlap the span.
func (s Span) days() []time.Time {
	var all []time.Time
	for d := s.From.UTC().Truncate(24 * time.Hour); d.Before(s.To); d = d.Add(24 * time.Hour) {
		all = append(all, d)
	}
	return all
}

func (s Span) has(t time.Time) bool { return !t.Before(s.From) && t.Before(s.To) }

// hasPartOf reports whether a part of the day is in the span.
func (s Span) hasPartOf(day time.Time) bool {
	return day.Add(24*time.Hour).After(s.From) && day.Before(s.To)
}

func dayPrefix(prefix string, day time.Time) string {
	return prefix + "dt=" + day.UTC().Format(time.DateOnly)
}

// contains reports whether the object belongs to the span. An import counts by its folder's day. If its folder names no
// day, it counts by when it was stored; only a folder dt=… without a valid day belongs to no span.
func (s Span) contains(o pipeline.Object) bool {
	if k, err := pipeline.ParseKey(o.Key); err == nil {
		return s.has(k.Time)
	}
	if _, rest, ok := strings.Cut(o.Key, "/dt="); ok {
		d, err := time.Parse(time.DateOnly, rest[:min(len(rest), 10)])
		return err == nil && s.hasPartOf(d)
	}
	return s.has(o.Modified)
}
