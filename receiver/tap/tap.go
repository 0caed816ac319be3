// Package tap shows a receiver's accepted and rejected events to watchers. It slows nothing down: a slow watcher misses
// events, which are counted. Without watchers, it costs a load of one pointer for each request.
package tap

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/tokenbucket"
)

// Event is one that was accepted or rejected, as a watcher sees it.
type Event struct {
	Time      time.Time `json:"time"` // of receipt
	Accepted  bool      `json:"accepted"`
	Project   string    `json:"project,omitempty"`
	Name      string    `json:"name,omitempty"` // of an accepted event
	User      string    `json:"user_id,omitempty"`
	Session   string    `json:"session_id,omitempty"`
	ID        string    `json:"event_id,omitempty"`
	Object    string    `json:"object,omitempty"` // with durability object
	Code      string    `json:"code,omitempty"`   // of a rejected event or request
	Message   string    `json:"message,omitempty"`
	RequestID string    `json:"request_id"`
	Whole     bool      `json:"request,omitempty"`  // a request that was rejected as a whole
	Text      string    `json:"text"`               // the properties, or the raw payload of a rejected event
	Cut       bool      `json:"cut,omitempty"`      // Text is only the beginning
	Redriven  bool      `json:"redriven,omitempty"` // sent again by an operator
	Receiver  string    `json:"receiver,omitempty"` // that accepted it, as in the key of its object
	Seq       uint64    `json:"seq,string,omitempty"`
	Stored    *Stored   `json:"stored,omitempty"` // not an event: an object was stored. Nil: an event
}

// Stored is an object that a receiver has stored. Its events have the seqs First to Last.
type Stored struct {
	Object   string `json:"object"`
	Receiver string `json:"receiver"`
	First    uint64 `json:"first_seq,string"`
	Last     uint64 `json:"last_seq,string"`
}

// Filter chooses events. Empty fields choose all. A rejected event has the raw payload only, which must contain the
// name, the user and the session.
type Filter struct {
	Project, Name, User, Session string
	NoAccepted, NoRejected       bool
	Stored                       bool // also objects as they are stored
}

// What one watcher may cost.
const (
	maxWatchers = 16
	maxWaiting  = 1024    // events that the watcher has not read
	maxText     = 4 << 10 // bytes of an event's text
)

// rate limits the events that are copied for one watcher. Nobody can read more, and the receiver's time is for others.
var rate = tokenbucket.Rate{PerSecond: 1000, Burst: 1000}

// ErrTooMany is returned if enough others look already.
var ErrTooMany = errors.New("16 others look at the live events of this receiver: try again later")

// Tap is where events pass. The zero value works.
type Tap struct {
	mu       sync.Mutex // of those who change watchers
	watchers atomic.Pointer[[]*Watcher]
}

// Watcher sees the events of its filter. It reads them by Take from time to time: waking it for each event would cost
// the receiver more than everything else here.
type Watcher struct {
	tap    *Tap
	filter Filter

	mu      sync.Mutex
	bucket  tokenbucket.Bucket
	waiting []Event
	seen    uint64 // events of the filter
	missed  uint64 // of these, events that the watcher does not get
}

// Watch begins to show events. End it with Close.
func (t *Tap) Watch(f Filter) (*Watcher, error) {
	w := &Watcher{tap: t, filter: f}
	t.mu.Lock()
	defer t.mu.Unlock()
	all := []*Watcher{w}
	if now := t.watchers.Load(); now != nil {
		all = append(all, *now...)
	}
	if len(all) > maxWatchers {
		return nil, ErrTooMany
	}
	t.watchers.Store(&all)
	return w, nil
}

// Close ends a watcher.
func (w *Watcher) Close() {
	w.tap.mu.Lock()
	defer w.tap.mu.Unlock()
	var left []*Watcher
	for _, other := range *w.tap.watchers.Load() {
		if other != w {
			left = append(left, other)
		}
	}
	if left == nil {
		w.tap.watchers.Store(nil)
		return
	}
	w.tap.watchers.Store(&left)
}

// Take returns the events that match the filter and came since the last call. They may replace those in read.
func (w *Watcher) Take(read []Event) []Event {
	clear(read) // lets go of their texts
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := w.waiting
	w.waiting = read[:0]
	return taken
}

// Counts returns how many events matched the filter, and how many of these Take does not return.
func (w *Watcher) Counts() (seen, missed uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen, w.missed
}

// left is how many events may be copied now.
func (w *Watcher) left() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int(max(0, w.bucket.Level(rate, time.Now())))
}

// count counts matching events, and those that were copied.
func (w *Watcher) count(seen, copied int) {
	if seen == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bucket.Take(float64(copied))
	w.seen += uint64(seen)
	w.missed += uint64(seen - copied)
}

// send hands events to the watcher, which misses them if it is slow.
func (w *Watcher) send(events ...Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fit := min(len(events), maxWaiting-len(w.waiting))
	w.waiting = append(w.waiting, events[:fit]...)
	w.missed += uint64(len(events) - fit)
}

// Batch is what watchers see of a request's events once these are stored.
type Batch []pending

type pending struct {
	to     *Watcher
	events []Event
}

// Copy copies what watchers want to see of events, and what like says of all of them. Nil: nothing.
func (t *Tap) Copy(like Event, events []pipeline.Event) (b Batch) {
	watchers := t.watchers.Load()
	if watchers == nil {
		return nil
	}
	for _, w := range *watchers {
		if w.filter.NoAccepted {
			continue
		}
		seen, left := 0, w.left()
		var copied []Event
		for i := range events {
			e := &events[i]
			if !w.filter.wants(e) {
				continue
			}
			if seen++; len(copied) == left {
				continue
			}
			if copied == nil {
				copied = make([]Event, 0, min(left, len(events)-i))
			}
			copied = append(copied, copyOf(e, &like, uint64(i)))
		}
		w.count(seen, len(copied))
		if len(copied) > 0 {
			b = append(b, pending{w, copied})
		}
	}
	return b
}

// copyOf copies an event's texts into one allocation.
func copyOf(e *pipeline.Event, like *Event, seq uint64) Event {
	const idSize = 36
	text := e.Properties[:min(len(e.Properties), maxText)]
	var all strings.Builder
	all.Grow(len(e.Project) + len(e.Name) + len(e.UserID) + len(e.SessionID) + idSize + len(text))
	var id [idSize]byte
	for _, part := range [...][]byte{e.Project, e.Name, e.UserID, e.SessionID, e.ID.Append(id[:0]), text} {
		all.Write(part)
	}
	rest := all.String()
	next := func(size int) (text string) {
		text, rest = rest[:size], rest[size:]
		return text
	}
	return Event{Time: time.UnixMilli(e.ReceivedAt).UTC(), Accepted: true, Project: next(len(e.Project)),
		Name: next(len(e.Name)), User: next(len(e.UserID)), Session: next(len(e.SessionID)), ID: next(idSize),
		RequestID: like.RequestID, Text: rest, Cut: len(text) < len(e.Properties), Redriven: like.Redriven,
		Receiver: like.Receiver, Seq: seq}
}

func (f *Filter) wants(e *pipeline.Event) bool {
	return (f.Project == "" || f.Project == string(e.Project)) && (f.Name == "" || f.Name == string(e.Name)) &&
		(f.User == "" || f.User == string(e.UserID)) && (f.Session == "" || f.Session == string(e.SessionID))
}

// Number sets the seqs of a batch. first is that of the first event that Copy saw.
func (b Batch) Number(first uint64) {
	for _, p := range b {
		for i := range p.events {
			p.events[i].Seq += first
		}
	}
}

// Show shows a batch whose events are stored, in object if it is known.
func (b Batch) Show(object string) {
	for _, p := range b {
		for i := range p.events {
			p.events[i].Object = object
		}
		p.to.send(p.events...)
	}
}

// Store shows that an object was stored. A nil tap shows nothing.
func (t *Tap) Store(s Stored) {
	if t == nil {
		return
	}
	watchers := t.watchers.Load() // the last watcher may close at any time
	if watchers == nil {
		return
	}
	for _, w := range *watchers {
		if w.filter.Stored {
			w.send(Event{Time: time.Now().UTC(), Stored: &s})
		}
	}
}

// Reject shows an event that was rejected. raw is its payload.
func (t *Tap) Reject(e Event, raw []byte) {
	watchers := t.watchers.Load()
	if watchers == nil {
		return
	}
	for _, w := range *watchers {
		if !w.filter.wantsRejected(&e, raw) {
			continue
		}
		if w.left() == 0 {
			w.count(1, 0)
			continue
		}
		w.count(1, 1)
		e.Text, e.Cut = clip(raw)
		w.send(e)
	}
}

func (f *Filter) wantsRejected(e *Event, raw []byte) bool {
	if f.NoRejected || f.Project != "" && f.Project != e.Project {
		return false
	}
	for _, text := range []string{f.Name, f.User, f.Session} {
		if text != "" && !bytes.Contains(raw, jsonscan.AppendQuoted(nil, []byte(text))) {
			return false
		}
	}
	return true
}

// Watched reports whether anybody looks.
func (t *Tap) Watched() bool { return t.watchers.Load() != nil }

// clip is the beginning of a text that is shown.
func clip(b []byte) (text string, cut bool) {
	if len(b) > maxText {
		return string(b[:maxText]), true
	}
	return string(b), false
}
