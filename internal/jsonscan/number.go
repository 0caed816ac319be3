package jsonscan

import (
	"encoding/binary"
	"math/bits"
)

// numberState is what number found.
type numberState uint8

const (
	numberFits numberState = iota
	numberTooBig
	numberWantsDigit       // the grammar wants a digit
	numberHasLeadingDigits // a zero is followed by a digit
)

func (n numberState) want() string {
	if n == numberHasLeadingDigits {
		return "a number without leading zeros"
	}
	return "a digit"
}

// number scans the number that begins at src[i], a digit or a minus sign, and returns the index behind it, or where it
// goes wrong.
func number(src []byte, i int) (end int, state numberState) {
	begin := i
	if src[i] == '-' {
		i++
	}
	from := i
	i = digits(src, i)
	whole := i - from
	if whole == 0 {
		return i, numberWantsDigit
	}
	if whole > 1 && src[from] == '0' {
		return from + 1, numberHasLeadingDigits
	}
	if i >= len(src) || src[i] != '.' && src[i]|0x20 != 'e' {
		if whole >= 19 && integerOverflows(src[begin:i]) {
			return i, numberTooBig
		}
		return i, numberFits
	}
	if src[i] == '.' {
		i++
		from := i
		if i = digits(src, i); i == from {
			return i, numberWantsDigit
		}
	}
	places := 0 // of the exponent
	if i < len(src) && src[i]|0x20 == 'e' {
		i++
		if i < len(src) && (src[i] == '+' || src[i] == '-') {
			i++
		}
		from := i
		if i = digits(src, i); i == from {
			return i, numberWantsDigit
		}
		places = i - from
	}
	// Below 10^200 * 10^99 there is no need to look.
	if (whole > 200 || places > 2) && floatOverflows(src[begin:i]) {
		return i, numberTooBig
	}
	return i, numberFits
}

// digits returns the index of the first byte from i on that is no decimal digit.
func digits(src []byte, i int) int {
	for len(src)-i >= 8 {
		if m := nondigits(binary.LittleEndian.Uint64(src[i:])); m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
		i += 8
	}
	for i < len(src) && src[i]-'0' <= 9 {
		i++
	}
	return i
}

// integerOverflows reports whether an integer is outside of [-2^63, 2^64-1].
func integerOverflows(raw []byte) bool {
	limit := "18446744073709551615"
	if raw[0] == '-' {
		limit, raw = "9223372036854775808", raw[1:]
	}
	return len(raw) > len(limit) || len(raw) == len(limit) && string(raw) > limit
}

// infinity is 2^1024 - 2^970, the smallest number that rounds to an infinite float64. It has 309 digits.
const infinity = "" +
	"1797693134862315807937289714053034150799341327100378269361737789804449682927647509466490179775872070" +
	"9633028641669288791094655554785194040263065748867150582068190890200070838367627385484581771153176447" +
	"5730270069855571366959622842914819860834936475292719074168444365510704342711559699508093042880177904" +
	"174497792"

// floatOverflows reports whether a number with a fraction or an exponent rounds to an infinite float64. It reads raw as
// 0.d1d2d3… * 10^magnitude with d1 not 0, so that it looks at the digits only in the one magnitude where they decide.
func floatOverflows(raw []byte) bool {
	if raw[0] == '-' {
		raw = raw[1:]
	}
	magnitude, end := 0, len(raw)
	for i, c := range raw {
		if c|0x20 == 'e' {
			magnitude, end = exponent(raw[i+1:]), i
			break
		}
	}
	raw = raw[:end]
	point := false
	for len(raw) > 0 && (raw[0] == '0' || raw[0] == '.') {
		if raw[0] == '.' {
			point = true
		} else if point {
			magnitude--
		}
		raw = raw[1:]
	}
	if len(raw) == 0 {
		return false // zero
	}
	if !point {
		for _, c := range raw {
			if c == '.' {
				break
			}
			magnitude++
		}
	}
	if magnitude != len(infinity) {
		return magnitude > len(infinity)
	}
	i := 0
	for _, c := range raw {
		if c == '.' {
			continue
		}
		if i == len(infinity) {
			return true // equal so far, and the rest can only add
		}
		if c != infinity[i] {
			return c > infinity[i]
		}
		i++
	}
	return i == len(infinity) || trailingZeros(infinity[i:])
}

func trailingZeros(s string) bool {
	for i := range len(s) {
		if s[i] != '0' {
			return false
		}
	}
	return true
}

// exponent reads an exponent with its sign. It saturates far beyond the length of any text, so no mantissa can make up
// for it.
func exponent(raw []byte) int {
	negative := raw[0] == '-'
	if raw[0] == '-' || raw[0] == '+' {
		raw = raw[1:]
	}
	n := 0
	for _, c := range raw {
		if n = 10*n + int(c-'0'); n > 1<<50 {
			n = 1 << 50
		}
	}
	if negative {
		return -n
	}
	return n
}
