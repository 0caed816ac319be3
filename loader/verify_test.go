package loader

import (
	"context"
	"strings"
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
