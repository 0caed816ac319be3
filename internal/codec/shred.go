package codec

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// Properties are stored in typed columns, one for each path and type, where no information is lost. The rest stays a
// JSON document. An object's first events decide which columns exist. A member of the properties goes to columns as a
// whole or stays in the document as a whole, so joining the two is concatenation.

const (
	sampleRows  = 4 << 10
	sampleBytes = 2 << 20

	maxTyped     = 256 // columns
	maxTypedPath = 200 // bytes of a column's name without its type
	maxTypedDeep = 8   // keys of a path
	maxNodes     = 4096
	// A path gets a column if at least one in rareValue events of the sample has a value there.
	rareValue = 100
)

// typeSuffix ends a column's name if another type of its path is more frequent.
var typeSuffix = [...]string{pipeline.TypedInt: ":int64", pipeline.TypedFloat: ":float64", pipeline.TypedBool: ":bool",
	pipeline.TypedText: ":string"}

// shredder splits documents into columns and rest.
type shredder struct {
	root    shredNode
	nodes   int
	sampled int               // documents
	columns []*pipeline.Typed // path and type of each chunk
	chunks  []*chunk
	touched []*chunk // by the current member
	rest    []byte
	value   jsonscan.Value
	text    []byte // a string with escapes resolved
}

// shredNode is a key and the keys below it.
type shredNode struct {
	key    []byte
	quoted []byte // the key as documents usually write it, with the colon
	at     int    // index in the parent's order
	order  []*shredNode
	byKey  map[string]*shredNode
	seen   [4]int    // values in the sample, by TypedKind
	column [4]*chunk // by TypedKind; nil: no column
}

// find returns the node of a key. guess is its index if the keys come in the order of first appearance.
func (n *shredNode) find(key []byte, guess int) *shredNode {
	if guess < len(n.order) && bytes.Equal(n.order[guess].key, key) {
		return n.order[guess]
	}
	return n.byKey[string(key)]
}

// look counts the paths and types of a document.
func (s *shredder) look(doc []byte) {
	if s.sampled++; s.nodes >= maxNodes { // keys that are ids must not crowd out others
		s.nodes = s.root.prune(s.sampled)
	}
	w := jsonscan.NewWalker(doc)
	s.lookInto(&w, &s.root, 0)
}

func (s *shredder) lookInto(w *jsonscan.Walker, at *shredNode, depth int) bool {
	guess := 0
	return members(w, func(key []byte) bool {
		child := at.find(key, guess)
		if child == nil && s.nodes < maxNodes && len(key) > 0 && bytes.IndexByte(key, '.') < 0 {
			child = &shredNode{key: bytes.Clone(key), quoted: append(jsonscan.AppendQuoted(nil, key), ':'), at: len(at.order)}
			if at.byKey == nil {
				at.byKey = map[string]*shredNode{}
			}
			at.byKey[string(key)] = child
			at.order = append(at.order, child)
			s.nodes++
		}
		if child == nil || depth+1 >= maxTypedDeep && w.Peek() == '{' {
			return skipValue(w)
		}
		guess = child.at + 1
		switch w.Peek() {
		case '{':
			return s.lookInto(w, child, depth+1)
		case 'n', '[':
			return skipValue(w)
		}
		if w.Read(&s.value) != nil {
			return false
		}
		if kind, _, ok := typedValue(&s.value); ok {
			child.seen[kind]++
		}
		return true
	})
}

// prune removes rare keys, and returns how many are left.
func (n *shredNode) prune(sampled int) (left int) {
	n.order = slices.DeleteFunc(n.order, func(child *shredNode) bool {
		below := child.prune(sampled)
		seen := 0
		for _, s := range child.seen {
			seen += s
		}
		if below == 0 && seen*rareValue < sampled {
			delete(n.byKey, string(child.key))
			return true
		}
		left += below + 1
		return false
	})
	for at, child := range n.order {
		child.at = at
	}
	return left
}

// members calls each for every member of an object. The walker is then at its value.
func members(w *jsonscan.Walker, each func(key []byte) bool) bool {
	w.Space()
	if !w.Take('{') {
		return false
	}
	w.Space()
	if w.Take('}') {
		return true
	}
	for {
		key, err := w.Key()
		if err != nil {
			return false
		}
		w.Space()
		if !each(key) {
			return false
		}
		w.Space()
		if w.Take('}') {
			return true
		}
		if !w.Take(',') {
			return false
		}
		w.Space()
	}
}

func skipValue(w *jsonscan.Walker) bool {
	switch w.Peek() {
	case '{', '[':
		return w.Skip() == nil
	case 'n':
		return w.Word("null") == nil
	}
	_, err := w.Value()
	return err == nil
}

// typedValue returns a value for a column if a column can hold it exactly. That is so for signed 64-bit whole numbers,
// for decimals of up to 15 digits, and for a float's shortest form.
func typedValue(v *jsonscan.Value) (kind pipeline.TypedKind, bits uint64, ok bool) {
	switch v.Kind {
	case jsonscan.BoolValue:
		return pipeline.TypedBool, v.Bits, true
	case jsonscan.StringValue:
		return pipeline.TypedText, 0, true
	case jsonscan.IntValue:
		return pipeline.TypedInt, v.Bits, v.Bits != 0 || len(v.Raw) == 1 // -0
	case jsonscan.FloatValue:
		f := math.Float64frombits(v.Bits)
		// Subnormal floats have fewer digits.
		if math.Abs(f) < minNormal && (f != 0 || !isZero(v.Raw)) {
			return 0, 0, false
		}
		if len(v.Raw) > 15 {
			var b [40]byte
			if !bytes.Equal(strconv.AppendFloat(b[:0], f, 'f', -1, 64), v.Raw) &&
				!bytes.Equal(strconv.AppendFloat(b[:0], f, 'g', -1, 64), v.Raw) {
				return 0, 0, false
			}
		}
		return pipeline.TypedFloat, v.Bits, true
	}
	return 0, 0, false
}

// minNormal is the smallest float with full precision.
const minNormal = 0x1p-1022

// isZero reports whether a number has only the digit 0 before its exponent.
func isZero(number []byte) bool {
	for _, c := range number {
		if c == 'e' || c == 'E' {
			break
		}
		if c >= '1' && c <= '9' {
			return false
		}
	}
	return true
}

// choose makes the columns.
func (s *shredder) choose() {
	type candidate struct {
		path string
		kind pipeline.TypedKind
		node *shredNode
		seen int
	}
	var all []candidate
	var walk func(n *shredNode, prefix string)
	walk = func(n *shredNode, prefix string) {
		for _, child := range n.order {
			path := prefix + string(child.key)
			if len(columnName(path)) > maxTypedPath || strings.Contains(path, ":") {
				continue // its name could be mistaken for another one's
			}
			for kind, seen := range child.seen {
				if seen > 0 && seen*rareValue >= s.sampled {
					all = append(all, candidate{path, pipeline.TypedKind(kind), child, seen})
				}
			}
			walk(child, path+".")
		}
	}
	walk(&s.root, "")
	slices.SortStableFunc(all, func(a, b candidate) int { return b.seen - a.seen })
	for _, c := range all[:min(len(all), maxTyped)] {
		to := newTypedChunk(c.kind)
		c.node.column[c.kind] = to
		s.chunks = append(s.chunks, to)
		s.columns = append(s.columns, &pipeline.Typed{Path: c.path, Kind: c.kind})
	}
}

func newTypedChunk(k pipeline.TypedKind) *chunk {
	switch k {
	case pipeline.TypedInt:
		return &chunk{form: formInt, optional: true, bounded: true, dict: newDictionary(false), repeats: repeatedNumber}
	case pipeline.TypedFloat:
		return &chunk{form: formFloat, optional: true, bounded: true, dict: newDictionary(false), repeats: repeatedNumber}
	case pipeline.TypedBool:
		return &chunk{form: formBool, optional: true, bounded: true}
	}
	return &chunk{form: formText, optional: true, dict: newDictionary(true), repeats: repeatedText}
}

// shred adds a document's values to the columns at row, and returns the rest, valid until the next call.
func (s *shredder) shred(doc []byte, row int) (rest []byte) {
	w := jsonscan.NewWalker(doc)
	s.rest = append(s.rest[:0], '{')
	if !s.members(&w, &s.root, row, doc) { // cannot happen: the JSON was validated before
		for _, c := range s.chunks {
			if c.has(row) {
				c.drop(row)
			}
		}
		return doc
	}
	s.rest = append(s.rest, '}')
	return s.rest
}

// members adds an object's members to their columns. If doc is set, the object is the outermost one with that text, and
// members without a column go to the rest. If doc is nil, members returns false unless every member has a column.
func (s *shredder) members(w *jsonscan.Walker, at *shredNode, row int, doc []byte) bool {
	w.Space()
	if !w.Take('{') {
		return false
	}
	w.Space()
	if w.Take('}') {
		return doc != nil // an empty object has no column
	}
	for guess := 0; ; {
		var child *shredNode
		var key []byte
		if guess < len(at.order) && w.Pass(at.order[guess].quoted) { // as in the previous document
			child = at.order[guess]
			key = child.key
		} else {
			var err error
			if key, err = w.Key(); err != nil {
				return false
			}
			child = at.byKey[string(key)]
		}
		w.Space()
		begin := *w
		if doc != nil {
			s.touched = s.touched[:0]
		}
		fits := false
		if child != nil {
			guess = child.at + 1
			fits = s.take(w, child, row)
		}
		if !fits {
			if doc == nil {
				return false
			}
			for _, c := range s.touched {
				c.drop(row)
			}
			*w = begin
			if !skipValue(w) {
				return false
			}
			if s.rest[len(s.rest)-1] != '{' {
				s.rest = append(s.rest, ',')
			}
			s.rest = append(jsonscan.AppendQuoted(s.rest, key), ':')
			s.rest = append(s.rest, doc[begin.At():w.At()]...)
		}
		w.Space()
		if w.Take('}') {
			return true
		}
		if !w.Take(',') {
			return false
		}
		w.Space()
	}
}

// take adds a value to its columns. If it returns false, a part may have been added.
func (s *shredder) take(w *jsonscan.Walker, at *shredNode, row int) bool {
	switch w.Peek() {
	case '{':
		return s.members(w, at, row, nil)
	case 'n', '[':
		return false
	}
	v := &s.value
	if w.Read(v) != nil {
		return false
	}
	kind, bits, ok := typedValue(v)
	if !ok {
		return false
	}
	c := at.column[kind]
	if c == nil {
		return false
	}
	switch {
	case kind != pipeline.TypedText:
		c.addBits(row, bits)
	case v.Escaped:
		s.text = v.AppendText(s.text[:0])
		c.addBytes(row, s.text)
	default:
		c.addBytes(row, v.Raw)
	}
	s.touched = append(s.touched, c)
	return true
}

// merger joins columns and rest to documents again.
type merger struct{ root mergeNode }

type mergeNode struct {
	key     []byte // quoted, with the colon
	name    string
	columns []int
	below   []*mergeNode
}

func newMerger(columns []*pipeline.Typed) *merger {
	m := &merger{}
	for i, t := range columns {
		at := &m.root
		for key := range strings.SplitSeq(t.Path, ".") {
			j := slices.IndexFunc(at.below, func(n *mergeNode) bool { return n.name == key })
			if j < 0 {
				j = len(at.below)
				at.below = append(at.below, &mergeNode{name: key, key: append(jsonscan.AppendQuoted(nil, []byte(key)), ':')})
			}
			at = at.below[j]
		}
		at.columns = append(at.columns, i)
	}
	return m
}

// merge appends the document of row to b. next is, for each column, the index of its first value at this row or later;
// merge advances it.
func (m *merger) merge(b, rest []byte, columns []*pipeline.Typed, next []int, row uint32) []byte {
	rest = jsonscan.TrimSpace(rest)
	b = append(b, rest[:len(rest)-1]...)
	from := len(b)
	empty := len(jsonscan.TrimSpace(rest[1:len(rest)-1])) == 0
	b = m.root.members(b, columns, next, row)
	if !empty && len(b) > from {
		b = append(b, 0)
		copy(b[from+1:], b[from:])
		b[from] = ','
	}
	return append(b, '}')
}

// members appends the members below a node, separated by commas.
func (n *mergeNode) members(b []byte, columns []*pipeline.Typed, next []int, row uint32) []byte {
	first := true
	for _, child := range n.below {
		from := len(b)
		if !first {
			b = append(b, ',')
		}
		b = append(b, child.key...)
		value := len(b)
		for _, i := range child.columns {
			if t := columns[i]; next[i] < len(t.Rows) && t.Rows[next[i]] == row {
				b = appendTyped(b, t, next[i])
				next[i]++
			}
		}
		if len(b) == value && len(child.below) > 0 {
			b = append(b, '{')
			inner := len(b)
			b = child.members(b, columns, next, row)
			if len(b) > inner {
				b = append(b, '}')
			} else {
				b = b[:value]
			}
		}
		if len(b) == value {
			b = b[:from]
		} else {
			first = false
		}
	}
	return b
}

// appendTyped writes a value as JSON of the same type.
func appendTyped(b []byte, t *pipeline.Typed, i int) []byte {
	switch t.Kind {
	case pipeline.TypedText:
		return jsonscan.AppendQuoted(b, t.String(i))
	case pipeline.TypedBool:
		return strconv.AppendBool(b, t.Bits[i] != 0)
	case pipeline.TypedInt:
		return strconv.AppendInt(b, int64(t.Bits[i]), 10)
	}
	from := len(b)
	f := math.Float64frombits(t.Bits[i])
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		b = strconv.AppendFloat(b, f, 'e', -1, 64)
	} else {
		b = strconv.AppendFloat(b, f, 'f', -1, 64)
	}
	if !bytes.ContainsAny(b[from:], ".e") {
		b = append(b, ".0"...) // otherwise it would read as a whole number
	}
	return b
}
