package audit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// noonKey is the key of an object of ours that began at noon.
func noonKey(seq int) string {
	return pipeline.Key{Prefix: "events/", Time: noon, Receiver: "r", Seq: uint64(seq), Format: pipeline.NDJSON}.String()
}

// newNoon returns a world with one object of ours and three rows, all loaded. Row i was received i ms after noon.
func newNoon() (w *world, key string) {
	w, key = newWorld(), noonKey(1)
	w.objects[key] = noon.Add(time.Minute)
	w.metas[key] = pipeline.Meta{Schema: 2, Rows: 3, SHA256: "s"}
	w.entries[key] = pipeline.Load{ETag: "e", State: pipeline.Loaded, Rows: 3, Received: noon.Add(2 * time.Millisecond)}
	for i := range 3 {
		w.events[key] = append(w.events[key], pipeline.Event{Row: uint32(i), ID: pipeline.UUID{15: byte(i)},
			Name: []byte("n"), ReceivedAt: noon.UnixMilli() + int64(i)})
	}
	return w, key
}

// with returns a changed ledger entry.
func with(l pipeline.Load, change func(*pipeline.Load)) pipeline.Load {
	change(&l)
	return l
}

// All ways in which bucket, ledger and table of one object disagree, or only seem to.
func TestVerifyJudges(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(w *world, key string)
		want   string // kinds of the differences
		sums   Verified
	}{
		{"all agree", func(*world, string) {}, "[]", Verified{Objects: 1, BucketRows: 3, LedgerRows: 3, TableRows: 3}},
		{"not loaded", func(w *world, key string) { delete(w.entries, key) }, "[missing]",
			Verified{Objects: 1, BucketRows: 3}},
		{"failed", func(w *world, key string) {
			w.entries[key] = pipeline.Load{State: pipeline.Failed}
		}, "[missing]", Verified{Objects: 1, BucketRows: 3}},
		{"given up", func(w *world, key string) {
			w.entries[key] = pipeline.Load{State: pipeline.Dead, Failures: 3, Error: "it is damaged"}
		}, "[dead]", Verified{Objects: 1, BucketRows: 3}},
		{"dropped", func(w *world, key string) {
			w.entries[key] = pipeline.Load{State: pipeline.Dropped}
		}, "[]", Verified{Objects: 1, Dropped: 1}},
		{"deleted from the bucket", func(w *world, key string) { delete(w.objects, key) }, "[gone]", Verified{}},
		{"given up, and not in the bucket", func(w *world, key string) {
			w.entries[key] = pipeline.Load{State: pipeline.Dead, Failures: 3, Error: "the bucket does not have it"}
			delete(w.objects, key)
		}, "[dead]", Verified{}},
		{"dropped, and not in the bucket", func(w *world, key string) {
			w.entries[key] = pipeline.Load{State: pipeline.Dropped}
			delete(w.objects, key)
		}, "[]", Verified{}},
		{"rows of nothing", func(w *world, key string) {
			w.rows[key] = []uint32{0, 1}
			delete(w.objects, key)
			delete(w.entries, key)
		}, "[extra]", Verified{}},
		{"begun, then deleted", func(w *world, key string) {
			w.entries[key] = pipeline.Load{}
			delete(w.objects, key)
		}, "[]", Verified{}},
		{"a row twice", func(w *world, key string) { w.rows[key] = []uint32{0, 1, 1, 2} }, "[double]",
			Verified{Objects: 1, BucketRows: 3, LedgerRows: 3, TableRows: 4}},
		{"a row too many", func(w *world, key string) { w.rows[key] = []uint32{0, 1, 2, 3} }, "[extra]",
			Verified{Objects: 1, BucketRows: 3, LedgerRows: 3, TableRows: 4}},
		{"a row is gone", func(w *world, key string) { w.rows[key] = []uint32{0, 2} }, "[short]",
			Verified{Objects: 1, BucketRows: 3, LedgerRows: 3, TableRows: 2}},
		{"a resend stands for a row", func(w *world, key string) {
			w.rows[key] = []uint32{0, 2}
			w.known[w.events[key][1].Identity()] = true
		}, "[]", Verified{Objects: 1, BucketRows: 3, LedgerRows: 3, TableRows: 2, Collapsed: 1}},
		{"a refused row", func(w *world, key string) {
			w.entries[key] = with(w.entries[key], func(l *pipeline.Load) { l.Rows, l.Refused = 2, []uint32{1} })
			w.rows[key] = []uint32{0, 2}
		}, "[]", Verified{Objects: 1, BucketRows: 3, LedgerRows: 2, TableRows: 2, Refused: 1}},
		{"a refused row, and another is gone", func(w *world, key string) {
			w.entries[key] = with(w.entries[key], func(l *pipeline.Load) { l.Rows, l.Refused = 2, []uint32{1} })
			w.rows[key] = []uint32{0}
		}, "[short]", Verified{Objects: 1, BucketRows: 3, LedgerRows: 2, TableRows: 1, Refused: 1}},
		{"the ledger counts fewer rows", func(w *world, key string) {
			w.entries[key] = with(w.entries[key], func(l *pipeline.Load) { l.Rows = 2 })
			w.rows[key] = []uint32{0, 1, 2}
		}, "[short]", Verified{Objects: 1, BucketRows: 3, LedgerRows: 2, TableRows: 3}},
		{"overwritten", func(w *world, key string) { w.etags[key] = "new" }, "[changed]",
			Verified{Objects: 1, BucketRows: 3, LedgerRows: 3, TableRows: 3}},
		{"two rows have expired", func(w *world, key string) {
			w.rows[key], w.expired.Received = []uint32{2}, noon.Add(2*time.Millisecond)
		}, "[]", Verified{Objects: 1, BucketRows: 3, LedgerRows: 3, TableRows: 1, Expired: 2}},
		{"all rows have expired, one is still there", func(w *world, key string) {
			w.rows[key], w.expired.Received = []uint32{2}, noon.Add(10*time.Millisecond)
		}, "[]", Verified{Objects: 1, BucketRows: 3, LedgerRows: 3, TableRows: 1, Expired: 2}},
		{"one row has expired, another is gone", func(w *world, key string) {
			w.rows[key], w.expired.Received = []uint32{2}, noon.Add(time.Millisecond)
		}, "[short]", Verified{Objects: 1, BucketRows: 3, LedgerRows: 3, TableRows: 1, Expired: 1}},
		{"a row has expired by its own time", func(w *world, key string) {
			w.events[key][1].Timestamp = noon.AddDate(0, -2, 0).UnixMilli()
			w.rows[key], w.expired.Time = []uint32{0, 2}, noon.AddDate(0, -1, 0)
		}, "[]", Verified{Objects: 1, BucketRows: 3, LedgerRows: 3, TableRows: 2, Expired: 1}},
		{"two rows are gone, and nothing expires", func(w *world, key string) { w.rows[key] = []uint32{2} }, "[short]",
			Verified{Objects: 1, BucketRows: 3, LedgerRows: 3, TableRows: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, key := newNoon()
			c.change(w, key)
			v, err := w.verify(t.Context(), noon.Add(-time.Second), noon.Add(time.Second))
			if err != nil {
				t.Fatal(err)
			}
			kinds := []string{}
			for _, d := range v.Differences {
				if d.Key != key || d.Message == "" {
					t.Errorf("difference %+v, want it to be of %s", d, key)
				}
				kinds = append(kinds, d.Kind)
			}
			v.Pipeline, v.Differences = "", nil
			if fmt.Sprint(kinds) != c.want || fmt.Sprint(v) != fmt.Sprint(c.sums) {
				t.Errorf("differences %v, want %s\n got %+v\nwant %+v", kinds, c.want, v, c.sums)
			}
		})
	}
}

// Objects loaded during the audit are no difference.
func TestVerifyUnderTraffic(t *testing.T) {
	w, key := newNoon()
	loaded := w.entries[key]
	w.entries[key] = pipeline.Load{}
	w.between = func() { w.entries[key] = loaded }
	v, err := w.verify(t.Context(), noon.Add(-time.Second), noon.Add(time.Second))
	if err != nil || len(v.Differences) > 0 || v.Waiting != 1 {
		t.Errorf("%+v, %v", v, err)
	}
}

// Objects stored within the grace may be on their way, in any folder.
func TestVerifyWaits(t *testing.T) {
	w := newWorld()
	now := time.Now()
	for key, age := range map[string]time.Duration{
		"events/dt=" + now.UTC().Format(time.DateOnly) + "/a.ndjson": time.Minute,
		"events/dt=2020-01-01/b.ndjson":                              time.Minute,
		"events/dt=2020-01-01/c.ndjson":                              time.Hour,
	} {
		w.objects[key] = now.Add(-age)
	}
	days := 0
	v, err := Verify(t.Context(), pipeline.Events,
		VerifyOptions{Span: Span{now.Add(-time.Hour - time.Minute), now.Add(time.Second)},
			Grace: 5 * time.Minute, Bucket: w, Source: w, Ledger: w, Table: w, Progress: func(Verified) { days++ }})
	if err != nil || v.Waiting != 2 || len(v.Differences) != 1 || days == 0 {
		t.Errorf("%+v, %v; progress after %d days", v, err, days)
	}
}

// An audit that cannot read one of the three ends, and says which.
func TestVerifyFails(t *testing.T) {
	for _, call := range []string{"ledger", "count", "list events/dt=2026-11-22/", "list blobs/events/dt=2026-11-22/",
		"head", "expired", "rows",
		"known", "read", "list events/"} {
		w, key := newNoon()
		w.rows[key] = []uint32{0, 2}
		w.failing = call
		_, err := w.verify(t.Context(), noon.Add(-time.Second), noon.Add(time.Second))
		if err == nil || !strings.HasPrefix(err.Error(), "verify ") || !strings.HasSuffix(err.Error(), call+" fails") {
			t.Errorf("%s fails: error %v", call, err)
		}
	}
}

// More events than fit into one query are all looked up.
func TestVerifyAsksInBatches(t *testing.T) {
	w, key := newNoon()
	const rows = 2*knownBatch + 500
	w.events[key] = nil
	for i := range rows {
		e := pipeline.Event{Row: uint32(i), ID: pipeline.UUID{14: byte(i >> 8), 15: byte(i)}, Name: []byte("n"),
			ReceivedAt: noon.UnixMilli()}
		w.events[key] = append(w.events[key], e)
		w.known[e.Identity()] = i != 7
	}
	w.metas[key] = pipeline.Meta{Schema: 2, Rows: rows, SHA256: "s"}
	w.entries[key] = with(w.entries[key], func(l *pipeline.Load) { l.Rows = rows })
	w.rows[key] = []uint32{}
	v, err := w.verify(t.Context(), noon.Add(-time.Second), noon.Add(time.Second))
	if err != nil || v.Collapsed != rows-1 || len(v.Differences) != 1 {
		t.Errorf("%d collapsed, want %d; differences %+v, error %v", v.Collapsed, rows-1, v.Differences, err)
	}
}

// The audit finds objects stored in the span in any folder. It ignores files that a sweep does not list, and reports
// what it did not check.
func TestVerifyOutsideTheDays(t *testing.T) {
	today := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	lately, before := today.Add(10*time.Hour), today.Add(-100*24*time.Hour)
	own := func(at time.Time) string {
		return pipeline.Key{Prefix: "events/", Time: at, Receiver: "r", Seq: 1, Format: pipeline.Parquet}.String()
	}
	a := newWorld()
	a.objects = map[string]time.Time{
		"events/dt=2026-11-20/import.ndjson":        lately, // in the day's folder, loaded
		"events/dt=2026-11-20/_SUCCESS":             lately,
		"events/dt=2026-11-20/readme.txt":           lately, // its notification made it a dead letter
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
		own(today.Add(-time.Hour)):                  today, // began on the day before, stored today
		own(before):                                 lately,
		"errors/dt=2026-11-20/not-this-one.ndjson":  lately,
		"events/dt=2026-11-20/a/b/deep-down.ndjson": lately,
	}
	a.states = map[string]pipeline.LoadState{
		"events/dt=2026-11-20/import.ndjson": pipeline.Loaded, "events/dt=2026-11-20/readme.txt": pipeline.Dead,
		"events/dt=2020-01-01/loaded.ndjson": pipeline.Loaded,
		"events/dt=2020-01-01/dead.ndjson":   pipeline.Dead, "events/dt=2020-01-01/dropped.ndjson": pipeline.Dropped,
		"events/dt=2020-01-01/begun.ndjson":         pipeline.Loading,
		"events/imports/overwritten.ndjson":         pipeline.Loaded,
		"events/dt=2026-11-20/a/b/deep-down.ndjson": pipeline.Loaded,
	}
	a.etags["events/imports/overwritten.ndjson"] = "after"
	v, err := a.verify(t.Context(), today, today.Add(24*time.Hour))
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
	if _, err := Sweep(t.Context(),
		SweepOptions{Scope: All(pipeline.Events), Bucket: a, Ledger: a, Enqueue: tell}); err != nil {
		t.Fatal(err)
	}
	for key, kind := range want {
		if kind == "missing" != slices.Contains(told, key) {
			t.Errorf("%s is %s; sweep --all enqueues %q", key, kind, told)
		}
	}
	// An import into an earlier day's folder has its rows where it was stored.
	v, err = a.verify(t.Context(), before.Add(-24*time.Hour), today.Add(24*time.Hour))
	if err != nil || v.TableRows != 4 || v.Collapsed != 0 {
		t.Errorf("%d rows, %d collapsed, %v", v.TableRows, v.Collapsed, err)
	}
	newYear := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	v, err = a.verify(t.Context(), newYear, newYear.Add(24*time.Hour))
	if err != nil || v.Objects != 6 || v.TableRows != 2 || v.Collapsed != 0 {
		t.Errorf("%d objects, %d rows, %d collapsed, %v", v.Objects, v.TableRows, v.Collapsed, err)
	}
	for _, d := range v.Differences {
		if d.Kind == "missing" && !strings.Contains(d.Message, "`penstock sweep --since 2020-01-01`") {
			t.Errorf("%s: %s", d.Key, d.Message)
		}
	}
}

// The blobs of an object are in the bucket, as many bytes as its events refer to.
func TestVerifyBlobs(t *testing.T) {
	for _, c := range []struct {
		size int64 // below 0: they are not there
		want int
	}{{100, 0}, {120, 0}, {99, 1}, {-1, 1}} {
		w, key := newNoon()
		meta := w.metas[key]
		meta.BlobBytes = 100
		w.metas[key] = meta
		k, err := pipeline.ParseKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if blobs := pipeline.BlobKey(k); c.size >= 0 {
			w.objects[blobs], w.metas[blobs] = noon, pipeline.Meta{BlobBytes: c.size}
		}
		// An edge receiver's are named by a request, and only counted.
		edge := strings.Replace(pipeline.BlobKey(k), ".blobs", "-0193b3f0-7b5a-7cde-8f01-234567890123.blobs", 1)
		w.objects[edge], w.metas[edge] = noon, pipeline.Meta{BlobBytes: 7}
		v, err := w.verify(t.Context(), noon.Add(-time.Second), noon.Add(time.Second))
		if v.EdgeBlobs != 1 {
			t.Errorf("%d blob objects of the edge, want 1", v.EdgeBlobs)
		}
		if err != nil || len(v.Differences) != c.want || c.want > 0 && v.Differences[0].Kind != "blobs" {
			t.Errorf("%d bytes: %+v, %v", c.size, v, err)
		}
	}
}
