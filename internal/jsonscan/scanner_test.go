package jsonscan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"
)

// asError returns err's *Error, and a zero one if err is nil.
func asError(t *testing.T, err error) *Error {
	t.Helper()
	if err == nil {
		return &Error{}
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error is a %T, want *Error", err)
	}
	return e
}

func TestObjectMembers(t *testing.T) {
	tests := []struct {
		src  string
		want string // key=kind:value …
		n    int    // 0: all of src
	}{
		{`{}`, ``, 0},
		{` { } `, ``, 4},
		{`{"a":1}`, `a=number:1`, 0},
		{"\t{\n\"a\" :\r-0.5e+3 , \"b\": null }rest", `a=number:-0.5e+3 b=null:null`, 30},
		{`{"a":true,"b":false,"c":"x y","d":[],"e":{},"f":[1,{"a":2}],"g":{"a":[{}]}}`,
			`a=bool:true b=bool:false c=string:"x y" d=array:[] e=object:{} f=array:[1,{"a":2}] g=object:{"a":[{}]}`, 0},
		{`{"a": [ 1 , 2 ] ,"b": { "a" : 1 } }`, `a=array:[ 1 , 2 ] b=object:{ "a" : 1 }`, 0},
		{`{"":1," ":2}`, `=number:1  =number:2`, 0},
		{`{"\u0061\n":1,"A\ud83d\ude00":"\u0000"}`, "a\n=number:1 A😀=string:\"\\u0000\"", 0},
		{`{"é":"ü€😀"}`, `é=string:"ü€😀"`, 0},
		{`{"a":1}{"a":1}`, `a=number:1`, 7},
		{`{"a":1},`, `a=number:1`, 7},
		{`{"a":{"a":{"a":1}}}`, `a=object:{"a":{"a":1}}`, 0},
		{`{"a":"a long text that has \"quotes\", and a slash \/ in it"}`,
			`a=string:"a long text that has \"quotes\", and a slash \/ in it"`, 0},
	}
	var s Scanner
	for _, tt := range tests {
		members, n, err := s.Object([]byte(tt.src))
		if err != nil {
			t.Errorf("%s: %v", tt.src, err)
			continue
		}
		if tt.n == 0 {
			tt.n = len(tt.src)
		}
		if n != tt.n {
			t.Errorf("%s: consumed %d bytes, want %d", tt.src, n, tt.n)
		}
		var got []string
		for _, m := range members {
			got = append(got, fmt.Sprintf("%s=%s:%s", m.Key, m.Kind, m.Value))
		}
		if g := strings.Join(got, " "); g != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.src, g, tt.want)
		}
	}
}

func TestValue(t *testing.T) {
	tests := []struct {
		src  string
		kind Kind
		n    int
	}{
		{`null`, Null, 4},
		{` true `, Bool, 5},
		{`falsehood`, Bool, 5},
		{`1 x`, Number, 1},
		{`-12.5e-7,`, Number, 8},
		{`"a"b`, String, 3},
		{`[1,[2],{"a":[]}]]`, Array, 16},
		{`{"a":1}`, Object, 7},
		{`[ ]`, Array, 3},
	}
	var s Scanner
	for _, tt := range tests {
		kind, n, err := s.Value([]byte(tt.src))
		if err != nil || kind != tt.kind || n != tt.n {
			t.Errorf("%s: got %v, %d, %v, want %v, %d", tt.src, kind, n, err, tt.kind, tt.n)
		}
	}
}

func TestStructureErrors(t *testing.T) {
	tests := []struct {
		src    string
		offset int
		want   string // a part of the message
	}{
		{``, 0, "unexpected end of JSON at byte 0, want a value"},
		{"  ", 2, "end of JSON"},
		{`{`, 1, "end of JSON at byte 1, want a key or '}'"},
		{`{"a"`, 4, "want ':'"},
		{`{"a":`, 5, "want a value"},
		{`{"a":1`, 6, "want ',' or '}'"},
		{`{"a":1,`, 7, "want a key"},
		{`{"a":1,}`, 7, "unexpected byte '}' at byte 7, want a key"},
		{`{,}`, 1, "','"},
		{`{a:1}`, 1, "'a'"},
		{`{"a" 1}`, 5, "want ':'"},
		{`{"a":1 "b":2}`, 7, "want ',' or '}'"},
		{`{"a":[1 2]}`, 8, "want ',' or ']'"},
		{`{"a":[1,]}`, 8, "want a value"},
		{`{"a":[1}}`, 7, "want ',' or ']'"},
		{`{"a":1]`, 6, "want ',' or '}'"},
		{`{"a":[`, 6, "want a value"},
		{`{"a":tru}`, 8, "want true"},
		{`{"a":tr`, 7, "end of JSON at byte 7, want true"},
		{`{"a":nul1}`, 8, "want null"},
		{`{"a":False}`, 5, "want a value"},
		{`{"a":fallse}`, 8, "want false"},
		{`{"a":NaN}`, 5, "want a value"},
		{`{"a":01}`, 6, "leading zeros"},
		{`{"a":-01}`, 7, "leading zeros"},
		{`{"a":1.}`, 7, "want a digit"},
		{`{"a":.5}`, 5, "want a value"},
		{`{"a":-}`, 6, "want a digit"},
		{`{"a":+1}`, 5, "want a value"},
		{`{"a":1e}`, 7, "want a digit"},
		{`{"a":1e+}`, 8, "want a digit"},
		{`{"a":1.5.5}`, 8, "want ','"},
		{`{"a":0x10}`, 6, "want ','"},
		{`{"a":1e`, 7, "end of JSON"},
		{`{"a":"x`, 7, `end of JSON at byte 7, want '"'`},
		{`{"a":"12345678`, 14, `want '"'`},
		{`{"a":"x\`, 8, "end of JSON"},
		{`{"a":"x\"`, 9, `want '"'`},
		{`{"a":"\x41"}`, 7, "want an escape"},
		{`{"a":"\u12"}`, 10, "want an escape"},
		{`{"a":"\u12g4"}`, 10, "'g'"},
		{`{"a":"\ud800\u12"}`, 16, "want an escape"},
		{"{\"a\":\"\n\"}", 6, "0x0a at byte 6, want an escape for a control character"},
		{"{\"a\":\"a long text \x1f\"}", 18, "0x1f"},
		{"{\"a\x00\":1}", 3, "0x00"},
		{"{\"a\":\"\\\n\"}", 7, "0x0a at byte 7, want an escape"},
		{"{\v}", 1, "0x0b"},
		{"\ufeff{}", 0, "0xef at byte 0, want a value"},
		{"{\"a\":\u00a01}", 5, "0xc2"},
		{`{'a':1}`, 1, "want a key"},
		{`{"a":1 // no`, 7, "want ','"},
		{`{1:2}`, 1, "want a key"},
		{`{"a":"` + "\xff", 7, "end of JSON"},   // a content error on the way does not matter
		{`{"a":1,"a":2,`, 13, "end of JSON"},    // nor here
		{`5x`, 2, ""},                           // see below: not structural
		{strings.Repeat(`[`, 100), 100, "want"}, // too deep and truncated
	}
	var s Scanner
	for _, tt := range tests {
		_, n, err := s.Object([]byte(tt.src))
		e := asError(t, err)
		if tt.src == `5x` {
			if e.Code != NotAnObject || n != 1 {
				t.Errorf("%s: got %q, n %d, want %s, n 1", tt.src, e.Code, n, NotAnObject)
			}
			continue
		}
		if e.Code != InvalidJSON || !e.Structural() || e.Offset != tt.offset || n != tt.offset ||
			!strings.Contains(e.Message, tt.want) {
			t.Errorf("%.80s: got %s at %d, n %d, %q; want %s at %d, %q", tt.src, e.Code, e.Offset, n, e.Message, InvalidJSON,
				tt.offset, tt.want)
		}
		// The scanner is as good as new.
		if _, _, err := s.Object([]byte(`{"a":1,"b":[{"a":1}]}`)); err != nil {
			t.Fatalf("after %s: %v", tt.src, err)
		}
	}
}

func TestContentErrors(t *testing.T) {
	tests := []struct {
		src     string
		code    string
		offset  int
		message string // all of it, if not empty
	}{
		{`[1,{"a":1}]`, NotAnObject, 0, "want an object at byte 0"},
		{` "a"`, NotAnObject, 1, ""},
		{`null`, NotAnObject, 0, ""},

		{"{\"a\":\"x\xffy\"}", InvalidUTF8, 7, "invalid UTF-8 (byte 0xff) in a string at byte 7"},
		{"{\"a\xff\":1}", InvalidUTF8, 3, ""},
		{"{\"a\":\"ü\xc3\"}", InvalidUTF8, 8, ""},
		{"{\"a\":\"\xc0\x80\"}", InvalidUTF8, 6, ""},                            // overlong
		{"{\"a\":\"\xe0\x80\x80\"}", InvalidUTF8, 6, ""},                        // overlong
		{"{\"a\":\"\xf0\x80\x80\x80\"}", InvalidUTF8, 6, ""},                    // overlong
		{"{\"a\":\"\xed\xa0\x80\"}", InvalidUTF8, 6, ""},                        // a surrogate
		{"{\"a\":\"\xf4\x90\x80\x80\"}", InvalidUTF8, 6, ""},                    // above U+10FFFF
		{"{\"a\":\"\x80\"}", InvalidUTF8, 6, ""},                                // a continuation
		{"{\"a\":\"a long text, and then \xe2\x82 \\n\"}", InvalidUTF8, 28, ""}, // cut
		{"{\"a\":\"\xff\\ud800\"}", InvalidUTF8, 6, ""},                         // the first one counts
		{"{\"a\":\"\\ud800\xff\"}", LoneSurrogate, 6, ""},

		{`{"a":"\ud800"}`, LoneSurrogate, 6, `surrogate \ud800 without its partner at byte 6`},
		{`{"a":"\udfff"}`, LoneSurrogate, 6, ""},
		{`{"a":"\ud83d\u0041"}`, LoneSurrogate, 6, ""},
		{`{"a":"\ud83d\n"}`, LoneSurrogate, 6, ""},
		{`{"a":"x\ud83d\ud83d\ude00"}`, LoneSurrogate, 7, ""},
		{`{"a":"\ude00\ud83d"}`, LoneSurrogate, 6, ""},
		{`{"\uD800":1}`, LoneSurrogate, 2, ""},

		{`{"a\u0000":1}`, NulCharacter, 3, `\u0000 in a key at byte 3`},
		{`{"a":{"\u0000":1}}`, NulCharacter, 7, ""},

		{`{"a":18446744073709551616}`, NumberOutOfRange, 5,
			"number 18446744073709551616 at byte 5 does not fit 64 bits, send it as a string"},
		{`{"a":-9223372036854775809}`, NumberOutOfRange, 5, ""},
		{`{"a":100000000000000000000000000000000000000000}`, NumberOutOfRange, 5,
			"number 10000000000000000000000000000000… at byte 5 does not fit 64 bits, send it as a string"},
		{`{"a":1e400}`, NumberOutOfRange, 5, ""},
		{`{"a":[-1e309]}`, NumberOutOfRange, 6, ""},
		{`{"a":1e99999999999999999999999}`, NumberOutOfRange, 5, ""},

		{`{"a":1,"a":2}`, DuplicateKey, 7, `duplicate key "a" at byte 7`},
		{`{"a":1,"b":3,"\u0061":2}`, DuplicateKey, 13, `duplicate key "a" at byte 13`},
		{`{"\u0061":1,"\u0061":2}`, DuplicateKey, 12, ""},
		{`{"":1,"":2}`, DuplicateKey, 6, ""},
		{`{"a":[{"b":{"c":1,"c":1}}]}`, DuplicateKey, 18, ""},
		{`{"a":{"b":1},"a":1}`, DuplicateKey, 13, ""},
		{`{"a":1,"a":2,"a":"\ud800"}`, DuplicateKey, 7, ""},
		{`{"a\"\n":1,"a\"\n":2}`, DuplicateKey, 11, `duplicate key "a\"\n" at byte 11`},
		{`{"` + strings.Repeat("é", 40) + `":1,"` + strings.Repeat("é", 40) + `":2}`, DuplicateKey, 86,
			`duplicate key "` + strings.Repeat("é", 16) + `"… at byte 86`},
		{`{"x` + strings.Repeat("é", 40) + `":1,"x` + strings.Repeat("é", 40) + `":2}`, DuplicateKey, 87,
			`duplicate key "x` + strings.Repeat("é", 15) + `"… at byte 87`},

		{`{"a":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`, TooDeep, 68,
			"nested deeper than 64 levels at byte 68"},
		{`{"a":` + strings.Repeat(`{"a":`, 64) + `1` + strings.Repeat("}", 64) + `}`, TooDeep, 320, ""},
	}
	var s Scanner
	for _, tt := range tests {
		members, n, err := s.Object([]byte(tt.src + ",rest"))
		e := asError(t, err)
		if e.Code != tt.code || e.Structural() || e.Offset != tt.offset || n != len(tt.src) || members != nil ||
			tt.message != "" && e.Message != tt.message {
			t.Errorf("%.80q: got %s at %d, n %d, %q; want %s at %d, n %d, %q",
				tt.src, e.Code, e.Offset, n, e.Message, tt.code, tt.offset, len(tt.src), tt.message)
		}
		if tt.code != NotAnObject {
			kind, n, err := s.Value([]byte(tt.src))
			if e := asError(t, err); kind != Object || n != len(tt.src) || e.Code != tt.code {
				t.Errorf("%.80q: Value got %v, %d, %v", tt.src, kind, n, err)
			}
		}
		if _, _, err := s.Object([]byte(`{"a":1,"b":[{"a":1}]}`)); err != nil {
			t.Fatalf("after %s: %v", tt.src, err)
		}
	}
}

func TestAccepted(t *testing.T) {
	tests := []string{
		`{"a":18446744073709551615,"b":-9223372036854775808,"c":-0,"d":0,"e":-0.0}`,
		`{"a":1e-400,"b":1.7976931348623157e308,"c":0e999999999999999999999,"d":1E5}`,
		`{"a":18446744073709551616.0,"b":100000000000000000000e0}`,
		`{"a":"\u0000","b":"\u007f","c":"\u2028"}`,
		"{\"a\":\"\u2028\x7f\uFFFD\uFFFF\U0010FFFF\"}",
		`{"a":{"x":1},"b":{"x":1},"c":[{"x":1},{"x":1}],"x":1}`,
		`{"a":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `}`,
		`{"a":1,"A":2,"a ":3}`,
	}
	var s Scanner
	for _, src := range tests {
		if _, n, err := s.Object([]byte(src)); err != nil || n != len(src) {
			t.Errorf("%s: n %d, %v", src, n, err)
		}
	}
}

func TestMaxDepth(t *testing.T) {
	for _, limit := range []int{1, 2, 63, 64, 65, 128, 1000} {
		s := Scanner{MaxDepth: limit}
		for depth := max(1, limit-2); depth < limit+3; depth++ {
			src := strings.Repeat(`[`, depth) + strings.Repeat(`]`, depth)
			_, n, err := s.Value([]byte(src))
			if got, want := asError(t, err).Code == TooDeep, depth > limit; got != want || n != len(src) {
				t.Errorf("limit %d, depth %d: too deep %v, n %d, want %v, %d", limit, depth, got, n, want, len(src))
			}
		}
	}
}

// TestDeepMix nests objects and arrays in a pattern with no period of 64, so that a wrong bit of the stack is found
// out.
func TestDeepMix(t *testing.T) {
	var open, closing []byte
	for i := range 10_000 {
		if i*i%7 < 3 {
			open = append(open, `{"a":`...)
			closing = append(closing, '}')
		} else {
			open = append(open, '[')
			closing = append(closing, ']')
		}
	}
	for i, j := 0, len(closing)-1; i < j; i, j = i+1, j-1 {
		closing[i], closing[j] = closing[j], closing[i]
	}
	src := append(append(open, '1'), closing...)
	var s Scanner
	_, n, err := s.Value(src)
	if e := asError(t, err); e.Code != TooDeep || n != len(src) {
		t.Errorf("got %v, n %d of %d, want %s", err, n, len(src), TooDeep)
	}
	s.MaxDepth = 10_000
	if _, n, err := s.Value(src); err != nil || n != len(src) {
		t.Errorf("got %v, n %d of %d, want no error", err, n, len(src))
	}
	src[len(src)-5000] ^= '}' ^ ']'
	if _, n, err := s.Value(src); !asError(t, err).Structural() || n != len(src)-5000 {
		t.Errorf("got %v, n %d, want a structure error at %d", err, n, len(src)-5000)
	}
}

func TestManyKeys(t *testing.T) {
	object := func(n, twice, offset int) string {
		var b strings.Builder
		b.WriteByte('{')
		for i := range n {
			key := i
			if i == n-1 && twice >= 0 {
				key = twice
			}
			fmt.Fprintf(&b, `"property_%d":%d,`, key+offset, i)
		}
		return strings.TrimSuffix(b.String(), ",") + "}"
	}
	var s Scanner
	for _, n := range []int{2, 3, 31, 32, 33, 34, 35, 64, 100, 1000, 20_000} {
		members, _, err := s.Object([]byte(object(n, -1, 0)))
		if err != nil || len(members) != n {
			t.Fatalf("%d keys: got %d members, %v", n, len(members), err)
		}
		for _, twice := range []int{0, (n - 2) / 2, n - 2} {
			src := object(n, twice, 0)
			_, got, err := s.Object([]byte(src))
			want := strings.LastIndexByte(src, ',') + 1
			if e := asError(t, err); e.Code != DuplicateKey || got != len(src) || e.Offset != want {
				t.Errorf("%d keys, %d twice: got %v, n %d, want %s at %d", n, twice, err, got, DuplicateKey, want)
			}
		}
		if s.inUse != 0 {
			t.Fatalf("%d keys: %d are left in the table", n, s.inUse)
		}
	}

	// Open objects share the table: the same keys at each level, before and after a nested object, are no duplicates.
	for _, n := range []int{10, 32, 33, 50, 500} {
		src := "1"
		for level := range 20 {
			size := n
			if level%3 == 1 {
				size = 5
			}
			before, after := object(size, -1, 0), object(size, -1, 1000)
			src = strings.TrimSuffix(before, "}") + `,"nested":` + src + "," + after[1:]
		}
		if _, got, err := s.Object([]byte(src)); err != nil || got != len(src) {
			t.Fatalf("nested objects of %d keys: %v", n, err)
		}
		for i, o := range s.table {
			if o != 0 {
				t.Fatalf("nested objects of %d keys: slot %d of the table is left", n, i)
			}
		}
		twice := strings.TrimSuffix(src, "}") + `,"property_0":1}`
		if _, got, err := s.Object([]byte(twice)); asError(t, err).Code != DuplicateKey || got != len(twice) {
			t.Errorf("nested objects of %d keys: %v, n %d of %d", n, err, got, len(twice))
		}
		// Cut anywhere, the table is empty again.
		for cut := 0; cut < len(src); cut += 1 + len(src)/50 {
			if _, _, err := s.Object([]byte(src[:cut])); !asError(t, err).Structural() {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			for i, o := range s.table {
				if o != 0 {
					t.Fatalf("cut at %d: slot %d of the table is left", cut, i)
				}
			}
		}
	}
}

// TestAimedKeys has keys with the same fingerprint: equal length and ends.
func TestAimedKeys(t *testing.T) {
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, `,"aaaaaaaa%04dzzzzzzzz":1`, i)
	}
	src := []byte("{" + b.String()[1:] + "}")
	var s Scanner
	if members, _, err := s.Object(src); err != nil || len(members) != 5000 {
		t.Errorf("got %d members, %v", len(members), err)
	}
}

// TestLinear scans texts that are expensive for a scanner with a flaw, at two sizes. It allows a lot, since the machine
// has other work.
func TestLinear(t *testing.T) {
	tests := []struct {
		name string
		make func(n int) string
	}{
		{"open arrays", func(n int) string { return strings.Repeat("[", n) }},
		{"nested arrays", func(n int) string { return strings.Repeat("[", n/2) + strings.Repeat("]", n/2) }},
		{"nested objects", func(n int) string { return strings.Repeat(`{"a":`, n/6) + "1" + strings.Repeat("}", n/6) }},
		{"lone surrogates", func(n int) string { return `"` + strings.Repeat(`\ud800`, n/6) + `"` }},
		{"bad UTF-8", func(n int) string { return `"` + strings.Repeat("\xff", n) + `"` }},
		{"digits", func(n int) string { return strings.Repeat("9", n) }},
		{"digits of a float", func(n int) string { return strings.Repeat("9", n) + ".5e-7" }},
		{"duplicate keys", func(n int) string { return "{" + strings.Repeat(`"a":1,`, n/6) + `"a":1}` }},
		{"small objects", func(n int) string { return "[" + strings.Repeat(`{"a":1},`, n/8) + `1]` }},
		{"space", func(n int) string { return strings.Repeat(" ", n) }},
		{"distinct keys", func(n int) string { return string(wideEvent(n / 20)) }},
	}
	for _, tt := range tests {
		var s Scanner
		times := map[int]time.Duration{}
		for _, n := range []int{1 << 16, 1 << 20} {
			src := []byte(tt.make(n))
			times[n] = time.Hour
			for range 3 {
				start := time.Now()
				s.Value(src)
				times[n] = min(times[n], time.Since(start))
			}
		}
		small, large := times[1<<16], times[1<<20]
		if large > 100*small && large > 100*time.Millisecond {
			t.Errorf("%s: %v for 64 KB, %v for 1 MB", tt.name, small, large)
		}
	}
}

func TestBoundedNesting(t *testing.T) {
	var s Scanner
	src := bytes.Repeat([]byte("["), 1<<20)
	s.Value(src)
	if got, limit := 8*cap(s.nesting), len(src)/4; got > limit {
		t.Errorf("1 MB of '[' leaves %d bytes of nesting, want at most %d", got, limit)
	}
	if got, limit := cap(s.frames), 2*DefaultMaxDepth+2; got > limit {
		t.Errorf("1 MB of '[' leaves %d frames, want at most %d", got, limit)
	}
}

func TestFloatOverflow(t *testing.T) {
	limit := new(big.Int).Lsh(big.NewInt(1), 1024)
	if limit.Sub(limit, new(big.Int).Lsh(big.NewInt(1), 970)).String() != infinity {
		t.Fatalf("infinity is %s, want %s", infinity, limit)
	}
	tests := []string{
		infinity + ".0", infinity + "e0", infinity + ".00000000001", infinity[:308] + "1e0",
		infinity[:200] + ".5e109", infinity[:200] + ".5e108", infinity[:200] + "e109", infinity[:200] + "e110",
		"1." + infinity[1:] + "e308", "1." + infinity[1:] + "1e308", "1." + infinity[1:300] + "e308",
		"0.00" + infinity + "e311",
		"0.00" + infinity + "e310", "0." + infinity + "e309", "0." + infinity[:305] + "9e309", "0." + infinity[:295] + "e309",
		"1.7976931348623157e308", "1.7976931348623158e308", "1.7976931348623159e308", "17976931348623159e292", "1e308",
		"1e309",
		"9.99e307", "10e307", "10e308", "0.1e309", "0.1e310", "0.01e310", "0e400", "0.000e400", "-1e309", "-1e308",
		"1e-400", "1e-99999999999999999999", "1e+309", "1e+308", "1e0000308", "1e0000309", "1e00000000000000000000000309",
		strings.Repeat("1", 308) + ".5", strings.Repeat("1", 309) + ".5", strings.Repeat("2", 309) + ".5",
		strings.Repeat("1", 310) + ".5",
		strings.Repeat("1", 1000) + "e-700", strings.Repeat("1", 1000) + "e-691", "0." + strings.Repeat("0", 1000) + "1e1309",
		"0." + strings.Repeat("0", 1000) + "1e1310", "0." + strings.Repeat("0", 1000) + "1e9999999999999999999999",
		strings.Repeat("1", 1000) + "e-99999999999999999999999",
	}
	var s Scanner
	for _, src := range tests {
		f, err := strconv.ParseFloat(src, 64)
		want := err != nil
		if want && !math.IsInf(f, 0) {
			t.Fatalf("%s: %v", src, err)
		}
		_, n, err := s.Value([]byte(src))
		if got := asError(t, err).Code == NumberOutOfRange; got != want || n != len(src) {
			t.Errorf("%.40s… (%d bytes): out of range %v, n %d, want %v", src, len(src), got, n, want)
		}
	}
}

func TestTrimSpace(t *testing.T) {
	tests := []struct{ b, want string }{
		{"", ""}, {" \t\r\n", ""}, {" a b\n", "a b"}, {"\v a\f", "\v a\f"}, {"\u00a0", "\u00a0"},
	}
	for _, tt := range tests {
		if got := string(TrimSpace([]byte(tt.b))); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.b, got, tt.want)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	events := append(gameEvents(16), llmEvent(), wideEvent(1000), wideEvent(20),
		[]byte(`{"\u0061":{"\n":[{"\t":1},{"\t":1}]},"b":1}`))
	var s Scanner
	got := testing.AllocsPerRun(20, func() {
		for _, e := range events {
			if _, _, err := s.Object(e); err != nil {
				t.Fatal(err)
			}
		}
	})
	if got != 0 {
		t.Errorf("%v allocations per run, want 0", got)
	}
	var buf []byte
	raw := []byte(`"a long text with \"escapes\", \ud83d\ude00 and é\n"`)
	got = testing.AllocsPerRun(20, func() {
		buf = AppendUnquoted(buf[:0], raw)
		n := len(buf)
		buf = AppendQuoted(buf, buf[:n])
	})
	if got != 0 {
		t.Errorf("quoting: %v allocations per run, want 0", got)
	}
}

func TestQuote(t *testing.T) {
	tests := []struct{ s, want string }{
		{"", `""`},
		{"a/b<>&\u2028\x7fé😀", "\"a/b<>&\u2028\x7fé😀\""},
		{"\"\\\b\f\n\r\t", `"\"\\\b\f\n\r\t"`},
		{"\x00\x01\x1f", `"\u0000\u0001\u001f"`},
		{"12345678\n12345678", `"12345678\n12345678"`},
	}
	for _, tt := range tests {
		got := AppendQuoted([]byte("x"), []byte(tt.s))
		if string(got) != "x"+tt.want {
			t.Errorf("%q: got %s, want x%s", tt.s, got, tt.want)
		}
		if back := AppendUnquoted([]byte("y"), got[1:]); string(back) != "y"+tt.s {
			t.Errorf("%s: got back %q, want y%q", got[1:], back, tt.s)
		}
	}
}

func TestUnquote(t *testing.T) {
	tests := []string{
		`""`, `"a"`, `"\u0041\u00e9\u20ac\ud83d\ude00"`, `"\"\\\/\b\f\n\r\t"`, `"\ud800"`, `"\ud800x"`, `"\ud800\u0041"`,
		`"\udc00\ud800"`,
		`"\ud800\ud800\udc00"`, `"\uD83D\uDE00"`, `"\uABCD\uabcd"`, `"\u0000"`,
	}
	for _, raw := range tests {
		var want string
		if err := json.Unmarshal([]byte(raw), &want); err != nil {
			t.Fatal(err)
		}
		if got := string(AppendUnquoted(nil, []byte(raw))); got != want {
			t.Errorf("%s: got %q, want %q", raw, got, want)
		}
	}
	for _, raw := range []string{``, `"`, `x`, `"\"`, `"\u"`, `"\u12"`, `"\q"`, `"\ud800\u1"`, `"\ud800\"`} {
		AppendUnquoted(nil, []byte(raw)) // means nothing, but does not panic
	}
}
