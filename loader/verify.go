package loader

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/pipeline"
)

// Audited is what Verify compares: the bucket, and what the table says.
type Audited interface {
	Lister
	Head(ctx context.Context, key string) (pipeline.Object, error)
}

// Counts asks the table. CountRows groups by object, for objects of one day
// (UTC) from first up to and with last. RowsOf calls each with every
// object_row of one object, once. Known counts how many of the events are in the
// table, of whatever object. Expired is that of Table.
type Counts interface {
	CountRows(ctx context.Context, table, first, last string, day time.Time, each func(object string, rows, distinct uint64)) error
	RowsOf(ctx context.Context, table, object string, day time.Time, each func(row uint32)) error
	Known(ctx context.Context, table string, events []pipeline.Identity) (uint64, error)
	Expired(ctx context.Context, table string) (before time.Time, err error)
}

// Difference is an object in which bucket, ledger and table do not agree.
type Difference struct {
	Key     string `json:"key"`
	Kind    string `json:"kind"` // missing, dead, short, double, gone, changed, extra, blobs
	Message string `json:"message"`
}

// Verified is the result of an audit.
type Verified struct {
	Pipeline   string `json:"pipeline"`
	Objects    uint64 `json:"objects"`     // in the bucket
	Waiting    uint64 `json:"waiting"`     // not loaded, but stored so lately that they may be on their way
	Dropped    uint64 `json:"dropped"`     // not loaded, by an operator's decision
	BucketRows uint64 `json:"bucket_rows"` // by the objects' metadata, of those not waiting
	LedgerRows uint64 `json:"ledger_rows"` // loaded
	TableRows  uint64 `json:"table_rows"`  // of these objects
	Refused    uint64 `json:"refused"`     // rows that the table refused; they are in errors
	Collapsed  uint64 `json:"collapsed"`   // rows gone because a client's resend stands for them
	Expired    uint64 `json:"expired"`     // rows that the table's TTL has deleted
	Blobs      uint64 `json:"blobs"`       // objects of large values
	BlobBytes  uint64 `json:"blob_bytes"`  // in them
	Ignored    uint64 `json:"ignored"`     // files that are no objects to load
	// Outside the folders of the span's days:
	Others     uint64 `json:"others"`      // objects that were stored in the span; compared with the ledger only
	NotChecked uint64 `json:"not_checked"` // objects that were stored at another time

	Differences []Difference `json:"differences"`
}

// Verify holds bucket, ledger and table against each other, object by object,
// over a span. Objects stored less than grace ago may still be waiting.
// Memory is bounded by a day's objects.
//
// Afterwards everything else is listed, and what was stored within the span is
// compared with the ledger: an import into the folder of an earlier day, or
// beside these folders, must not be missed.
func Verify(ctx context.Context, spec pipeline.Spec, span Span, grace time.Duration, bucket Audited, source Source, entries Entries, counts Counts,
	progress func(Verified)) (Verified, error) {
	v := &verifier{spec: spec, span: span, grace: grace, now: time.Now(), bucket: bucket, source: source, entries: entries, counts: counts}
	v.Pipeline = spec.Name
	v.Differences = []Difference{}
	for _, prefix := range span.days(spec.Prefix) {
		if err := v.day(ctx, prefix); err != nil {
			return v.Verified, fmt.Errorf("verify %s: %w", prefix, err)
		}
		if progress != nil {
			progress(v.Verified)
		}
	}
	err := outside(ctx, bucket, spec, v.judged, "", func(objects []pipeline.Object, ignored int, _ string) error {
		v.Ignored += uint64(ignored)
		return v.others(ctx, objects)
	})
	if err != nil {
		return v.Verified, fmt.Errorf("verify objects of other days: %w", err)
	}
	return v.Verified, nil
}

// judged tells whether an object is one of those of the span's days.
func (v *verifier) judged(o pipeline.Object) bool {
	if k, err := pipeline.ParseKey(o.Key); err == nil && (k.Time.Before(v.span.From) || !k.Time.Before(v.span.To)) {
		return false
	}
	rest, ok := strings.CutPrefix(o.Key, v.spec.Prefix+"dt=")
	if !ok || len(rest) < 11 || rest[10] != '/' {
		return false
	}
	d, err := time.Parse("2006-01-02", rest[:10])
	return err == nil && !d.Before(v.span.From.UTC().Truncate(24*time.Hour)) && d.Before(v.span.To)
}

// others compares objects that are not judged with the ledger, if they were stored within the span.
func (v *verifier) others(ctx context.Context, objects []pipeline.Object) error {
	var lately []pipeline.Object
	for _, o := range objects {
		if o.Modified.Before(v.span.From) || !o.Modified.Before(v.span.To) {
			v.NotChecked++
		} else {
			lately = append(lately, o)
		}
	}
	if len(lately) == 0 {
		return nil
	}
	type entry struct {
		state pipeline.LoadState
		etag  string
	}
	entries := map[string]entry{}
	if err := v.entries.Loads(ctx, lately[0].Key, lately[len(lately)-1].Key, func(l pipeline.Load) error {
		entries[l.Key] = entry{l.State, l.ETag}
		return nil
	}); err != nil {
		return err
	}
	for _, o := range lately {
		v.Others++
		stored := o.Modified.UTC().Format(time.RFC3339)
		e, known := entries[o.Key]
		state := e.state
		switch {
		case state == pipeline.Loaded && e.etag != o.ETag:
			v.differ(o.Key, "changed", "its ETag is %s, it was loaded as %s;"+
				" `penstock reingest --prefix KEY --replace` loads it anew", o.ETag, e.etag)
		case state == pipeline.Loaded:
		case state == pipeline.Dropped:
			v.Dropped++
		case v.now.Sub(o.Modified) < v.grace:
			v.Waiting++
		case state == pipeline.Dead:
			v.differ(o.Key, "dead", "given up; `penstock dlq show KEY` says why, `penstock dlq redrive` tries it again")
		case known:
			v.differ(o.Key, "missing", "stored at %s, the ledger says %q; `penstock sweep --all` enqueues it, `penstock reingest %s` loads it at once", stored, state.String(), o.Key)
		default:
			v.differ(o.Key, "missing", "stored at %s, and not loaded; `penstock sweep --all` enqueues it, `penstock reingest %s` loads it at once", stored, o.Key)
		}
	}
	return nil
}

func (v *verifier) differ(key, kind, format string, args ...any) {
	v.Differences = append(v.Differences, Difference{key, kind, fmt.Sprintf(format, args...)})
}

type verifier struct {
	Verified
	spec    pipeline.Spec
	span    Span
	grace   time.Duration
	now     time.Time
	bucket  Audited
	source  Source
	entries Entries
	counts  Counts
}

// account is what the three say of one object.
type account struct {
	object         pipeline.Object
	blobs          pipeline.Object // zero: there are none
	stored, loaded bool
	entry          pipeline.Load
	rows, distinct uint64
}

func (v *verifier) day(ctx context.Context, prefix string) error {
	day, err := time.Parse("2006-01-02", strings.TrimSuffix(prefix[len(v.spec.Prefix)+len("dt="):], "/"))
	if err != nil {
		return err
	}
	all := map[string]*account{}
	of := func(key string) *account {
		if all[key] == nil {
			all[key] = &account{}
		}
		return all[key]
	}
	// The ledger before the table: whatever it calls loaded has its rows there.
	first, last := prefix, prefix+"\xff"
	if err := v.entries.Loads(ctx, first, last, func(l pipeline.Load) error {
		a := of(l.Key)
		a.entry, a.loaded = l, l.State == pipeline.Loaded
		return nil
	}); err != nil {
		return err
	}
	if err := v.counts.CountRows(ctx, v.spec.Name, first, last, day, func(object string, rows, distinct uint64) {
		a := of(object)
		a.rows, a.distinct = rows, distinct
	}); err != nil {
		return err
	}
	if err := v.bucket.List(ctx, prefix, "", "", func(page []pipeline.Object) error {
		for _, o := range page {
			if a := all[o.Key]; !pipeline.IsData(v.spec.Prefix, o.Key) && (a == nil || !a.loaded) {
				v.Ignored++ // no sweep lists it, even if a notification made it a dead letter
				delete(all, o.Key)
				continue
			}
			a := of(o.Key)
			a.object, a.stored = o, true
		}
		return nil
	}); err != nil {
		return err
	}
	if err := v.heads(ctx, all); err != nil {
		return err
	}
	byBlobs := map[string]*account{}
	for key, a := range all {
		if k, err := pipeline.ParseKey(key); err == nil {
			byBlobs[pipeline.BlobKey(k)] = a
		}
	}
	if err := v.bucket.List(ctx, pipeline.BlobPrefix+prefix, "", "", func(page []pipeline.Object) error {
		for _, o := range page {
			if a := byBlobs[o.Key]; a != nil {
				a.blobs = o
			}
		}
		return nil
	}); err != nil {
		return err
	}
	keys := make([]string, 0, len(all))
	for key := range all {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if err := v.judge(ctx, key, all[key], day); err != nil {
			return err
		}
	}
	return nil
}

// heads asks for the metadata of every object, some at a time.
func (v *verifier) heads(ctx context.Context, all map[string]*account) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for key, a := range all {
		if !a.stored {
			continue
		}
		g.Go(func() error {
			o, err := v.bucket.Head(ctx, key)
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

func (v *verifier) judge(ctx context.Context, key string, a *account, day time.Time) error {
	differ := func(kind, format string, args ...any) { v.differ(key, kind, format, args...) }
	k, err := pipeline.ParseKey(key)
	if err == nil && (k.Time.Before(v.span.From) || !k.Time.Before(v.span.To)) {
		return nil
	}
	if err != nil && a.loaded && a.rows == 0 {
		// The rows of an import are in the partition of the day on which it was stored.
		day = a.entry.Received.UTC().Truncate(24 * time.Hour)
		err := v.counts.CountRows(ctx, v.spec.Name, key, key, day, func(_ string, rows, distinct uint64) {
			a.rows, a.distinct = rows, distinct
		})
		if err != nil {
			return err
		}
	}
	switch {
	case !a.stored && a.loaded:
		differ("gone", "the ledger has it with %d rows, the bucket has it no more", a.entry.Rows)
		return nil
	case !a.stored && a.rows == 0: // begun and then removed: nothing is left of it
		return nil
	case !a.stored:
		differ("extra", "%d rows name it, which neither bucket nor ledger knows as loaded", a.rows)
		return nil
	}
	v.Objects++
	v.BlobBytes += uint64(a.blobs.Size)
	if a.blobs.Key != "" {
		v.Blobs++
	}
	switch want := a.object.Meta.BlobBytes; {
	case want > 0 && a.blobs.Key == "":
		differ("blobs", "its events refer to %d bytes of blobs, and the bucket does not have them", want)
	case a.blobs.Size < want:
		differ("blobs", "its events refer to %d bytes of blobs, the bucket has %d", want, a.blobs.Size)
	}
	switch {
	case a.entry.State == pipeline.Dropped:
		v.Dropped++
		return nil
	case a.entry.State == pipeline.Dead:
		v.BucketRows += uint64(a.object.Meta.Rows)
		differ("dead", "given up after %d failures: %s; `penstock dlq redrive` when the cause is mended", a.entry.Failures, a.entry.Error)
		return nil
	}
	if !a.loaded {
		// It may have been loaded while we looked elsewhere.
		meanwhile := false
		if err := v.entries.Loads(ctx, key, key, func(l pipeline.Load) error { meanwhile = l.State == pipeline.Loaded; return nil }); err != nil {
			return err
		}
		if meanwhile || v.now.Sub(a.object.Modified) < v.grace {
			v.Waiting++
		} else {
			v.BucketRows += uint64(a.object.Meta.Rows)
			differ("missing", "it is in the bucket with %d rows and was not loaded; `penstock sweep --since %s` enqueues it",
				a.object.Meta.Rows, day.Format("2006-01-02"))
		}
		return nil
	}
	v.LedgerRows += a.entry.Rows
	v.TableRows += a.rows
	refused := uint64(len(a.entry.Refused))
	stored := a.entry.Rows + refused // a foreign object has no metadata to say it
	if a.object.Meta.SHA256 != "" {
		stored = uint64(a.object.Meta.Rows)
	}
	v.BucketRows += stored
	if a.entry.ETag != a.object.ETag {
		differ("changed", "its ETag is %s, it was loaded as %s", a.object.ETag, a.entry.ETag)
	}
	if stored != a.entry.Rows+refused {
		differ("short", "it holds %d rows, the ledger has %d and %d refused", stored, a.entry.Rows, refused)
	}
	v.Refused += refused
	stored -= min(refused, stored)
	if a.rows > a.distinct {
		differ("double", "%d of its rows are in the table more than once", a.rows-a.distinct)
	}
	if a.distinct > stored {
		differ("extra", "the table has %d rows of it, it holds %d that were not refused", a.distinct, stored)
	}
	if a.distinct < stored {
		// A merge keeps one row of an event that a client sent twice: the other
		// is not missing if the event is there. And it drops rows past the TTL.
		collapsed, expired, err := v.absent(ctx, a, day, stored-a.distinct)
		if err != nil {
			return err
		}
		v.Collapsed += collapsed
		v.Expired += expired
		if short := stored - a.distinct - min(collapsed+expired, stored-a.distinct); short > 0 {
			differ("short", "%d of its %d rows are not in the table", short, stored)
		}
	}
	return nil
}

// absent explains rows of an object that are not in the table. It counts those
// that are there as rows of another object or place, and those past the TTL.
func (v *verifier) absent(ctx context.Context, a *account, day time.Time,
	rows uint64) (collapsed, expired uint64, err error) {
	o := a.object
	before, err := v.counts.Expired(ctx, v.spec.Name)
	if err != nil {
		return 0, 0, err
	}
	if a.entry.Received.Before(before) {
		return 0, rows, nil // even the newest
	}
	have := map[uint32]bool{}
	for _, row := range a.entry.Refused {
		have[row] = true // it is not looked for
	}
	if err := v.counts.RowsOf(ctx, v.spec.Name, o.Key, day, func(row uint32) { have[row] = true }); err != nil {
		return 0, 0, err
	}
	var ids []pipeline.Identity
	ask := func() error {
		known, err := v.counts.Known(ctx, v.spec.Name, ids)
		collapsed += known
		ids = ids[:0]
		return err
	}
	_, err = v.source.Read(ctx, o.Key, func(e *pipeline.Event) error {
		switch {
		case have[e.Row]:
		case pipeline.Millis(e.ReceivedAt).Before(before):
			expired++
		default:
			ids = append(ids, e.Identity())
		}
		if len(ids) == 1000 {
			return ask()
		}
		return nil
	})
	if err == nil && len(ids) > 0 {
		err = ask()
	}
	return collapsed, expired, err
}
