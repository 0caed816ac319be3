package loader

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/bubble"
)

// An object that kills its loaders is loaded alone after five of them. If that process dies too, the object is given
// up.
func TestObjectThatKillsIsGivenUp(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w, d, n := suspicious()
		ran := 0
		isolated := NewIsolation(func(context.Context, pipeline.Spec, pipeline.Notification) error {
			ran++
			return fmt.Errorf("%w: signal: killed", ErrKilled)
		})
		killLoaders(t, w, d, n, 5, isolated)
		if e := w.ledger[n.Key]; ran != 0 || e.State != pipeline.Loading || e.Unfinished != 4 {
			t.Fatalf("after 5 kills: loaded alone %d times, ledger %+v", ran, e)
		}
		l := w.loader(t, "last")
		l.parts.Source.Files, l.opts.Isolation = d, isolated
		runUntilSettled(t, l, w)
		if e := w.ledger[n.Key]; ran != 1 || e.State != pipeline.Dead || e.Code != "killed_loader" {
			t.Errorf("loaded alone %d times, ledger %+v", ran, e)
		}
		if len(w.letters) != 1 || w.letters[0].Code != "killed_loader" {
			t.Errorf("letters %+v", w.letters)
		}
		// After a redrive it is loaded alone from the start.
		e := w.ledger[n.Key]
		e.State, e.Failures, e.Attempts = pipeline.Failed, 0, e.Attempts+1
		w.ledger[n.Key] = e
		if _, err := l.load(t.Context(), n); ran != 2 || codeOf(err) != "killed_loader" {
			t.Errorf("redriven: loaded alone %d times, error %v", ran, err)
		}
	})
}

// A good object whose loaders were killed for other reasons is loaded alone.
func TestGoodObjectIsNotGivenUp(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w, d, n := suspicious()
		child := w.loader(t, "last")
		child.parts.Source.Files = d
		isolated := NewIsolation(func(ctx context.Context, _ pipeline.Spec, n pipeline.Notification) error {
			return VerdictOf(child.Alone(ctx, n)).Err()
		})
		killLoaders(t, w, d, n, 5, isolated)
		d.armed = false
		l := w.loader(t, "last")
		l.parts.Source.Files, l.opts.Isolation = d, isolated
		runUntilSettled(t, l, w)
		if e := w.ledger[n.Key]; e.State != pipeline.Loaded || e.Unfinished != 0 || w.count(n.Key, 0) != 1 {
			t.Errorf("ledger %+v, row 0 is there %d times", e, w.count(n.Key, 0))
		}
		if l.Stats().Objects != 1 || len(w.letters) != 0 {
			t.Errorf("stats %+v, letters %+v", l.Stats(), w.letters)
		}
	})
}

// A child's failure counts like any other; an outage does not count.
func TestVerdicts(t *testing.T) {
	for _, want := range []error{
		nil, fault("unreadable_object", "bad"), faultFinal("no_valid_rows", "none"),
		retry.As(retry.Outage, errors.New("away")),
		retry.AsCode(retry.Permanent, 70, errors.New("refused")), errors.New("unknown"),
	} {
		got := VerdictOf(want).Err()
		if want == nil {
			if got != nil {
				t.Errorf("a load without an error gives %v", got)
			}
			continue
		}
		if got == nil || got.Error() != want.Error() || codeOf(got) != codeOf(want) ||
			retry.ClassOf(got) != retry.ClassOf(want) ||
			retry.CodeOf(got) != retry.CodeOf(want) || isFinal(got) != isFinal(want) {
			t.Errorf("%+v became %+v", want, got)
		}
	}
}

// While an object is loaded alone, the process loads nothing else.
func TestAloneIsAlone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w, d, n := suspicious()
		var busy, met atomic.Int32
		isolated := NewIsolation(func(ctx context.Context, _ pipeline.Spec, n pipeline.Notification) error {
			busy.Add(1)
			defer busy.Add(-1)
			time.Sleep(10 * time.Second)
			return ErrKilled
		})
		killLoaders(t, w, d, n, 5, isolated)
		var keys []string
		for range 20 {
			keys = append(keys, w.put(t, 5, noon, 1))
		}
		w.fault = func(call string) (error, bool) {
			if call == "insert" {
				met.Add(busy.Load())
			}
			return nil, false
		}
		l := w.loader(t, "a")
		l.parts.Source.Files, l.opts.Isolation = d, isolated
		runUntilSettled(t, l, w)
		for _, key := range keys {
			if w.ledger[key].State != pipeline.Loaded {
				t.Errorf("%s is %s", key, w.ledger[key].State)
			}
		}
		if met.Load() > 0 {
			t.Errorf("%d inserts while an object was loaded alone", met.Load())
		}
	})
}

// An attempt ended by a failure, an outage or a drain is not a killed loader.
func TestEndedAttemptsDoNotCount(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 5, noon, 1)
		fails := 0
		w.fault = func(call string) (error, bool) {
			if call != "insert" || fails == 30 {
				return nil, false
			}
			fails++
			return retry.As([]retry.Class{retry.Outage, retry.Unknown}[fails%2], errors.New("fault")), false
		}
		l := w.loader(t, "a")
		l.opts.Isolation = NewIsolation(func(context.Context, pipeline.Spec, pipeline.Notification) error {
			t.Error("loaded alone, and no attempt was killed")
			return ErrKilled
		})
		runUntilSettled(t, l, w)
		if e := w.ledger[key]; fails != 30 || e.State != pipeline.Loaded {
			t.Errorf("%d failures, ledger %+v", fails, e)
		}
	})
}

// The ledger has an entry before ClickHouse decodes the object or the loader measures it.
func TestLedgerComesBeforeDecoding(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		n := pipeline.Notification{Key: w.putFile("events/x.ndjson", strings.Repeat("{}\n", 3))}
		saved := 0
		l := w.loader(t, "a")
		w.fault = func(call string) (error, bool) {
			if call == "save" {
				saved++
			}
			return nil, false
		}
		if _, err := l.load(t.Context(), n); err != nil || saved < 3 {
			t.Errorf("%d entries were saved, want one before decoding, one before inserting, one at the end; error %v", saved,
				err)
		}
	})
}
