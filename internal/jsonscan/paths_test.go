package jsonscan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// As ClickHouse 26.7 judges them, see TestSharedPaths of internal/clickhouse.
var sharedPaths = []struct{ text, path string }{
	{`{"a.b":1,"a":{"b":2}}`, "a.b"},
	{` { "a" : { "b" : 2 } , "a.b" : [ ] } `, "a.b"},
	{`{"a.b":null,"a":{"b":2}}`, ""},
	{`{"a.b":{},"a":{"b":2}}`, ""},
	{`{"a.b":1,"a":{"b":{"c":2}}}`, ""},
	{`{"a.b":{"c":1},"a":{"b":{"d":2}}}`, ""},
	{`{"a.b":{"c":1},"a":{"b":{"c":2}}}`, "a.b.c"},
	{`{"a.b":{"c.d":1},"a":{"b.c":{"d":2}}}`, "a.b.c.d"},
	{`{"x":{"y":{"a.b":1,"a":{"b":false}}}}`, "x.y.a.b"},
	{`{"x":[1,{"a.b":"1","a":{"b":2}}]}`, "a.b"},
	{`{"x":[[{"a.b":1},{"a":{"b":2}},{"a.b":1,"a":{"b":{}}}]],"x.y":1,"z":{}}`, ""},
	{`{"x":[[{"a.b":1,"a":{"b":2}}]]}`, "a.b"},
	{`{"a..b":1,"a.":{"b":2}}`, "a..b"},
	{`{"a..b":1,"a":{".b":2}}`, "a..b"},
	{`{"a..b":1,"a":{"":{"b":2}}}`, "a..b"},
	{`{".a":1,"":{"a":2}}`, ".a"},
	{`{"a":1,"a.b":2,"b":{"c":3}}`, ""},
	{`{"\u0061.b":1,"a":{"b":2}}`, "a.b"},
	{`{"a.b":1,"a":{"c":"\"}, \"b\":1"}}`, ""},
	{`{"a.b":1,"b.a":{"c":2},"a":{"c":[],"d":null}}`, ""},
	{`["a.b",{"a.b":1,"a":{"b":2}}]`, "a.b"},
	{`1.5`, ""},
}

func TestSharedPath(t *testing.T) {
	for _, c := range sharedPaths {
		var s Scanner
		if _, _, err := s.Value([]byte(c.text)); err != nil {
			t.Fatalf("%s: %v", c.text, err)
		}
		if got := string(SharedPath([]byte(c.text))); got != c.path {
			t.Errorf("%s: %q, want %q", c.text, got, c.path)
		}
		if c.path != "" && !s.Dotted() {
			t.Errorf("%s: no key with a dot", c.text)
		}
	}
	var s Scanner
	for text, want := range map[string]bool{`{"a":{"b.c":1}}`: true, `{"a":"b.c","d":1.5}`: false,
		`{"a":[{"\u002e":1}]}`: true} {
		if _, _, err := s.Object([]byte(text)); err != nil || s.Dotted() != want {
			t.Errorf("%s: dotted %v, %v", text, s.Dotted(), err)
		}
	}
}

// What looks like shared paths and is as large as properties may be is judged in memory in proportion.
func TestSharedPathOfMany(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(`{"a":{`)
	for i := range 200_000 {
		fmt.Fprintf(&b, `"%d.x":1,`, i)
	}
	b.WriteString(`"":0},"a.` + strings.Repeat(".", 1<<20) + `":1`)
	if path := SharedPath(append(b.Bytes(), '}')); path != nil {
		t.Errorf("%.100q is there twice", path)
	}
	b.WriteString(`,"a.199999.x":1}`)
	if path := SharedPath(b.Bytes()); string(path) != "a.199999.x" {
		t.Errorf("%.100q is there twice", path)
	}
}

// FuzzSharedPath compares with a tree that is flattened.
func FuzzSharedPath(f *testing.F) {
	for _, c := range sharedPaths {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var s Scanner
		if _, n, err := s.Value(text); err != nil || len(TrimSpace(text[n:])) > 0 {
			return
		}
		var v any
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		got := SharedPath(text)
		if want := shared(v); (got != nil) != want {
			t.Errorf("%q: path %q, shared %v", text, got, want)
		}
		if got != nil && !s.Dotted() {
			t.Errorf("%q: path %q without a dot", text, got)
		}
	})
}

func shared(v any) bool {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if shared(e) {
				return true
			}
		}
	case map[string]any:
		return flatten(v, "", map[string]bool{})
	}
	return false
}

func flatten(v map[string]any, prefix string, seen map[string]bool) bool {
	for key, e := range v {
		path := prefix + key
		if o, ok := e.(map[string]any); ok {
			if flatten(o, path+".", seen) {
				return true
			}
			continue
		}
		if e == nil {
			continue
		}
		if seen[path] || shared(e) {
			return true
		}
		seen[path] = true
	}
	return false
}
