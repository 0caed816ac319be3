package foreign

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// cut returns the values of a text. Invalid ones have a "!" in front.
func cut(t testing.TB, in io.Reader) []string {
	t.Helper()
	v := newValues(in, DefaultMaxRow)
	var all []string
	for {
		text, bad, err := v.next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		mark := ""
		if bad != nil {
			mark = "!"
		}
		all = append(all, mark+string(text))
	}
}

func TestValues(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"nothing", " \r\n\t", nil},
		{"lines", "{\"a\":1}\n\n{\"a\":2}\r\n{}", []string{`{"a":1}`, `{"a":2}`, `{}`}},
		{"CR line ends", "{\"a\":1}\r{\"a\":2}\r", []string{`{"a":1}`, `{"a":2}`}},
		{"byte order mark", "\ufeff{}", []string{`{}`}},
		{"several on a line", `{"a":1}{"a":2} {"a":3}`, []string{`{"a":1}`, `{"a":2}`, `{"a":3}`}},
		{"pretty-printed", "{\n  \"a\": {\n    \"b\": 1\n  }\n}\n{\n}",
			[]string{"{\n  \"a\": {\n    \"b\": 1\n  }\n}", "{\n}"}},
		{"an array", "[\n{\"a\":1},\n{\"a\":2}\n]\n", []string{`{"a":1}`, `{"a":2}`}},
		{"arrays between lines", "{\"a\":1}\n[{\"a\":2},{\"a\":3}]\n[]\n{\"a\":4}",
			[]string{`{"a":1}`, `{"a":2}`, `{"a":3}`, `{"a":4}`}},
		{"text sequences", "\x1e{\"a\":1}\n\x1e{\"a\":2}\n", []string{`{"a":1}`, `{"a":2}`}},
		{"brackets in strings", `{"a":"}{\"]"}{"b":"\\"}`, []string{`{"a":"}{\"]"}`, `{"b":"\\"}`}},
		{"scalars", "1\n\"x\"\nnull\n", []string{"1", `"x"`, "null"}},
		{"words", "not json at all\n{}", []string{"not json at all", "{}"}},
		{"words behind", "{} x y\n{}", []string{"{}", "x y", "{}"}},
		{"words in an array", `[{"a":NaN},{"a":Infinity},undefined,{"a":1e400},{}]`,
			[]string{`{"a":NaN}`, `{"a":Infinity}`, "undefined", `{"a":1e400}`, "{}"}},
		{"nested arrays", `[[1,2],{}]`, []string{"[1,2]", "{}"}},
		{"cut in a string", "{\"a\":\"b\n{\"a\":2}\n", []string{`!{"a":"b`, `{"a":2}`}},
		{"cut behind a value", "{\"a\":1\n{\"a\":2}\n{\"a\":3}", []string{`!{"a":1`, `{"a":2}`, `{"a":3}`}},
		{"cut behind a comma", "{\"a\":1,\n{\"a\":2}\n", []string{`!{"a":1,`, `{"a":2}`}},
		{"cut behind a colon", "{\"a\":\n{\"a\":2}\n{\"a\":3}\n", []string{`!{"a":`, `{"a":2}`, `{"a":3}`}},
		{"cut at the end", "{\"a\":1}\n{\"a\":", []string{`{"a":1}`, `!{"a":`}},
		{"cut in an array", "[{\"a\":1},\n{\"a\":\"x\n,{\"a\":3}]", []string{`{"a":1}`, `!{"a":"x`, `{"a":3}`}},
		{"an array cut off", "[{\"a\":1},", []string{`{"a":1}`, "!"}},
		{"wrong brackets", "{\"a\":1]\n{}", []string{`!{"a":1`, "]", "{}"}},
		{"words between objects of a line", `{"a":1}x y{"a":2}`, []string{`{"a":1}`, "x y", `{"a":2}`}},
		{"words with brackets", "x {y}\n{}", []string{"x {y}", "{}"}},
		{"too many brackets", "{}}\n{}", []string{"{}", "}", "{}"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for how, in := range map[string]io.Reader{
				"whole": strings.NewReader(c.text), "byte by byte": iotest.OneByteReader(strings.NewReader(c.text)),
				"end with data": iotest.DataErrReader(strings.NewReader(c.text)),
			} {
				if got := cut(t, in); !slices.Equal(got, c.want) {
					t.Errorf("%s: got %q, want %q", how, got, c.want)
				}
			}
		})
	}
}

// Firehose writes records without line ends between them.
func TestManyValuesOnALine(t *testing.T) {
	const n = 60_000
	if got := cut(t, strings.NewReader(strings.Repeat(`{"a":{"b":[1,2]}}`, n))); len(got) != n {
		t.Errorf("%d values, want %d", len(got), n)
	}
}

func TestLargeValue(t *testing.T) {
	large := `{"a":"` + strings.Repeat("x", 3<<20) + `"}`
	if got := cut(t, strings.NewReader("{}\n"+large+"\n{}")); len(got) != 3 || got[1] != large {
		t.Errorf("%d values", len(got))
	}
}

// The cost stays linear if every value is cut off after a bracket.
func TestBrokenValuesCostLittle(t *testing.T) {
	text := strings.Repeat("{\"a\":[{\"b\":\n", 100_000)
	v := newValues(strings.NewReader(text), DefaultMaxRow)
	for {
		if _, _, err := v.next(); err != nil {
			break
		}
	}
	if limit := 4*int64(len(text)) + 8<<20; v.again > limit {
		t.Errorf("%d bytes were looked at in vain, of %d", v.again, len(text))
	}
}

func TestValuesReadError(t *testing.T) {
	broken := errors.New("broken")
	v := newValues(io.MultiReader(strings.NewReader("{}\n{\"a\":1"), iotest.ErrReader(broken)), DefaultMaxRow)
	if text, _, err := v.next(); string(text) != "{}" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
	if text, _, err := v.next(); !errors.Is(err, broken) {
		t.Errorf("got %q, %v; want the error of the reader", text, err)
	}
}

// FuzzValues: no byte except space is lost, and reading terminates.
func FuzzValues(f *testing.F) {
	f.Add([]byte("{\"a\":1}\n[{\"a\":2},\n{\"b\":\"x\n]"))
	f.Add([]byte(`{"a":1}{"b":[{"c":NaN}]} x`))
	f.Fuzz(func(t *testing.T, text []byte) {
		solid := func(b []byte) int {
			n := 0
			for _, c := range bytes.TrimPrefix(b, []byte("\ufeff")) {
				if bytes.IndexByte([]byte(" \t\r\n\x1e[],"), c) < 0 {
					n++
				}
			}
			return n
		}
		v := newValues(bytes.NewReader(text), DefaultMaxRow)
		n := 0
		for {
			part, _, err := v.next()
			if err != nil {
				break
			}
			n += solid(part)
		}
		if want := solid(text); n != want {
			t.Errorf("%d bytes came out, want %d", n, want)
		}
	})
}
