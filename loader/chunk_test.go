package loader

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/bubble"
)

// Partitions in any order: one block for each partition and each row once, even if the table is asked for each chunk.
func TestPartitionsInAnyOrder(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.window = 1
		for _, times := range []func(i int) int64{
			late,
			func(i int) int64 { return noon + int64(i*17%10)*week },
			func(i int) int64 { return noon - int64(i)*week/3 },
			func(int) int64 { return pipeline.NoTime },
		} {
			w.times = times
			w.put(t, 35, noon, 1)
		}
		stop := start(t, w.loader(t, "a"))
		time.Sleep(10 * time.Minute)
		stop()
		w.check(t)
		if n := w.open(); n != 0 {
			t.Errorf("%d deliveries are open", n)
		}
	})
}

// An attempt that continues after a kill reports which blocks it found, because nobody has counted their properties.
func TestFoundBlocks(t *testing.T) {
	w := newWorld()
	w.times = func(i int) int64 { return noon - int64(i%2)*week }
	key := w.put(t, 25, noon, 1)
	w.ledger[key] = pipeline.Load{Key: key, ETag: "e", Pipeline: "events", State: pipeline.Loading, ChunkRows: 10,
		ChunkBytes: 1 << 20, Attempts: 1, Reading: pipeline.PartitionUnit}
	var want []int
	for row := range 10 { // of the first cut: one of two blocks
		if row%2 == 1 {
			w.rows[rowKey{key, uint32(row), 0, pipeline.Partition(noon - week)}]++
			want = append(want, row)
		}
	}
	if _, err := w.loader(t, "a").load(t.Context(), pipeline.Notification{Key: key}); err != nil {
		t.Fatal(err)
	}
	w.check(t)
	var got []int
	for _, e := range w.found {
		got = append(got, int(e.Row))
	}
	if !slices.Equal(got, want) {
		t.Errorf("found rows %v, want %v", got, want)
	}
}

// Each partition of a chunk is a separate block with its rows in order.
func TestGather(t *testing.T) {
	w := newWorld()
	a := &attempt{Loader: w.loader(t, "a"), entry: pipeline.Load{Key: "k", Refused: []uint32{3}}}
	var events []pipeline.Event
	for i, d := range []int64{3, 3, 1, 3, 2, 1} {
		at := int64(i)
		events = append(events, pipeline.Event{Row: uint32(i), Timestamp: noon + d*week - at, ReceivedAt: noon + at})
	}
	cut := newCut(a)
	for _, part := range [][]pipeline.Event{events[:2], events[2:]} {
		if err := cut.gather(t.Context(), part, nil); err != nil {
			t.Fatal(err)
		}
	}
	got := ""
	for _, c := range cut.chunks {
		for _, e := range c.block.(*block).events {
			got += fmt.Sprint(e.Row)
		}
		got += fmt.Sprintf(" %d-%d %d-%d %d %d, ", c.first, c.end, c.received[0]-noon, c.received[1]-noon, c.latest-noon, c.rows)
	}
	if want := fmt.Sprintf("01 0-4 0-3 %d 2, 25 2-6 2-5 %d 2, 4 4-5 4-4 %d 1, ", 3*week, week-2, 2*week-4); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// openTable counts blocks that are filled and not yet inserted.
type openTable struct {
	*world
	open, most int
}

type openBlock struct {
	*block
	table *openTable
}

func (o *openTable) NewBlock(_ context.Context, _, object string, generation uint32) (Block, error) {
	o.open++
	o.most = max(o.most, o.open)
	return &openBlock{&block{w: o.world, object: object, generation: generation}, o}, nil
}

func (b *openBlock) Insert(ctx context.Context, token string, again iter.Seq2[[]pipeline.Event, error]) error {
	b.table.open--
	return b.block.Insert(ctx, token, again)
}

// An object with more partitions than maxOpen is decoded several times, and has each row once.
func TestRandomTimes(t *testing.T) {
	const partitions = 5*maxOpen/2 + 1
	for _, chunkRows := range []int{10_000, 2 * partitions} { // one cut, then several
		w := newWorld()
		w.bad = map[string]bool{"bad": true}
		w.times = func(i int) int64 { return noon - int64(i*10%partitions)*week }
		key := w.putNamed(t, 4*partitions, noon, 1, func(i int) string { return []string{"n", "bad"}[i%40/39] })
		table := &openTable{world: w}
		l := w.loader(t, "a")
		l.parts.Table, l.opts.ChunkRows = table, chunkRows
		if _, err := l.load(t.Context(), pipeline.Notification{Key: key}); err != nil {
			t.Fatal(err)
		}
		var refused []int
		for i := range 4 * partitions {
			if i%40 == 39 {
				refused = append(refused, i)
			}
		}
		w.refusedCheck(t, key, 4*partitions, refused)
		if cuts := (4*partitions-1)/chunkRows + 1; w.asked > cuts+len(refused) {
			t.Errorf("the table was asked %d times for rows of %d cuts, of which %d rows were refused", w.asked, cuts, len(refused))
		}
		if len(refused) == 0 || table.most > maxOpen+1 { // a chunk with a rejected row is filled again
			t.Errorf("%d rows were refused, and up to %d blocks were open at once, want at most %d", len(refused), table.most,
				maxOpen)
		}
	}
}

// An older version cut objects by the day of receipt. Its rows of an object are replaced, whatever they were.
func TestBegunByEarlierVersion(t *testing.T) {
	for _, there := range [][]int{nil, {0, 1, 2}, {20, 21, 24}} {
		w := newWorld()
		w.times = late
		key := w.put(t, 25, noon, 1)
		w.ledger[key] = pipeline.Load{Key: key, ETag: "e", Pipeline: "events", State: pipeline.Loading, ChunkRows: 10,
			ChunkBytes: 1 << 20, Attempts: 1}
		for _, row := range there {
			w.rows[rowKey{key, uint32(row), 0, pipeline.Partition(late(row))}]++
		}
		if _, err := w.loader(t, "a").load(t.Context(), pipeline.Notification{Key: key}); err != nil {
			t.Fatal(err)
		}
		w.check(t)
		if e := w.entry(key); e.Generation != 1 || e.State != pipeline.Loaded || e.Rows != 25 {
			t.Errorf("with rows %v: ledger %+v", there, e)
		}
	}
}

// If an object is overwritten while a loader is about to insert the old content, only the new content remains.
func TestOverwrittenMeanwhile(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.etag = "old"
		key := w.put(t, 25, noon, 1)
		slow := w.loader(t, "slow")
		slow.parts.Table = &slowTable{world: w, wait: time.Minute}
		stop := start(t, slow)
		time.Sleep(time.Second) // the loader is about to insert its first chunk
		w.mu.Lock()
		w.etag = "new"
		w.mu.Unlock()
		stopNew := start(t, w.loader(t, "new"))
		w.mu.Lock()
		w.notify(key)
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		stop()
		stopNew()
		w.check(t)
		for k := range w.rows {
			if g := w.entry(key).Generation; k.generation != g || g != 1 {
				t.Fatalf("row %d of generation %d, the ledger has %d, want 1", k.row, k.generation, g)
			}
		}
	})
}

// An object across the end of a week: no block has two partitions.
func TestCutsAtMidnight(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.times = func(i int) int64 { return noon + 12*3600*1000 - 7 + int64(i) } // noon is on a Sunday
		w.put(t, 25, noon, 1)
		stop := start(t, w.loader(t, "a"))
		time.Sleep(time.Minute)
		stop()
		w.check(t)
	})
}

// Rows are deleted by hand while the table still knows their tokens. The ledger says loaded only after they are back.
func TestSwallowedInsertIsNotLoaded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 5, noon, 1)
		stop := start(t, w.loader(t, "a"))
		time.Sleep(time.Minute)
		w.mu.Lock()
		clear(w.ledger)
		clear(w.rows)
		w.notify(key)
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		w.mu.Lock()
		if w.ledger[key].State == pipeline.Loaded {
			t.Error("the ledger says loaded, and no row is there")
		}
		clear(w.tokens) // the deduplication window has passed
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		stop()
		w.check(t)
		if w.ledger[key].State != pipeline.Loaded {
			t.Error("it is not loaded after the window")
		}
	})
}

// An object with more or fewer rows than in its metadata is not loaded, and the ledger does not say so.
func TestRowCount(t *testing.T) {
	for _, rows := range []int64{0, 24, 26, 1 << 40} {
		bubble.Test(t, func(t *testing.T) {
			w := newWorld()
			key := w.put(t, 25, noon, 1)
			meta := w.metas[key]
			meta.Rows = rows
			w.metas[key] = meta
			l := w.loader(t, "a")
			l.opts.Attempts = 2
			runUntilSettled(t, l, w)
			if e := w.ledger[key]; e.State != pipeline.Dead || e.Code != "row_count" {
				t.Errorf("25 rows, and metadata of %d: %s %s", rows, e.State, e.Code)
			}
		})
	}
}

// Rows that the table's TTL deletes at once are not a failure.
func TestExpiredRowsAreLoaded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.expired.Received = pipeline.Millis(noon + 1000)
		old := w.put(t, 25, noon, 1)
		mixed := w.put(t, 25, noon+990, 1)
		runUntilSettled(t, w.loader(t, "a"), w)
		for _, key := range []string{old, mixed} {
			if e := w.ledger[key]; e.State != pipeline.Loaded || e.Failures != 0 || e.Rows != 25 {
				t.Errorf("ledger: %+v", e)
			}
		}
		if len(w.rows) != 15 {
			t.Errorf("%d rows, want those 15 that are not expired", len(w.rows))
		}
	})
}

// As before, for a TTL by timestamp.
func TestExpiredTimesAreLoaded(t *testing.T) {
	w := newWorld()
	w.times = late
	w.expired.Time = pipeline.Millis(noon)
	key := w.put(t, 25, noon, 1)
	if _, err := w.loader(t, "a").load(t.Context(), pipeline.Notification{Key: key}); err != nil {
		t.Fatal(err)
	}
	if e := w.entry(key); e.State != pipeline.Loaded || e.Rows != 25 || len(w.rows) != 20 {
		t.Errorf("%d rows, ledger %+v, want 20 that are not expired", len(w.rows), e)
	}
}

// Missing rows that are not expired are a failure, unless resends replaced all of them.
func TestSwallowedRowsAreNoExpiry(t *testing.T) {
	for resent, want := range map[int]string{0: "rows_swallowed", 4: "rows_swallowed", 5: ""} {
		bubble.Test(t, func(t *testing.T) {
			w := newWorld()
			key := w.put(t, 5, noon, 1)
			w.resent = resent
			w.expired.Received = pipeline.Millis(noon + 5)
			w.fault = func(call string) (error, bool) {
				if call == "expired" {
					w.expired.Received = pipeline.Millis(noon + 4) // the last row's
				}
				return nil, false
			}
			_, err := w.loader(t, "a").load(t.Context(), pipeline.Notification{Key: key})
			if (err == nil) != (want == "") || err != nil && codeOf(err) != want {
				t.Errorf("%d of 5 are there: error %v, want %q", resent, err, want)
			}
			if e := w.entry(key); want == "" && (e.State != pipeline.Loaded || e.Rows != 5) {
				t.Errorf("the ledger says %+v, want 5 rows loaded", e)
			}
		})
	}
}
