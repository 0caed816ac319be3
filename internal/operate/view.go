package operate

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

// The following is for the console, which shows operations as pages.

// Progress is the progress of long work.
type Progress = progress

// Fraction is the finished part, 0 to 1; 0: unknown.
func (p progress) Fraction() float64 {
	if p.TotalBytes <= 0 {
		return 0
	}
	return min(1, float64(p.Bytes)/float64(p.TotalBytes))
}

// Changes reports whether the operation changes anything.
func (op Operation) Changes() bool { return op.method != http.MethodGet }

// Params parses parameters from a form. Empty values are ignored.
func (op Operation) Params(form url.Values) (any, error) {
	given := url.Values{}
	for name, values := range form {
		for _, v := range values {
			if v != "" {
				given.Add(name, v)
			}
		}
	}
	return op.fromQuery(given)
}

// Form is the inverse of Params.
func (op Operation) Form(params any) url.Values { return query(params) }

// ParamsJSON parses parameters as the API does.
func (op Operation) ParamsJSON(body io.Reader) (any, error) { return op.fromJSON(body) }

// Each runs the operation and calls item with a pointer to each line of its answer.
func (op Operation) Each(ctx context.Context, o *Operator, params any, item func(any) error) error {
	return op.Stream(ctx, o, params, item, func(progress) {})
}

// Stream is Each that also reports progress.
func (op Operation) Stream(ctx context.Context, o *Operator, params any, item func(any) error,
	report func(Progress)) error {
	return Local(o)(ctx, op, params, sink{item: item, progress: report})
}

// Run runs the operation as a command does. out receives the text for people.
func (op Operation) Run(ctx context.Context, o *Operator, params any, out io.Writer, report func(Progress)) error {
	ex := func(ctx context.Context, op Operation, params any, s sink) error {
		show := s.progress
		s.progress = func(p progress) { show(p); report(p) }
		return Local(o)(ctx, op, params, s)
	}
	return op.Show(ctx, ex, params, Output{Out: out, Err: io.Discard})
}

// CommandLine returns the equivalent command.
func (op Operation) CommandLine(params any) string {
	words := []string{"penstock", op.Name}
	var args []string
	defaults := Fields(op.NewParams())
	for i, f := range Fields(params) {
		switch {
		case f.Value.Kind() == reflect.Slice:
			for j := range f.Value.Len() {
				args = append(args, quote(f.Value.Index(j).String()))
			}
		case f.Arg != "":
			if text := f.Value.String(); text != "" {
				args = append(args, quote(text))
			}
		case reflect.DeepEqual(f.Value.Interface(), defaults[i].Value.Interface()):
		case f.Value.Kind() == reflect.Bool && f.Value.Bool():
			words = append(words, "--"+f.Name)
		default:
			words = append(words, "--"+f.Name, quote(fmt.Sprint(f.Value.Interface())))
		}
	}
	if p, ok := params.(*errorRedrive); ok && len(p.Bodies) > 0 {
		words = append(words, "--through", "'cat FILE-WITH-THE-EDITED-PAYLOAD'")
	}
	return strings.Join(slices.Concat(words, args), " ")
}

// quote quotes a word for a shell if necessary.
func quote(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=@%+,", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
