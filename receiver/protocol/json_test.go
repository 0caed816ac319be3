package protocol

import (
	"encoding/json"
	"testing"

	"github.com/penstock/penstock/receiver/errcode"
)

// EachMember, which follows brackets and strings, finds the same members as a parser.
func FuzzEachMember(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1}`, ` {"a" : [1,{"b":"}"}] , "c\"d":"x"} `, `{"a":1,}`, `{"a"}`, `{"a":}`,
		`{"a":1}x`, `{"a":1,"a":2}`, `{"":""}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var want map[string]json.RawMessage
		valid := json.Unmarshal([]byte(s), &want) == nil && want != nil
		got := map[string]string{}
		whole := EachMember(Whole([]byte(s)), func(key, value []byte) {
			got[string(key)] = string(value)
		})
		if !valid {
			return // content is checked elsewhere
		}
		if !whole || len(got) != len(want) {
			t.Fatalf("%q: got %q, whole %v", s, got, whole)
		}
		for k, v := range want {
			if got[k] != string(v) {
				t.Errorf("%q: %q is %q, want %q", s, k, got[k], v)
			}
		}
	})
}

func TestFindAndDig(t *testing.T) {
	for _, c := range []struct {
		body, want string
		code       errcode.Code
	}{
		{`{"a":1,"b":[2]}`, `[2]`, 0}, {`{"b":1,"\u0062":2}`, `2`, 0}, {`{"a":1}`, ``, 0}, {``, ``, errcode.EmptyBody},
		{`[1]`, ``, errcode.InvalidJSON}, {`{"b":1`, ``, errcode.InvalidJSON},
	} {
		got, err := Find([]byte(c.body), "b")
		var code errcode.Code
		if err != nil {
			code = err.Code
		}
		if string(got) != c.want || code != c.code {
			t.Errorf("%s: got %q and code %d, want %q and %d", c.body, got, code, c.want, c.code)
		}
	}
	const object = `{"a":{"b":{"c":"x\n"}},"n":7}`
	for _, c := range []struct {
		path []string
		want string
	}{{[]string{"a", "b", "c"}, "x\n"}, {[]string{"n"}, "7"}, {[]string{"a", "b"}, ""}, {[]string{"a", "x", "c"}, ""},
		{[]string{"n", "x"}, ""}} {
		if got := string(PlainText(Dig([]byte(object), c.path...))); got != c.want {
			t.Errorf("%v: got %q, want %q", c.path, got, c.want)
		}
	}
}

// One of two lists of events, or of two keys, would be lost.
func TestAmbiguous(t *testing.T) {
	for body, want := range map[string]bool{
		`{"batch":[],"batch":[]}`: true, `{"batch":[1],"events":[]}`: true, `{"event":"a","batch":[1]}`: true,
		`{"token":"a","token":"b"}`:  true,
		`{"batch":[],"events":null}`: false, `{"batch":[],"token":"a","api_key":"b"}`: false,
		`{"x":1,"x":2,"batch":[]}`: false,
	} {
		if err := ambiguous([]byte(body)); (err != nil) != want {
			t.Errorf("%s: error %v, want one: %v", body, err, want)
		}
	}
}

func TestAppend(t *testing.T) {
	w := AppendKey([]byte{'{'}, "a\"b")
	w = AppendText(w, "x\xff")
	w = AppendString(AppendString(w, "empty", ""), "s", "t")
	w = AppendInt(AppendNumber(AppendNumber(w, "zero", 0), "n", 7), "i", 0)
	if got, want := string(append(w, '}')), `{"a\"b":"x`+"\uFFFD"+`","s":"t","n":7,"i":0}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
