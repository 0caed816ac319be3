package jsonscan

import (
	"fmt"
	"math"
	"strconv"
	"unsafe"
)

// Walker walks through validated JSON text. It also finds its way in other text, but detects errors only as far as it
// needs.
type Walker struct {
	b []byte
	i int
}

// NewWalker begins at the start of a text.
func NewWalker(text []byte) Walker { return Walker{b: text} }

// At is how far the walker has come, in bytes.
func (p *Walker) At() int { return p.i }

// ValueKind is what a value is, with numbers told apart as ClickHouse does.
type ValueKind uint8

// The kinds of values.
const (
	BoolValue ValueKind = iota
	IntValue
	UintValue
	FloatValue
	StringValue
	ArrayValue
	ObjectValue
)

// Value is one that is no object.
type Value struct {
	Kind    ValueKind
	Bits    uint64 // of a bool or number
	Raw     []byte // a string's content, or all of it where it is escaped; a number's text; an array
	Escaped bool   // the string has escapes
}

// AppendText adds the content of a string, unescaped.
func (v Value) AppendText(b []byte) []byte {
	if !v.Escaped {
		return append(b, v.Raw...)
	}
	return AppendUnquoted(b, v.Raw)
}

// Float is a whole number as a float.
func (v Value) Float() float64 {
	if v.Kind == IntValue {
		return float64(int64(v.Bits))
	}
	return float64(v.Bits)
}

// Exact reports whether an integer is the same as a float.
func (v Value) Exact() bool {
	if v.Kind == UintValue {
		return false
	}
	n := int64(v.Bits)
	return n >= -1<<53 && n <= 1<<53
}

// Fail is the error of who finds something else than it must be.
func (p *Walker) Fail() error {
	return fmt.Errorf("JSON text cannot be read at byte %d", p.i)
}

// Peek is the next byte, 0 at the end.
func (p *Walker) Peek() byte {
	if p.i < len(p.b) {
		return p.b[p.i]
	}
	return 0
}

// Take passes a byte, if it is the next one.
func (p *Walker) Take(c byte) bool {
	if p.i < len(p.b) && p.b[p.i] == c {
		p.i++
		return true
	}
	return false
}

// Pass passes a text, if it comes next.
func (p *Walker) Pass(text []byte) bool {
	if len(p.b)-p.i < len(text) || string(p.b[p.i:p.i+len(text)]) != string(text) {
		return false
	}
	p.i += len(text)
	return true
}

// Space passes white space.
func (p *Walker) Space() { p.i = skipSpace(p.b, p.i) }

// Word passes a literal.
func (p *Walker) Word(w string) error {
	if len(p.b)-p.i < len(w) || string(p.b[p.i:p.i+len(w)]) != w {
		return p.Fail()
	}
	p.i += len(w)
	return nil
}

// Key reads a key and its colon.
func (p *Walker) Key() ([]byte, error) {
	s, esc, err := p.text()
	if err != nil {
		return nil, err
	}
	p.Space()
	if !p.Take(':') {
		return nil, p.Fail()
	}
	if esc {
		s = AppendUnquoted(nil, s)
	}
	return s, nil
}

// text reads a string: its content, or all of it where it has escapes.
func (p *Walker) text() (s []byte, esc bool, err error) {
	if !p.Take('"') {
		return nil, false, p.Fail()
	}
	from := p.i
	for p.i < len(p.b) {
		p.i, _ = plainRun(p.b, p.i)
		if p.i == len(p.b) {
			break
		}
		switch p.b[p.i] {
		case '"':
			p.i++
			if esc {
				return p.b[from-1 : p.i], true, nil
			}
			return p.b[from : p.i-1], false, nil
		case '\\':
			esc = true
			p.i++
		}
		p.i++
	}
	p.i = len(p.b)
	return nil, false, p.Fail()
}

// Value reads a value that is no object, and not null.
func (p *Walker) Value() (v Value, err error) {
	err = p.Read(&v)
	return v, err
}

// Read is Value without a copy. It replaces what was in v.
func (p *Walker) Read(v *Value) (err error) {
	v.Escaped = false
	switch c := p.Peek(); c {
	case '"':
		v.Kind = StringValue
		v.Raw, v.Escaped, err = p.text()
		return err
	case 't':
		v.Kind, v.Bits, v.Raw = BoolValue, 1, nil
		return p.Word("true")
	case 'f':
		v.Kind, v.Bits, v.Raw = BoolValue, 0, nil
		return p.Word("false")
	case '[':
		from := p.i
		err := p.Skip()
		v.Kind, v.Raw = ArrayValue, p.b[from:p.i]
		return err
	default:
		return p.number(v)
	}
}

func (p *Walker) number(v *Value) error {
	from, whole, plain, n, point := p.i, true, true, uint64(0), 0
	for ; p.i < len(p.b); p.i++ {
		c := p.b[p.i]
		if d := c - '0'; d <= 9 {
			n = n*10 + uint64(d)
		} else if c == '.' {
			plain = plain && whole
			whole, point = false, p.i+1
		} else if c == 'e' || c == 'E' || c == '+' || c == '-' && p.i > from {
			whole, plain = false, false
		} else if c != '-' {
			break
		}
	}
	text := p.b[from:p.i]
	if len(text) == 0 {
		return p.Fail()
	}
	negative := text[0] == '-'
	v.Raw = text
	switch {
	case whole && len(text) <= 18:
		v.Kind, v.Bits = IntValue, n
		if negative {
			v.Bits = -n
		}
		return nil
	case whole:
		if i, err := strconv.ParseInt(view(text), 10, 64); err == nil {
			v.Kind, v.Bits = IntValue, uint64(i)
			return nil
		}
		if u, err := strconv.ParseUint(view(text), 10, 64); err == nil {
			v.Kind, v.Bits = UintValue, u
			return nil
		}
	case plain && len(text) <= 16:
		// Of 15 digits at most: both numbers are exact, so their quotient is rounded as it should be.
		f := float64(n) / powers[p.i-point]
		if negative {
			f = -f
		}
		v.Kind, v.Bits = FloatValue, math.Float64bits(f)
		return nil
	}
	f, err := strconv.ParseFloat(view(text), 64)
	if err != nil {
		return p.Fail()
	}
	v.Kind, v.Bits = FloatValue, math.Float64bits(f)
	return nil
}

// powers are those of ten that a float64 holds exactly, as far as they are needed.
var powers = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16}

// Skip passes an array or an object.
func (p *Walker) Skip() error {
	for depth := 0; p.i < len(p.b); {
		switch p.b[p.i] {
		case '"':
			if _, _, err := p.text(); err != nil {
				return err
			}
			continue
		case '[', '{':
			depth++
		case ']', '}':
			if depth--; depth == 0 {
				p.i++
				return nil
			}
		}
		p.i++
	}
	return p.Fail()
}

// Elements calls each at the beginning of every element of an array.
func (p *Walker) Elements(each func() error) error {
	if !p.Take('[') {
		return p.Fail()
	}
	p.Space()
	if p.Take(']') {
		return nil
	}
	for {
		if err := each(); err != nil {
			return err
		}
		p.Space()
		if p.Take(',') {
			p.Space()
			continue
		}
		if p.Take(']') {
			return nil
		}
		return p.Fail()
	}
}

//nolint:gosec // the text is not changed while the string lives
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
