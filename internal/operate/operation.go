package operate

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/show"
)

// Operation is an operator's operation: a subcommand, and a path of the admin API. Both fill the same params and return
// the same lines.
type Operation struct {
	Name     string   // of the command, one or two words: "dlq list"
	Aliases  []string // alternatives for the last word
	method   string   // GET: params in the query; POST: params as JSON
	path     string
	Short    string
	About    string             // for the command's help and the API's description
	defaults map[string]string  // of params, if they differ from the tags
	params   any                // pointer to the zero value of its params, see Field
	item     any                // zero value of a line's item; nil: any JSON
	header   []string           // of the table for people; empty: see print
	row      func(any) []string // row of that table; any is a pointer to an item
	print    func(w io.Writer, item any) error
	kind     func(any) string // of an item, for sum; nil: one kind
	// after the last line, for people: items by kind, "" for all
	sum func(w io.Writer, params any, items map[string]int)
	run func(ctx context.Context, o *Operator, params any, out sink) error
}

// runs, rows and prints convert functions with typed params or items to an operation's.
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

// sink receives an operation's results line by line, and its progress.
type sink struct {
	item     func(any) error
	progress func(progress)
}

// progress is the progress of long work.
type progress struct {
	Objects      int64   `json:"objects,omitempty"`
	TotalObjects int64   `json:"total_objects,omitempty"`
	Rows         int64   `json:"rows,omitempty"`
	Bytes        int64   `json:"bytes,omitempty"`
	TotalBytes   int64   `json:"total_bytes,omitempty"`
	Seconds      float64 `json:"seconds"`
	Text         string  `json:"text,omitempty"` // what it is waiting for
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

// line is a line of an answer: newline-delimited JSON. The last line has done or error.
type line struct {
	Item     any       `json:"item,omitempty"`
	Progress *progress `json:"progress,omitempty"`
	Error    string    `json:"error,omitempty"`
	Done     bool      `json:"done,omitempty"`
}

// Operations returns all operations.
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

// Groups describes the first words of two-word operations.
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

// Find returns an existing operation by its name.
func Find(name string) Operation {
	for _, op := range Operations() {
		if op.Name == name {
			return op
		}
	}
	panic("no operation " + name)
}
