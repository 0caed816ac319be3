// Package jsonscan validates JSON text in one pass and reports the members of its outermost object, without building a
// tree and, once its buffers have grown, without allocating.
//
// It distinguishes two kinds of errors. After a structure error, the text cannot be read any further. After a content
// error, the text can be read but is rejected. Then scanning continues to the end of the value, so a caller can reject
// one event and read its neighbours.
//
// Text without a structure error is what json.Valid of encoding/json accepts, with these exceptions:
//   - Nesting beyond 10,000 levels: json.Valid rejects it. Here it is a content error ("too_deep", beyond MaxDepth).
//   - Text after the value: json.Valid rejects it. Here n says where the value ends, and the caller continues.
//
// Content errors are texts that json.Valid accepts, but that readers of our objects do not all accept: invalid UTF-8,
// lone surrogates (but see Scanner.AllowLoneSurrogates), \u0000 in a key, numbers beyond 64 bits, duplicate keys, and
// nesting beyond MaxDepth.
package jsonscan

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"unicode/utf8"
)

// Kind is the type of a JSON value.
type Kind uint8

// The types of JSON values.
const (
	Null Kind = iota
	Bool
	Number
	String
	Object
	Array
)

func (k Kind) String() string {
	switch k {
	case Null:
		return "null"
	case Bool:
		return "bool"
	case Number:
		return "number"
	case String:
		return "string"
	case Object:
		return "object"
	case Array:
		return "array"
	}
	return "unknown"
}

// Member is one member of the outermost object.
type Member struct {
	Key   []byte // unescaped; into src where it has no escape, else into the Scanner's scratch
	Value []byte // raw text within src, without surrounding space
	Kind  Kind
	Plain bool   // the value is a string of ASCII without escapes; false: it may be
	At    uint32 // where it begins in src, counted from 1: the key's quote is src[At-1]; 0: that is not known
}

// Text is the content of a string: a view into its value, or a copy where it has escapes.
func (m *Member) Text() []byte {
	if !m.Plain && bytes.IndexByte(m.Value, '\\') >= 0 {
		return AppendUnquoted(nil, m.Value)
	}
	return m.Value[1 : len(m.Value)-1 : len(m.Value)-1]
}

// Span is a value's place in src.
type Span struct{ Start, End uint32 }

// maxText is how much of a text is read: offsets are 32 bits.
const maxText = math.MaxInt32

// DefaultMaxDepth is the nesting that a Scanner with MaxDepth 0 allows.
const DefaultMaxDepth = 64

// Scanner scans JSON texts, one after the other. Its zero value is ready; it is not safe for concurrent use.
//
// It keeps its buffers: up to about 130 bytes for each member of the largest object so far, which has no more than
// 1,048,576. Its last members keep their src alive.
type Scanner struct {
	// MaxDepth is how many containers may be open at once, the outermost being 1. 0 means DefaultMaxDepth.
	MaxDepth int

	// LargeFrom is the size in bytes from which on strings, arrays and objects below the outermost value are listed in
	// Large. 0: none is.
	LargeFrom int

	members []Member
	large   []Span
	from    int      // LargeFrom, or more: see list
	scratch []byte   // the unescaped content of the keys that had escapes
	nesting []uint64 // a bit for each open container, 1 for an object: bit (d-1)%64 of word (d-1)/64 is depth d
	frames  []frame  // frames[d] is the open container at depth d; none beyond MaxDepth
	keySet           // the keys of all open objects
	known   *known   // keys of this text and of those before it
	last    uint8    // the key before, in known
	limit   int      // MaxDepth or its default
	cur     frame    // the innermost open container, but for those beyond limit
	top     int      // where the value of the current member of the outermost object begins
	dots    uint64   // not 0: a key has one
	refused *Error   // the first content error
	lone    int      // surrogates that were accepted without their partner
	spaced  bool     // there is space between tokens
	escaped int      // where the last text begins that is not Plain, counted from 1

	// AllowLoneSurrogates accepts texts with lone surrogates, as escapes or as bytes. In keys, which are compared and
	// reported, each of them is U+FFFD. Values are as they were sent: see LoneSurrogates and ReplaceLoneSurrogates.
	AllowLoneSurrogates bool
}

// maxKeys is how many keys the open objects may have together: each takes up to 130 bytes.
const maxKeys = 1 << 20

// frame is an open container. The key under which its parent holds it is keys[base-1] when the parent is an object, so
// the path to any place in the text can be read from frames and keys.
type frame struct {
	start uint32
	base  int    // keys[base:] were pushed since it opened
	bloom uint64 // bit fp>>58 of each of its keys; while a container within it is open; else Scanner.cur has it
}

// Object scans one JSON object that begins at src[0], after JSON space if any. It returns its members, which are valid
// until the next call and as long as src is not changed, and how many bytes it consumed, up to and including the
// closing brace. What follows is not looked at.
//
// An error is always an *Error. If it is structural, n is where scanning stopped, and the rest of src cannot be read.
// If not, n is the whole value's length. There are no members with an error. A well-formed value that is not an object
// is a content error.
func (s *Scanner) Object(src []byte) (members []Member, n int, err error) {
	_, n, e := s.scan(src[:min(len(src), maxText)], true)
	if e != nil {
		return nil, n, e
	}
	return s.members, n, nil
}

// Large lists the values of the last text that have LargeFrom bytes or more, each behind those in it. Of very many, it
// lists the largest.
func (s *Scanner) Large() []Span { return s.large }

// maxLarge bounds the list of large values.
const maxLarge = 1 << 18

// list adds a large value to the list.
func (s *Scanner) list(start, end int) {
	if len(s.large) == maxLarge {
		for len(s.large) > maxLarge/2 {
			s.from *= 2
			s.large = slices.DeleteFunc(s.large, func(l Span) bool { return int(l.End-l.Start) < s.from })
		}
	}
	if end-start >= s.from {
		s.large = append(s.large, Span{uint32(start), uint32(end)})
	}
}

// Value scans any one JSON value that begins at src[0], after JSON space if any, and returns its kind and how many
// bytes it consumed. What follows is not looked at: "1 x" is the number 1 and n is 1. Errors are those of Object; the
// kind is right with a content error.
func (s *Scanner) Value(src []byte) (kind Kind, n int, err error) {
	kind, n, e := s.scan(src[:min(len(src), maxText)], false)
	if e != nil {
		return kind, n, e
	}
	return kind, n, nil
}

// Dotted reports whether a key of the last text, at any depth, has a dot.
func (s *Scanner) Dotted() bool { return s.dots != 0 }

// Spaced reports whether the last text has space between its tokens. If not, it has no line ends either.
func (s *Scanner) Spaced() bool { return s.spaced }

// LoneSurrogates reports whether the last text has a surrogate without its partner. There is one in a text without an
// error only if AllowLoneSurrogates is set.
func (s *Scanner) LoneSurrogates() bool { return s.lone > 0 }

const (
	ones    = 0x0101010101010101
	highs   = 0x8080808080808080
	quotes  = '"' * ones
	slashes = '\\' * ones
	spaces  = ' ' * ones
)

// stops marks, with the high bit of its byte, the first byte of x (from the low end) that a string's plain run stops
// at: a quote, a backslash or a control character. Later bytes may be marked wrongly, by the borrow of an earlier one.
func stops(x uint64) uint64 {
	return (((x ^ quotes) - ones) | ((x ^ slashes) - ones) | (x - spaces)) &^ x & highs
}

// nondigits marks, in the same way, the first byte of x that is no decimal digit.
func nondigits(x uint64) uint64 {
	x ^= '0' * ones
	return ((x + 0x76*ones) | x) & highs
}

// scan is the state machine. Its states are labels: a value may be followed by one of three states, depending on its
// container, and nesting must not use the Go stack. i is always the next byte to read. Data that is not needed for
// every byte is in s and in small functions, so that the loop's variables stay in registers.
//
// Every scalar ends at the label leaf, with its raw text src[start:i]. Every container ends at the label closed, with
// its frame. Values within nested containers are reported there.
//
//nolint:funlen // one loop of gotos keeps the state in registers
func (s *Scanner) scan(src []byte, object bool) (Kind, int, *Error) {
	s.begin()
	known, from := s.known, s.from
	var (
		i, depth int
		kind     Kind // of the value that ends
		inObject bool // the innermost open container is an object
		start    int  // of the current value or key; when a container ends, not its own
		reported = -1 // the depth whose members are reported
	)
	if object {
		reported = 1
		if i = s.space(src, 0); i < len(src) && src[i] != '{' {
			s.refuse(NotAnObject, src, i, i)
		}
	}

value:
	if i < len(src) && src[i] <= ' ' {
		i = s.space(src, i)
	}
	if i >= len(src) {
		return s.unexpected(src, i, depth, "a value")
	}
	start = i
	switch c := src[i]; c {
	case '"':
		kind = String
		end, high := i+1, uint64(0)
		for len(src)-end >= 8 { // plainRun, without a call for each text
			x := binary.LittleEndian.Uint64(src[end:])
			if m := stops(x); m != 0 {
				high |= x & ((m & -m) - 1)
				end += bits.TrailingZeros64(m) >> 3
				break
			}
			high |= x
			end += 8
		}
		if high &= highs; end < len(src) && src[end] == '"' && high == 0 {
			i = end + 1
		} else if end, more := plainRun(src, end); end < len(src) && src[end] == '"' && high|more == 0 {
			i = end + 1
		} else if i = s.text(src, i+1, end, high|more, false); i < 0 {
			return s.badText(src, ^i, depth)
		} else {
			s.escaped = start + 1
		}
		if i-start >= from {
			s.list(start, i)
			from = s.from
		}
		goto leaf
	case '{', '[':
		depth++
		i++
		inObject = c == '{'
		s.open(src, start, depth, inObject)
		if i < len(src) && src[i] <= ' ' {
			i = s.space(src, i)
		}
		if inObject {
			if i < len(src) && src[i] == '"' {
				goto member
			}
			if i < len(src) && src[i] == '}' {
				goto closed
			}
			return s.unexpected(src, i, depth, "a key or '}'")
		}
		if i < len(src) && src[i] == ']' {
			goto closed
		}
		goto value
	case 't', 'f', 'n':
		want := "true"
		kind = Bool
		switch c {
		case 'f':
			want = "false"
		case 'n':
			want, kind = "null", Null
		}
		if len(src)-i < len(want) || string(src[i:i+len(want)]) != want {
			for j := 0; i < len(src) && src[i] == want[j]; j++ {
				i++
			}
			return s.unexpected(src, i, depth, want)
		}
		i += len(want)
		goto leaf
	default:
		if c != '-' && c-'0' > 9 {
			return s.unexpected(src, i, depth, "a value")
		}
		var state numberState
		i, state = number(src, i)
		if state != numberFits {
			if state != numberTooBig {
				return s.unexpected(src, i, depth, state.want())
			}
			s.refuse(NumberOutOfRange, src, start, i)
		}
		kind = Number
		goto leaf
	}

member: // src[i] is the quote of a key; then its colon and its value
	start = i
	if len(src)-i > maxKnown+1 {
		next := known.keys[s.last].next
		k := &known.keys[next]
		if k.match(src[i+1:]) && s.refused == nil {
			s.last = next
			i += 1 + int(k.size)
			s.dots |= k.dots
			n := len(s.keys)
			if bit := uint64(1) << (k.fp >> 58); s.cur.bloom&bit == 0 && n-s.cur.base < fewKeys && n < cap(s.keys) {
				s.cur.bloom |= bit
				s.keys = s.keys[:n+1]
				o := &s.keys[n]
				o.start, o.end, o.fp = start+1, i-1, k.fp
			} else if !s.keep(src, start, span{start + 1, i - 1}, depth, k.fp) {
				goto colon
			}
			if depth == reported {
				s.report(src[start+1:i-1], start+1)
			}
			goto colon
		}
	}
	{
		end, high := plainRun(src, i+1)
		escaped := false
		if end < len(src) && src[end] == '"' && high == 0 {
			i = end + 1
		} else {
			escaped = src[min(end, len(src)-1)] == '\\'
			if i = s.text(src, i+1, end, high, true); i < 0 {
				return s.badText(src, ^i, depth)
			}
			escaped = escaped || s.lone > 0
		}
		if s.refused == nil {
			s.key(src, span{start + 1, i - 1}, depth, escaped, depth == reported)
		}
	}
colon:
	if i < len(src) && src[i] <= ' ' {
		i = s.space(src, i)
	}
	if i >= len(src) || src[i] != ':' {
		return s.unexpected(src, i, depth, "':'")
	}
	i++
	if depth == reported && s.refused == nil {
		if i < len(src) && src[i] <= ' ' {
			i = s.space(src, i)
		}
		s.top = i
	}
	goto value

closed: // src[i] closes the innermost container
	i++
	kind = Array
	if inObject {
		kind = Object
	}
	if at := int(s.cur.start); i-at >= from && depth > 1 && depth <= s.limit {
		s.list(at, i)
		from = s.from
	}
	inObject = s.close(depth)
	depth--

leaf: // a value has ended
	if depth == 0 {
		return kind, i, s.refused
	}
	if depth == reported && s.refused == nil {
		m := &s.members[len(s.members)-1]
		m.Value, m.Kind, m.Plain = src[s.top:i], kind, s.escaped != start+1
	}
	if i < len(src) && src[i] <= ' ' {
		i = s.space(src, i)
	}
	if inObject {
		if i >= len(src) {
			return s.unexpected(src, i, depth, "',' or '}'")
		}
		switch src[i] {
		case ',':
			i++
			if i < len(src) && src[i] <= ' ' {
				i = s.space(src, i)
			}
			if i < len(src) && src[i] == '"' {
				goto member
			}
			return s.unexpected(src, i, depth, "a key")
		case '}':
			goto closed
		}
		return s.unexpected(src, i, depth, "',' or '}'")
	}
	if i < len(src) {
		switch src[i] {
		case ',':
			i++
			goto value
		case ']':
			goto closed
		}
	}
	return s.unexpected(src, i, depth, "',' or ']'")
}

func (s *Scanner) begin() {
	s.limit = s.MaxDepth
	if s.limit <= 0 {
		s.limit = DefaultMaxDepth
	}
	if s.known == nil {
		s.known = newKnown()
	}
	if s.from = s.LargeFrom; s.from == 0 {
		s.from = maxText + 1
	}
	s.members, s.large, s.scratch, s.keys, s.refused, s.last = s.members[:0], s.large[:0], s.scratch[:0], s.keys[:0], nil,
		0
	s.cur, s.dots, s.lone, s.spaced, s.escaped = frame{}, 0, 0, false, 0
}

// unexpected ends a scan that cannot go on at src[i].
func (s *Scanner) unexpected(src []byte, i, depth int, want string) (Kind, int, *Error) {
	for d := min(depth, s.limit); d > 0; d-- {
		s.drop(s.frames[d].base)
	}
	return Null, i, structureError(src, i, want)
}

// open opens the container at src[at].
func (s *Scanner) open(src []byte, at, depth int, object bool) {
	if depth <= s.limit {
		for depth >= len(s.frames) {
			s.frames = append(s.frames, frame{})
		}
		s.frames[depth-1].bloom = s.cur.bloom
		s.cur = frame{start: uint32(at), base: len(s.keys)}
		s.frames[depth] = s.cur
	} else {
		s.refuse(TooDeep, src, at, s.limit)
	}
	word, bit := (depth-1)>>6, uint64(1)<<((depth-1)&63)
	if word == len(s.nesting) {
		s.nesting = append(s.nesting, 0)
	}
	if object {
		s.nesting[word] |= bit
	} else {
		s.nesting[word] &^= bit
	}
}

// close closes the innermost container, at depth, and reports whether it is in an object.
func (s *Scanner) close(depth int) (inObject bool) {
	if depth <= s.limit {
		s.drop(s.cur.base)
	}
	depth--
	if depth == 0 {
		return false
	}
	if depth <= s.limit {
		s.cur = s.frames[depth]
	}
	return s.nesting[(depth-1)>>6]>>((depth-1)&63)&1 != 0
}

// key adds the key whose content is k to the innermost object, at depth.
func (s *Scanner) key(src []byte, k span, depth int, escaped, report bool) {
	name := src[k.start:k.end]
	sent := k
	if escaped {
		from := len(s.scratch)
		s.scratch = appendUnescaped(s.scratch, name)
		if s.lone > 0 {
			replaceEncoded(s.scratch[from:])
		}
		k = span{^from, len(s.scratch)}
		name = s.scratch[from:]
	}
	fp, dots := fingerprint(name)
	s.dots |= dots
	if !escaped && len(s.keys)-s.cur.base < fewKeys { // a large object would displace all others' keys
		s.last = s.known.learn(s.last, name, fp, dots)
	}
	if s.keep(src, sent.start-1, k, depth, fp) && report {
		s.report(name[:len(name):len(name)], sent.start)
	}
}

// keep adds a key to those of the innermost object, or refuses it. at is its quote.
func (s *Scanner) keep(src []byte, at int, k span, depth int, fp uint64) bool {
	bit := uint64(1) << (fp >> 58)
	if n := len(s.keys); s.cur.bloom&bit == 0 && n-s.cur.base < fewKeys && n < cap(s.keys) {
		s.keys = s.keys[:n+1] // field by field, here and below: to append whole structs takes a fifth of all time
		o := &s.keys[n]
		o.start, o.end, o.fp = k.start, k.end, fp
	} else if n >= maxKeys {
		s.refuse(TooManyKeys, src, at, maxKeys)
		return false
	} else if !s.add(src, s.scratch, s.frames[:depth+1], entry{k, fp}) {
		s.refuseKey(k.of(src, s.scratch), at)
		return false
	}
	s.cur.bloom |= bit
	return true
}

// report begins a member.
func (s *Scanner) report(key []byte, at int) {
	n := len(s.members)
	if n == cap(s.members) {
		s.members = append(s.members, Member{})
	}
	s.members = s.members[:n+1]
	m := &s.members[n]
	m.Key, m.At = key, uint32(at)
}

// plainRun scans the content of a string from src[i] to the first quote, backslash or control character, or the end of
// src. high is not 0 if there is a byte beyond ASCII before it.
func plainRun(src []byte, i int) (end int, high uint64) {
	for len(src)-i >= 8 {
		x := binary.LittleEndian.Uint64(src[i:])
		if m := stops(x); m != 0 {
			return i + bits.TrailingZeros64(m)>>3, (high | x&((m&-m)-1)) & highs
		}
		high |= x
		i += 8
	}
	for i < len(src) && src[i] >= ' ' && src[i] != '"' && src[i] != '\\' {
		high |= uint64(src[i])
		i++
	}
	return i, high & highs
}

// text scans the rest of a string whose content begins at src[from] and whose first plain run ended at src[i], and
// returns the index behind its closing quote, or ^ of the byte where it goes wrong.
func (s *Scanner) text(src []byte, from, i int, high uint64, key bool) int {
	for i < len(src) {
		switch src[i] {
		case '"':
			if high != 0 {
				s.checkUTF8(src, from, i)
			}
			return i + 1
		case '\\':
			if i+1 < len(src) && shortEscapes[src[i+1]] != 0 {
				i += 2
				break
			}
			var ok bool
			if i, ok = s.unicodeEscape(src, i, key); !ok {
				return ^i
			}
		default:
			return ^i
		}
		var h uint64
		i, h = plainRun(src, i)
		high |= h
	}
	return ^i
}

// badText ends a scan at src[i], a byte that the grammar does not allow in a string.
func (s *Scanner) badText(src []byte, i, depth int) (Kind, int, *Error) {
	switch {
	case i >= len(src):
		return s.unexpected(src, i, depth, `'"'`)
	case src[i] < ' ' && src[i-1] != '\\':
		return s.unexpected(src, i, depth, "an escape for a control character")
	}
	return s.unexpected(src, i, depth, "an escape")
}

// space is skipSpace, and notes that there was space.
func (s *Scanner) space(src []byte, i int) int {
	end := skipSpace(src, i)
	s.spaced = s.spaced || end > i
	return end
}

// skipSpace returns the index of the first byte from i on that is not JSON space. Other control characters end it too.
func skipSpace(src []byte, i int) int {
	for i < len(src) && isSpace(src[i]) {
		i++
	}
	return i
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

// TrimSpace returns b without JSON space at its ends. Unlike bytes.TrimSpace it leaves what JSON does not call space.
func TrimSpace(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// unicodeEscape checks the \u escape, or the pair of them, whose backslash is src[i], and returns the index behind it.
// If it is none, ok is false and next is the byte where it goes wrong.
func (s *Scanner) unicodeEscape(src []byte, i int, key bool) (next int, ok bool) {
	if i+1 >= len(src) || src[i+1] != 'u' {
		return i + 1, false
	}
	r, next, ok := hex4(src, i+2)
	switch {
	case !ok:
		return next, false
	case r == 0 && key:
		s.refuse(NulCharacter, src, i, next)
	case r >= 0xDC00 && r <= 0xDFFF:
		s.loneEscape(src, i, next)
	case r >= 0xD800 && r <= 0xDBFF:
		if _, end, ok := escapedLow(src, next); ok {
			return end, true
		}
		s.loneEscape(src, i, next)
	}
	return next, true
}

func (s *Scanner) loneEscape(src []byte, i, end int) {
	if s.AllowLoneSurrogates {
		s.lone++
	} else {
		s.refuse(LoneSurrogate, src, i, end)
	}
}

// checkUTF8 refuses the content of a string, src[from:end], if it is not UTF-8.
func (s *Scanner) checkUTF8(src []byte, from, end int) {
	for {
		from += validUTF8(src[from:end])
		if from == end {
			return
		}
		if !s.AllowLoneSurrogates || !encodedSurrogate(src[from:end]) {
			s.refuse(InvalidUTF8, src, from, end)
			return
		}
		s.lone++
		from += surrogateSize
	}
}

// validUTF8 returns how many bytes of b are valid UTF-8. Unlike utf8.Valid it goes fast over the ASCII between other
// letters.
func validUTF8(b []byte) int {
	i := 0
	for i < len(b) {
		if len(b)-i >= 8 {
			x := binary.LittleEndian.Uint64(b[i:]) & highs
			if x == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(x) >> 3
		} else if b[i] < utf8.RuneSelf {
			i++
			continue
		}
		for i < len(b) && b[i] >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && size == 1 {
				return i
			}
			i += size
		}
	}
	return i
}
