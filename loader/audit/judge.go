package audit

import (
	"context"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/show"
)

// judge counts one object of the span's days, and records its differences.
func (v *verifier) judge(ctx context.Context, a *account) error {
	if err := v.findImport(ctx, a); err != nil {
		return err
	}
	if !a.stored() {
		v.judgeGone(a)
		return nil
	}
	v.Objects++
	v.judgeBlobs(a)
	switch {
	case a.entry.State == pipeline.Dropped:
		v.Dropped++
		return nil
	case a.entry.State == pipeline.Dead:
		v.BucketRows += uint64(a.object.Meta.Rows)
		v.differ(a.key, "dead", "given up after %s: %s; fix the cause, then run `penstock dlq redrive`",
			show.Plural(int(a.entry.Failures), "failure"), a.entry.Error)
		return nil
	case a.loaded:
		return v.judgeLoaded(ctx, a)
	}
	return v.judgeWaiting(ctx, a)
}

// findImport counts the rows of an import in the partitions where they are. They were received when it was stored,
// whatever day its key names.
func (v *verifier) findImport(ctx context.Context, a *account) error {
	if _, err := pipeline.ParseKey(a.key); err == nil || !a.loaded || a.rows > 0 {
		return nil
	}
	a.day = a.entry.Received.UTC().Truncate(24 * time.Hour)
	return v.Table.CountRows(ctx, v.spec.Name, a.key, a.key, a.day, func(_ string, rows, distinct uint64) {
		a.rows, a.distinct = rows, distinct
	})
}

// judgeGone judges an object that the bucket does not have.
func (v *verifier) judgeGone(a *account) {
	switch {
	case a.loaded:
		v.differ(a.key, "gone", "the ledger has it with %s, the bucket does not have it", show.Plural(a.entry.Rows, "row"))
	case a.entry.State == pipeline.Dead:
		v.differ(a.key, "dead", "given up after %s: %s; the bucket does not have it: restore it, then run "+
			"`penstock dlq redrive`, or run `penstock dlq drop`", show.Plural(int(a.entry.Failures), "failure"), a.entry.Error)
	case a.rows > 0:
		v.differ(a.key, "extra", "the table has %s of it, and neither bucket nor ledger has it as loaded",
			show.Plural(a.rows, "row"))
	}
}

func (v *verifier) judgeBlobs(a *account) {
	v.BlobBytes += uint64(a.blobs.Size)
	if a.blobs.Key != "" {
		v.Blobs++
	}
	switch want := a.object.Meta.BlobBytes; {
	case want > 0 && a.blobs.Key == "":
		v.differ(a.key, "blobs", "its events refer to %s of blobs, and the bucket has none", show.Plural(want, "byte"))
	case a.blobs.Size < want:
		v.differ(a.key, "blobs", "its events refer to %s of blobs, the bucket has %d", show.Plural(want, "byte"),
			a.blobs.Size)
	}
}

// judgeWaiting judges an object that was not loaded when the ledger was read.
func (v *verifier) judgeWaiting(ctx context.Context, a *account) error {
	// It may have been loaded since then.
	now, err := Entries(ctx, v.Ledger, []pipeline.Object{a.object})
	if err != nil {
		return err
	}
	if e, known := now[a.key]; known && e.State == pipeline.Loaded || v.now.Sub(a.object.Modified) < v.Grace {
		v.Waiting++
		return nil
	}
	v.BucketRows += uint64(a.object.Meta.Rows)
	v.differ(a.key, "missing",
		"it is in the bucket with %s and was not loaded; `penstock sweep --since %s` enqueues it",
		show.Plural(a.object.Meta.Rows, "row"), a.day.Format(time.DateOnly))
	return nil
}

// judgeLoaded compares the rows of a loaded object.
func (v *verifier) judgeLoaded(ctx context.Context, a *account) error {
	refused := uint64(len(a.entry.Refused))
	held := a.entry.Rows + refused // an import has no metadata with its rows
	if a.object.Meta.SHA256 != "" {
		held = uint64(a.object.Meta.Rows)
	}
	v.LedgerRows += a.entry.Rows
	v.TableRows += a.rows
	v.BucketRows += held
	v.Refused += refused
	if a.entry.ETag != a.object.ETag {
		v.differ(a.key, "changed", "its ETag is %s, it was loaded as %s", a.object.ETag, a.entry.ETag)
	}
	if held != a.entry.Rows+refused {
		v.differ(a.key, "short", "it holds %s, the ledger has %d and %d refused", show.Plural(held, "row"),
			a.entry.Rows, refused)
	}
	if a.rows > a.distinct {
		v.differ(a.key, "double", "the table has %s of it more than once", show.Plural(a.rows-a.distinct, "row"))
	}
	want := held - min(refused, held)
	if a.distinct > want {
		v.differ(a.key, "extra", "the table has %s of it, it holds %d that were not refused",
			show.Plural(a.distinct, "row"), want)
	}
	if a.distinct >= want {
		return nil
	}
	absent := want - a.distinct
	collapsed, expired, err := v.explain(ctx, a, absent)
	if err != nil {
		return err
	}
	v.Collapsed += collapsed
	v.Expired += expired
	if short := absent - min(collapsed+expired, absent); short > 0 {
		v.differ(a.key, "short", "the table lacks %d of its %s", short, show.Plural(want, "row"))
	}
	return nil
}

// knownBatch is the most events in one query of the table.
const knownBatch = 1000

// explain finds why rows of an object are not in the table. If a client sent an event twice, a merge keeps one row; the
// other may belong to another object or place. And the table's TTL deletes old rows.
func (v *verifier) explain(ctx context.Context, a *account, absent uint64) (collapsed, expired uint64, err error) {
	expiry, err := v.Table.Expired(ctx, v.spec.Name)
	if err != nil {
		return 0, 0, err
	}
	if a.entry.Received.Before(expiry.Received) {
		return 0, absent, nil // even the newest has expired
	}
	there := map[uint32]bool{}
	for _, row := range a.entry.Refused {
		there[row] = true // do not look for it
	}
	err = v.Table.RowsOf(ctx, v.spec.Name, a.key, a.day, func(row uint32) { there[row] = true })
	if err != nil {
		return 0, 0, err
	}
	lookup := lookup{table: v.Table, name: v.spec.Name}
	_, err = v.Source.Read(ctx, a.key, func(e *pipeline.Event) error {
		switch {
		case there[e.Row]:
			return nil
		case expiry.Covers(e.ReceivedAt, e.Time()):
			expired++
			return nil
		}
		return lookup.add(ctx, e)
	})
	if err == nil {
		err = lookup.flush(ctx)
	}
	return lookup.known, expired, err
}

// lookup counts how many events the table has, as rows of any object.
type lookup struct {
	table  Known
	name   string
	events []pipeline.Identity // not yet looked up
	asked  uint64
	known  uint64
}

func (l *lookup) add(ctx context.Context, e *pipeline.Event) error {
	if l.events = append(l.events, e.Identity()); len(l.events) < knownBatch {
		return nil
	}
	return l.flush(ctx)
}

func (l *lookup) flush(ctx context.Context) error {
	if len(l.events) == 0 {
		return nil
	}
	known, err := l.table.Known(ctx, l.name, l.events)
	l.asked += uint64(len(l.events))
	l.known += known
	l.events = l.events[:0]
	return err
}

// others compares objects outside the folders of the span's days with the ledger if they were stored within the span.
func (v *verifier) others(ctx context.Context, objects []pipeline.Object) error {
	var lately []pipeline.Object
	for _, o := range objects {
		if v.Span.has(o.Modified) {
			lately = append(lately, o)
		} else {
			v.NotChecked++
		}
	}
	if len(lately) == 0 {
		return nil
	}
	entries, err := Entries(ctx, v.Ledger, lately)
	if err != nil {
		return err
	}
	for _, o := range lately {
		v.Others++
		e, known := entries[o.Key]
		v.judgeOther(o, e, known)
	}
	return nil
}

func (v *verifier) judgeOther(o pipeline.Object, e pipeline.Load, known bool) {
	const way = "`penstock sweep --all` enqueues it, `penstock reingest %s` loads it at once"
	stored := o.Modified.UTC().Format(time.RFC3339)
	switch {
	case known && e.State == pipeline.Loaded && e.ETag != o.ETag:
		v.differ(o.Key, "changed", "its ETag is %s, it was loaded as %s; `penstock reingest %s --replace` loads it anew",
			o.ETag, e.ETag, o.Key)
	case known && e.State == pipeline.Loaded:
	case known && e.State == pipeline.Dropped:
		v.Dropped++
	case v.now.Sub(o.Modified) < v.Grace:
		v.Waiting++
	case known && e.State == pipeline.Dead:
		v.differ(o.Key, "dead", "given up; `penstock dlq show %s` says why, `penstock dlq redrive %s` tries it again",
			o.Key, o.Key)
	case known:
		v.differ(o.Key, "missing", "stored at %s, the ledger says %q; "+way, stored, e.State.String(), o.Key)
	default:
		v.differ(o.Key, "missing", "stored at %s, and not loaded; "+way, stored, o.Key)
	}
}
