package foreign

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/penstock/penstock/internal/jsonscan"
)

// values cuts a text into consecutive JSON values in any layout: one on each line, several on a line, over many lines,
// or as elements of an array, also after other values. It follows only brackets, strings and line ends; the caller
// validates the value.
//
// A value that does not end, for example because its writer was killed, is given up at the end of its first line.
// Reading continues on the next line.
type values struct {
	in      io.Reader
	max     int    // longest value, in bytes
	buf     []byte // buf[at:] is read and not yet returned
	at      int
	failed  error // error of in; io.EOF at its end
	list    bool  // within an array
	comma   bool  // after an element of it
	behind  bool  // this line already had a value
	begun   bool
	read    int64
	again   int64 // bytes scanned in vain
	oneLine bool  // too many were: from now on a value must end in its line
}

func newValues(in io.Reader, limit int) *values {
	return &values{in: in, max: limit, buf: make([]byte, 0, 256<<10)}
}

// next returns a value, valid until the next call. bad says why the value is invalid; text is then the skipped bytes.
// At the end, err is io.EOF.
func (v *values) next() (text []byte, bad error, err error) {
	for {
		if err := v.skip(); errors.Is(err, io.EOF) && v.list {
			v.list = false
			return nil, &jsonscan.Error{Code: jsonscan.InvalidJSON, Message: "the array does not end: the file is cut off"}, nil
		} else if err != nil {
			return nil, nil, err
		}
		switch c := v.buf[v.at]; {
		case c == '[' && !v.list:
			v.list, v.comma = true, false
			v.at++
		case c == ']' && v.list:
			v.list = false
			v.at++
		case c == ',' && v.list && v.comma:
			v.comma = false
			v.at++
		default:
			v.comma = true
			return v.value()
		}
	}
}

// skip advances to the next byte that is not space; io.EOF: none.
func (v *values) skip() error {
	for {
		if !v.begun {
			for v.failed == nil && len(v.buf)-v.at < 3 {
				v.fill()
			}
			v.begun = true
			v.at += len(v.buf[v.at:]) - len(bytes.TrimPrefix(v.buf[v.at:], []byte("\ufeff"))) // some editors add it
		}
		for ; v.at < len(v.buf); v.at++ {
			switch v.buf[v.at] {
			case '\r', '\n':
				v.behind = false
			case ' ', '\t', '\x1e': // \x1e begins a record of RFC 7464
			default:
				return nil
			}
		}
		if v.failed != nil {
			return v.failed
		}
		v.fill()
	}
}

// fill reads more into buf, and first drops bytes that were returned.
func (v *values) fill() {
	if v.at > 0 {
		v.buf = v.buf[:copy(v.buf, v.buf[v.at:])]
		v.at = 0
	}
	if len(v.buf) == cap(v.buf) {
		// The buffer needs space for the largest value and a little after it.
		v.buf = append(make([]byte, 0, max(min(2*cap(v.buf), v.max+64<<10), cap(v.buf)+64<<10)), v.buf...)
	}
	n, err := v.in.Read(v.buf[len(v.buf):cap(v.buf)])
	v.buf = v.buf[:len(v.buf)+n]
	v.read += int64(n)
	v.failed = err
}

// more reads until one byte follows n. It returns false at the end, or if the value would be too long.
func (v *values) more(n int) bool {
	for v.at+n >= len(v.buf) {
		if v.failed != nil || n >= v.max {
			return false
		}
		v.fill()
	}
	return true
}

func (v *values) value() ([]byte, error, error) {
	first := v.buf[v.at]
	if first != '{' && first != '[' && first != '"' {
		return v.word()
	}
	n, whole := v.extent()
	if whole {
		return v.take(n), nil, nil
	}
	if v.failed != nil && !errors.Is(v.failed, io.EOF) {
		return nil, nil, v.failed
	}
	if n >= v.max {
		return nil, nil, fmt.Errorf("a value is longer than %d bytes", v.max)
	}
	line := v.line(n)
	if v.again += int64(n - line); v.again > 2*v.read+1<<20 {
		v.oneLine = true
	}
	bad := &jsonscan.Error{Code: jsonscan.InvalidJSON, Offset: n,
		Message: fmt.Sprintf("the value does not end: it is cut off, or broken, at byte %d", n)}
	return v.take(line), bad, nil
}

// line returns where the current value's first line ends, n at most.
func (v *values) line(n int) int {
	if i := bytes.IndexAny(v.buf[v.at:v.at+n], "\r\n"); i > 0 {
		return i
	}
	return n
}

func (v *values) take(n int) []byte {
	text := v.buf[v.at : v.at+n]
	v.at += n
	v.behind = true
	return bytes.TrimRight(text, " \t\r\n")
}

// word takes text that cannot be an object. It ends at the line's end, at the array element's end, or at the next
// object if the line already had one. The caller finds that it is invalid.
func (v *values) word() ([]byte, error, error) {
	n := 0
	for ; v.more(n); n++ {
		c := v.buf[v.at+n]
		if c == '\n' || c == '\r' || v.list && n > 0 && (c == ',' || c == ']') || v.behind && c == '{' {
			break
		}
	}
	if v.failed != nil && !errors.Is(v.failed, io.EOF) {
		return nil, nil, v.failed
	}
	if n >= v.max {
		return nil, nil, fmt.Errorf("a line is longer than %d bytes", v.max)
	}
	return v.take(max(n, 1)), nil, nil
}

// extent returns the length of the current value. If the value does not end, whole is false and n is how far it was
// scanned.
func (v *values) extent() (n int, whole bool) {
	var open []byte // open brackets
	before := byte(0)
	for ; v.more(n); n++ {
		c := v.buf[v.at+n]
		switch c {
		case '"':
			if n, whole = v.text(n); !whole {
				return n, false
			}
		case '{', '[':
			if c == '{' && n > 0 && !mayHold(open, before) && v.beginsLine(n) {
				return n, false // a new value begins, so the one before was cut off
			}
			open = append(open, c)
		case '}', ']':
			if len(open) == 0 || open[len(open)-1] != c-2 { // in ASCII a closing bracket is its opening one plus 2
				return n, false
			}
			open = open[:len(open)-1]
		case ' ', '\t':
			continue
		case '\r', '\n':
			if v.oneLine {
				return n, false
			}
			continue
		}
		if len(open) == 0 {
			return n + 1, true
		}
		before = c
	}
	return n, false
}

// mayHold reports whether an object may follow a byte within brackets.
func mayHold(open []byte, before byte) bool {
	switch before {
	case ':', '[':
		return true
	case ',':
		return len(open) > 0 && open[len(open)-1] == '['
	}
	return false
}

// beginsLine reports whether only space precedes a byte in its line.
func (v *values) beginsLine(n int) bool {
	for i := n - 1; i >= 0; i-- {
		switch v.buf[v.at+i] {
		case '\n', '\r':
			return true
		case ' ', '\t':
		default:
			return false
		}
	}
	return false
}

// text returns the index of the quote that ends a string. JSON allows no line end in a string, so there the string was
// cut off.
func (v *values) text(n int) (int, bool) {
	for n++; v.more(n); {
		for b := v.buf[v.at:]; n < len(b); n++ {
			switch b[n] {
			case '"':
				return n, true
			case '\\':
				n++
			case '\n', '\r':
				return n, false
			}
		}
	}
	return min(n, len(v.buf)-v.at), false
}
