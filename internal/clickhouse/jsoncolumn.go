package clickhouse

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// jsonColumn is a JSON column as the server takes it without parsing: the
// flattened serialization of Native blocks (version 3). Values are appended in
// the form in which they are sent.
//
//	object   u64 3, number of paths, their names; for each path a dynamic's head; then for each path a dynamic's values
//	dynamic  head: u64 3, number of types, their names, for each type its head
//	         values: an index byte a row (the number of types: NULL), then for each type its values, packed
//	array    its element's head; u64 offsets, then, where the element is nullable, a byte a value, then the values
//
// Types are those that the server infers from text, so that a table may hold
// rows of both: Bool, Int64, UInt64, Float64, String, Array(Nullable(…)) of these,
// Array(JSON(…)), arrays of arrays. Where text would lose something (a bool among
// numbers becomes 1, a large integer among floats its last digits) the type is
// Array(Dynamic), which keeps each element as it was sent.
type jsonColumn struct {
	rows int
	root jsonObject
	size extent
	doc  jsonscan.Walker
	last []cursor // memory for them
}

// extent is how much a column holds, with all columns of objects within arrays:
// an array of objects whose keys are ids is as many columns as any other such object.
type extent struct {
	paths int
	parts int // paths, their types, and keys
	cells int // rows of paths
}

// errNotColumnar says that a block cannot be sent in columns: the server shall
// parse its text.
var errNotColumnar = errors.New("not columnar")

// maxPaths and maxCells bound the columns of a block: each path costs a byte a
// row, however few rows have it. maxParts bounds what costs some 200 bytes each.
const (
	maxPaths = 16 << 10
	maxParts = 8 * maxPaths
	maxCells = 128 << 20
)

// part counts what is made once for many rows.
func (e *extent) part() error {
	if e.parts++; e.parts > maxParts {
		return errNotColumnar
	}
	return nil
}

// jsonObject is a column of objects.
type jsonObject struct {
	depth  int // of arrays of objects around it
	size   *extent
	tree   node
	paths  []*dynamic
	byPath map[string]*dynamic
}

// node is a key within an object, with the keys below it.
type node struct {
	key    string
	path   string
	at     int      // its place in its parent's order
	column *dynamic // nil: nothing but objects so far
	order  []*node  // below it, as they first came
	byKey  map[string]*node
}

// dynamic is a column of values of any type.
type dynamic struct {
	path  string
	depth int
	size  *extent
	index []byte // type of each row so far, null where it has no value
	types []*typed
}

const null = 255

// typed is the values of one type.
type typed struct {
	name    string
	n       int
	data    []byte
	array   bool
	nulls   []byte      // of an array's elements; nil: they are not nullable
	element *typed      // of an array of one type
	dynamic *dynamic    // of an array of several
	objects *jsonObject // of an array of objects
	count   int         // elements so far
}

// append adds a row. The text was validated before; what the columns cannot
// hold as they should is errNotColumnar.
func (c *jsonColumn) append(text []byte) error {
	c.doc = jsonscan.NewWalker(text)
	c.root.size = &c.size
	if err := c.root.add(&c.doc, c.rows); err != nil {
		return err
	}
	c.rows++
	return nil
}

// appendAll adds the properties of events, whose values are in part in typed.
// They are put row by row where there is both, for a column is in the order of its rows.
func (c *jsonColumn) appendAll(events []pipeline.Event, typed []*pipeline.Typed) error {
	first := c.rows
	cursors, err := c.cursors(typed)
	if err != nil {
		return err
	}
	for i := range events {
		if len(typed) > 0 && len(events[i].Properties) == 2 { // {}
			c.rows++
			continue
		}
		for k := range cursors {
			if err := cursors[k].put(first, uint32(i)+1); err != nil {
				return err
			}
		}
		if err := c.append(events[i].Properties); err != nil {
			return err
		}
	}
	for k := range cursors {
		if err := cursors[k].put(first, uint32(len(events))); err != nil {
			return err
		}
	}
	return nil
}

// cursor goes through typed values on their way into a column.
type cursor struct {
	from *pipeline.Typed
	next int
	to   *dynamic
	as   *typed
	kind byte
}

var typedNames = [...]string{pipeline.TypedInt: "Int64", pipeline.TypedFloat: "Float64", pipeline.TypedBool: "Bool", pipeline.TypedText: "String"}

func (c *jsonColumn) cursors(all []*pipeline.Typed) ([]cursor, error) {
	c.last = c.last[:0]
	c.root.size = &c.size
	for _, t := range all {
		if len(t.Rows) == 0 {
			continue
		}
		d, err := c.root.path(t.Path)
		if err != nil {
			return nil, err
		}
		as, kind, err := d.of(typedNames[t.Kind])
		if err != nil {
			return nil, err
		}
		c.last = append(c.last, cursor{from: t, to: d, as: as, kind: kind})
	}
	return c.last, nil
}

// put puts the values of the events before a place; first is the row of the first event.
func (c *cursor) put(first int, before uint32) error {
	t := c.from
	for ; c.next < len(t.Rows) && t.Rows[c.next]-t.First < before; c.next++ {
		if err := c.to.put(first+int(t.Rows[c.next]-t.First), c.kind); err != nil {
			return err
		}
		c.as.n++
		switch t.Kind {
		case pipeline.TypedText:
			c.as.data = appendBytes(c.as.data, t.String(c.next))
		case pipeline.TypedBool:
			c.as.data = append(c.as.data, byte(t.Bits[c.next]))
		default:
			c.as.data = binary.LittleEndian.AppendUint64(c.as.data, t.Bits[c.next])
		}
	}
	return nil
}

// add reads an object as row row.
func (o *jsonObject) add(p *jsonscan.Walker, row int) error {
	p.Space()
	return o.object(p, &o.tree, row)
}

func (o *jsonObject) object(p *jsonscan.Walker, at *node, row int) error {
	if !p.Take('{') {
		return p.Fail()
	}
	p.Space()
	if p.Take('}') {
		return nil
	}
	next := 0 // where the key is, if it comes in the order in which keys came first
	for {
		key, err := p.Key()
		if err != nil {
			return err
		}
		var child *node
		if next < len(at.order) && at.order[next].key == string(key) {
			child = at.order[next]
			next++
		} else if child, next, err = o.child(at, key); err != nil {
			return err
		}
		p.Space()
		if p.Peek() == '{' {
			err = o.object(p, child, row)
		} else {
			err = o.value(p, child, row)
		}
		if err != nil {
			return err
		}
		p.Space()
		if p.Take(',') {
			p.Space()
			continue
		}
		if p.Take('}') {
			return nil
		}
		return p.Fail()
	}
}

// child finds or makes the node of a key.
func (o *jsonObject) child(at *node, key []byte) (*node, int, error) {
	if n := at.byKey[string(key)]; n != nil {
		return n, n.at + 1, nil
	}
	if err := o.size.part(); err != nil {
		return nil, 0, err
	}
	n := &node{key: string(key), at: len(at.order)}
	if n.path = n.key; at.path != "" || at != &o.tree {
		n.path = at.path + "." + n.key
	}
	if at.byKey == nil {
		at.byKey = map[string]*node{}
	}
	at.byKey[n.key] = n
	at.order = append(at.order, n)
	return n, len(at.order), nil
}

func (o *jsonObject) value(p *jsonscan.Walker, n *node, row int) error {
	if p.Peek() == 'n' { // null is as good as absent
		return p.Word("null")
	}
	if n.column == nil {
		d, err := o.path(n.path)
		if err != nil {
			return err
		}
		n.column = d
	}
	return n.column.add(p, row)
}

// path is the column of a path. Another spelling of it ("a.b" beside "a":{"b"}) is the same column.
func (o *jsonObject) path(path string) (*dynamic, error) {
	if d := o.byPath[path]; d != nil {
		return d, nil
	}
	if o.size.paths == maxPaths {
		return nil, errNotColumnar
	}
	if err := o.size.part(); err != nil {
		return nil, err
	}
	o.size.paths++
	if o.byPath == nil {
		o.byPath = map[string]*dynamic{}
	}
	d := &dynamic{path: path, depth: o.depth, size: o.size}
	o.byPath[path] = d
	o.paths = append(o.paths, d)
	return d, nil
}

// of is the values of a type, and its index.
func (d *dynamic) of(name string) (*typed, byte, error) {
	for i, t := range d.types {
		if t.name == name {
			return t, byte(i), nil
		}
	}
	if len(d.types) == null-1 {
		return nil, 0, errNotColumnar
	}
	if err := d.size.part(); err != nil {
		return nil, 0, err
	}
	t := newTyped(name, d.depth, d.size)
	d.types = append(d.types, t)
	return t, byte(len(d.types) - 1), nil
}

// put gives row a value of type i. Of one type they come in the order of rows.
func (d *dynamic) put(row int, i byte) error {
	if row < len(d.index) {
		if d.index[row] != null {
			return errNotColumnar // a path twice in one document
		}
		d.index[row] = i
		return nil
	}
	if d.size.cells += row + 1 - len(d.index); d.size.cells > maxCells {
		return errNotColumnar
	}
	for len(d.index) < row {
		d.index = append(d.index, null)
	}
	d.index = append(d.index, i)
	return nil
}

// add reads a value that is not null.
func (d *dynamic) add(p *jsonscan.Walker, row int) error {
	if p.Peek() == '{' { // an object among other things
		if d.depth > 2 {
			return errNotColumnar // the server ends here, too
		}
		t, i, err := d.of(objectType(d.depth))
		if err != nil {
			return err
		}
		if err := d.put(row, i); err != nil {
			return err
		}
		t.n++
		return t.objects.add(p, t.n-1)
	}
	v, err := p.Value()
	if err != nil {
		return err
	}
	name := typeName(v.Kind)
	if v.Kind == jsonscan.ArrayValue {
		if name, _, err = arrayType(v.Raw, d.depth); err != nil {
			return err
		}
	}
	t, i, err := d.of(name)
	if err != nil {
		return err
	}
	if err := d.put(row, i); err != nil {
		return err
	}
	return t.add(v)
}

// head writes what stands before the values: paths and types.
func (o *jsonObject) head(b []byte) []byte {
	n := 0
	for _, d := range o.paths {
		if d.used() {
			n++
		}
	}
	b = binary.LittleEndian.AppendUint64(b, 3)
	b = binary.AppendUvarint(b, uint64(n))
	for _, d := range o.paths {
		if d.used() {
			b = appendString(b, d.path)
		}
	}
	for _, d := range o.paths {
		if d.used() {
			b = d.head(b)
		}
	}
	return b
}

// write writes rows of the column in the order given.
func (o *jsonObject) write(s *sink, rows []uint32) {
	for _, d := range o.paths {
		if d.used() {
			d.write(s, rows)
		}
	}
}

// used tells whether there is any value: columns that are used again may have
// paths and types that no row has any more.
func (d *dynamic) used() bool {
	return slices.ContainsFunc(d.types, (*typed).used)
}

func (t *typed) used() bool { return t.n > 0 }

func (d *dynamic) head(b []byte) []byte {
	n := 0
	for _, t := range d.types {
		if t.used() {
			n++
		}
	}
	b = binary.LittleEndian.AppendUint64(b, 3)
	b = binary.AppendUvarint(b, uint64(n))
	for _, t := range d.types {
		if t.used() {
			b = appendString(b, t.name)
		}
	}
	for _, t := range d.types {
		if t.used() {
			b = t.head(b)
		}
	}
	return b
}

func (d *dynamic) write(s *sink, rows []uint32) {
	var as [256]byte // what each type is called among those that are used
	var picked [256][]uint32
	var count [256]uint32
	used := byte(0)
	for i, t := range d.types {
		if as[i] = used; t.used() {
			used++
			picked[i] = make([]uint32, 0, t.n)
		}
	}
	as[null] = used
	if used == 1 && len(d.types) == 1 && d.types[0].n == len(d.index) && len(d.index) == len(rows) {
		s.write(make([]byte, len(rows)))
		d.types[0].write(s, rows)
		return
	}
	// Where each row's value stands among those of its type.
	at := slices.Grow(s.at[:0], len(d.index))[:len(d.index)]
	s.at = at
	for row, t := range d.index {
		at[row] = count[t]
		count[t]++
	}
	for part := range parts(rows) {
		b := s.reserve(len(part))
		for i, row := range part {
			t := byte(null)
			if int(row) < len(d.index) {
				t = d.index[row]
			}
			b[i] = as[t]
			if t != null {
				picked[t] = append(picked[t], at[row])
			}
		}
		s.room()
	}
	for i, t := range d.types {
		if t.used() {
			t.write(s, picked[i])
		}
	}
}

func newTyped(name string, depth int, size *extent) *typed {
	t := &typed{name: name}
	inner, ok := cutArray(name)
	if !ok {
		if strings.HasPrefix(name, "JSON") {
			t.objects = &jsonObject{depth: depth + 1, size: size}
		}
		return t
	}
	t.array = true
	switch {
	case strings.HasPrefix(inner, "JSON"):
		t.objects = &jsonObject{depth: depth + 1, size: size}
	case inner == "Dynamic":
		t.dynamic = &dynamic{depth: depth, size: size}
	default:
		if plain, ok := cutNullable(inner); ok {
			t.nulls, inner = []byte{}, plain
		}
		t.element = newTyped(inner, depth, size)
	}
	return t
}

func cutArray(name string) (string, bool) {
	if len(name) > 7 && name[:6] == "Array(" {
		return name[6 : len(name)-1], true
	}
	return "", false
}

func cutNullable(name string) (string, bool) {
	if len(name) > 10 && name[:9] == "Nullable(" {
		return name[9 : len(name)-1], true
	}
	return "", false
}

// add appends a value of this very type.
func (t *typed) add(v jsonscan.Value) error {
	t.n++
	if t.array != (v.Kind == jsonscan.ArrayValue) {
		return errNotColumnar
	}
	if t.array {
		return t.addArray(v.Raw)
	}
	switch v.Kind {
	case jsonscan.BoolValue:
		t.data = append(t.data, byte(v.Bits))
	case jsonscan.IntValue, jsonscan.UintValue, jsonscan.FloatValue:
		if t.name == "Float64" && v.Kind != jsonscan.FloatValue {
			v.Bits = math.Float64bits(v.Float())
		}
		t.data = binary.LittleEndian.AppendUint64(t.data, v.Bits)
	case jsonscan.StringValue:
		t.data = appendText(t.data, v)
	}
	return nil
}

// zero stands where a nullable element is null.
func (t *typed) zero() {
	t.n++
	switch t.name {
	case "Bool", "String":
		t.data = append(t.data, 0)
	default:
		t.data = append(t.data, 0, 0, 0, 0, 0, 0, 0, 0)
	}
}

func (t *typed) addArray(raw []byte) error {
	p := jsonscan.NewWalker(raw)
	err := p.Elements(func() error {
		row := t.count
		t.count++
		switch {
		case t.objects != nil:
			return t.objects.add(&p, row)
		case t.dynamic != nil:
			if p.Peek() == 'n' {
				return p.Word("null")
			}
			return t.dynamic.add(&p, row)
		}
		if p.Peek() == 'n' {
			t.nulls = append(t.nulls, 1)
			t.element.zero()
			return p.Word("null")
		}
		if t.nulls != nil {
			t.nulls = append(t.nulls, 0)
		}
		v, err := p.Value()
		if err != nil {
			return err
		}
		return t.element.add(v)
	})
	t.data = binary.LittleEndian.AppendUint64(t.data, uint64(t.count)) // the offset behind this array
	return err
}

func (t *typed) head(b []byte) []byte {
	switch {
	case t.objects != nil:
		return t.objects.head(b)
	case t.dynamic != nil:
		return t.dynamic.head(b)
	case t.element != nil:
		return t.element.head(b)
	}
	return b
}

// write writes the values at the places given.
func (t *typed) write(s *sink, rows []uint32) {
	switch {
	case t.array:
		t.writeArrays(s, rows)
	case t.objects != nil:
		t.objects.write(s, rows)
	case t.name == "String":
		starts := slices.Grow(s.starts[:0], t.n+1)[:t.n+1]
		s.starts = starts
		from := uint32(0)
		for i := range t.n {
			starts[i] = from
			size, k := binary.Uvarint(t.data[from:])
			from += uint32(k) + uint32(size)
		}
		starts[t.n] = from
		for _, row := range rows {
			if text := t.data[starts[row]:starts[row+1]]; len(text) < sinkBytes {
				s.b.Buf = append(s.b.Buf, text...)
				s.room()
			} else {
				s.write(text)
			}
		}
	case t.name == "Bool":
		for part := range parts(rows) {
			b := s.reserve(len(part))
			for i, row := range part {
				b[i] = t.data[row]
			}
			s.room()
		}
	default:
		for part := range parts(rows) {
			b := s.reserve(8 * len(part))
			for i, row := range part {
				binary.LittleEndian.PutUint64(b[8*i:], binary.LittleEndian.Uint64(t.data[8*row:]))
			}
			s.room()
		}
	}
}

func (t *typed) writeArrays(s *sink, rows []uint32) {
	end := func(row uint32) uint32 { return uint32(binary.LittleEndian.Uint64(t.data[8*row:])) }
	var elements []uint32
	for _, row := range rows {
		from := uint32(0)
		if row > 0 {
			from = end(row - 1)
		}
		for e := from; e < end(row); e++ {
			elements = append(elements, e)
		}
		s.b.PutUInt64(uint64(len(elements)))
		s.room()
	}
	switch {
	case t.objects != nil:
		t.objects.write(s, elements)
		return
	case t.dynamic != nil:
		t.dynamic.write(s, elements)
		return
	}
	if t.nulls != nil {
		for _, e := range elements {
			s.b.Buf = append(s.b.Buf, t.nulls[e])
			s.room()
		}
	}
	t.element.write(s, elements)
}

// reset empties the column and keeps its memory, paths and types, but for
// memory that was much larger than needed the last time.
func (c *jsonColumn) reset() {
	c.rows, c.doc, c.size.cells = 0, jsonscan.Walker{}, 0
	c.root.reset()
}

func (o *jsonObject) reset() {
	for _, d := range o.paths {
		d.reset()
	}
}

func (d *dynamic) reset() {
	d.index = emptied(d.index)
	for _, t := range d.types {
		t.reset()
	}
}

func (t *typed) reset() {
	t.n, t.count = 0, 0
	t.data = emptied(t.data)
	if t.nulls != nil {
		t.nulls = emptied(t.nulls)
	}
	switch {
	case t.objects != nil:
		t.objects.reset()
	case t.dynamic != nil:
		t.dynamic.reset()
	case t.element != nil:
		t.element.reset()
	}
}

func emptied(b []byte) []byte {
	if cap(b) > 1<<20 && len(b) < cap(b)/4 {
		return []byte{}
	}
	return b[:0]
}

// arrayType is the type that the server infers for an array, as far as one
// column can hold all its elements as they are; else it is Array(Dynamic).
// empty is how deep an array is that holds nothing but empty arrays, else 0.
func arrayType(raw []byte, depth int) (name string, empty int, err error) {
	p := jsonscan.NewWalker(raw)
	var seen [8]bool
	inner, open := "", 0 // type of arrays within, and how deep they are while none could tell
	mixed, nulls, exact, negative := false, false, true, false
	err = p.Elements(func() error {
		switch p.Peek() {
		case 'n':
			nulls = true
			return p.Word("null")
		case '{':
			seen[jsonscan.ObjectValue] = true
			return p.Skip()
		}
		v, err := p.Value()
		if err != nil {
			return err
		}
		seen[v.Kind] = true
		switch v.Kind {
		case jsonscan.ArrayValue:
			name, empty, err := arrayType(v.Raw, depth)
			if err != nil {
				return err
			}
			switch {
			case inner == "":
				inner, open = name, empty
			case open > 0 && (empty > open || empty == 0 && arrayDepth(name) >= open):
				inner, open = name, empty
			case open > 0 && empty == 0, empty > arrayDepth(inner), empty == 0 && name != inner:
				mixed = true
			}
		case jsonscan.IntValue, jsonscan.UintValue:
			exact = exact && v.Exact()
			negative = negative || v.Kind == jsonscan.IntValue && int64(v.Bits) < 0
		}
		return nil
	})
	if err != nil {
		return "", 0, err
	}
	kinds := 0
	var kind jsonscan.ValueKind
	for k, s := range seen {
		if s {
			kinds++
			kind = jsonscan.ValueKind(k)
		}
	}
	switch {
	case kinds == 0:
		if nulls {
			return "Array(Nullable(String))", 0, nil
		}
		return "Array(Nullable(String))", 1, nil
	case kinds == 1 && kind == jsonscan.ObjectValue && !nulls:
		if depth > 2 {
			return "", 0, errNotColumnar
		}
		return "Array(" + objectType(depth) + ")", 0, nil
	case kinds == 2 && seen[jsonscan.IntValue] && seen[jsonscan.UintValue] && !negative:
		return "Array(Nullable(UInt64))", 0, nil
	case kinds == 1 && kind == jsonscan.ArrayValue && !nulls && !mixed:
		if open > 0 {
			open++
		}
		return "Array(" + inner + ")", open, nil
	case kinds == 1 && kind < jsonscan.ArrayValue:
		return "Array(Nullable(" + typeName(kind) + "))", 0, nil
	case !seen[jsonscan.BoolValue] && !seen[jsonscan.StringValue] && !seen[jsonscan.ArrayValue] && !seen[jsonscan.ObjectValue] && seen[jsonscan.FloatValue] && exact:
		return "Array(Nullable(Float64))", 0, nil
	}
	return "Array(Dynamic)", 0, nil
}

// arrayDepth is how many arrays are one within the other in a type.
func arrayDepth(name string) (n int) {
	for inner, ok := cutArray(name); ok; inner, ok = cutArray(inner) {
		n++
	}
	return n
}

// objectType is that of objects within an array, with limits as the server sets them for text.
func objectType(depth int) string {
	return fmt.Sprintf("JSON(max_dynamic_types=%d, max_dynamic_paths=%d)", 16>>depth, 256>>(2*depth))
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendBytes(b, s []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func typeName(k jsonscan.ValueKind) string {
	return [...]string{"Bool", "Int64", "UInt64", "Float64", "String", "", "JSON"}[k]
}

// appendText writes a string with its length before it, which is known only when
// it is unescaped: room is left for that of the escaped one, which is not shorter.
func appendText(b []byte, v jsonscan.Value) []byte {
	if !v.Escaped {
		return appendBytes(b, v.Raw)
	}
	var size [binary.MaxVarintLen64]byte
	from, room := len(b), binary.PutUvarint(size[:], uint64(len(v.Raw)))
	b = append(b, size[:room]...)
	b = v.AppendText(b)
	n := len(b) - from - room
	if k := binary.PutUvarint(size[:], uint64(n)); k < room {
		copy(b[from+k:], b[from+room:])
		b = b[:from+k+n]
		room = k
	}
	copy(b[from:], size[:room])
	return b
}
