package schemas

import (
	"bytes"
	"encoding/json"
	"unsafe"

	"github.com/penstock/penstock/internal/jsonscan"
)

// parse makes a value, as the validator wants it, of JSON that was validated.
// Texts are views into it where they have no escapes, so that a large one takes
// nothing; the value must not outlive the JSON.
func parse(b []byte) any {
	p := parser{b}
	return p.value()
}

type parser struct{ b []byte }

// next is the first byte that is no space.
func (p *parser) next() byte {
	p.b = jsonscan.TrimSpace(p.b)
	return p.b[0]
}

func (p *parser) value() any {
	switch p.next() {
	case '{':
		m := map[string]any{}
		for p.b = p.b[1:]; ; p.b = p.b[1:] {
			if p.next() == '}' {
				p.b = p.b[1:]
				return m
			}
			key := p.text()
			p.next() // the colon
			p.b = p.b[1:]
			m[key] = p.value()
			if p.next() == '}' {
				p.b = p.b[1:]
				return m
			}
		}
	case '[':
		a := []any{}
		for p.b = p.b[1:]; ; p.b = p.b[1:] {
			if p.next() == ']' {
				p.b = p.b[1:]
				return a
			}
			a = append(a, p.value())
			if p.next() == ']' {
				p.b = p.b[1:]
				return a
			}
		}
	case '"':
		return p.text()
	case 't':
		p.b = p.b[4:]
		return true
	case 'f':
		p.b = p.b[5:]
		return false
	case 'n':
		p.b = p.b[4:]
		return nil
	}
	n := bytes.IndexAny(p.b, ",]} \t\r\n")
	if n < 0 {
		n = len(p.b)
	}
	text := p.b[:n]
	p.b = p.b[n:]
	return json.Number(view(text))
}

func (p *parser) text() string {
	escaped, n := false, 1
	for p.b[n] != '"' {
		if p.b[n] == '\\' {
			escaped = true
			n++
		}
		n++
	}
	raw := p.b[:n+1]
	p.b = p.b[n+1:]
	if escaped {
		return string(jsonscan.AppendUnquoted(nil, raw))
	}
	return view(raw[1:n])
}

// view reads bytes as a string without a copy.
//
//nolint:gosec // the text is not changed while the string lives
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
