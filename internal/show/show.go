// Package show makes texts fit to be shown: without passwords in logs and errors, and without characters that drive a
// terminal.
package show

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// hidden replaces a secret.
const hidden = "[HIDDEN]"

// URL is a list of URLs, with commas, without their passwords. A user alone may be a token (nats://TOKEN@host), so it
// is hidden as well.
func URL(list string) string {
	parts := strings.Split(list, ",")
	for i, part := range parts {
		parts[i] = oneURL(part)
	}
	return strings.Join(parts, ",")
}

// Address is a URL, or a text that should be one, in quotes and without user, password, query and fragment.
func Address(text string) string {
	text, query, found := strings.Cut(oneURL(text), "?")
	if found {
		query = "?" + hidden
	}
	text, _, _ = strings.Cut(text, "#")
	return strconv.Quote(text + query)
}

// oneURL cuts by hand what the standard library does not parse: it must not be shown either.
func oneURL(text string) string {
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		scheme, rest = "", text
	} else {
		scheme += "://"
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	at := strings.LastIndexByte(rest[:end], '@')
	if at < 0 {
		// A password with a slash in it ends the host too early.
		if at = strings.LastIndexByte(rest, '@'); at < 0 || !strings.Contains(rest[:at], ":") {
			return text
		}
	}
	user, _, withPassword := strings.Cut(rest[:at], ":")
	if !withPassword {
		return scheme + hidden + rest[at:]
	}
	return scheme + user + ":" + hidden + rest[at:]
}

// Hide puts a mark in place of secrets in a text, also where they are escaped as a part of a URL or of SQL. Secrets
// shorter than four characters are left: they would be found in other words.
func Hide(text string, secrets ...string) string {
	for _, s := range secrets {
		if len(s) < 4 {
			continue
		}
		for _, form := range []string{s, url.QueryEscape(s), url.PathEscape(s), url.UserPassword("", s).String()[1:],
			strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s)} {
			text = strings.ReplaceAll(text, form, hidden)
		}
	}
	return text
}

// hiding is an error whose text has no secrets.
type hiding struct {
	err     error
	secrets []string
}

func (h hiding) Error() string { return Hide(h.err.Error(), h.secrets...) }
func (h hiding) Unwrap() error { return h.err }

// HideIn wraps an error so that its text has no secrets; errors.Is and As find what it wraps.
func HideIn(err error, secrets ...string) error {
	if err == nil || Hide(err.Error(), secrets...) == err.Error() {
		return err
	}
	return hiding{err, secrets}
}

// Terminal quotes what a terminal would obey rather than print: control characters (C0 without line feed and tab, C1),
// marks that change the direction of text, other characters without a glyph, and bytes that are no UTF-8.
func Terminal(text string) string {
	if clean(text) {
		return text
	}
	var b strings.Builder
	b.Grow(len(text) + 16)
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case obeyed(r) && r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case obeyed(r) && r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		case obeyed(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteString(text[i : i+n])
		}
		i += n
	}
	return b.String()
}

func clean(text string) bool {
	return utf8.ValidString(text) && strings.IndexFunc(text, obeyed) < 0
}

// obeyed reports whether a terminal may act on a character. Zl and Zp are line ends to some.
func obeyed(r rune) bool {
	return r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// Plural is a number of things: 1 object, 2 objects, 2 batches, 2 properties.
func Plural[N int | int64 | uint64](n N, thing string) string {
	switch {
	case n == 1:
		return "1 " + thing
	case strings.HasSuffix(thing, "ch"):
		thing += "e"
	case strings.HasSuffix(thing, "ty") || strings.HasSuffix(thing, "ry"):
		thing = thing[:len(thing)-1] + "ie"
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// Bytes is a number of bytes for people, in three digits.
func Bytes(n int64) string {
	v, unit := float64(n), 0
	for v >= 1000 && unit < 4 {
		v, unit = v/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	// #nosec G602 -- unit is 1 to 4 here
	return fmt.Sprintf("%.3g %s", v, []string{"KiB", "MiB", "GiB", "TiB"}[unit-1])
}
