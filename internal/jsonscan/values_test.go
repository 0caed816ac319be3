package jsonscan

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"
)

// split reads a text as the receiver does. Good values are as they are, broken ones begin with an exclamation mark, and
// what Values itself rejects with a question mark.
func split(text string, lines bool) (got []string) {
	var s Scanner
	v := NewValues([]byte(text), lines)
	for {
		b, err := v.Next()
		switch {
		case errors.Is(err, io.EOF):
			return got
		case err != nil:
			got = append(got, "?"+string(b))
			continue
		}
		n, err := 0, error(nil)
		_, n, err = s.Object(b)
		mark := ""
		if e, ok := errors.AsType[*Error](err); ok && e.Structural() {
			n, _ = v.Skip(n)
			mark = "!"
		} else {
			n = v.Take(n)
		}
		got = append(got, mark+string(TrimSpace(b[:n])))
	}
}

func TestValues(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       string // the pieces, with bars between them
		lines      string // the same as NDJSON; empty: as want
	}{
		{"nothing", " \r\n\t", "", ""},
		{"one", ` {"a":1} `, `{"a":1}`, ""},
		{"pretty", "{\r\n \"a\":\n  1\n}\n{\n}", "{\r\n \"a\":\n  1\n}|{\n}", ""},
		{"lines", "{\"a\":1}\n{\"b\":2}\r\n\r\n{\"c\":3}\r{\"d\":4}\n", `{"a":1}|{"b":2}|{"c":3}|{"d":4}`, ""},
		{"several on a line", `{"a":1}{"b":2} {"c":3}`, `{"a":1}|{"b":2}|{"c":3}`, ""},
		{"arrays", "[{\"a\":1},\n{\"b\":2}\n]\n[]\n[ {\"c\":3} ] {\"d\":4}[ ]", `{"a":1}|{"b":2}|{"c":3}|{"d":4}`, ""},
		{"elements of all kinds", `[1,"x,]",null,[[1],{}],{"a":[1,"]"]}]`, `1|"x,]"|null|[[1],{}]|{"a":[1,"]"]}`, ""},
		{"scalars", `1 "x" null {"a":1}`, `1|"x"|null|{"a":1}`, `1 "x" null {"a":1}`},
		{"a scalar alone", "NaN {\"a\":1}\n7 {\"a\":1}", `!NaN|{"a":1}|7|{"a":1}`, ""},

		{"NaN", `[{"a":1},{"a":NaN},{"b":[Infinity,{}]},{"c":-Infinity},{"d":undefined},{"e":2}]`,
			`{"a":1}|!{"a":NaN}|!{"b":[Infinity,{}]}|!{"c":-Infinity}|!{"d":undefined}|{"e":2}`, ""},
		{"bare NaN", `[NaN,{"a":1},-Infinity, undefined ]`, `!NaN|{"a":1}|!-Infinity|!undefined`, ""},
		{"bad escapes", `[{"a":"\x,]}\""},{"a":"\u12"},{"b":1}]`, `!{"a":"\x,]}\""}|!{"a":"\u12"}|{"b":1}`, ""},
		{"several on a line, one broken", `{"a":NaN}{"b":2} {"c":'x'} {"d":4}`, `!{"a":NaN}|{"b":2}|!{"c":'x'}|{"d":4}`, ""},
		{"pretty, one broken", "{\n \"a\": NaN\n}\n{\n \"b\": 1\n}", "!{\n \"a\": NaN\n}|{\n \"b\": 1\n}", ""},
		{"a bracket is missing", `[{"a":[1,{"x":[},{"b":1}]`, `!{"a":[1,{"x":[},{"b":1}]`, ""},
		{"brackets are missing", `[{"a":[{"x":[1]},{"b":1}]`, `!{"a":[{"x":[1]},{"b":1}]`, ""},
		{"a bracket of another kind", `[{"a":[1},{"l":[{"x":1],"y":2},{"b":1}]`, `!{"a":[1}|!{"l":[{"x":1],"y":2}|{"b":1}`,
			""},
		{"a bracket too many", `[{"a":]},{"b":1}]`, `!{"a":]}|{"b":1}`, ""},
		{"a brace too many", `[{"a":1}},{"b":1}]`, `{"a":1}|?}|{"b":1}`, ""},
		{"no comma", `[{"a":1} {"b":2},{"c":3}]`, `{"a":1}|?{"b":2}|{"c":3}`, ""},
		{"no element", `[,{"a":1},,{"b":2},]{"c":3}`, `?,|{"a":1}|?,|{"b":2}|?]|{"c":3}`, ""},
		{"only opened", "[", "?", ""},
		{"not closed", `[{"a":1}`, `{"a":1}|?`, ""},
		{"closed without an element", `[{"a":1},`, `{"a":1}|?`, ""},
		{"cut in an array", `[{"a":1},{"b":"x`, `{"a":1}|!{"b":"x`, ""},

		{"a line is broken", "{\"a\":1}\n{\"a\":\n{\"b\":2}\nx\n{\"c\":3}", `{"a":1}|!{"a":|{"b":2}|!x|{"c":3}`, ""},
		{"a line is cut", "{\"a\":{\"b\":1\n{\"c\":3}\r\n{\"d\":\"x\r\n{\"e\":5}", `!{"a":{"b":1|{"c":3}|!{"d":"x|{"e":5}`,
			""},
		{"a line is cut, bare returns", "{\"a\":{\"b\":1\r{\"c\":3}\r{\"d\":\"x\r{\"e\":5}",
			`!{"a":{"b":1|{"c":3}|!{"d":"x|{"e":5}`, ""},
		{"returns within a line", "\xff\r\x01{\r{\x02\r\n{\"b\":2}", "!\xff\r\x01{\r{\x02|{\"b\":2}", ""},
		{"UTF-16", "{\x00\"\x00a\x00\"\x00:\x001\x00}\x00", "!{\x00\"\x00a\x00\"\x00:\x001\x00}\x00", ""},
		{"an array is cut", "[{\"a\":1},{\"b\":\"\n{\"c\":3}\n[{\"d\":4}]", `{"a":1}|!{"b":"|{"c":3}|{"d":4}`, ""},
		{"an array of lines, one cut", "[\n{\"a\":1},\n{\"b\":[1,\n{\"c\":3},\n{\"d\":4}\n]\n{\"e\":5}",
			`{"a":1}|!{"b":[1,|{"c":3}|{"d":4}|{"e":5}`, ""},
		{"an array behind a cut line", "{\"a\":[\n[{\"b\":2}]", "!{\"a\":[\n[{\"b\":2}]", `!{"a":[|{"b":2}`},
		{"words", "not json at all\n{\"a\":1}", `!not json at all|{"a":1}`, ""},
		{"a log", "2026-11-24 INFO {\"a\":1}\n{\"b\":2}", `2026|-11|-24|!INFO|{"a":1}|{"b":2}`,
			`2026-11-24 INFO {"a":1}|{"b":2}`},
		{"the rest of a cut line", `me":"x","p":{"a":1}}` + "\n{\"b\":2}", `!me":"x","p":{"a":1}}|{"b":2}`, ""},
		{"a form", "a=1&b={\"c\":2}", `!a=1&b={"c":2}`, ""},
		{"a page", "<html>\n<p>x</p>\n</html>", "!<html>\n<p>x</p>\n</html>", `!<html>|!<p>x</p>|!</html>`},
		{"commas between", "{\"a\":1},\n{\"b\":2}", `{"a":1}|!,|{"b":2}`, ""},
	} {
		want := c.want
		for _, lines := range []bool{false, true} {
			if lines && c.lines != "" {
				want = c.lines
			}
			if got := strings.Join(split(c.text, lines), "|"); got != want {
				t.Errorf("%s, lines %t: got %s, want %s", c.name, lines, got, want)
			}
		}
	}
}

// found says whether only the broken value was passed.
func TestSkipFound(t *testing.T) {
	for text, want := range map[string]bool{
		`[{"a":NaN},1]`: true, `{"a":NaN}`: true, "NaN\n1": true, `[{"a":`: false, `{"a":`: false, "x y": false, `"x`: false,
	} {
		v := NewValues([]byte(text), false)
		if _, err := v.Next(); err != nil {
			t.Fatal(err)
		}
		if n, found := v.Skip(1); found != want || n == 0 {
			t.Errorf("%s: got %d, %t, want %t", text, n, found, want)
		}
	}
}

func TestValuesTakeLinearTime(t *testing.T) {
	const size = 256 << 10
	for _, part := range []string{
		"{\"a\":[\n", "{\"a\":\n", " {\"a\":\n", "[{\"a\":\n", "[\n", "[{\"a\":NaN},\n", `{"a":NaN}`, `{"a":NaN},`, `[{"a":`,
		"{\"a\":\"\n", "}\n", "]", "\"", "\"x\n", "\"\r",
		"x ", "{\"a\":1\n\n\n\n", "{\"a\":{\"b\":\"\\\"\n[", ",", "[,", "1 ", "1\n", "{\"a\":[{]}", " [\n {\"a\":[{\n",
		"\n [{\"a\":\"", `{"":}[{"":"`,
	} {
		for _, lines := range []bool{false, true} {
			text := strings.Repeat(part, size/len(part))
			began := time.Now()
			if split(text, lines); time.Since(began) > 3*time.Second {
				t.Errorf("%q, lines %t: took %s", part, lines, time.Since(began))
			}
		}
	}
}

func FuzzValues(f *testing.F) {
	for _, text := range []string{`[{"a":1},{"b":NaN}] {"c":3}`, "{\"a\":\n{\"b\":[}\n[,1", "\"x\n[[1]\r2 3}",
		"{\"a\":1}\n[{\"b\":2}]\n3"} {
		f.Add(text, false)
		f.Add(text, true)
	}
	f.Fuzz(func(t *testing.T, text string, lines bool) {
		at := 0
		for _, piece := range split(text, lines) {
			piece = strings.TrimLeft(piece[:min(1, len(piece))], "!?") + piece[min(1, len(piece)):]
			next := strings.Index(text[at:], piece)
			if next < 0 {
				t.Fatalf("%q is not behind byte %d", piece, at)
			}
			at += next + len(piece)
		}
		if strings.Trim(text[at:], "[], \t\r\n") != "" {
			t.Fatalf("the last bytes were not read: %q", text[at:])
		}
		// What encoding/json reads must be found, and nothing else. It reads 00 as two numbers.
		if regexp.MustCompile(`0[0-9]`).MatchString(text) {
			return
		}
		var want []string
		d := json.NewDecoder(strings.NewReader(text))
		for {
			var raw json.RawMessage
			if err := d.Decode(&raw); err == io.EOF {
				break
			} else if err != nil {
				return
			}
			if raw[0] != '[' {
				if lines && raw[0] != '{' {
					return
				}
				want = append(want, string(raw))
				continue
			}
			var elements []json.RawMessage
			if json.Unmarshal(raw, &elements) != nil {
				return
			}
			for _, e := range elements {
				want = append(want, string(e))
			}
		}
		var got []string
		for _, piece := range split(text, lines) {
			got = append(got, string(bytes.TrimSpace([]byte(piece))))
		}
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}
