package receiver

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

const ndjson = "application/x-ndjson"

func TestBodyLayouts(t *testing.T) {
	for _, c := range []struct {
		name, kind, body string
		accepted         string // names
		refused          string // index:code of rejected events
	}{
		{"one", "", one, "a", ""},
		{"pretty", "", "{\n  \"name\": \"a\",\r\n  \"x\": [\n    1\n  ]\n}\n", "a", ""},
		{"byte order mark", "", "\xef\xbb\xbf" + one, "a", ""},
		{"two pretty", "", "{\n\"name\": \"a\"\n}\n{\n\"name\": \"b\"\n}", "a b", ""},
		{"concatenated", "", `{"name":"a"}{"name":"b"} {"name":"c"}`, "a b c", ""},
		{"array", "", ` [ {"name":"a"} , {"name":"b"}, {"name":"c"} ] `, "a b c", ""},
		{"empty array", "", "[]", "", ""},
		{"array, bad ones between", "", `[{"name":"a"},1,{"name":"b"},[{"name":"x"}],{},"x",null,{"name":"c"}]`, "a b c",
			"1:not_an_object 3:not_an_object 4:missing_name 5:not_an_object 6:not_an_object"},
		{"array, broken", "", `[{"name":"a"},{"name":b},{"name":"c"}]`, "a c", "1:invalid_json"},
		{"array, bad numbers and words", "",
			`[{"name":"a"},{"name":"x","v":NaN},{"name":"x","v":Infinity},{"name":"x","v":-Infinity},{"name":"x","v":1e400},` +
				`{"name":"x","v":undefined},{"name":"x","v":"\x"},{"name":"x","v":[1,{"w":"]\u12"}]},NaN,{"name":"b"}]`, "a b",
			"1:invalid_json 2:invalid_json 3:invalid_json 4:number_out_of_range 5:invalid_json 6:invalid_json 7:invalid_json " +
				"8:invalid_json"},
		{"array, not closed", "", `[{"name":"a"}`, "a", "1:invalid_json"},
		{"array, only opened", "", `[`, "", "0:invalid_json"},
		{"array, comma at its end", "", `[{"name":"a"},]`, "a", "1:invalid_json"},
		{"array, no comma", "", `[{"name":"a"} {"name":"b"}]`, "a", "1:invalid_json"},
		{"array, something behind", "", `[{"name":"a"}] {"name":"b"}`, "a b", ""},
		{"array over lines", "", "[\r\n{\"name\":\"a\"},\r\n{\"name\":\"b\"}\r\n]\r\n", "a b", ""},
		{"concatenated, one broken", "", `{"name":"a"}{"name":"x","v":NaN} {"name":"b"}{"name":"x","v":1e400}`, "a b",
			"1:invalid_json 3:number_out_of_range"},
		{"empty array, something behind", "", `[]x`, "", "0:invalid_json"},
		{"lines without their type", "", "{\"name\":\"a\"}\n{\"name\":\"b\"}\n", "a b", ""},
		{"lines without their type, CRLF", "", "{\"name\":\"a\"}\r\n\r\n{\"name\":\"b\"}\r\n", "a b", ""},
		{"lines without their type, one broken", "", "{\"name\":\"a\"}\n{\"name\":\n{\"name\":\"b\"}\nx\n{\"name\":\"c\"}",
			"a b c", "1:invalid_json 3:invalid_json"},
		{"lines without their type, one cut", "", "{\"name\":\"a\"}\n{\"name\":\"b\",\"x\":{\"y\":1\n{\"name\":\"c\"}", "a c",
			"1:invalid_json"},
		{"lines without their type, one open array", "", "{\"name\":\"a\",\"x\":[\n{\"name\":\"b\"}\n{\"name\":\"c\"}", "b c",
			"0:invalid_json"},
		{"lines without their type, garbage first", "", "garbage\n{\"name\":\"a\"}", "a", "0:invalid_json"},
		{"garbage", "", "garbage", "", "0:invalid_json"},
		{"scalars", "", `1 "x" null`, "", "0:not_an_object 1:not_an_object 2:not_an_object"},
		{"a form", "application/x-www-form-urlencoded", "name=a&b=c", "", "0:invalid_json"},

		{"lines", ndjson, "{\"name\":\"a\"}\n{\"name\":\"b\"}", "a b", ""},
		{"lines, blank ones, CRLF, byte order mark", ndjson,
			"\xef\xbb\xbf\r\n{\"name\":\"a\"}\r\n\r\n \t\n {\"name\":\"b\"} \r\n\n", "a b", ""},
		{"lines, one broken", ndjson,
			"{\"name\":\"a\"}\n{\"name\":\n{\"name\":\"b\"}\n{\"name\":\"c\"} " +
				"x\n{\"name\":\"d\"}{\"name\":\"e\"}\n{\"name\":\"f\"}", "a b c d e f",
			"1:invalid_json 4:invalid_json"},
		{"lines, an array over some", ndjson, "[\n{\"name\":\"a\"},\n{\"name\":\"b\"}\n]\n", "a b", ""},
		{"lines, several on each", ndjson,
			"{\"name\":\"a\"} {\"name\":\"b\"}\n[{\"name\":\"c\"},{\"name\":\"d\"}]{\"name\":\"e\"}", "a b c d e", ""},
		{"lines, words", ndjson, "{\"name\":\"a\"}\nnot json at all\n\"text\"\n{\"name\":\"b\"}", "a b",
			"1:invalid_json 2:not_an_object"},
		{"lines, an open array", ndjson, "{\"name\":\"a\",\"x\":[\n{\"name\":\"b\"}", "b", "0:invalid_json"},
		{"lines, pretty", ndjson, "{\n\"name\":\"a\"}", "a", ""},
		{"lines, an array in one", ndjson, "[{\"name\":\"a\"}]\n{\"name\":\"b\"}", "a b", ""},
		{"lines, bare returns", ndjson, "{\"name\":\"a\"}\r{\"name\":\r{\"name\":\"b\"}\r", "a b", "1:invalid_json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, s := newTest(nil)
			a := serve(t, r, withKey(post("/v1/events", c.body, "Content-Type", c.kind)))
			if got := s.Names(); got != c.accepted {
				t.Errorf("accepted: got %q, want %q", got, c.accepted)
			}
			if got := a.Codes(); got != c.refused {
				t.Errorf("refused: got %q, want %q", got, c.refused)
			}
			if a.Accepted != len(s.Events) || a.Rejected != len(a.Errors) || len(s.Failures) != a.Rejected {
				t.Errorf("got %+v, %d failures", a, len(s.Failures))
			}
			want := 202
			if c.accepted == "" && c.refused != "" {
				want = 400
			}
			if a.Status != want {
				t.Errorf("got status %d, want %d", a.Status, want)
			}
			for i, f := range s.Failures {
				if !strings.Contains(c.body, string(f.Raw)) || f.Index != *a.Errors[i].Index {
					t.Errorf("failure %d: index %d, raw %q", i, f.Index, f.Raw)
				}
			}
		})
	}
}

// A body as clients really send it, with lines broken in many ways. The layout does not decide what is accepted.
func TestOddLines(t *testing.T) {
	lines := []string{`{"name":"1","v":"ok-first"}`, `not json at all`, `{"name":"2","v":NaN}`, `{"name":"3","v":1e400}`,
		`{"name":"4","v":100000000000000000000}`,
		`{"name":"5","v":"cut \ud83d"}`, `{"name":"6","a":1,"a":2}`, `{"name":"7","a.b":1,"a":{"b":2}}`,
		`{"name":"8"} {"name":"9"}`,
		`[{"name":"10"},{"name":"11"}]`, `"text"`, `{"name":"12","v":"ok-last"}`}
	const want = "1:invalid_json 2:invalid_json 3:number_out_of_range 4:number_out_of_range 6:duplicate_key " +
		"7:duplicate_key 12:not_an_object"
	for _, kind := range []string{"", ndjson, "text/plain;charset=UTF-8"} {
		for _, end := range []string{"\n", "\r\n", "\r", "\n\n"} {
			for _, mark := range []string{"", "\xef\xbb\xbf"} {
				r, s := newTest(nil)
				a := serve(t, r, withKey(post("/v1/events", mark+strings.Join(lines, end)+end, "Content-Type", kind)))
				if got := s.Names(); got != "1 5 8 9 10 11 12" || a.Codes() != want || repaired(t, r) != 1 {
					t.Errorf("%q, lines that end in %q: accepted %s, rejected %s", kind, end, got, a.Codes())
				}
			}
		}
	}
	r, s := newTest(nil)
	if serve(t, r, withKey(post("/v1/events", "[\n{\"name\":\"arr1\"},\n{\"name\":\"arr2\"}\n]\n", "Content-Type",
		ndjson))); s.Names() != "arr1 arr2" {
		t.Errorf("a pretty array: accepted %s", s.Names())
	}
}

// poison are inputs that some JSON readers accept and others reject; each in the middle of a request.
var poison = []struct{ name, body, code string }{
	{"duplicate key", `{"name":"x","a":1,"a":2}`, "duplicate_key"},
	{"duplicate name", `{"name":"x","name":"x"}`, "duplicate_key"},
	{"duplicate key by an escape", `{"name":"x","a":1,"\u0061":2}`, "duplicate_key"},
	{"duplicate key within", `{"name":"x","properties":{"l":[{"a":{"b":1,"b":1}}]}}`, "duplicate_key"},
	{"duplicate key, inside and beside", `{"name":"x","a":1,"properties":{"b":1,"a":2}}`, "duplicate_key"},
	{"path there twice", `{"name":"x","a.b":1,"a":{"b":2}}`, "duplicate_key"},
	{"path there twice, inside and beside", `{"name":"x","a.b":1,"properties":{"a":{"b":2}}}`, "duplicate_key"},
	{"path there twice, in an array", `{"name":"x","properties":{"l":[{"a.b":1,"a":{"b":2}}]}}`, "duplicate_key"},
	{"duplicate key, over lines", "{\"name\":\"x\",\"a\":\r\n[\n1],\"properties\":{\n\"a\":\n2}}", "duplicate_key"},
	{"id kept and given", `{"name":"x","event_id":"e1","properties":{"event_id":"e1"}}`, "duplicate_key"},
	{"invalid utf-8", "{\"name\":\"x\",\"a\":\"\xff\"}", "invalid_utf8"},
	{"invalid utf-8 in a key", "{\"name\":\"x\",\"\xc0\x80\":1}", "invalid_utf8"},
	{"a part of a surrogate in utf-8", "{\"name\":\"x\",\"a\":\"\xed\xa0\"}", "invalid_utf8"},
	{"duplicate key, of lone surrogates", `{"name":"x","\ud800":1,"\udc00":2}`, "duplicate_key"},
	{"lone surrogate, and a wrong type", `{"name":["\ud800"],"a":"\ud800"}`, "wrong_type"},
	{"NUL in a key", `{"name":"x","a\u0000":1}`, "nul_character"},
	{"a raw NUL", "{\"name\":\"x\",\"a\":\"\x00\"}", "invalid_json"},
	{"1e400", `{"name":"x","a":1e400}`, "number_out_of_range"},
	{"an integer above 64 bits", `{"name":"x","a":18446744073709551616}`, "number_out_of_range"},
	{"an integer below 64 bits", `{"name":"x","a":-9223372036854775809}`, "number_out_of_range"},
	{"deep", `{"name":"x","a":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + "}", "too_deep"},
	{"deep objects", `{"name":"x","a":` + strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000) + "}",
		"too_deep"},
	{"one level too deep", `{"name":"x","a":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + "}", "too_deep"},
	{"1 MB of brackets", `{"a":` + strings.Repeat("[", 1<<20), "invalid_json"},
	{"1 MB of braces", strings.Repeat(`{"a":`, 200_000), "invalid_json"},
	{"1 MB of nested pairs", `{"name":"x","a":` + strings.Repeat("[", 1<<19) + strings.Repeat("]", 1<<19) + "}",
		"too_deep"},
	{"NaN", `{"name":"x","a":NaN}`, "invalid_json"},
	{"Infinity", `{"name":"x","a":[Infinity]}`, "invalid_json"},
	{"-Infinity", `{"name":"x","a":{"b":-Infinity}}`, "invalid_json"},
	{"undefined", `{"name":"x","a":undefined}`, "invalid_json"},
	{"a bad escape", `{"name":"x","a":"}\x]"}`, "invalid_json"},
	{"a bad escape of digits", `{"name":"x","a":"\u12"}`, "invalid_json"},
	{"a quote of another kind", `{"name":"x","a":'y'}`, "invalid_json"},
	{"a comma at the end", `{"name":"x",}`, "invalid_json"},
	{"a bracket of another kind", `{"name":"x","a":[1}`, "invalid_json"},
	{"a comment", `{"name":"x" /* y */}`, "invalid_json"},
	{"cut", `{"name":"x","a":"b`, "invalid_json"},
	{"not an object", `"x"`, "not_an_object"},
	{"too large", `{"name":"x","a":"` + strings.Repeat("\\\"}]{[", 2<<20/6) + `"}`, "event_too_large"},
	{"too large, many keys", `{"name":"x","l":[` + strings.Repeat(`{"k":"v"},`, 250_000) + `1]}`, "event_too_large"},
	{"too large a string", `"` + strings.Repeat("x", 2<<20) + `"`, "event_too_large"},
	{"too large a number", strings.Repeat("1", 2<<20+1), "event_too_large"},
	{"too large an array", `{"name":"x","a":[` + strings.Repeat("1,", 1<<20) + "1]}", "event_too_large"},
}

func TestPoisonFailsAlone(t *testing.T) {
	for _, c := range poison {
		for _, layout := range []struct{ name, kind, format string }{
			{"objects", "", "%s\n%s\n%s"},
			{"lines", ndjson, "%s\n%s\n%s"},
			{"array", "", "[%s,%s,%s]"},
		} {
			t.Run(c.name+"/"+layout.name, func(t *testing.T) {
				if layout.name == "lines" && strings.Contains(c.body, "\n") {
					t.Skip("is more than a line")
				}
				r, s := newTest(func(o *Options) { o.MaxBody = 8 << 20 })
				body := fmt.Sprintf(layout.format, `{"name":"before"}`, c.body, `{"name":"after"}`)
				a := serve(t, r, withKey(post("/v1/events", body, "Content-Type", layout.kind)))
				want, raw := "before after", c.body
				if (strings.HasPrefix(c.name, "1 MB") || c.name == "cut") && c.code == "invalid_json" && layout.name == "array" {
					// Where it ends is not known: the rest of the array goes with it.
					want, raw = "before", c.body+`,{"name":"after"}]`
				}
				if got := s.Names(); got != want {
					t.Errorf("accepted: got %q, want %q", got, want)
				}
				if got, want := a.Codes(), "1:"+c.code; got != want {
					t.Errorf("refused: got %q, want %q", got, want)
				}
				if len(s.Failures) != 1 || !bytes.Equal(s.Failures[0].Raw, []byte(raw)) {
					t.Fatalf("%d failures; the raw bytes are not those that were sent", len(s.Failures))
				}
				if f := s.Failures[0]; f.Index != 1 || f.Code != c.code || f.RequestID != a.RequestID || len(f.Message) > 300 {
					t.Errorf("failure %d %s %s", f.Index, f.Code, f.Message)
				}
			})
		}
	}
}

// An event that is rejected late, after it was prepared, is reported as sent.
func TestRawBytesAreNotEdited(t *testing.T) {
	for _, c := range []struct{ name, kind, body, raw string }{
		{"a bad field behind a good one", "", "{\"a\":\n[\r1],\"name\":\ntrue}", "{\"a\":\n[\r1],\"name\":\ntrue}"},
		{"array", "", "[{\"a\":\n1,\"properties\":{\n\"a\":1}, \"name\":\"x\"}]",
			"{\"a\":\n1,\"properties\":{\n\"a\":1}, \"name\":\"x\"}"},
	} {
		r, s := newTest(nil)
		serve(t, r, withKey(post("/v1/events", c.body, "Content-Type", c.kind)))
		if len(s.Failures) != 1 || string(s.Failures[0].Raw) != c.raw {
			t.Errorf("%s: got %+v", c.name, s.Failures)
		}
	}
}

// processorTime is what this process has had. Unlike the clock, it does not depend on what else runs.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// Hostile bodies must not take more than a time that grows as their size.
func TestHostileBodiesTakeLinearTime(t *testing.T) {
	const size = 256 << 10
	for _, c := range []struct{ name, line string }{
		{"open arrays", "{\"a\":[\n"},
		{"open objects", "{\"a\":\n"},
		{"open objects at line starts", "{\"a\":[1,\n{\"b\":[1,\n"},
		{"open strings", "{\"a\":\"\n"},
		{"broken", "}\n"},
		{"keys", `{"a":1}`},
		{"brackets", "[\n"},
	} {
		for _, kind := range []string{"", ndjson} {
			r, _ := newTest(func(o *Options) { o.MaxBody, o.MaxEvent, o.MaxEvents = size, size/2, 1<<30 })
			q := newRequest(r)
			q.reset(1)
			q.in.Lines = kind == ndjson
			q.body = []byte(strings.Repeat(c.line, size/len(c.line)))
			began := processorTime(t)
			q.decode(q.body)
			if took := processorTime(t) - began; took > 3*time.Second {
				t.Errorf("%s: took %s", c.name, took)
			}
		}
	}
}
