// Package provision reports what setup changes in stores and queues, and which changes it lacks the rights for.
package provision

import (
	"errors"
	"fmt"
	"strings"
)

// Plan is one run of setup. Adapters describe each change before they make it. A nil Plan makes every change and prints
// nothing.
type Plan struct {
	DryRun bool         // change nothing
	Print  func(s Step) // called for each step
	denied []string     // subjects of denied changes
}

// Step is what setup found or did.
type Step struct {
	Subject string // such as bucket or queue
	Mark    Mark
	Text    string
}

// Mark is the result of a step.
type Mark string

// The marks of a step, as printed.
const (
	OK     Mark = "ok" // was right, or is now
	Would  Mark = "--" // a dry run would change it
	Notice Mark = "!!" // needs a person's action or attention
)

// Denied is a server's refusal because the credentials lack rights.
type Denied struct{ Err error }

func (d Denied) Error() string { return d.Err.Error() }
func (d Denied) Unwrap() error { return d.Err }

// Found reports something that is already right.
func (p *Plan) Found(subject, format string, args ...any) { p.print(subject, OK, format, args...) }

// Warn reports something that a person should know.
func (p *Plan) Warn(subject, format string, args ...any) { p.print(subject, Notice, format, args...) }

func (p *Plan) print(subject string, mark Mark, format string, args ...any) {
	if p != nil && p.Print != nil {
		p.Print(Step{subject, mark, fmt.Sprintf(format, args...)})
	}
}

// Change is one change on a server.
type Change struct {
	Subject string // as Step.Subject
	What    string // begins with a verb in the past: "created queue penstock-events"
	ByHand  string // commands for a person who has the rights; empty: none
	Do      func() error
}

// Make makes a change. A dry run only reports it. If the server denies it, Make reports how to make it by hand and
// returns no error; Err returns one at the end.
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

// Err returns an error if changes were denied.
func (p *Plan) Err() error {
	if p == nil || len(p.denied) == 0 {
		return nil
	}
	return fmt.Errorf("setup may not change %s: make these changes by hand as shown above, or give the credentials more "+
		"rights and run \"penstock setup\" again", strings.Join(p.denied, ", "))
}
