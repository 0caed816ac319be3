// Package provision reports what setup changes in stores and queues, and what it is not allowed to change.
package provision

import (
	"errors"
	"fmt"
	"strings"
)

// Plan is one run of setup. Adapters describe each change before they make it. A nil Plan makes every change and prints
// nothing.
type Plan struct {
	DryRun bool         // nothing is changed
	Print  func(s Step) // a line for each step
	denied []string     // subjects of steps that need other rights
}

// Step is what setup found or did.
type Step struct {
	Subject string // as bucket, queue
	Mark    Mark
	Text    string
}

// Mark says how a step ended.
type Mark string

// The marks of a step, as they are printed.
const (
	OK     Mark = "ok" // it is as it should be, or is now
	Would  Mark = "--" // a dry run would change it
	Notice Mark = "!!" // a person has to act, or should know
)

// Denied is an error of a server that refuses a change because the credentials have too few rights.
type Denied struct{ Err error }

func (d Denied) Error() string { return d.Err.Error() }
func (d Denied) Unwrap() error { return d.Err }

// Found reports that something is as it should be.
func (p *Plan) Found(subject, format string, args ...any) { p.print(subject, OK, format, args...) }

// Warn reports what a person should know.
func (p *Plan) Warn(subject, format string, args ...any) { p.print(subject, Notice, format, args...) }

func (p *Plan) print(subject string, mark Mark, format string, args ...any) {
	if p != nil && p.Print != nil {
		p.Print(Step{subject, mark, fmt.Sprintf(format, args...)})
	}
}

// Change is one change of a server.
type Change struct {
	Subject string // as Step.Subject
	What    string // begins with a verb in the past, as "created queue penstock-events"
	ByHand  string // commands for a person who has the rights; empty: there are none
	Do      func() error
}

// Make makes a change. In a dry run it only reports it. A change that the server denies is reported with the way to
// make it by hand, and is no error here: Err returns it at the end.
func (p *Plan) Make(c Change) error {
	if p != nil && p.DryRun {
		p.print(c.Subject, Would, "dry run: would have %s", c.What)
		return nil
	}
	err := c.Do()
	denied, isDenied := errors.AsType[Denied](err)
	switch {
	case err == nil:
		p.print(c.Subject, OK, "%s", c.What)
		return nil
	case !isDenied || p == nil:
		return err
	}
	p.denied = append(p.denied, c.Subject)
	text := fmt.Sprintf("not allowed, so it is still to be done: %s: %v", c.What, denied)
	if c.ByHand != "" {
		text += "\nby hand, with more rights:\n" + c.ByHand
	}
	p.print(c.Subject, Notice, "%s", text)
	return nil
}

// Err is an error if changes were denied.
func (p *Plan) Err() error {
	if p == nil || len(p.denied) == 0 {
		return nil
	}
	return fmt.Errorf("setup may not change %s: make these changes by hand as shown above, or give the credentials more "+
		"rights and run \"penstock setup\" again", strings.Join(p.denied, ", "))
}
