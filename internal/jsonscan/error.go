package jsonscan

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// The codes of an Error. All but InvalidJSON are content errors.
const (
	InvalidJSON      = "invalid_json"        // not JSON: truncated, or a byte that the grammar does not allow
	NotAnObject      = "not_an_object"       // a value of another kind where an object is wanted
	InvalidUTF8      = "invalid_utf8"        // a string that is not UTF-8
	LoneSurrogate    = "lone_surrogate"      // \ud800 to \udfff without its partner
	NulCharacter     = "nul_character"       // \u0000 in a key
	NumberOutOfRange = "number_out_of_range" // an integer outside of [-2^63, 2^64-1], or a float beyond float64
	DuplicateKey     = "duplicate_key"       // the same key twice in one object, after unescaping
	TooDeep          = "too_deep"            // nesting beyond MaxDepth
	TooManyKeys      = "too_many_keys"       // more than 1,048,576 in the objects that are open at one place
)

// Error is why a text is refused.
type Error struct {
	Code    string
	Offset  int    // in bytes from src[0]
	Message string // what is wrong, and where; no more than a few dozen bytes of it are the text's own
}

func (e *Error) Error() string { return e.Message }

// Structural reports whether the text cannot be read beyond Offset. If not, it is well-formed JSON that we refuse.
func (e *Error) Structural() bool { return e.Code == InvalidJSON }

// shown is how many bytes of a text a message quotes.
const shown = 32

func structureError(src []byte, i int, want string) *Error {
	if i >= len(src) {
		return &Error{InvalidJSON, i, fmt.Sprintf("unexpected end of JSON at byte %d, want %s", i, want)}
	}
	got := fmt.Sprintf("0x%02x", src[i])
	if src[i] > ' ' && src[i] < 0x7f {
		got = "'" + string(rune(src[i])) + "'"
	}
	return &Error{InvalidJSON, i, fmt.Sprintf("unexpected byte %s at byte %d, want %s", got, i, want)}
}

// refuse records a content error at offset, unless there is an earlier one. The text concerned ends at end; for TooDeep
// and TooManyKeys, end is the limit instead.
func (s *Scanner) refuse(code string, src []byte, offset, end int) {
	if s.refused != nil && s.refused.Offset <= offset {
		return
	}
	at := " at byte " + strconv.Itoa(offset)
	var m string
	switch code {
	case NotAnObject:
		m = "want an object" + at
	case InvalidUTF8:
		m = fmt.Sprintf("invalid UTF-8 (byte 0x%02x) in a string%s", src[offset], at)
	case LoneSurrogate:
		m = "surrogate " + string(src[offset:end]) + " without its partner" + at
	case NulCharacter:
		m = `\u0000 in a key` + at
	case NumberOutOfRange:
		number := string(src[offset:min(end, offset+shown)])
		if end > offset+shown {
			number += "…"
		}
		m = "number " + number + at + " does not fit 64 bits, send it as a string"
	case TooManyKeys:
		m = fmt.Sprintf("more than %d keys%s", end, at)
	case TooDeep:
		m = fmt.Sprintf("nested deeper than %d levels%s", end, at)
	}
	s.refused = &Error{code, offset, m}
}

// refuseKey records that the valid key at offset is a duplicate; there is no content error yet.
func (s *Scanner) refuseKey(key []byte, offset int) {
	dots := ""
	if n := shown; len(key) > n {
		for !utf8.RuneStart(key[n]) {
			n--
		}
		key, dots = key[:n], "…"
	}
	s.refused = &Error{DuplicateKey, offset,
		fmt.Sprintf("duplicate key %s%s at byte %d", AppendQuoted(nil, key), dots, offset)}
}
