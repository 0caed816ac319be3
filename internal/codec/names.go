package codec

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/pipeline"
)

// DuckDB, Spark, Hive and others compare column names without regard to case,
// and return the wrong column without an error if two names differ in nothing
// else. So a column's name is its path with every capital letter marked, and
// two paths never have names that are equal under any case folding. The name
// depends on the path alone, so that it is the same in every object.
//
//	level, position.x, ключ   as they are
//	userName, URL             user^Name, ^U^R^L
//	^                         ^^
//	ß, ı, the Kelvin sign,    ^{df}, ^{131}, ^{212a}: the code point, for letters
//	control characters        without a counterpart in the other case that leads
//	                          back to them, and for what cannot be printed

// columnName is the name of the typed column of a path.
func columnName(path string) string {
	if strings.IndexFunc(path, func(r rune) bool { return escapeOf(r) != bare }) < 0 {
		return path
	}
	var b strings.Builder
	for _, r := range path {
		switch escapeOf(r) {
		case bare:
			b.WriteRune(r)
		case marked:
			b.WriteByte('^')
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "^{%x}", r)
		}
	}
	return b.String()
}

// escape is how columnName writes a character.
type escape uint8

const (
	bare escape = iota
	marked
	numbered
)

func escapeOf(r rune) escape {
	if r < utf8.RuneSelf {
		switch {
		case r >= 'A' && r <= 'Z', r == '^':
			return marked
		case r < ' ' || r == 0x7f:
			return numbered
		}
		return bare
	}
	lower, upper := unicode.ToLower(r), unicode.ToUpper(r)
	cased := unicode.SimpleFold(r) != r || unicode.IsLower(r) || unicode.IsUpper(r) || unicode.IsTitle(r)
	switch {
	case !unicode.IsPrint(r): // this includes characters that a later Unicode version may give a case
		return numbered
	case lower == r && upper == r && !cased:
		return bare
	case r == lower && r != upper && unicode.ToLower(upper) == r:
		return bare
	case r == upper && r != lower && unicode.ToUpper(lower) == r:
		return marked
	}
	return numbered
}

// columnPath is the inverse of columnName. It accepts exactly the names that
// some version's columnName could have written, whatever its Unicode tables.
func columnPath(name string) (path string, err error) {
	if strings.IndexByte(name, '^') < 0 {
		return name, nil
	}
	var b strings.Builder
	for rest := name; rest != ""; {
		before, after, found := strings.Cut(rest, "^")
		if b.WriteString(before); !found {
			break
		}
		r, n := utf8.DecodeRuneInString(after)
		if r == '{' {
			digits, _, closed := strings.Cut(after[1:], "}")
			code, err := strconv.ParseUint(digits, 16, 31)
			if err != nil || !closed || !utf8.ValidRune(rune(code)) {
				return "", fmt.Errorf("column %q: ^{%s is not a code point", name, digits)
			}
			r, n = rune(code), len("{}")+len(digits)
		} else if n == 0 || r == utf8.RuneError {
			return "", fmt.Errorf("column %q: no character after ^", name)
		}
		b.WriteRune(r)
		rest = after[n:]
	}
	return b.String(), nil
}

// typedName is the name of column i: that of its path, and its type as well if
// the path has another type, which more events have.
func typedName(columns []*pipeline.Typed, i int) string {
	for _, t := range columns[:i] {
		if t.Path == columns[i].Path {
			return columnName(t.Path) + typeSuffix[columns[i].Kind]
		}
	}
	return columnName(columns[i].Path)
}
