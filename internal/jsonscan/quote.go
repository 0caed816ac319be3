package jsonscan

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// shortEscapes maps the byte after a backslash to the escaped character; 0: no such escape.
var shortEscapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// AppendUnquoted appends the content of the JSON string raw, which includes its quotes, to dst. A lone surrogate
// becomes U+FFFD, and bytes that are not UTF-8 stay what they are: a Scanner refuses both. If raw is no JSON string,
// the result means nothing.
func AppendUnquoted(dst, raw []byte) []byte {
	if len(raw) < 2 {
		return dst
	}
	return appendUnescaped(dst, raw[1:len(raw)-1])
}

func appendUnescaped(dst, b []byte) []byte {
	for {
		i := plain(b)
		dst = append(dst, b[:i]...)
		b = b[i:]
		switch {
		case len(b) == 0:
			return dst
		case b[0] != '\\' || len(b) == 1:
			dst = append(dst, b[0])
			b = b[1:]
		case b[1] != 'u':
			dst = append(dst, shortEscapes[b[1]])
			b = b[2:]
		default:
			r, next, ok := hex4(b, 2)
			if !ok {
				return dst
			}
			if r >= 0xD800 && r <= 0xDBFF {
				if low, end, ok := escapedLow(b, next); ok {
					r, next = 0x10000+(r-0xD800)<<10+(low-0xDC00), end
				}
			}
			dst = utf8.AppendRune(dst, r) // U+FFFD for a surrogate
			b = b[next:]
		}
	}
}

// AppendQuoted appends s, which must be valid UTF-8, to dst as the shortest JSON string there is.
func AppendQuoted(dst, s []byte) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for {
		i := plain(s)
		dst = append(dst, s[:i]...)
		if i == len(s) {
			return append(dst, '"')
		}
		switch c := s[i]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
		s = s[i+1:]
	}
}

// plain returns how many bytes of b are before the first quote, backslash or control character.
func plain(b []byte) int {
	i := 0
	for len(b)-i >= 8 {
		if m := stops(binary.LittleEndian.Uint64(b[i:])); m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
		i += 8
	}
	for i < len(b) && b[i] >= ' ' && b[i] != '"' && b[i] != '\\' {
		i++
	}
	return i
}

// hex4 reads the four hex digits of an escape at b[i]. next is behind them, or the byte that is none.
func hex4(b []byte, i int) (r rune, next int, ok bool) {
	for next = i; next < i+4; next++ {
		if next >= len(b) {
			return 0, next, false
		}
		switch c := b[next]; {
		case c-'0' <= 9:
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, next, false
		}
	}
	return r, next, true
}

// escapedLow reads the escape of a low surrogate at b[i], if there is one.
func escapedLow(b []byte, i int) (r rune, next int, ok bool) {
	if i+1 >= len(b) || b[i] != '\\' || b[i+1] != 'u' {
		return 0, i, false
	}
	r, next, ok = hex4(b, i+2)
	return r, next, ok && r >= 0xDC00 && r <= 0xDFFF
}
