package schemas

import (
	"encoding/json"
	"unsafe"

	"github.com/penstock/penstock/internal/jsonscan"
)

// parse returns the validator's value of validated JSON, so it cannot fail. Strings without escapes are views into the
// JSON, so that a large one takes no memory. The value must not outlive the JSON.
func parse(b []byte) any {
	p := jsonscan.NewWalker(b)
	return value(&p)
}

func value(p *jsonscan.Walker) any {
	p.Space()
	switch p.Peek() {
	case '{':
		return object(p)
	case '[':
		a := []any{}
		p.Elements(func() error {
			a = append(a, value(p))
			return nil
		})
		return a
	case 'n':
		p.Word("null")
		return nil
	}
	v, _ := p.Value()
	switch {
	case v.Kind == jsonscan.BoolValue:
		return v.Bits != 0
	case v.Kind != jsonscan.StringValue:
		return json.Number(view(v.Raw))
	case v.Escaped:
		return string(v.AppendText(nil))
	}
	return view(v.Raw)
}

func object(p *jsonscan.Walker) any {
	m := map[string]any{}
	p.Take('{')
	for p.Space(); p.Peek() == '"'; p.Space() {
		key, _ := p.Key()
		m[view(key)] = value(p)
		p.Space()
		p.Take(',')
	}
	p.Take('}')
	return m
}

// view reads bytes as a string without a copy.
//
//nolint:gosec // the text is not changed while the string lives
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
