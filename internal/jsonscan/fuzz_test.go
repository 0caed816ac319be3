package jsonscan

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

var corpus = []string{
	``, ` `, `{}`, `[]`, `{"a":1}`, `{"a":1,"a":2}`, `{"a":{"b":[1,2,{"c":null}]}}`, `[1,2.5,-0,1e5,01,1.]`,
	`"\ud83d\ude00"`, `"\ud800"`, `{"\u0061":1,"a":2}`,
	`{"\u0000":1}`, "\"\xff\"", "{\"a\":\"\xed\xa0\x80\"}", `1e400`, `18446744073709551616`, `-9223372036854775809`, `nul`,
	`true false`, `{"a":1}x`, `[[[[]]]]`,
	`{"a" : "b" , "c" : [ ] }`, "{\"a\":\"\n\"}", `"\x"`, `"\u12"`, `{"a":"a long text, é, and \"quotes\""}`, `"abcdefgh"`,
	`"abcdefg\"`, "\ufeff{}", `-`, `0.`, `-0.0e-0`,
	`{"property_1":1,"property_2":2,"property_1":3}`,
	`{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0,"g":0,"h":0,"i":0,"j":0,"k":0,"l":0,"m":0,"n":0,"o":0,"p":0,"q":0,"r":0,"s":0,"t":0,"u":0,"v":0,"w":0,"x":0,"y":0,"z":0,` +
		`"A":0,"B":0,"C":0,"D":0,"E":0,"F":0,"G":0,"H":0,"I":{"A":0},"J":0,"K":0}`,
}

func FuzzObject(f *testing.F) {
	for _, src := range corpus {
		f.Add([]byte(src))
	}
	f.Add(gameEvents(1)[0])
	f.Add([]byte(strings.Repeat("[", 70) + strings.Repeat("]", 70)))
	var used Scanner // its buffers come from other inputs
	f.Fuzz(func(t *testing.T, src []byte) {
		before := bytes.Clone(src)
		kind, n, err := used.Value(src)
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("error is a %T", err)
		}
		structural := e != nil && e.Structural()
		if n < 0 || n > len(src) || e != nil &&
			(e.Offset < 0 || e.Offset > len(src) || !utf8.ValidString(e.Message) || len(e.Message) > 300) {
			t.Fatalf("n %d, error %+v, of %d bytes", n, e, len(src))
		}

		// Valid means no structure error and nothing behind; where it goes wrong is the same byte.
		var syntax *json.SyntaxError
		valid := json.Valid(src)
		if got := !structural && len(TrimSpace(src[n:])) == 0; got != valid && !deep(src) {
			t.Fatalf("json.Valid %v, got n %d, %v", valid, n, err)
		}
		if structural && n < len(src) && !deep(src) {
			if err := json.Unmarshal(src, new(json.RawMessage)); !errors.As(err, &syntax) || int(syntax.Offset)-1 != n {
				t.Fatalf("got %v, n %d, encoding/json %v at %d", e, n, err, syntax.Offset-1)
			}
		}
		if structural && e.Offset != n {
			t.Fatalf("structure error at %d, n %d", e.Offset, n)
		}

		// A fresh scanner, and Object, tell the same.
		var fresh Scanner
		kind2, n2, err2 := fresh.Value(src)
		if kind2 != kind || n2 != n || (err2 == nil) != (err == nil) || err != nil && err.Error() != err2.Error() {
			t.Fatalf("used: %v, %d, %v; fresh: %v, %d, %v", kind, n, err, kind2, n2, err2)
		}
		members, n3, err3 := used.Object(src)
		if n3 != n {
			t.Fatalf("Value consumed %d, Object %d", n, n3)
		}
		if wrong := err == nil && kind != Object; wrong != (err3 != nil && err == nil) {
			t.Fatalf("Value %v, %v; Object %v", kind, err, err3)
		}
		if !bytes.Equal(src, before) {
			t.Fatal("src changed")
		}
		if used.inUse != 0 {
			t.Fatalf("%d keys are left in the table", used.inUse)
		}
		if err3 != nil {
			if e := func() *Error {
				target := &Error{}
				_ = errors.As(err3, &target)
				return target
			}(); !e.Structural() && kind == Object && !deep(src) {
				checkContent(t, src[:n], e)
			}
			return
		}
		compareMembers(t, src[:n], members)
	})
}

// deep reports whether encoding/json may refuse src for its nesting.
func deep(src []byte) bool {
	return bytes.Count(src, []byte("["))+bytes.Count(src, []byte("{")) > 9999
}

// checkContent checks a content error with encoding/json.
func checkContent(t *testing.T, src []byte, e *Error) {
	switch e.Code {
	case InvalidUTF8:
		if utf8.Valid(src) {
			t.Fatalf("%v, but it is valid", e)
		}
	case NumberOutOfRange:
		var v any
		d := json.NewDecoder(bytes.NewReader(src[e.Offset:]))
		if d.Decode(&v) == nil {
			if f, ok := v.(float64); !ok || f < 1<<63 && f > -1<<63 {
				t.Fatalf("%v, but it is %v", e, v)
			}
		}
	case LoneSurrogate, NulCharacter:
		if src[e.Offset] != '\\' {
			t.Fatalf("%v, but there is %q", e, src[e.Offset])
		}
	case DuplicateKey:
		if src[e.Offset] != '"' {
			t.Fatalf("%v, but there is %q", e, src[e.Offset])
		}
	}
}

// compareMembers compares members with what encoding/json makes of the same object, which was accepted.
func compareMembers(t *testing.T, src []byte, members []Member) {
	if !utf8.Valid(src) {
		t.Fatal("accepted, but not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(src))
	d.UseNumber()
	if tok, err := d.Token(); err != nil || tok != json.Delim('{') {
		t.Fatalf("got %v, %v", tok, err)
	}
	seen := map[string]bool{}
	for i := 0; d.More(); i++ {
		key, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			t.Fatal(err)
		}
		if i >= len(members) {
			t.Fatalf("%d members, want more", len(members))
		}
		m := members[i]
		if string(m.Key) != key || !bytes.Equal(m.Value, raw) {
			t.Fatalf("member %d: got %q %s, want %q %s", i, m.Key, m.Value, key, raw)
		}
		if seen[key.(string)] {
			t.Fatalf("key %q is there twice", key)
		}
		seen[key.(string)] = true
		want := map[byte]Kind{'n': Null, 't': Bool, 'f': Bool, '"': String, '{': Object, '[': Array}
		k, ok := want[raw[0]]
		if !ok {
			k = Number
		}
		if m.Kind != k {
			t.Fatalf("member %d: kind %v, want %v", i, m.Kind, k)
		}
	}
	if len(seen) != len(members) {
		t.Fatalf("%d members, want %d", len(members), len(seen))
	}
	// Numbers that are accepted can be read.
	var v any
	if err := json.Unmarshal(src, &v); err != nil {
		t.Fatalf("accepted, but %v", err)
	}
	if twice(src) {
		t.Fatal("accepted, but a nested object has a key twice")
	}
}

// twice reports whether an object in src, at any level, has a key twice.
func twice(src []byte) bool {
	d := json.NewDecoder(bytes.NewReader(src))
	d.UseNumber()
	var value func() bool
	value = func() bool {
		tok, err := d.Token()
		if err != nil {
			return false
		}
		switch tok {
		case json.Delim('{'):
			seen := map[any]bool{}
			for d.More() {
				key, _ := d.Token()
				if seen[key] || value() {
					return true
				}
				seen[key] = true
			}
			d.Token()
		case json.Delim('['):
			for d.More() {
				if value() {
					return true
				}
			}
			d.Token()
		}
		return false
	}
	return value()
}

func FuzzUnquote(f *testing.F) {
	for _, src := range corpus {
		f.Add([]byte(src))
	}
	var s Scanner
	f.Fuzz(func(t *testing.T, content []byte) {
		// As text that is to be quoted.
		if utf8.Valid(content) {
			quoted := AppendQuoted(nil, content)
			var back string
			if err := json.Unmarshal(quoted, &back); err != nil || back != string(content) {
				t.Fatalf("%q: quoted %s, encoding/json reads %q, %v", content, quoted, back, err)
			}
			if _, n, err := s.Value(quoted); err != nil || n != len(quoted) {
				t.Fatalf("%q: quoted %s, %v", content, quoted, err)
			}
			if got := AppendUnquoted(nil, quoted); !bytes.Equal(got, content) {
				t.Fatalf("%q: quoted %s, unquoted %q", content, quoted, got)
			}
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			if err := e.Encode(string(content)); err != nil || len(quoted) > b.Len()-1 {
				t.Fatalf("%q: quoted %s, longer than %s", content, quoted, b.Bytes())
			}
		}

		// As text between quotes.
		raw := append(append([]byte{'"'}, content...), '"')
		got := AppendUnquoted(nil, raw)
		_, n, err := s.Value(raw)
		if n != len(raw) || err != nil && func() *Error {
			target := &Error{}
			_ = errors.As(err, &target)
			return target
		}().Code != LoneSurrogate {
			return
		}
		var want string
		if err := json.Unmarshal(raw, &want); err != nil || string(got) != want {
			t.Fatalf("%s: got %q, want %q, %v", raw, got, want, err)
		}
	})
}

// TestCorpus mutates the corpus a little, without the fuzzer.
func TestCorpus(t *testing.T) {
	var s Scanner
	check := func(src []byte) {
		_, n, err := s.Value(src)
		structural := err != nil && func() *Error {
			target := &Error{}
			_ = errors.As(err, &target)
			return target
		}().Structural()
		if got, want := !structural && len(TrimSpace(src[n:])) == 0, json.Valid(src); got != want {
			t.Errorf("%q: valid %v (n %d, %v), json.Valid %v", src, got, n, err, want)
		}
	}
	for _, c := range corpus {
		for i := range len(c) {
			check([]byte(c[:i]))
			for _, b := range []byte("\"\\{}[]:,0e.-u \n\x00\x1f\x80\xff") {
				src := []byte(c)
				src[i] = b
				check(src)
			}
		}
		check([]byte(c))
	}
}
