package queue

import (
	"context"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// Memory remembers what a connection has enqueued, for a queue with Limits.OwnMemory. The zero value is empty.
type Memory struct {
	Lag time.Duration // how long the server may take to count a message

	mu   sync.Mutex
	old  map[string]time.Time // when, by key and ETag; dropped as a whole
	new  map[string]time.Time
	turn time.Time // when new became old

	asked map[string]time.Time // when the server was asked whether a pipeline's queue is empty
	lost  map[string]time.Time // messages added to a pipeline's queue until then are not in it any more
}

// memorySize bounds each of the two maps. A notification that is forgotten too early is enqueued again, which is
// harmless.
const memorySize = 50_000

func memoryKey(n pipeline.Notification) string { return n.Key + "@" + n.ETag }

// Knows reports whether the notification was added within EnqueueOnce and may still be in the queue. It calls stats at
// most once in Lag, and other calls wait for the answer. If the queue is empty, messages that are older than Lag were
// received or purged.
func (m *Memory) Knows(ctx context.Context, s pipeline.Spec, n pipeline.Notification,
	stats func(context.Context, pipeline.Spec) (Stats, error)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, known := m.new[memoryKey(n)]
	if !known {
		at, known = m.old[memoryKey(n)]
	}
	now := time.Now()
	before := now.Add(-m.Lag)
	switch {
	case !known || now.Sub(at) >= EnqueueOnce || !at.After(m.lost[s.Name]):
		return false
	case at.After(before) || m.asked[s.Name].After(before):
		return true
	}
	if m.asked == nil {
		m.asked, m.lost = map[string]time.Time{}, map[string]time.Time{}
	}
	m.asked[s.Name] = now
	if found, err := stats(ctx, s); err != nil || found.Pending > 0 || found.InFlight > 0 {
		return true
	}
	m.lost[s.Name] = before
	return false
}

// Add remembers a notification.
func (m *Memory) Add(n pipeline.Notification) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if len(m.new) >= memorySize || now.Sub(m.turn) >= EnqueueOnce {
		m.old, m.new, m.turn = m.new, map[string]time.Time{}, now
	}
	m.new[memoryKey(n)] = now
}
