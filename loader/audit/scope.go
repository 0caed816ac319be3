package audit

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// Lister lists objects by prefix: those with keys greater than after and less
// than before, a page at a time, in the order of their keys. An empty after or
// before is no bound.
type Lister interface {
	List(ctx context.Context, prefix, after, before string, page func([]pipeline.Object) error) error
}

// Scope is a part of one pipeline's objects in the bucket. A listing costs what
// its key ranges contain, and Scope leaves out what its filter refuses.
type Scope struct {
	spec     pipeline.Spec
	ranges   []keyRange
	includes func(pipeline.Object) bool // nil: everything in the ranges
}

// keyRange is the keys with a prefix, after one key and before another.
type keyRange struct{ prefix, after, before string }

// All is everything below the pipeline's prefix, whatever day a key names.
func All(spec pipeline.Spec) Scope { return Below(spec, spec.Prefix) }

// Below is everything below a prefix, which begins with the pipeline's own.
func Below(spec pipeline.Spec, prefix string) Scope {
	return Scope{spec: spec, ranges: []keyRange{{prefix: prefix}}}
}

// InSpan is the objects of a span: Penstock's own by the time in their keys, and
// imports by their folder or by when they were stored. Its ranges contain the
// folders of the span's days, and everything beside the folders of days.
func InSpan(spec pipeline.Spec, span Span) Scope {
	days := spec.Prefix + "dt="
	return Scope{spec: spec, includes: span.contains, ranges: []keyRange{
		{spec.Prefix, "", days},
		{spec.Prefix, dayPrefix(spec.Prefix, span.From), dayPrefix(spec.Prefix, span.To.Add(24*time.Hour))},
		{spec.Prefix, days + ":", ""}, // a colon sorts behind all digits
	}}
}

// outside is what within refuses. It lists the whole prefix, since files may be in
// folders of any name, which sort between those of the days.
func outside(spec pipeline.Spec, within func(pipeline.Object) bool) Scope {
	s := All(spec)
	s.includes = func(o pipeline.Object) bool { return !within(o) }
	return s
}

// Page is a page of a listing, without the objects outside the scope.
type Page struct {
	Objects []pipeline.Object // to load, by pipeline.IsData
	Others  []pipeline.Object // temporary files, folders and the like
	Last    string            // the last key listed: List continues after it
}

// List calls each with every page of the scope, also with an empty one, in the
// order of the keys. after is Page.Last of an interrupted listing; empty: none.
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
type Span struct{ From, To time.Time } // To is not part of it

// days are the days of which the span has a part, in UTC.
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

// contains reports whether the object belongs to the span. An import counts by the
// day of its folder, or by when it was stored if its folder is not that of a day. A
// folder dt=… that names no day belongs to no span.
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
