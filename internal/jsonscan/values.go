package jsonscan

import (
	"bytes"
	"io"
)

// Values finds the values in a text that holds several: one behind the other, however they are spaced, so that
// NDJSON and pretty-printed documents are both read, and the elements of the arrays among them. It judges no value.
// A caller asks for Next, reads the value that begins there, and says by Take how many bytes the value has, or by
// Skip that it cannot be read. Reading goes on behind a broken value if its end can be found by brackets and strings
// alone, or else at the next line that begins like a value. The work is linear in the length of the text. Lines end in
// LF, or in CR where the text has no LF.
type Values struct {
	text  []byte
	at    int // the next byte to read
	limit int // a value ends before it
	lines bool
	place place

	again   int  // how many bytes were read in vain, to be read again
	strict  bool // too many were: from now on, no value goes beyond its line
	line    int  // where a line begins with a value; may lie behind at
	newline byte // 0: not looked for
	nesting []uint64
}

// place is what Values expects next.
type place uint8

const (
	outside place = iota // a value or an array of values
	first                // of an array: an element or its end
	element              // an element, behind a comma
	behind               // a comma or the end of the array
	somehow              // any of these, because a broken element may have swallowed some
)

// NewValues begins at the start of a text. lines reports that the text is NDJSON, where what cannot be read is at most
// the rest of its line.
func NewValues(text []byte, lines bool) Values {
	return Values{text: text, limit: len(text), lines: lines}
}

// Next returns the text from the next value on; Take or Skip must follow. If something else is there than a value, it
// returns that with an *Error, and what follows is read by the next call. At the end it returns io.EOF.
func (v *Values) Next() ([]byte, error) {
	for {
		v.space()
		if v.at == len(v.text) {
			return v.end()
		}
		switch c := v.text[v.at]; {
		case c == '[' && (v.place == outside || v.place == somehow):
			v.place = first
		case v.place == outside:
			return v.text[v.at:v.limit], nil
		case c == ']' && v.place != element:
			v.place = outside
		case c == ',' && (v.place == behind || v.place == somehow):
			if v.place == behind {
				v.place = element
			}
		case c == ']' || c == ',':
			err := structureError(v.text, v.at, "a value")
			if c == ']' {
				v.place = outside
			}
			v.at++
			return v.text[v.at-1 : v.at], err
		case v.place == behind:
			err := structureError(v.text, v.at, "',' or ']'")
			rest := v.text[v.at:v.limit]
			n, _ := v.Skip(0)
			return rest[:n], err
		default:
			return v.text[v.at:v.limit], nil
		}
		v.at++
	}
}

// end is Next at the end of the text, which may be within an array.
func (v *Values) end() ([]byte, error) {
	want := ""
	switch v.place {
	case first:
		want = "a value or ']'"
	case element:
		want = "a value"
	case behind:
		want = "',' or ']'"
	default:
		return nil, io.EOF
	}
	v.place = outside
	return nil, structureError(v.text, v.at, want)
}

func (v *Values) space() {
	v.at = skipSpace(v.text, v.at)
	if v.strict && v.at >= v.limit {
		v.limit = v.at + v.lineEnd(v.text[v.at:])
	}
}

// Take passes the value, which has n bytes. It returns how many bytes were passed: in NDJSON, what follows a value that
// is neither object nor array belongs to it, up to the end of the line.
func (v *Values) Take(n int) int {
	rest := v.text[v.at:v.limit]
	if v.place == outside && v.lines && rest[0] != '{' && !isAlone(rest[n:]) {
		n = v.lineEnd(rest)
	}
	v.pass(n)
	return n
}

func (v *Values) pass(n int) {
	v.at += n
	if v.place == first || v.place == element {
		v.place = behind
	}
}

// Skip skips a value that cannot be read; the failed attempt has read the given number of bytes. It returns how many
// bytes it skipped. found reports whether that is the value alone; otherwise, its end is not known.
func (v *Values) Skip(read int) (n int, found bool) {
	rest := v.text[v.at:v.limit]
	line := min(v.nextLine()-v.at, len(rest))
	inArray := v.place != outside
	looked := 0
	switch {
	case inArray || rest[0] == '{':
		// Behind a line that begins with a value an end would be one of another value, in most cases.
		element := inArray && (v.place != somehow || rest[0] != '{')
		n, found = v.skim(rest[:line], element)
		if found = found && (element || inArray || isAlone(rest[n:])); !found {
			n, looked = line, line
		}
	case rest[0] != '"' && isAlone(rest[word(rest):]):
		n, found = word(rest), true
	default:
		n = line
	}
	if !found {
		if v.lines {
			n = v.lineEnd(rest)
		}
		if inArray {
			v.place = somehow
		}
	}
	n = max(n, 1)
	v.pass(n)
	v.again += max(0, max(read, looked)-n)
	if v.again > len(v.text) && !v.strict {
		v.strict, v.limit = true, v.at
	}
	return n, found
}

// skim finds the end of the value at the start of the text by its brackets and strings. A bracket that closes an outer
// one closes those within it as well, and one that closes nothing is passed. An element ends before the comma or the
// bracket that follows it.
func (v *Values) skim(text []byte, element bool) (n int, found bool) {
	depth := 0
	var open [2]int // brackets and braces
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '"':
			i = stringEnd(text, i+1)
		case '{', '[':
			v.open(depth, c == '{')
			depth++
			open[c>>5&1]++
		case '}', ']':
			if depth == 0 && element && c == ']' {
				return i, true
			}
			if kind := c >> 5 & 1; open[kind] > 0 {
				for closed := false; !closed; {
					depth--
					top := v.nesting[depth>>6] >> (depth & 63) & 1
					open[top]--
					closed = top == uint64(kind)
				}
			}
			if depth == 0 && !element {
				return i + 1, true
			}
		case ',':
			if depth == 0 && element {
				return i, true
			}
		}
	}
	return 0, false
}

// open notes which bracket is at a depth.
func (v *Values) open(depth int, brace bool) {
	if depth>>6 == len(v.nesting) {
		v.nesting = append(v.nesting, 0)
	}
	bit := uint64(1) << (depth & 63)
	if brace {
		v.nesting[depth>>6] |= bit
	} else {
		v.nesting[depth>>6] &^= bit
	}
}

// nextLine is where the next line begins that looks like a value, or the end of the text. The result is kept, so that
// no byte is examined twice.
func (v *Values) nextLine() int {
	if v.line > v.at {
		return v.line
	}
	newline := v.lineBreak()
	for v.line = v.at + 1; v.line < len(v.text); v.line++ {
		if c := v.text[v.line]; (c == '{' || c == '[' && v.lines) && v.text[v.line-1] == newline {
			break
		}
	}
	return v.line
}

// lineBreak is what ends the lines of the text.
func (v *Values) lineBreak() byte {
	if v.newline == 0 {
		if v.newline = '\n'; bytes.IndexByte(v.text, '\n') < 0 {
			v.newline = '\r'
		}
	}
	return v.newline
}

// lineEnd is how many bytes of a part of the text are before its first line end.
func (v *Values) lineEnd(part []byte) int {
	if n := bytes.IndexByte(part, v.lineBreak()); n >= 0 {
		return n
	}
	return len(part)
}

// word is how many bytes of the text are a bare word, as NaN, -Infinity or undefined.
func word(text []byte) int {
	n := 0
	for n < len(text) {
		c := text[n]
		if c-'0' > 9 && c|0x20-'a' > 'z'-'a' && c != '-' && c != '+' && c != '.' && c != '_' {
			break
		}
		n++
	}
	return n
}

// isAlone reports whether an object, an array or the end of the line follows.
func isAlone(rest []byte) bool {
	for len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
		rest = rest[1:]
	}
	return len(rest) == 0 || rest[0] == '\r' || rest[0] == '\n' || rest[0] == '{' || rest[0] == '['
}
