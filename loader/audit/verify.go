package audit

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/pipeline"
)

// Bucket lists objects, and reads an object's metadata.
type Bucket interface {
	Lister
	Head(ctx context.Context, key string) (pipeline.Object, error)
}

// Source reads an object's events in order. An event is valid only during the call.
type Source interface {
	Read(ctx context.Context, key string, each func(*pipeline.Event) error) (pipeline.Object, error)
}

// Known counts how many of the events are in the table, as rows of any object.
type Known interface {
	Known(ctx context.Context, table string, events []pipeline.Identity) (uint64, error)
}

// Table counts rows. CountRows groups by object, for one day's objects (UTC) with keys from first through last. RowsOf
// calls each once with every object_row of one object. Expired returns which rows the table's TTL deletes.
type Table interface {
	CountRows(ctx context.Context, table, first, last string, day time.Time,
		each func(object string, rows, distinct uint64)) error
	RowsOf(ctx context.Context, table, object string, day time.Time, each func(row uint32)) error
	Known
	Expired(ctx context.Context, table string) (pipeline.Expiry, error)
}

// VerifyOptions configure an audit.
type VerifyOptions struct {
	Span     Span
	Grace    time.Duration // younger objects may still be on the way; 0: none
	Bucket   Bucket
	Source   Source
	Ledger   Ledger
	Table    Table
	Progress func(Verified) // called after each day; nil: no calls
}

// Difference is an object on which bucket, ledger and table disagree.
type Difference struct {
	Key     string `json:"key"`
	Kind    string `json:"kind"` // missing, dead, short, double, gone, changed, extra, blobs
	Message string `json:"message"`
}

// Verified is the result of an audit.
type Verified struct {
	Pipeline   string `json:"pipeline"`
	Objects    uint64 `json:"objects"`     // in the bucket
	Waiting    uint64 `json:"waiting"`     // not loaded, but stored within the grace
	Dropped    uint64 `json:"dropped"`     // not loaded, by an operator's decision
	BucketRows uint64 `json:"bucket_rows"` // by the objects' metadata, without the waiting ones
	LedgerRows uint64 `json:"ledger_rows"` // loaded
	TableRows  uint64 `json:"table_rows"`  // of these objects
	Refused    uint64 `json:"refused"`     // rows that the table rejected; they are in errors
	Collapsed  uint64 `json:"collapsed"`   // rows that a merge removed as duplicates of a client's resend
	Expired    uint64 `json:"expired"`     // rows that the table's TTL has deleted
	Blobs      uint64 `json:"blobs"`       // objects of large values
	BlobBytes  uint64 `json:"blob_bytes"`  // in them
	EdgeBlobs  uint64 `json:"edge_blobs"`  // objects of large values of an edge receiver; not compared with the events
	Ignored    uint64 `json:"ignored"`     // files that are not objects to load
	// Outside the folders of the span's days:
	Others     uint64 `json:"others"`      // objects stored in the span; compared with the ledger only
	NotChecked uint64 `json:"not_checked"` // objects stored at another time

	Differences []Difference `json:"differences"`
}

// Verify checks object by object that bucket, ledger and table agree over a span. Its memory is bounded by a day's
// objects.
//
// Then it lists all other objects, and compares those stored within the span with the ledger. So it also checks imports
// into folders of earlier days, or outside of these folders.
func Verify(ctx context.Context, spec pipeline.Spec, o VerifyOptions) (Verified, error) {
	v := &verifier{VerifyOptions: o, spec: spec, now: time.Now()}
	v.Pipeline = spec.Name
	v.Differences = []Difference{}
	for _, day := range o.Span.days() {
		if err := v.day(ctx, day); err != nil {
			return v.Verified, fmt.Errorf("verify %s: %w", dayPrefix(spec.Prefix, day), err)
		}
		if o.Progress != nil {
			o.Progress(v.Verified)
		}
	}
	err := outside(spec, v.ofDays).List(ctx, o.Bucket, "", func(p Page) error {
		v.Ignored += uint64(len(p.Others))
		return v.others(ctx, p.Objects)
	})
	if err != nil {
		return v.Verified, fmt.Errorf("verify objects of other days: %w", err)
	}
	return v.Verified, nil
}

type verifier struct {
	VerifyOptions
	Verified
	spec pipeline.Spec
	now  time.Time
}

// account is what bucket, ledger and table know about one object.
type account struct {
	key            string
	day            time.Time       // of its rows
	object         pipeline.Object // in the bucket; without a key: missing
	blobs          pipeline.Object // in the bucket; without a key: missing
	entry          pipeline.Load
	loaded         bool // by the ledger
	rows, distinct uint64
}

func (a *account) stored() bool { return a.object.Key != "" }

// notOfSpan reports whether the object's key names a time outside the span.
func (v *verifier) notOfSpan(key string) bool {
	k, err := pipeline.ParseKey(key)
	return err == nil && !v.Span.has(k.Time)
}

// ofDays reports whether an object belongs to the folders of the span's days.
func (v *verifier) ofDays(o pipeline.Object) bool {
	rest, ok := strings.CutPrefix(o.Key, v.spec.Prefix+"dt=")
	if !ok || len(rest) < 11 || rest[10] != '/' || v.notOfSpan(o.Key) {
		return false
	}
	d, err := time.Parse(time.DateOnly, rest[:10])
	return err == nil && v.Span.hasPartOf(d)
}

// day compares the objects in the folder of a day.
func (v *verifier) day(ctx context.Context, day time.Time) error {
	accounts, err := v.collect(ctx, day)
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(accounts)) {
		if v.notOfSpan(key) {
			continue
		}
		if err := v.judge(ctx, accounts[key]); err != nil {
			return err
		}
	}
	return nil
}

// collect reads the ledger before the table, and the table before the bucket. So an object that is loaded meanwhile
// looks waiting, not missing.
func (v *verifier) collect(ctx context.Context, day time.Time) (map[string]*account, error) {
	prefix := dayPrefix(v.spec.Prefix, day) + "/"
	all := map[string]*account{}
	of := func(key string) *account {
		if all[key] == nil {
			all[key] = &account{key: key, day: day}
		}
		return all[key]
	}
	first, last := prefix, prefix+"\xff"
	if err := v.Ledger.Loads(ctx, first, last, func(l pipeline.Load) error {
		a := of(l.Key)
		a.entry, a.loaded = l, l.State == pipeline.Loaded
		return nil
	}); err != nil {
		return nil, err
	}
	if err := v.Table.CountRows(ctx, v.spec.Name, first, last, day, func(object string, rows, distinct uint64) {
		a := of(object)
		a.rows, a.distinct = rows, distinct
	}); err != nil {
		return nil, err
	}
	if err := Below(v.spec, prefix).List(ctx, v.Bucket, "", func(p Page) error {
		for _, o := range p.Objects {
			of(o.Key).object = o
		}
		for _, o := range p.Others {
			if a := all[o.Key]; a != nil && a.loaded {
				a.object = o // an operator loaded it by its key
				continue
			}
			v.Ignored++ // no sweep lists it, even if a notification made it a dead letter
			delete(all, o.Key)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if err := v.heads(ctx, all); err != nil {
		return nil, err
	}
	return all, v.findBlobs(ctx, prefix, all)
}

// heads reads the metadata of every object, several at a time.
func (v *verifier) heads(ctx context.Context, all map[string]*account) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for key, a := range all {
		if !a.stored() {
			continue
		}
		g.Go(func() error {
			o, err := v.Bucket.Head(ctx, key)
			if err != nil {
				return err
			}
			o.Modified = a.object.Modified
			a.object = o
			return nil
		})
	}
	return g.Wait()
}

// ofRequest matches the blobs that an edge receiver stores: one object for each request, named by the request's id. No
// metadata says which events refer to them.
var ofRequest = regexp.MustCompile(`-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.blobs$`)

// findBlobs lists the blobs of a day's objects.
func (v *verifier) findBlobs(ctx context.Context, prefix string, all map[string]*account) error {
	byBlobs := map[string]*account{}
	for key, a := range all {
		if k, err := pipeline.ParseKey(key); err == nil {
			byBlobs[pipeline.BlobKey(k)] = a
		}
	}
	return v.Bucket.List(ctx, pipeline.BlobPrefix+prefix, "", "", func(page []pipeline.Object) error {
		for _, o := range page {
			if a := byBlobs[o.Key]; a != nil {
				a.blobs = o
			} else if ofRequest.MatchString(o.Key) {
				v.EdgeBlobs++
			}
		}
		return nil
	})
}

func (v *verifier) differ(key, kind, format string, args ...any) {
	v.Differences = append(v.Differences, Difference{key, kind, fmt.Sprintf(format, args...)})
}
