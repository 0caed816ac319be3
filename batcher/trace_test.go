package batcher

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/batcher/wal/waltest"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/penstock/penstock/internal/testing/spans"
	"github.com/penstock/penstock/internal/tracing"
)

// traced lets a batcher trace to memory.
func traced(t *testing.T, opts *Options) spans.Memory {
	t.Helper()
	to := spans.NewMemory()
	tracer, err := tracing.New(tracing.Options{Enabled: true, Exporter: to}, slog.New(slog.DiscardHandler),
		prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	opts.Tracer = tracer
	return to
}

// shape is each span's name, its parent's name, and its error, in the order of their begins.
func shape(all []spans.Span) (lines []string) {
	names := map[string]string{"": "-"}
	for _, s := range all {
		names[s.ID] = s.Name
	}
	slices.SortStableFunc(all, func(a, b spans.Span) int { return a.Start.Compare(b.Start) })
	for _, s := range all {
		lines = append(lines, strings.TrimSpace(s.Name+" < "+names[s.Parent]+" "+s.Error))
	}
	return lines
}

// wantTrace checks that all spans are in the object's trace.
func wantTrace(t *testing.T, all []spans.Span, key string, want ...string) {
	t.Helper()
	for _, s := range all {
		if s.Trace != tracing.ObjectTrace(key) {
			t.Errorf("%s is in the trace %s, not in that of %s", s.Name, s.Trace, key)
		}
	}
	got := shape(all)
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}

// The trace of an object has its batch, its encoding and each PUT.
func TestTraceOfABatch(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		opts := options()
		to := traced(t, &opts)
		r := start(t, opts, waltest.New(), newStore())
		fails := 2
		r.store.setFail(func(string) (error, error) {
			if fails--; fails >= 0 {
				return nil, errStore
			}
			return nil, nil
		})
		r.must(pipeline.Disk, 3)
		time.Sleep(opts.RollAge + time.Minute)
		r.mustStop()
		opts.Tracer.Close()
		all := to.Spans()
		key := r.store.keys()[0]
		wantTrace(t, all, key, "object < -", "batch < object", "encode < object", "put < object "+errStore.Error(),
			"put < object "+errStore.Error(), "put < object")
		batch, root := spans.Named(all, "batch")[0], spans.Named(all, "object")[0]
		if took := batch.End.Sub(batch.Start).Round(time.Second); took != opts.RollAge || !batch.Start.Equal(root.Start) {
			t.Errorf("batch took %s from %s, want %s from %s", took, batch.Start, opts.RollAge, root.Start)
		}
		if last := spans.Named(all, "put")[2]; root.End.Before(last.End) {
			t.Errorf("the object ends at %s, its PUT at %s", root.End, last.End)
		}
		if root.Attributes["penstock.object"] != key || root.Attributes["penstock.rows"] != int64(3) {
			t.Errorf("attributes %v", root.Attributes)
		}
	})
}

// A batch of a killed receiver goes on in the same trace.
func TestTraceOfAReplay(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		fs, store := waltest.New(), newStore()
		store.setFail(func(string) (error, error) { return nil, errStore })
		r := start(t, options(), fs, store)
		r.must(pipeline.Disk, 3)
		fs = fs.Kill()
		store.setFail(nil)
		opts := options()
		to := traced(t, &opts)
		again := start(t, opts, fs, store)
		time.Sleep(time.Minute)
		again.mustStop()
		opts.Tracer.Close()
		wantTrace(t, to.Spans(), store.keys()[0], "object < -", "replay < object", "encode < object", "put < object")
	})
}

// A ticket knows the object of its events as soon as they are in the log, whatever the client waits for.
func TestTicketKnowsTheKey(t *testing.T) {
	for _, d := range []pipeline.Durability{pipeline.Memory, pipeline.Disk, pipeline.Bucket} {
		bubble.Test(t, func(t *testing.T) {
			r := start(t, options(), waltest.New(), newStore())
			ticket, err := r.Batcher.Append(t.Context(), r.events(1, 10), nil, d)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			got := ticket.Key(t.Context())
			if took := time.Since(began); took > flushWait {
				t.Errorf("%s: the key came after %s", d, took)
			}
			r.mustStop()
			if want := r.store.keys()[0]; got != want {
				t.Errorf("%s: got %q, want %q", d, got, want)
			}
		})
	}
}

// Events acknowledged from memory may go into another batch, after a failed write. Refused ones go into none.
func TestTicketAfterAFailedWrite(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		fs := waltest.New()
		r := start(t, options(), fs, newStore())
		fs.Fail(func(op, _ string) error {
			if op == "write" || op == "sync" {
				return errors.New("EIO")
			}
			return nil
		})
		inMemory, err := r.Batcher.Append(t.Context(), r.events(1, 10), nil, pipeline.Memory)
		if err != nil {
			t.Fatal(err)
		}
		onDisk, err := r.Batcher.Append(t.Context(), r.events(1, 10), nil, pipeline.Disk)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := onDisk.Wait(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("the write did not fail: %v", err)
		}
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got := inMemory.Key(soon); got != "" {
			t.Errorf("events that are in no segment have the key %s", got)
		}
		fs.Fail(nil)
		got := inMemory.Key(t.Context())
		if refused := onDisk.Key(t.Context()); refused != "" {
			t.Errorf("refused events have the key %s", refused)
		}
		synctest.Wait()
		r.mustStop()
		if keys := r.store.keys(); len(keys) != 1 || keys[0] != got {
			t.Errorf("key %q, stored %v", got, keys)
		}
	})
}
