package operate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
)

// Field is a field of params, described by its tags: `param:"since" usage:"…" default:"24h"`. `arg:"KEY"` makes it an
// argument: a string takes one word; a []string must be last and takes all remaining words.
// `json:"…,omitempty"` makes the argument optional. `enum:"events errors"` lists the values, of which the empty one is
// allowed if it is optional.
type Field struct {
	Name, Usage, Default, Arg string
	Optional                  bool
	Enum                      []string // empty: any value
	Value                     reflect.Value
}

// Fields returns the fields of params, in order.
func Fields(params any) []Field { return fieldsOf(reflect.ValueOf(params).Elem()) }

func fieldsOf(v reflect.Value) []Field {
	var all []Field
	for f := range v.Type().Fields() {
		if f.Anonymous {
			all = append(all, fieldsOf(v.FieldByIndex(f.Index))...)
		}
		if name := f.Tag.Get("param"); name != "" {
			optional := strings.HasSuffix(f.Tag.Get("json"), ",omitempty")
			all = append(all, Field{name, f.Tag.Get("usage"), f.Tag.Get("default"), f.Tag.Get("arg"), optional,
				strings.Fields(f.Tag.Get("enum")), v.FieldByIndex(f.Index)})
		}
	}
	return all
}

// Set parses a field's text.
func (f Field) Set(text string) error {
	switch f.Value.Kind() {
	case reflect.String:
		f.Value.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%s: %q is neither true nor false", f.Name, text)
		}
		f.Value.SetBool(b)
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%s: %q is not a number", f.Name, text)
		}
		f.Value.SetInt(int64(n))
	case reflect.Slice: // of strings
		f.Value.Set(reflect.Append(f.Value, reflect.ValueOf(text)))
	}
	return nil
}

// CheckChoice rejects a value that is none of the known ones, and suggests the nearest.
func CheckChoice(flag, given string, known []string) error {
	if slices.Contains(known, given) {
		return nil
	}
	nearest, distance := "", 3
	for _, k := range known {
		if d := levenshtein.ComputeDistance(strings.ToLower(given), k); d < min(distance, len(k)/2) {
			nearest, distance = k, d
		}
	}
	hint := "set"
	if nearest != "" {
		hint = fmt.Sprintf("Did you mean %q? Set", nearest)
	}
	last := len(known) - 1
	return Usagef("%s %q: %s %s or %s", flag, given, hint, strings.Join(known[:last], ", "), known[last])
}

// CheckFields rejects a missing argument, and a value that a field does not have.
func (op Operation) CheckFields(params any) error {
	usage := "penstock " + op.Name
	missing := ""
	for _, f := range Fields(params) {
		if f.Arg != "" {
			usage += " " + f.Arg
		}
		if f.Value.Kind() != reflect.String {
			continue
		}
		switch given := f.Value.String(); {
		case given == "" && f.Arg != "" && !f.Optional && missing == "":
			missing = f.Arg
		case given != "" && len(f.Enum) > 0:
			if err := CheckChoice("--"+f.Name, given, f.Enum); err != nil {
				return err
			}
		}
	}
	if missing != "" {
		return Usagef("%s is missing: %s", missing, usage)
	}
	return nil
}

// checked are params that are not valid in all combinations. An operation that changes something has its checks here,
// because wrong usage is not an action.
type checked interface{ check(o *Operator) error }

// check rejects wrong usage.
func (op Operation) check(o *Operator, params any) error {
	if err := op.CheckFields(params); err != nil {
		return err
	}
	if c, ok := params.(checked); ok {
		return c.check(o)
	}
	return nil
}

// dryRun reports whether params can ask for a dry run, and whether they do.
func dryRun(params any) (exists, on bool) {
	if params == nil {
		return false, false
	}
	for _, f := range Fields(params) {
		if f.Name == "dry-run" {
			return true, f.Value.Bool()
		}
	}
	return false, false
}

// NewParams returns an operation's params with defaults.
func (op Operation) NewParams() any {
	p := reflect.New(reflect.TypeOf(op.params).Elem()).Interface()
	for _, f := range Fields(p) {
		if def, ok := op.defaults[f.Name]; ok {
			f.Default = def
		}
		if f.Default != "" {
			f.Set(f.Default)
		}
	}
	return p
}

// fromQuery parses params from a query.
func (op Operation) fromQuery(q url.Values) (any, error) {
	p := op.NewParams()
	fields := map[string]Field{}
	for _, f := range Fields(p) {
		fields[f.Name] = f
	}
	for name, values := range q {
		f, ok := fields[name]
		if !ok {
			return nil, fmt.Errorf("there is no parameter %q", name)
		}
		for _, v := range values {
			if err := f.Set(v); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// fromJSON parses params from a body.
func (op Operation) fromJSON(body io.Reader) (any, error) {
	p := op.NewParams()
	dec := json.NewDecoder(body)
	dec.DisallowUnknownFields()
	err := dec.Decode(p)
	if err == nil && dec.More() {
		err = errors.New("something follows the object")
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("the body is no JSON object of this operation's parameters: %w", err)
	}
	return p, nil
}

// query is the inverse of fromQuery.
func query(params any) url.Values {
	q := url.Values{}
	for _, f := range Fields(params) {
		switch f.Value.Kind() {
		case reflect.Slice:
			for i := range f.Value.Len() {
				q.Add(f.Name, f.Value.Index(i).String())
			}
		default:
			if !f.Value.IsZero() || f.Default != "" {
				q.Set(f.Name, fmt.Sprint(f.Value.Interface()))
			}
		}
	}
	return q
}
