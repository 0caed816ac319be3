// Package outagelog logs an outage in few lines: one when it starts, one a minute, one when it ends.
package outagelog

import (
	"log/slog"
	"sync"
	"time"
)

// Every is the time between two lines of one outage, and between the starts of two.
const Every = time.Minute

// Log is the log of one server that may be away. It is safe for concurrent use.
type Log struct {
	log      *slog.Logger
	messages Messages

	mu       sync.Mutex
	since    time.Time // zero: there is no outage
	last     time.Time // line
	told     bool      // of this outage
	failures int
}

// Messages are the lines: they are constants, and what varies is in fields.
type Messages struct{ Start, Still, End string }

// New makes a log of outages.
func New(log *slog.Logger, m Messages) *Log { return &Log{log: log, messages: m} }

// Failed notes that the server did not do its work, and why. fields add to the line, as those of slog.Logger.Warn.
func (l *Log) Failed(err error, fields ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.since.IsZero() {
		l.since, l.told, l.failures = now, false, 0
	}
	l.failures++
	if !l.last.IsZero() && now.Sub(l.last) < Every {
		return
	}
	l.last = now
	if !l.told {
		l.told = true
		l.log.Warn(l.messages.Start, append([]any{"error", err}, fields...)...)
		return
	}
	l.log.Warn(l.messages.Still,
		append([]any{"outage", l.length(now), "failures", l.failures, "error", err}, fields...)...)
}

// Works notes that the server works.
func (l *Log) Works() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since.IsZero() {
		return
	}
	if l.told {
		l.log.Info(l.messages.End, "outage", l.length(time.Now()), "failures", l.failures)
	}
	l.since = time.Time{}
}

func (l *Log) length(now time.Time) time.Duration { return now.Sub(l.since).Round(time.Millisecond) }
