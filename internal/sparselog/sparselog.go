// Package sparselog keeps a flood of requests from becoming a flood of log lines.
package sparselog

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Every is how often a message is logged.
const Every = time.Second

// maxKinds bounds the messages that are remembered. Messages are constants, so that there are few.
const maxKinds = 1000

// New returns a handler that passes each message at level Warn or above on once in Every. The next line after that has
// the number of those left out in the field "suppressed".
func New(next slog.Handler) slog.Handler {
	return &handler{Handler: next, kinds: &kinds{seen: map[string]*kind{}}}
}

type handler struct {
	slog.Handler
	kinds *kinds
}

type kinds struct {
	mu   sync.Mutex
	seen map[string]*kind
}

type kind struct {
	last       time.Time
	suppressed int
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return h.Handler.Handle(ctx, r)
	}
	suppressed, now := h.kinds.admit(r.Message, r.Time)
	if !now {
		return nil
	}
	if suppressed > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("suppressed", suppressed))
	}
	return h.Handler.Handle(ctx, r)
}

// admit reports whether a message is logged now, and how many like it were not since the last one.
func (k *kinds) admit(message string, at time.Time) (suppressed int, now bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	seen := k.seen[message]
	if seen == nil {
		if len(k.seen) < maxKinds {
			k.seen[message] = &kind{last: at}
		}
		return 0, true
	}
	if at.Sub(seen.last) < Every {
		seen.suppressed++
		return 0, false
	}
	suppressed, seen.suppressed, seen.last = seen.suppressed, 0, at
	return suppressed, true
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.Handler.WithAttrs(attrs), h.kinds}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.Handler.WithGroup(name), h.kinds}
}
