package loader

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// moving is a bucket with one object of two rows, which is loaded just after
// the audit's first question to ledger or table.
type moving struct {
	*world
	object pipeline.Object
	asked  bool
}

func (m *moving) loaded() bool {
	was := m.asked
	m.asked = true
	return was
}

func (m *moving) state() pipeline.LoadState {
	if m.loaded() {
		return pipeline.Loaded
	}
	return pipeline.Loading
}

func (m *moving) List(_ context.Context, _, _, _ string, page func([]pipeline.Object) error) error {
	return page([]pipeline.Object{m.object})
}

func (m *moving) Head(context.Context, string) (pipeline.Object, error) { return m.object, nil }

func (m *moving) Loads(_ context.Context, _, _ string, each func(pipeline.Load) error) error {
	return each(pipeline.Load{Key: m.object.Key, State: m.state(), Rows: 2})
}

func (m *moving) CountRows(_ context.Context, _, _, _ string, _ time.Time, each func(string, uint64, uint64)) error {
	if m.loaded() {
		each(m.object.Key, 2, 2)
	}
	return nil
}

func (m *moving) RowsOf(context.Context, string, string, time.Time, func(uint32)) error { return nil }
func (m *moving) Expired(context.Context, string) (time.Time, error)                    { return time.Time{}, nil }
func (m *moving) Known(context.Context, string, []pipeline.Identity) (uint64, error)    { return 0, nil }

// What is loaded while the audit looks is no difference.
func TestVerifyUnderTraffic(t *testing.T) {
	w := newWorld()
	key := w.put(t, 2, noon, 1)
	m := &moving{world: w, object: pipeline.Object{Key: key, Meta: w.metas[key], Modified: pipeline.Millis(noon)}}
	v, err := Verify(t.Context(), pipeline.Events, Span{pipeline.Millis(noon - 1000), pipeline.Millis(noon + 1000)}, 0, m, Source{Store: m, Dir: t.TempDir()}, m, m, nil)
	if err != nil || len(v.Differences) > 0 || v.Waiting != 1 {
		t.Errorf("%+v, %v", v, err)
	}
}

// audited is a shelf whose loaded objects have two rows each, in the partitions of the day on which they were stored.
type audited struct {
	*world
	*shelf
	heads atomic.Int32 // requests for single objects
}

func (a *audited) Head(_ context.Context, key string) (pipeline.Object, error) {
	a.heads.Add(1)
	return pipeline.Object{Key: key, ETag: "e"}, nil
}

func (a *audited) Loads(_ context.Context, first, last string, each func(pipeline.Load) error) error {
	for _, key := range slices.Sorted(maps.Keys(a.states)) {
		if key >= first && key <= last {
			etag := "e"
			if strings.Contains(key, "overwritten") {
				etag = "before"
			}
			if err := each(pipeline.Load{Key: key, ETag: etag, State: a.states[key], Rows: 2,
				Received: a.shelf.objects[key]}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *audited) CountRows(_ context.Context, _, first, last string, day time.Time,
	each func(string, uint64, uint64)) error {
	for key, state := range a.states {
		if stored := a.shelf.objects[key].Truncate(24 * time.Hour); key >= first && key <= last &&
			state == pipeline.Loaded && stored.Equal(day) {
			each(key, 2, 2)
		}
	}
	return nil
}

func (a *audited) RowsOf(context.Context, string, string, time.Time, func(uint32)) error { return nil }
func (a *audited) Expired(context.Context, string) (time.Time, error)                    { return time.Time{}, nil }
func (a *audited) Known(_ context.Context, _ string, e []pipeline.Identity) (uint64, error) {
	return uint64(len(e)), nil
}

// The audit knows what was stored in the span wherever it lies, counts no file that a sweep does not
// list, and says what it did not look at.
func TestVerifyOutsideTheDays(t *testing.T) {
	today := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	lately, before := today.Add(10*time.Hour), today.Add(-100*24*time.Hour)
	own := func(at time.Time) string {
		return pipeline.Key{Prefix: "events/", Time: at, Receiver: "r", Seq: 1, Format: pipeline.Parquet}.String()
	}
	a := &audited{world: newWorld(), shelf: &shelf{objects: map[string]time.Time{
		"events/dt=2026-11-20/import.ndjson":        lately, // in the folder of the day, loaded
		"events/dt=2026-11-20/_SUCCESS":             lately,
		"events/dt=2026-11-20/readme.txt":           lately, // a dead letter by its notification
		"events/dt=2020-01-01/loaded.ndjson":        lately,
		"events/dt=2020-01-01/forgotten.ndjson":     lately,
		"events/dt=2020-01-01/long-ago.ndjson":      before,
		"events/dt=2020-01-01/dead.ndjson":          lately,
		"events/dt=2020-01-01/dropped.ndjson":       lately,
		"events/dt=2020-01-01/begun.ndjson":         lately,
		"events/dt=2020-01-01/_SUCCESS":             lately,
		"events/dt=2020/x.ndjson":                   lately,
		"events/imports/dt=2026-11-20/hive.ndjson":  lately,
		"events/top.ndjson":                         lately,
		"events/imports/overwritten.ndjson":         lately,
		own(today.Add(-time.Hour)):                  today, // began on the day before, stored on this one
		own(before):                                 lately,
		"errors/dt=2026-11-20/not-this-one.ndjson":  lately,
		"events/dt=2026-11-20/a/b/deep-down.ndjson": lately,
	}, states: map[string]pipeline.LoadState{
		"events/dt=2026-11-20/import.ndjson": pipeline.Loaded, "events/dt=2026-11-20/readme.txt": pipeline.Dead,
		"events/dt=2020-01-01/loaded.ndjson": pipeline.Loaded,
		"events/dt=2020-01-01/dead.ndjson":   pipeline.Dead, "events/dt=2020-01-01/dropped.ndjson": pipeline.Dropped,
		"events/dt=2020-01-01/begun.ndjson":         pipeline.Loading,
		"events/imports/overwritten.ndjson":         pipeline.Loaded,
		"events/dt=2026-11-20/a/b/deep-down.ndjson": pipeline.Loaded,
	}}}
	v, err := Verify(t.Context(), pipeline.Events, Span{today, today.Add(24 * time.Hour)}, 0, a, Source{Store: a, Dir: t.TempDir()}, a, a, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"events/dt=2020-01-01/forgotten.ndjson": "missing", "events/dt=2020-01-01/dead.ndjson": "dead",
		"events/dt=2020-01-01/begun.ndjson": "missing", "events/dt=2020/x.ndjson": "missing",
		"events/imports/dt=2026-11-20/hive.ndjson": "missing", "events/top.ndjson": "missing",
		own(today.Add(-time.Hour)): "missing", own(before): "missing", "events/dt=2026-11-20/readme.txt": "dead",
		"events/imports/overwritten.ndjson": "changed",
	}
	got := map[string]string{}
	for _, d := range v.Differences {
		got[d.Key] = d.Kind
		if d.Kind == "missing" && !strings.Contains(d.Message, "`penstock sweep --all`") {
			t.Errorf("%s: %s", d.Key, d.Message)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("differences\n got %v\nwant %v", got, want)
	}
	if v.Objects != 3 || v.Others != 11 || v.NotChecked != 1 || v.Ignored != 2 || v.Dropped != 1 ||
		v.TableRows != 4 || a.heads.Load() != 3 {
		t.Errorf("%+v, %d heads", v, a.heads.Load())
	}
	// What it calls missing is what `sweep --all` enqueues, and what a full sweep does.
	var told []string
	tell := func(_ context.Context, n pipeline.Notification) (bool, error) {
		told = append(told, n.Key)
		return false, nil
	}
	if _, err := SweepAll(t.Context(), pipeline.Events, 0, a, a, tell, nil); err != nil {
		t.Fatal(err)
	}
	for key, kind := range want {
		if kind == "missing" != slices.Contains(told, key) {
			t.Errorf("%s is %s; sweep --all enqueues %q", key, kind, told)
		}
	}
	// An import into an earlier day's folder has its rows where it was stored.
	whole := Span{before.Add(-24 * time.Hour), today.Add(24 * time.Hour)}
	v, err = Verify(t.Context(), pipeline.Events, whole, 0, a, Source{Store: a, Dir: t.TempDir()}, a, a, nil)
	if err != nil || v.TableRows != 4 || v.Collapsed != 0 {
		t.Errorf("%d rows, %d collapsed, %v", v.TableRows, v.Collapsed, err)
	}
	newYear := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	v, err = Verify(t.Context(), pipeline.Events, Span{newYear, newYear.Add(24 * time.Hour)}, 0, a, Source{Store: a, Dir: t.TempDir()}, a, a, nil)
	if err != nil || v.Objects != 6 || v.TableRows != 2 || v.Collapsed != 0 {
		t.Errorf("%d objects, %d rows, %d collapsed, %v", v.Objects, v.TableRows, v.Collapsed, err)
	}
	for _, d := range v.Differences {
		if d.Kind == "missing" && !strings.Contains(d.Message, "`penstock sweep --since 2020-01-01`") {
			t.Errorf("%s: %s", d.Key, d.Message)
		}
	}
}

// withBlobs is a bucket whose object has blobs of a size; below 0: none are there.
type withBlobs struct {
	*moving
	size int64
}

func (b withBlobs) List(_ context.Context, prefix, _, _ string, page func([]pipeline.Object) error) error {
	if !strings.HasPrefix(prefix, pipeline.BlobPrefix) {
		return page([]pipeline.Object{b.object})
	}
	k, err := pipeline.ParseKey(b.object.Key)
	if err != nil || b.size < 0 {
		return err
	}
	return page([]pipeline.Object{{Key: pipeline.BlobKey(k), Size: b.size}})
}

func TestVerifyBlobs(t *testing.T) {
	w := newWorld()
	key := w.put(t, 2, noon, 1)
	meta := w.metas[key]
	meta.BlobBytes = 100
	for _, c := range []struct {
		size int64
		want int
	}{{100, 0}, {120, 0}, {99, 1}, {-1, 1}} {
		m := withBlobs{&moving{world: w, asked: true, object: pipeline.Object{Key: key, Meta: meta, Modified: pipeline.Millis(noon)}}, c.size}
		v, err := Verify(t.Context(), pipeline.Events, Span{pipeline.Millis(noon - 1000), pipeline.Millis(noon + 1000)}, 0, m, Source{Store: m, Dir: t.TempDir()}, m, m, nil)
		if err != nil || len(v.Differences) != c.want || c.want > 0 && v.Differences[0].Kind != "blobs" {
			t.Errorf("%d bytes: %+v, %v", c.size, v, err)
		}
	}
}
