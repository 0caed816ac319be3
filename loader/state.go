package loader

import (
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// state is an object's state in the ledger.
type state uint8

const (
	unknown state = iota // no entry
	begun                // an attempt started and has not ended: its loader is working, or was killed
	ended                // an outage or a drain interrupted the last attempt
	failed               // the last attempt failed by the object's own fault; a retry follows
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
	// Requests for an object:
	notified  event = iota // a delivery
	assigned               // to this process, to load it alone
	requested              // by an operator, to load it unless it is loaded
	missed                 // by an operator who found none of its rows in the table
	replaced               // by an operator, to replace its rows
	// Events of an attempt:
	started     // has started
	finished    // has inserted all rows
	faulted     // failed by the object's own fault
	interrupted // was interrupted by an outage or a drain
)

// action is the loader's response to an event.
type action uint8

const (
	leave  action = iota // nothing
	tidy                 // delete rows of older generations, which a late loader may have added
	bury                 // publish the dead letter
	load                 // make an attempt
	reload               // save the entry, then make an attempt
	save                 // save the entry
)

// happening is an event with details.
type happening struct {
	event
	at    time.Time
	cause error   // for faulted
	job   string  // for replaced: the re-ingest, which replaces an object once
	rows  outcome // for finished
}

// rules decide the next state together with the entry.
type rules struct {
	loader     string // the loader's name
	attempts   int    // failures by the object's own fault until it is given up
	unfinished int    // consecutive attempts without an end until it is loaded alone
}

func (l *Loader) rules() rules {
	return rules{loader: l.opts.Name, attempts: l.opts.Attempts, unfinished: l.opts.Unfinished}
}

// next is the only function that changes the state of a ledger entry. It returns the entry after h, and the action.
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
		// How another loader's attempt ended is unknown.
		if s != begun || e.Loader != r.loader {
			return e, leave
		}
		e.Unfinished, e.Finished = 0, h.at
		return e, save
	}
	return r.named(e, s, h)
}

// named is next for requests.
func (r rules) named(e pipeline.Load, s state, h happening) (pipeline.Load, action) {
	switch {
	case h.event == missed, h.event == replaced && e.Job != h.job:
		return renewed(e, h.job), reload
	case h.event == replaced && s != loaded: // this job raised the generation and was interrupted
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
		e.Unfinished++ // a loader was killed, or is working right now
	}
	return e, load
}

// fault counts a failure by an object's own fault. killed_loader keeps the count of unfinished attempts: after a
// redrive the object is loaded alone from the start.
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

// redriven resets the attempts of an object. The entry counts as a later attempt; otherwise the ledger would prefer the
// one that it replaces.
func redriven(e pipeline.Load) pipeline.Load {
	e.State, e.Failures = pipeline.Failed, 0
	e.Attempts++
	return e
}

// renewed returns an entry that inserts all rows again, in the next generation.
func renewed(e pipeline.Load, job string) pipeline.Load {
	return pipeline.Load{Key: e.Key, ETag: e.ETag, Pipeline: e.Pipeline, Generation: e.Generation + 1, Job: job,
		State: pipeline.Failed, Attempts: e.Attempts + 1, Unfinished: e.Unfinished}
}
