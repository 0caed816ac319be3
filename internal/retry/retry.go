// Package retry says how long to wait before another attempt, and carries the
// one decision that the wait depends on: whether another attempt can help.
package retry

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Class is what an adapter decides about a foreign error, once, where it enters.
type Class uint8

const (
	// Unknown is an unclassified error: retried, and counted as an attempt.
	Unknown Class = iota
	// Permanent errors come again with the same input: the input is at fault.
	Permanent
	// Outage means that the other side cannot serve anybody now: no input is at
	// fault, so nothing is counted against it.
	Outage
)

type classed struct {
	error
	class Class
	code  int
}

func (c classed) Unwrap() error { return c.error }

// As marks err with a class; nil stays nil.
func As(class Class, err error) error {
	if err == nil {
		return nil
	}
	return classed{err, class, 0}
}

// AsCode is As with the number that the other side gives to the error.
func AsCode(class Class, code int, err error) error { return classed{err, class, code} }

// CodeOf is the other side's number of err, 0 where there is none.
func CodeOf(err error) int {
	for {
		c, ok := errors.AsType[classed](err)
		if !ok || c.code != 0 {
			return c.code
		}
		err = c.error
	}
}

func (c Class) String() string { return [...]string{"unknown", "permanent", "outage"}[c] }

// ClassOf is the class that the adapter gave to err.
func ClassOf(err error) Class {
	if c, ok := errors.AsType[classed](err); ok {
		return c.class
	}
	return Unknown
}

// Backoff is exponential with full jitter: attempt n waits a random time
// between Min and Max·(the smaller of 1 and 2ⁿ·Min/Max). Full jitter spreads clients that
// failed together over the whole span.
type Backoff struct {
	Min, Max time.Duration
}

// Delay is how long to wait after attempt n failed, n from 1.
func (b Backoff) Delay(n int) time.Duration {
	n = min(max(n, 1), 32)
	top := b.Max
	if b.Min > 0 && b.Min <= b.Max>>n {
		top = b.Min << n
	}
	if top <= b.Min {
		return b.Min
	}
	return b.Min + rand.N(top-b.Min) //nolint:gosec // a delay is no secret
}

// Sleep waits d or until ctx ends, and returns ctx's error then.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
