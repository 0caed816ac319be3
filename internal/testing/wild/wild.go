// Package wild makes sets of random events with the values and shapes that encoders and columns get wrong most easily.
package wild

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// Day is when the events are received, in milliseconds since 1970.
const Day = 1764000000000

// Shape says what the events of one set have in common.
type Shape struct {
	keys    []string
	kinds   []kind  // of the value that a key usually has
	mixed   float64 // share of values of another kind
	members int     // most members of an object
	deep    int     // most objects in one another
	size    int     // most bytes of a text

	projects, names, texts int // distinct values
	sorted                 bool
	sparse                 bool // few events have members
	large                  float64
}

type kind byte

const (
	null kind = iota
	boolean
	whole
	number
	text
	array
	object
	empty
	kinds
)

// NewShape returns a random shape.
func NewShape(r *rand.Rand) *Shape {
	s := &Shape{mixed: []float64{0, 0.01, 0.3, 1}[r.IntN(4)], members: 1 + r.IntN(12), deep: 1 + r.IntN(9),
		size: []int{4, 40, 40, 3000}[r.IntN(4)], projects: some(r), names: some(r), texts: some(r),
		sorted: r.IntN(2) == 0, sparse: r.IntN(8) == 0}
	if r.IntN(6) == 0 {
		s.large = 0.001
	}
	n := []int{1, 5, 20, 60, 400, 10_000}[r.IntN(6)]
	for i := range n {
		s.keys, s.kinds = append(s.keys, key(r, i)), append(s.kinds, kind(r.IntN(int(kinds))))
	}
	return s
}

func some(r *rand.Rand) int { return []int{1, 3, 50, 1000, 1 << 30}[r.IntN(5)] }

var keys = []string{"a", "A", "b", "userName", "username", "USERNAME",
	"ß", "ẞ", "ı", "İ", "K", "k", "K", "ſ", "s", "ǅ", "σ",
	"ς", "^", "^a", "^{df}", "^^", "{", "x y", " ", "", "0", "-1", "a/b", "a`b", `a"b`, `a\b`, "a\nb", "\x01", "\x7f",
	"\u00a0",
	"\u2028", "\ufeff", "\U0010ffff", "😀", "日本語", "e\u0301", "é",
	"typed", "properties", "event_id", "null", "true", "list",
	"a:int64", "a:string", ":", "SharedData", "size0", "__proto__", "constructor", "%", "'", "$", "@timestamp", "id",
	"a.b", "a.b.c", ".", "..", "a.", ".a", "x y.z"}

func key(r *rand.Rand, i int) string {
	switch r.IntN(12) {
	case 0:
		return strings.Repeat("long", 1+r.IntN(60)) + fmt.Sprint(i)
	case 1:
		return keys[r.IntN(len(keys))] + keys[r.IntN(len(keys))]
	case 2:
		return fmt.Sprint("key", i)
	case 3:
		if r.IntN(20) == 0 {
			return strings.Repeat("ü", 1000*(1+r.IntN(4)))
		}
	}
	return keys[r.IntN(len(keys))]
}

// Events returns n events, or fewer if they would have more than the given bytes.
func (s *Shape) Events(r *rand.Rand, n, bytes int) []pipeline.Event {
	var events []pipeline.Event
	seq := r.Uint64N(1 << 53)
	same := r.IntN(3)
	for size := 0; len(events) < n && size < bytes; {
		e := pipeline.Event{Seq: seq, ReceivedAt: Day + int64(len(events)/7) - r.Int64N(3), Timestamp: s.time(r),
			Project: s.one(r, "project", s.projects), Name: s.one(r, "name", s.names),
			SessionID: s.maybe(r, "session"), UserID: s.maybe(r, "user"),
			Properties: s.document(r), Context: []byte("{}")}
		switch seq++; same {
		case 0:
			e.Context = fmt.Appendf(nil, `{"ip":"203.0.113.%d"}`, r.IntN(300))
		case 1:
			e.Context = fmt.Appendf(nil, `{"n":%d,"text":%s}`, r.IntN(s.texts), s.text(r))
		}
		for i := range e.ID {
			e.ID[i] = byte(r.Uint32())
		}
		if r.IntN(50) == 0 {
			e.ID = pipeline.UUID{15: byte(r.IntN(2))}
		}
		size += e.Size()
		events = append(events, e)
	}
	return events
}

func (s *Shape) time(r *rand.Rand) int64 {
	switch r.IntN(20) {
	case 0:
		return pipeline.NoTime
	case 1:
		return []int64{0, -1, -2208988800000, 10413791999999, 1}[r.IntN(5)]
	}
	return Day - r.Int64N(1<<40)
}

func (s *Shape) one(r *rand.Rand, what string, of int) []byte {
	return fmt.Appendf(nil, "%s %d", what, r.IntN(of))
}

func (s *Shape) maybe(r *rand.Rand, what string) []byte {
	switch r.IntN(4) {
	case 0:
		return nil
	case 1:
		return []byte(texts[r.IntN(len(texts))])
	}
	return s.one(r, what, s.texts)
}

func (s *Shape) document(r *rand.Rand) []byte {
	if s.sparse && r.IntN(100) > 0 {
		return []byte("{}")
	}
	b := s.object(nil, r, 1)
	for jsonscan.SharedPath(b) != nil { // receivers reject it
		b = s.object(b[:0], r, 1)
	}
	if r.Float64() < s.large {
		b = append(b[:len(b)-1], `,"very large":"`...)
		if b[len(b)-len(`,"very large":"`)-1] == '{' {
			b = append(b[:0], `{"very large":"`...)
		}
		b = append(b, strings.Repeat("0123456789abcdef", r.IntN(5<<16))...)
		b = append(b, `"}`...)
	}
	return b
}

func (s *Shape) object(b []byte, r *rand.Rand, depth int) []byte {
	b = append(b, '{')
	var used []int
	for range r.IntN(s.members + 1) {
		i := r.IntN(len(s.keys))
		if s.sorted && len(used) > 0 {
			i = (used[len(used)-1] + 1) % len(s.keys)
		}
		if slices.ContainsFunc(used, func(u int) bool { return s.keys[u] == s.keys[i] }) {
			continue
		}
		if len(used) > 0 {
			b = append(b, ',')
		}
		used = append(used, i)
		b = append(space(jsonscan.AppendQuoted(space(b, r), []byte(s.keys[i])), r), ':')
		k := s.kinds[i]
		if r.Float64() < s.mixed {
			k = kind(r.IntN(int(kinds)))
		}
		b = space(s.value(b, r, k, depth), r)
	}
	return append(b, '}')
}

func space(b []byte, r *rand.Rand) []byte {
	if r.IntN(200) == 0 {
		return append(b, " \n"...)
	}
	return b
}

var (
	wholes = []string{"0", "-0", "1", "-1", "127", "128", "255", "256", "2147483647", "2147483648", "-2147483649",
		"4294967296", "9007199254740991", "9007199254740992", "9007199254740993", "-9007199254740993", "9223372036854775807",
		"-9223372036854775808", "9223372036854775808", "18446744073709551615", "1000000000000000000"}
	numbers = []string{"0.0", "-0.0", "0e0", "0E-5", "1.50", "1e3", "1E+3", "1e-7", "1e21", "1e20", "123456789012345678.0",
		"0.1234567890123456789", "0.30000000000000004", "2.5e-308", "1.2345678e-320", "4.9e-324", "1e-400",
		"1.7976931348623157e308",
		"-1.7976931348623157E308", "123456789012345.6", "1234567890123456.7", "9007199254740993.0", "9007199254740992.5",
		"1.0",
		"100000000000000000000000.0", "3.141592653589793238462643383279"}
	texts = []string{"", " ", "NaN", "nan", "Infinity", "-inf", "null", "true", "0", "-0", "1", "1.0", "1e400", "{}", "[]",
		`{"a":1}`,
		"2026-11-26", "2026-11-26 10:00:00", "2026-11-26T10:00:00.123Z", "1764000000", "127.0.0.1", "::1",
		"00000000-0000-0000-0000-000000000000", "\\", "\"", "\n\r\t\b\f", "\x00", "\x00\x00", "\x1f\x7f", "é", "e\u0301", "😀",
		"\u2028\u2029", "\ufeff", "\ufffd", "\U0010ffff", "'; DROP TABLE events; --", "<script>", "\\N", "a\x00b"}
	spelled = []string{`"\u00e9"`, `"\ud83d\ude00"`, `"\/\b\f\n\r\t\"\\"`, `"\u0000"`, `"\u0041"`,
		`"a\u007fb"`, `"\ufffd"`}
)

func (s *Shape) text(r *rand.Rand) []byte {
	switch r.IntN(8) {
	case 0:
		return []byte(spelled[r.IntN(len(spelled))])
	case 1, 2:
		return jsonscan.AppendQuoted(nil, []byte(texts[r.IntN(len(texts))]))
	case 3:
		return jsonscan.AppendQuoted(nil, []byte(strings.Repeat(texts[r.IntN(len(texts))], 1+r.IntN(s.size))))
	}
	return fmt.Appendf(nil, `"text %d"`, r.IntN(s.texts))
}

func (s *Shape) value(b []byte, r *rand.Rand, k kind, depth int) []byte {
	switch k {
	case null:
		return append(b, "null"...)
	case boolean:
		return fmt.Append(b, r.IntN(2) == 0)
	case whole:
		if r.IntN(4) == 0 {
			return append(b, wholes[r.IntN(len(wholes))]...)
		}
		return fmt.Append(b, r.IntN(s.texts)-s.texts/3)
	case number:
		if r.IntN(4) == 0 {
			return append(b, numbers[r.IntN(len(numbers))]...)
		}
		return fmt.Appendf(b, []string{"%.2f", "%e", "%.1f", "%.17f"}[r.IntN(4)], r.NormFloat64()*float64(s.texts))
	case text:
		return append(b, s.text(r)...)
	case object:
		if depth < s.deep {
			return s.object(b, r, depth+1)
		}
	case array:
		return s.array(b, r, depth)
	}
	return append(b, [...]string{"{}", "[]", `[{}]`, "[null]"}[r.IntN(4)]...)
}

func (s *Shape) array(b []byte, r *rand.Rand, depth int) []byte {
	b = append(b, '[')
	k, n := kind(r.IntN(int(kinds))), r.IntN(6)
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		if r.Float64() < s.mixed {
			k = kind(r.IntN(int(kinds)))
		}
		if k == array && depth >= s.deep {
			k = null
		}
		b = s.value(b, r, k, depth+1)
	}
	return append(b, ']')
}
