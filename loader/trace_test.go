package loader

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/penstock/penstock/internal/testing/spans"
	"github.com/penstock/penstock/internal/tracing"
	"github.com/penstock/penstock/loader/audit"
)

// traced makes a loader that traces to memory. end returns its spans.
func (w *world) traced(t *testing.T, name string) (l *Loader, end func() []spans.Span) {
	t.Helper()
	to := spans.NewMemory()
	tracer, err := tracing.New(tracing.Options{Enabled: true, Exporter: to}, slog.New(slog.DiscardHandler),
		prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	l = w.loader(t, name)
	l.opts.Tracer = tracer
	return l, func() []spans.Span { tracer.Close(); return to.Spans() }
}

// wantTrace checks that all spans are in the object's trace, and their names, parents and errors in their order.
func wantTrace(t *testing.T, all []spans.Span, key string, want ...string) {
	t.Helper()
	root := ""
	names := map[string]string{}
	for _, s := range all {
		names[s.ID] = s.Name
		if s.Trace != tracing.ObjectTrace(key) {
			t.Errorf("%s is in the trace %s, not in that of %s", s.Name, s.Trace, key)
		}
		if s.Name == "load" {
			root = s.Parent
		}
	}
	names[root] = "object"
	var got []string
	for _, s := range all { // in the order of their ends
		got = append(got, strings.TrimSpace(names[s.Parent]+" > "+s.Name+" "+s.Error))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}

// One attempt has a span for each step and each chunk.
func TestTraceOfALoad(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 15, noon, 1)
		l, end := w.traced(t, "a")
		runUntilSettled(t, l, w)
		all := end()
		wantTrace(t, all, key, "load > read ledger", "load > fetch", "load > compare", "load > claim",
			"insert > insert chunk", "insert > insert chunk", "load > insert", "load > write ledger", "object > load")
		load := all[len(all)-1]
		want := map[string]any{"penstock.object": key, "penstock.pipeline": "events", "penstock.loader": "a",
			"penstock.delivery": int64(1), "penstock.attempt": int64(1), "penstock.failures": int64(0),
			"penstock.generation": int64(0), "penstock.rows": int64(15), "penstock.refused_rows": int64(0),
			"penstock.state": "loaded"}
		if diff := cmp.Diff(want, load.Attributes); diff != "" {
			t.Errorf("attributes (-want +got):\n%s", diff)
		}
		w.check(t)
	})
}

// The wait for a loader begins when the store has the object.
func TestTraceOfANotification(t *testing.T) {
	w := newWorld()
	key := w.put(t, 5, noon, 1)
	l, end := w.traced(t, "a")
	stored := time.Now().Add(-time.Minute)
	l.parts.Source.Store = stamped{w, stored}
	if again, _ := l.attempt(t.Context(), pipeline.Notification{Key: key}, 1); again {
		t.Fatal("not loaded")
	}
	if again, _ := l.attempt(t.Context(), pipeline.Notification{Key: key}, 2); again { // it is loaded already
		t.Fatal("not settled")
	}
	all := end()
	waits := spans.Named(all, "notification")
	if len(waits) != 1 || !waits[0].Start.Equal(stored) || waits[0].End.Sub(stored) < time.Minute {
		t.Fatalf("got %+v", waits)
	}
	loads := spans.Named(all, "load")
	if len(loads) != 2 || loads[0].Parent != waits[0].Parent || loads[1].Attributes["penstock.state"] != "loaded" ||
		loads[1].Attributes["penstock.delivery"] != int64(2) {
		t.Errorf("got %+v", loads)
	}
}

// stamped is a store that says when it got its objects.
type stamped struct {
	*world
	at time.Time
}

func (s stamped) Get(ctx context.Context, key string) (o pipeline.Object, body io.ReadCloser, err error) {
	o, body, err = s.world.Get(ctx, key)
	o.Modified = s.at
	return o, body, err
}

// A killed loader leaves no span of its attempt. The next one makes it from the ledger.
func TestTraceOfAKilledAttempt(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 5, noon, 1)
		calls := 0
		w.fault = func(call string) (error, bool) {
			if calls++; call == "insert" || calls > 100 {
				calls = 101 // from now on every call fails
				return retry.As(retry.Outage, errors.New("killed")), false
			}
			return nil, false
		}
		victim := w.loader(t, "victim")
		if _, err := victim.load(t.Context(), pipeline.Notification{Key: key}); err == nil {
			t.Fatal("the loader was not killed")
		}
		w.fault = nil
		time.Sleep(time.Minute)
		l, end := w.traced(t, "b")
		runUntilSettled(t, l, w)
		all := end()
		loads := spans.Named(all, "load")
		if len(loads) != 2 {
			t.Fatalf("%d attempts, want 2: %+v", len(loads), all)
		}
		killed, second := loads[0], loads[1]
		if killed.Error != errUnfinished.Error() || killed.Attributes["penstock.loader"] != "victim" ||
			killed.Attributes["penstock.attempt"] != int64(1) || killed.End.Sub(killed.Start) < time.Minute {
			t.Errorf("the killed attempt: %+v", killed)
		}
		if second.Error != "" || second.Attributes["penstock.attempt"] != int64(2) || second.Parent != killed.Parent ||
			second.Trace != tracing.ObjectTrace(key) || second.Attributes["penstock.state"] != "loaded" {
			t.Errorf("the second attempt: %+v", second)
		}
		if waits := spans.Named(all, "notification"); len(waits) != 0 {
			t.Errorf("the second attempt waited for its notification: %+v", waits)
		}
		w.check(t)
	})
}

// A failed step and its attempt have an error, and so has the dead letter.
func TestTraceOfAFailure(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put(t, 5, noon, 1)
		w.fault = func(call string) (error, bool) { return failing("get", retry.Permanent)(call), false }
		l, end := w.traced(t, "a")
		l.opts.Attempts = 2
		runUntilSettled(t, l, w)
		loads := spans.Named(end(), "load")
		if len(loads) != 2 {
			t.Fatalf("%d attempts, want 2", len(loads))
		}
		for i, state := range []string{"failed", "dead"} {
			got := loads[i]
			if got.Attributes["penstock.state"] != state || got.Attributes["error.type"] != "load_failed" ||
				!strings.Contains(got.Error, "get fails") || got.Attributes["penstock.failures"] != int64(i+1) {
				t.Errorf("attempt %d: %+v, want the state %s", i+1, got, state)
			}
		}
	})
}

// A re-ingest is one more attempt in the object's trace.
func TestTraceOfAReingest(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 5, noon, 1)
		runUntilSettled(t, w.loader(t, "a"), w)
		l, end := w.traced(t, "operator")
		item := audit.Item{Object: pipeline.Object{Key: key, ETag: "e"}, Entry: w.entry(key), Action: audit.ActionReplace}
		if _, err := l.Reingest(t.Context(), item, "job-1"); err != nil {
			t.Fatal(err)
		}
		all := end()
		i := slices.IndexFunc(all, func(s spans.Span) bool { return s.Name == "load" })
		if i < 0 || all[i].Attributes["penstock.reingest"] != string(audit.ActionReplace) ||
			all[i].Attributes["penstock.job"] != "job-1" || all[i].Attributes["penstock.generation"] != int64(1) ||
			all[i].Trace != tracing.ObjectTrace(key) {
			t.Errorf("got %+v", all)
		}
		w.check(t)
	})
}

// Notifications that name no object of the loader make no span.
func TestNoTraceOfOthers(t *testing.T) {
	w := newWorld()
	l, end := w.traced(t, "a")
	for _, key := range []string{"errors/a.parquet", "events/_temporary/a"} {
		if again, _ := l.attempt(t.Context(), pipeline.Notification{Key: key}, 1); again {
			t.Errorf("%s comes again", key)
		}
	}
	if all := end(); len(all) != 0 {
		t.Errorf("got %+v", all)
	}
}

// An object of many chunks does not make a trace that nobody can show.
func TestTraceOfManyChunks(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put(t, 10*(maxChunkSpans+20), noon, 1)
		l, end := w.traced(t, "a")
		runUntilSettled(t, l, w)
		if n := len(spans.Named(end(), "insert chunk")); n != maxChunkSpans {
			t.Errorf("%d spans of chunks, want %d", n, maxChunkSpans)
		}
		w.check(t)
	})
}
