package operate

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/show"
)

// Operation is one thing that an operator does: a subcommand here, a path of
// the admin API there. Both fill the same params and get the same lines.
type Operation struct {
	Name     string   // of the command, in one word or two: "dlq list"
	Aliases  []string // other last words of the name
	method   string   // GET: params in the query; POST: as JSON
	path     string
	Short    string
	About    string             // in the command's help and in the API's description
	defaults map[string]string  // of params, where they are others than the tags say
	params   any                // a pointer to a zero value of its params, see Field
	item     any                // a zero value of what a line holds; nil: any JSON
	header   []string           // of the table that people see; none: see print
	row      func(any) []string // a line of that table; any is a pointer to an item
	print    func(w io.Writer, item any) error
	kind     func(any) string                        // of an item, for sum; nil: all are of one
	sum      func(w io.Writer, items map[string]int) // after the last line, for people: items by kind, "" all of them
	run      func(ctx context.Context, o *Operator, params any, out sink) error
}

// runs, rows and prints make an operation's functions of those that know the type of its params or items.
func runs[Params any](f func(context.Context, *Operator, *Params, sink) error) func(context.Context, *Operator, any,
	sink) error {
	return func(ctx context.Context, o *Operator, params any, out sink) error {
		return f(ctx, o, params.(*Params), out)
	}
}

func rows[Item any](f func(*Item) []string) func(any) []string {
	return func(item any) []string { return f(item.(*Item)) }
}

func prints[Item any](f func(io.Writer, *Item) error) func(io.Writer, any) error {
	return func(w io.Writer, item any) error { return f(w, item.(*Item)) }
}

// sink takes what an operation finds, line by line, and how far it has come.
type sink struct {
	item     func(any) error
	progress func(progress)
}

// progress is how far long work has come.
type progress struct {
	Objects      int64   `json:"objects,omitempty"`
	TotalObjects int64   `json:"total_objects,omitempty"`
	Rows         int64   `json:"rows,omitempty"`
	Bytes        int64   `json:"bytes,omitempty"`
	TotalBytes   int64   `json:"total_bytes,omitempty"`
	Seconds      float64 `json:"seconds"`
	Text         string  `json:"text,omitempty"` // what is being waited for
}

func (p progress) String() string {
	var b strings.Builder
	done := 0.0
	if p.TotalBytes > 0 {
		done = float64(p.Bytes) / float64(p.TotalBytes)
		const width = 20
		n := min(int(done*width), width)
		fmt.Fprintf(&b, "[%s%s] ", strings.Repeat("#", n), strings.Repeat(".", width-n))
	}
	switch {
	case p.TotalObjects > 0:
		fmt.Fprintf(&b, "%d of %s, %s", p.Objects, show.Plural(p.TotalObjects, "object"), show.Plural(p.Rows, "row"))
	case p.Objects > 0:
		b.WriteString(show.Plural(p.Objects, "object"))
	}
	if p.Rows > 0 && p.Seconds > 0 {
		fmt.Fprintf(&b, ", %.0f rows/s", float64(p.Rows)/p.Seconds)
	}
	if done > 0 {
		fmt.Fprintf(&b, ", %s left", time.Duration(p.Seconds/done*(1-done)*float64(time.Second)).Round(time.Second))
	}
	if p.Text != "" {
		fmt.Fprintf(&b, "; %s", p.Text)
	}
	return strings.TrimPrefix(b.String(), "; ")
}

// line is one of an answer: newline-delimited JSON, of which the last says done
// or error.
type line struct {
	Item     any       `json:"item,omitempty"`
	Progress *progress `json:"progress,omitempty"`
	Error    string    `json:"error,omitempty"`
	Done     bool      `json:"done,omitempty"`
}

// Operations are all of them.
func Operations() []Operation {
	var all []Operation
	all = append(all, objectOperations()...)
	all = append(all, deadLetterOperations()...)
	all = append(all, errorOperations()...)
	all = append(all, keyOperations()...)
	all = append(all, propertyOperations()...)
	all = append(all, rollupOperations()...)
	return append(all, auditOperation(), projectsOperation(), reingestOperation(), statusOperation(), sweepOperation(),
		tailOperation(), verifyOperation())
}

// Groups describe the first words of operations whose names have two.
func Groups() map[string]string {
	return map[string]string{
		"columns": "propose columns for properties that queries often need",
		"dlq":     "list, redrive and drop dead letters: objects that could not be loaded",
		"errors":  "list, show and redrive failure records: rejected requests and events",
		"keys":    "add, list, revoke and rotate the API keys of projects",
		"rollups": "list and refresh rollups: tables that are computed from events by day",
		"objects": "list objects, show their events, find an event",
	}
}

// Find is the operation of a name that exists.
func Find(name string) Operation {
	for _, op := range Operations() {
		if op.Name == name {
			return op
		}
	}
	panic("no operation " + name)
}
