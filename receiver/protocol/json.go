package protocol

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
)

// Whole returns the body without white space around its JSON.
func Whole(body []byte) []byte {
	return jsonscan.TrimSpace(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))) // drop a byte order mark
}

// Members around events that may occur only once, because one of two would be lost. Of the first ones, only one may
// have a value.
var (
	bringing = []string{"batch", "events", "event"}
	telling  = []string{"writeKey", "api_key", "token", "metadata"}
)

// ambiguous rejects a body in which the events, or their key, are ambiguous.
func ambiguous(body []byte) (err *errcode.Error) {
	var seen []string
	brings := ""
	EachMember(body, func(key, value []byte) {
		name := string(key)
		list := slices.Contains(bringing, name)
		switch {
		case err != nil || !list && !slices.Contains(telling, name):
			return
		case slices.Contains(seen, name):
			err = errcode.DuplicateKey.Errorf("the body has more than one %q", name)
		case list && value[0] != 'n' && brings != "":
			err = errcode.DuplicateKey.Errorf("the body has both %q and %q: send one of them", brings, name)
		case list && value[0] != 'n':
			brings = name
		}
		seen = append(seen, name)
	})
	return err
}

// Find returns the last member of that name in the object body; nil: none. It follows only brackets and strings; the
// members are checked when they become events.
func Find(body []byte, name string) ([]byte, *errcode.Error) {
	if len(body) == 0 {
		return nil, errcode.EmptyBody.Errorf("the body is empty")
	}
	var found []byte
	whole := EachMember(body, func(key, value []byte) {
		if string(key) == name {
			found = value
		}
	})
	if !whole {
		return nil, errcode.InvalidJSON.Errorf("the body is not a JSON object")
	}
	return found, nil
}

// EachMember calls f for each member of the object b, and reports whether b is an object. It follows only brackets and
// strings.
func EachMember(b []byte, f func(key, value []byte)) bool {
	return EachSent(b, func(key, value []byte) {
		if bytes.IndexByte(key, '\\') >= 0 {
			key = jsonscan.AppendUnquoted(nil, slices.Concat([]byte{'"'}, key, []byte{'"'}))
		}
		f(key, value)
	})
}

// EachSent is EachMember with the keys as sent, without quotes.
func EachSent(b []byte, f func(key, value []byte)) bool {
	if len(b) < 2 || b[0] != '{' {
		return false
	}
	b = jsonscan.TrimSpace(b[1:])
	if len(b) > 0 && b[0] == '}' {
		return len(b) == 1
	}
	for len(b) > 0 && b[0] == '"' {
		n := jsonscan.Extent(b)
		if n < 2 {
			return false
		}
		key := b[1 : n-1]
		b = jsonscan.TrimSpace(b[n:])
		if len(b) == 0 || b[0] != ':' {
			return false
		}
		b = jsonscan.TrimSpace(b[1:])
		if n = jsonscan.Extent(b); n == 0 {
			return false
		}
		f(key, b[:n])
		b = jsonscan.TrimSpace(b[n:])
		if len(b) > 0 && b[0] == '}' {
			return len(b) == 1
		}
		if len(b) == 0 || b[0] != ',' {
			return false
		}
		b = jsonscan.TrimSpace(b[1:])
	}
	return false
}

// Dig returns the value at a path in a validated object; nil: none.
func Dig(object []byte, path ...string) (value []byte) {
	for _, name := range path {
		value = nil
		EachMember(object, func(key, v []byte) {
			if string(key) == name {
				value = v
			}
		})
		object = value
	}
	return value
}

// AsMember returns a value in the form for Draft.Text and ParseTime; nil means null.
func AsMember(name string, value []byte) *jsonscan.Member {
	m := &jsonscan.Member{Key: []byte(name), Value: value}
	switch {
	case len(value) == 0 || value[0] == 'n':
		m.Kind = jsonscan.Null
	case value[0] == '"':
		m.Kind = jsonscan.String
	case value[0] == '{':
		m.Kind = jsonscan.Object
	case value[0] == '[':
		m.Kind = jsonscan.Array
	case value[0] == 't', value[0] == 'f':
		m.Kind = jsonscan.Bool
	default:
		m.Kind = jsonscan.Number
	}
	return m
}

// PlainText returns the content of a JSON string or the digits of a number; nil: neither.
func PlainText(value []byte) []byte {
	switch m := AsMember("", value); m.Kind {
	case jsonscan.String:
		return m.Text()
	case jsonscan.Number:
		return m.Value
	}
	return nil
}

// The functions below append members to an unfinished object: after its brace, or after another member.

// AppendKey writes a member's key.
func AppendKey(w []byte, key string) []byte {
	if len(w) > 0 && w[len(w)-1] != '{' {
		w = append(w, ',')
	}
	return append(jsonscan.AppendQuoted(w, []byte(key)), ':')
}

// AppendString writes a member unless it is empty.
func AppendString(w []byte, key, value string) []byte {
	if value == "" {
		return w
	}
	return jsonscan.AppendQuoted(AppendKey(w, key), []byte(value))
}

// AppendNumber writes a member unless it is zero.
func AppendNumber(w []byte, key string, n uint64) []byte {
	if n == 0 {
		return w
	}
	return strconv.AppendUint(AppendKey(w, key), n, 10)
}

// AppendInt writes a member.
func AppendInt(w []byte, key string, n int) []byte {
	return strconv.AppendInt(AppendKey(w, key), int64(n), 10)
}

// AppendText writes text from outside as a JSON string.
func AppendText(dst []byte, s string) []byte {
	return jsonscan.AppendQuoted(dst, []byte(strings.ToValidUTF8(s, "\uFFFD")))
}

// MaxHeader limits what is kept of one header, in bytes.
const MaxHeader = 1 << 10

// Clip returns the beginning of text from outside, as valid UTF-8.
func Clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), MaxHeader)], "\uFFFD") }
