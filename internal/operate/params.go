package operate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"strconv"
	"strings"
)

// Field is a field of params, described by its tags: `param:"since" usage:"…" default:"24h"`. `arg:"KEY"` makes it an
// argument: a string takes one word; a []string must be last and takes all remaining words.
// `json:"…,omitempty"` makes the argument optional.
type Field struct {
	Name, Usage, Default, Arg string
	Optional                  bool
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
				v.FieldByIndex(f.Index)})
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
