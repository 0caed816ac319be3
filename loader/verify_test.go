package loader

import (
	"context"
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
	v, err := Verify(t.Context(), pipeline.Events, Span{pipeline.Millis(noon - 1000), pipeline.Millis(noon + 1000)}, 0, m, m, m, nil)
	if err != nil || len(v.Differences) > 0 || v.Waiting != 1 {
		t.Errorf("%+v, %v", v, err)
	}
}
