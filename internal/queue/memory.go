package queue

import (
	"sync"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// Memory remembers what a connection has enqueued, for a queue with Limits.OwnMemory. The zero value is empty.
type Memory struct {
	mu   sync.Mutex
	old  map[string]time.Time // when, by key and ETag; dropped as a whole
	new  map[string]time.Time
	turn time.Time // when new became old
}

// memorySize bounds each of the two maps. A notification that is forgotten too early is enqueued again, which is
// harmless.
const memorySize = 50_000

func memoryKey(n pipeline.Notification) string { return n.Key + "@" + n.ETag }

// Knows reports whether the notification was added within EnqueueOnce.
func (m *Memory) Knows(n pipeline.Notification) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, known := m.new[memoryKey(n)]
	if !known {
		at, known = m.old[memoryKey(n)]
	}
	return known && time.Since(at) < EnqueueOnce
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
