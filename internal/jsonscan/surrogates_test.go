package jsonscan

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"unicode/utf8"
)

var surrogateTexts = []struct {
	text, want string
	replaced   int
}{
	{`{"a":"plain \n \\ \u00e9 é \ud83d\ude00 😀"}`, `{"a":"plain \n \\ \u00e9 é \ud83d\ude00 😀"}`, 0},
	{`{"name":"ls","v":"cut \ud83d"}`, `{"name":"ls","v":"cut \ufffd"}`, 1},
	{`{"v":"\uD83D"}`, `{"v":"\ufffd"}`, 1},
	{`{"v":"\ude00"}`, `{"v":"\ufffd"}`, 1},
	{`{"v":"\ude00\ud83d"}`, `{"v":"\ufffd\ufffd"}`, 2},
	{`{"v":"\ud83d\ud83d\ude00\ude00"}`, `{"v":"\ufffd\ud83d\ude00\ufffd"}`, 2},
	{`{"v":"\ud83dx\ude00"}`, `{"v":"\ufffdx\ufffd"}`, 2},
	{`{"v":"\ud83d\n\ud83d\u0041"}`, `{"v":"\ufffd\n\ufffd\u0041"}`, 2},
	{`{"v":"\\ud83d \\\ud83d \"\udfff"}`, `{"v":"\\ud83d \\\ufffd \"\ufffd"}`, 2},
	{`{"\ud800":{"\udfffk":["\udbff"]}}`, `{"\ufffd":{"\ufffdk":["\ufffd"]}}`, 3},
	{"{\"v\":\"\xed\xa0\xbd\"}", "{\"v\":\"\uFFFD\"}", 1},
	{"{\"v\":\"\xed\xb8\x80\xed\xa0\xbdé\xed\x9f\xbf\"}", "{\"v\":\"\uFFFD\uFFFDé\xed\x9f\xbf\"}", 2},
	{"{\"k\xed\xa0\xbd\":\"\xed\xa0\xbd\\ude00\"}", "{\"k\uFFFD\":\"\uFFFD\\ufffd\"}", 3},
}

func TestReplaceLoneSurrogates(t *testing.T) {
	for _, c := range surrogateTexts {
		got := []byte(c.text)
		if done, n := ReplaceLoneSurrogates(got, true); string(got) != c.want || n != c.replaced || done != len(got) {
			t.Errorf("%s: got %s, %d replaced, %d done; want %s, %d", c.text, got, n, done, c.want, c.replaced)
		}
	}
	for _, text := range []string{"", `\`, `\u`, `\ud83`, `\ux83d`, "\xed", "\xed\xa0", `"\ud83d\ude0`} {
		got := []byte(text)
		if done, _ := ReplaceLoneSurrogates(got, true); done != len(text) {
			t.Errorf("%q: %d of %d bytes are done", text, done, len(text))
		}
	}
}

// inPieces replaces as a reader does that has so many bytes at a time.
func inPieces(text []byte, size int) (all []byte, replaced int) {
	var buffer []byte
	for len(text) > 0 || len(buffer) > 0 {
		n := min(size, len(text))
		buffer, text = append(buffer, text[:n]...), text[n:]
		done, more := ReplaceLoneSurrogates(buffer, len(text) == 0)
		all, replaced = append(all, buffer[:done]...), replaced+more
		buffer = append([]byte(nil), buffer[done:]...)
	}
	return all, replaced
}

func TestReplaceLoneSurrogatesInPieces(t *testing.T) {
	for _, c := range surrogateTexts {
		for size := 1; size <= len(c.text); size++ {
			if got, n := inPieces([]byte(c.text), size); string(got) != c.want || n != c.replaced {
				t.Errorf("%s, %d bytes at a time: got %s, %d replaced", c.text, size, got, n)
			}
		}
	}
}

func TestAllowLoneSurrogates(t *testing.T) {
	for _, c := range surrogateTexts {
		var strict Scanner
		if _, _, err := strict.Object([]byte(c.text)); (err == nil) != (c.replaced == 0) || strict.LoneSurrogates() {
			t.Errorf("%s: got %v", c.text, err)
		}
		got, n, err := scanAll(c.text)
		want, _, wantErr := scanAll(c.want)
		if err != nil || wantErr != nil || n != len(c.text) || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %q, %v, want %q, %v", c.text, got, err, want, wantErr)
		}
	}
	s := Scanner{AllowLoneSurrogates: true}
	for _, c := range []struct{ text, code string }{
		{`{"\ud800":1,"\udc00":2}`, DuplicateKey},
		{"{\"\\ud800\":1,\"\uFFFD\":2}", DuplicateKey},
		{"{\"\xed\xa0\xbd\":1,\"\\ufffd\":2}", DuplicateKey},
		{"{\"a\":\"\xed\xa0\xbd\xff\"}", InvalidUTF8},
		{"{\"a\":\"\xed\xa0\"}", InvalidUTF8},
		{"{\"a\":\"\xed\xa0\\ud800\"}", InvalidUTF8},
		{`{"a":"\ud8"}`, InvalidJSON},
		{`{"\u0000\ud800":1}`, NulCharacter},
	} {
		_, _, err := s.Object([]byte(c.text))
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != c.code {
			t.Errorf("%q: got %v, want %s", c.text, err, c.code)
		}
	}
	if _, _, err := s.Object([]byte(`{"a":"\ud83d\ude00"}`)); err != nil || s.LoneSurrogates() {
		t.Errorf("a pair behind others: got %v, lone %t", err, s.LoneSurrogates())
	}
}

// scanAll returns the keys of a text.
func scanAll(text string) (keys []string, n int, err error) {
	s := Scanner{AllowLoneSurrogates: true}
	members, n, err := s.Object([]byte(text))
	for _, m := range members {
		keys = append(keys, string(m.Key))
	}
	return keys, n, err
}

// encoding/json replaces lone surrogates as well, escaped ones at least.
func FuzzReplaceLoneSurrogates(f *testing.F) {
	for _, c := range surrogateTexts {
		f.Add([]byte(c.text), uint8(3))
	}
	f.Fuzz(func(t *testing.T, text []byte, size uint8) {
		lax, strict := Scanner{AllowLoneSurrogates: true}, Scanner{}
		_, _, err := lax.Object(text)
		got := bytes.Clone(text)
		_, n := ReplaceLoneSurrogates(got, true)
		if pieces, m := inPieces(text, int(size)+1); !bytes.Equal(pieces, got) || m != n {
			t.Fatalf("in pieces %q, %d replaced; whole %q, %d", pieces, m, got, n)
		}
		if err != nil || !json.Valid(text) { // as for Scanner, but for what follows the object
			return
		}
		if _, _, err := strict.Object(got); err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		if lax.LoneSurrogates() != (n > 0) {
			t.Fatalf("%d replaced, LoneSurrogates is %t", n, lax.LoneSurrogates())
		}
		if !utf8.Valid(text) {
			return
		}
		var before, after any
		json.Unmarshal(text, &before)
		if json.Unmarshal(got, &after); !reflect.DeepEqual(before, after) {
			t.Fatalf("got %q", got)
		}
	})
}
