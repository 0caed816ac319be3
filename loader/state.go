package loader

import (
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// state is what the ledger says of an object.
type state uint8

const (
	unknown state = iota // no entry
	begun                // an attempt began and did not end: its loader is at work, or was killed
	ended                // an outage or a drain ended the last attempt
	failed               // the last attempt failed through the object's own fault; another follows
	dead                 // given up
	dropped              // by an operator
	loaded
)

func stateOf(e pipeline.Load, known bool) state {
	switch {
	case !known:
		return unknown
	case e.State == pipeline.Failed:
		return failed
	case e.State == pipeline.Dead:
		return dead
	case e.State == pipeline.Dropped:
		return dropped
	case e.State == pipeline.Loaded:
		return loaded
	case e.Finished.IsZero():
		return begun
	}
	return ended
}

// event is what happens to an object.
type event uint8

const (
	// Somebody names it:
	notified  event = iota // a delivery
	assigned               // the process that has it loaded alone, by this one
	requested              // an operator who wants it loaded, unless it is
	missed                 // an operator who found none of its rows in the table
	replaced               // an operator who wants its rows replaced
	// An attempt at it:
	started     // begins
	finished    // has brought all rows
	faulted     // failed through the object's own fault
	interrupted // was ended by an outage or a drain
)

// action is what the loader does about an event.
type action uint8

const (
	leave  action = iota // nothing
	tidy                 // delete rows of older generations: a late loader may have added some
	bury                 // publish the dead letter
	load                 // make an attempt
	reload               // save the entry, then make an attempt
	save                 // save the entry
)

// happening is an event with its circumstances.
type happening struct {
	event
	at    time.Time
	cause error   // of faulted
	job   string  // of replaced: the re-ingest, under which an object is replaced once
	rows  outcome // of finished
}

// rules are what the next state depends on beside the entry.
type rules struct {
	loader     string // that applies them
	attempts   int    // that may fail through the object's own fault
	unfinished int    // attempts in a row that may begin and never end
}

func (l *Loader) rules() rules {
	return rules{loader: l.opts.Name, attempts: l.opts.Attempts, unfinished: l.opts.Unfinished}
}

// next is the only place where an entry of the ledger changes its state. It returns the entry after h, and what to do.
func (r rules) next(e pipeline.Load, known bool, h happening) (pipeline.Load, action) {
	s := stateOf(e, known)
	switch h.event {
	case started:
		e.State, e.Loader, e.Started, e.Finished = pipeline.Loading, r.loader, h.at, time.Time{}
		e.Attempts++
		return e, save
	case finished:
		e.State, e.Finished, e.Unfinished = pipeline.Loaded, h.at, 0
		e.Rows, e.Received = uint64(h.rows.rows), pipeline.Millis(h.rows.newest)
		return e, save
	case faulted:
		return r.fault(e, h)
	case interrupted:
		// It is unknown how another loader's attempt ended.
		if s != begun || e.Loader != r.loader {
			return e, leave
		}
		e.Unfinished, e.Finished = 0, h.at
		return e, save
	}
	return r.named(e, s, h)
}

// named is next for the events of those who name an object.
func (r rules) named(e pipeline.Load, s state, h happening) (pipeline.Load, action) {
	switch {
	case h.event == missed, h.event == replaced && e.Job != h.job:
		return renewed(e, h.job), reload
	case h.event == replaced && s != loaded: // this job raised the generation, and was cut off
		return redriven(e), reload
	case h.event == replaced, h.event == requested && s == loaded:
		return e, leave
	case h.event == requested && (s == dead || s == dropped):
		return redriven(e), reload
	case s == loaded:
		return e, tidy
	case s == dead:
		return e, bury
	case s == dropped:
		return e, leave
	case s == begun && h.event != assigned:
		e.Unfinished++ // a loader was killed, or is at work at this moment
	}
	return e, load
}

// fault counts a failure of an object's own. killed_loader keeps the count of
// unfinished attempts: when it is redriven, it is loaded alone from the start.
func (r rules) fault(e pipeline.Load, h happening) (pipeline.Load, action) {
	e.Code, e.Error, e.Finished = codeOf(h.cause), h.cause.Error(), h.at
	if e.Code != codeKilledLoader {
		e.Unfinished = 0
	}
	if e.Failures++; e.Failures == 1 || e.FirstFail.IsZero() {
		e.FirstFail = h.at
	}
	if int(e.Failures) >= r.attempts || isFinal(h.cause) {
		e.State = pipeline.Dead
		return e, bury
	}
	e.State = pipeline.Failed
	return e, save
}

// alone reports whether the object may have killed its loaders.
func (r rules) alone(e pipeline.Load) bool { return int(e.Unfinished) >= r.unfinished }

// redriven gives an object its attempts anew. The entry counts as a later attempt,
// or the ledger would prefer the one that it replaces.
func redriven(e pipeline.Load) pipeline.Load {
	e.State, e.Failures = pipeline.Failed, 0
	e.Attempts++
	return e
}

// renewed is an entry under which all rows come in again, in the next generation.
func renewed(e pipeline.Load, job string) pipeline.Load {
	return pipeline.Load{Key: e.Key, ETag: e.ETag, Pipeline: e.Pipeline, Generation: e.Generation + 1, Job: job,
		State: pipeline.Failed, Attempts: e.Attempts + 1, Unfinished: e.Unfinished}
}
