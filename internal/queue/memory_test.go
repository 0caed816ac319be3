package queue

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/bubble"
)

// What was enqueued is known for an hour, or until the queue is empty and the server's counts can be trusted.
func TestMemory(t *testing.T) {
	const lag = 2 * time.Minute
	var (
		nothing, one = Stats{}, Stats{Pending: 1}
		leased       = Stats{InFlight: 1}
		object       = pipeline.Notification{Key: "events/a", ETag: "1"}
	)
	type step struct {
		after time.Duration
		stats Stats
		err   error
		known bool
		asked bool
	}
	for name, steps := range map[string][]step{
		"waits in the queue": {{time.Second, one, nil, true, false}, {lag, one, nil, true, true},
			{EnqueueOnce - lag - 2*time.Second, leased, nil, true, true}, {time.Second, one, nil, false, false}},
		"is being loaded":  {{lag, leased, nil, true, true}},
		"purged":           {{lag - time.Second, nothing, nil, true, false}, {time.Second, nothing, nil, false, true}},
		"still forgotten":  {{lag, nothing, nil, false, true}, {time.Second, one, nil, false, false}},
		"asked once a lag": {{lag, one, nil, true, true}, {lag / 2, nothing, nil, true, false}, {lag, nothing, nil, false, true}},
		"server away":      {{lag, nothing, errors.New("away"), true, true}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				m := Memory{Lag: lag}
				m.Add(object)
				for i, s := range steps {
					time.Sleep(s.after)
					asked := false
					known := m.Knows(t.Context(), pipeline.Events, object,
						func(context.Context, pipeline.Spec) (Stats, error) { asked = true; return s.stats, s.err })
					if known != s.known || asked != s.asked {
						t.Errorf("step %d: got known %t, asked %t; want %t, %t", i, known, asked, s.known, s.asked)
					}
				}
			})
		})
	}
}

// An empty queue of one pipeline says nothing about the other one. What is added after a purge is known.
func TestMemoryOfPipelines(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		m := Memory{Lag: time.Minute}
		event, failure := pipeline.Notification{Key: "events/a"}, pipeline.Notification{Key: "errors/a"}
		m.Add(event)
		m.Add(failure)
		time.Sleep(time.Minute)
		empty := func(context.Context, pipeline.Spec) (Stats, error) { return Stats{}, nil }
		waits := func(context.Context, pipeline.Spec) (Stats, error) { return Stats{Pending: 1}, nil }
		if m.Knows(t.Context(), pipeline.Events, event, empty) {
			t.Error("the event's object is known, want forgotten")
		}
		if !m.Knows(t.Context(), pipeline.Errors, failure, waits) {
			t.Error("the failure's object is forgotten, want known")
		}
		m.Add(event)
		if !m.Knows(t.Context(), pipeline.Events, event, empty) {
			t.Error("the event's object is forgotten at once, want known")
		}
	})
}
