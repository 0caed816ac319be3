package codec

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/pipeline"
)

// DuckDB, Spark, Hive and others ignore case in column names. If two names differ only in case, they return the wrong
// column without an error. So a column's name is its path with every capital letter marked: no two names are equal
// under any case folding. The name depends only on the path, so it is the same in every object.
//
//	level, position.x, ключ   unchanged
//	userName, URL             user^Name, ^U^R^L
//	^                         ^^
//	ß, ı, the Kelvin sign,    ^{df}, ^{131}, ^{212a}: the code point, for letters
//	control characters        whose case mapping cannot be undone, and for
//	                          characters that cannot be printed

// columnName returns the name of a path's typed column.
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
	case !unicode.IsPrint(r): // includes characters that a later Unicode version may give a case
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

// columnPath is the inverse of columnName. It accepts exactly the names that columnName of some version can write,
// whatever its Unicode tables.
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

// typedName is the name of column i: its path, and its type too if another type of the same path is more frequent.
func typedName(columns []*pipeline.Typed, i int) string {
	for _, t := range columns[:i] {
		if t.Path == columns[i].Path {
			return columnName(t.Path) + typeSuffix[columns[i].Kind]
		}
	}
	return columnName(columns[i].Path)
}
