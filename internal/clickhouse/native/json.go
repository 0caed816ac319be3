package native

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// jsonColumn is a JSON column in a form that the server need not parse: the flattened serialization of Native blocks
// (version 3). Values are appended in the form in which they are sent.
//
//	object   u64 3, number of paths, their names; for each path a dynamic's head; then for each path a dynamic's values
//	dynamic  head: u64 3, number of types, their names, for each type its head
//	         values: an index byte for each row (the number of types: NULL), then each type's values, packed
//	array    its element's head; u64 offsets, then a byte for each value if the element is nullable, then the values
//
// If there are too many paths, the rest is shared (shared.go):
//
//	object   u64 2, number of columns, their paths; for each a dynamic's head; then for each a dynamic's values; then the
//	         shared paths: u64 offsets, then all paths, then all values, each a string of its type's code and its bytes
//
// Types are those that the server infers from text, because a table may hold rows of both: Bool, Int64, UInt64,
// Float64, String, Array(Nullable(…)) of these, Array(JSON(…)), arrays of arrays. Where text would lose information,
// the type is Array(Dynamic), which keeps each element as it was sent. In text, a bool among numbers becomes 1, and a
// large integer among floats loses digits.
type jsonColumn struct {
	kind string // its type
	rows int
	root jsonObject
	size extent
	doc  jsonscan.Walker

	batch batch
}

// defaultPaths is max_dynamic_paths of a JSON column that does not set it.
const defaultPaths = 1024

// newJSON returns a column of type JSON or JSON(max_dynamic_paths=N).
func newJSON(kind string) jsonColumn {
	paths := defaultPaths
	if _, limit, ok := strings.Cut(kind, "="); ok {
		if n, err := strconv.Atoi(strings.Trim(limit, " )")); err == nil {
			paths = n
		}
	}
	return jsonColumn{kind: kind, root: jsonObject{depth: nesting{paths: paths}}}
}

// extent is the size of a column, including columns of objects within arrays: keys that are ids create many columns
// there too.
type extent struct {
	paths int
	parts int // paths, types and keys
	cells int // rows × paths
}

// ErrNotColumnar means that a block cannot be sent in columns: the server must
// parse its text.
var ErrNotColumnar = errors.New("not columnar")

// maxPaths and maxCells bound the columns of a block: each path costs a byte for each row, even if few rows have it.
// maxParts bounds structures of about 200 bytes each.
const (
	maxPaths = 16 << 10
	maxParts = 8 * maxPaths
	maxCells = 128 << 20
)

// part counts a path, type or key, which many rows share.
func (e *extent) part() error {
	if e.parts++; e.parts > maxParts {
		return ErrNotColumnar
	}
	return nil
}

// jsonObject is a column of objects.
type jsonObject struct {
	depth  nesting // of arrays of objects around it
	size   *extent
	tree   node
	paths  []*dynamic
	byPath map[string]*dynamic
}

// node is a key within an object, with the keys below it.
type node struct {
	key    string
	path   string
	at     int      // index in the parent's order
	column *dynamic // nil: only objects so far
	order  []*node  // children in order of first appearance
	byKey  map[string]*node
}

// append adds a row of valid JSON. It returns ErrNotColumnar if columns would change its values.
func (c *jsonColumn) append(text []byte) error {
	c.doc = jsonscan.NewWalker(text)
	c.root.size = &c.size
	if err := c.root.add(&c.doc, c.rows); err != nil {
		return err
	}
	c.rows++
	return nil
}

// appendAll adds the properties of the picked events, in this order. Some values are in typed instead of the text.
func (c *jsonColumn) appendAll(events []pipeline.Event, typed []*pipeline.Typed, pick []uint32) error {
	c.root.size = &c.size
	err := c.begin(typed, len(events), pick)
	for _, i := range pick {
		switch {
		case err != nil:
		case len(typed) > 0 && len(events[i].Properties) == 2: // {}
			c.rows++
		default:
			err = c.append(events[i].Properties)
		}
	}
	return c.end(err)
}

// column returns the rows in the given order.
func (c *jsonColumn) column(name string, order []uint32) Column {
	if columns, rest := c.root.split(min(columnPaths, c.root.depth.paths)); len(rest) > 0 {
		s := &shared{paths: rest, rows: c.rows}
		return Column{Name: name, Type: c.kind, Rows: len(order),
			state: func(b []byte) []byte { return s.head(b, columns) },
			write: func(k *sink) {
				for _, d := range columns {
					d.write(k, order)
				}
				s.write(k, order)
			}}
	}
	return Column{Name: name, Type: c.kind, Rows: len(order), state: c.root.head,
		write: func(s *sink) { c.root.write(s, order) }}
}

// JSON returns a column of one document.
func JSON(name, kind string, document []byte) (Column, error) {
	c := newJSON(kind)
	if err := c.append(document); err != nil {
		return Column{}, err
	}
	return c.column(name, []uint32{0}), nil
}

// add reads an object as a row.
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
	next := 0 // index of the next key, if keys come in the same order as before
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

// child finds or creates the node of a key.
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
	if p.Peek() == 'n' { // null means absent
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

// path returns the column of a path. Both spellings, "a.b" and "a":{"b"}, are the same column.
func (o *jsonObject) path(path string) (*dynamic, error) {
	if d := o.byPath[path]; d != nil {
		return d, nil
	}
	if o.size.paths == maxPaths {
		return nil, ErrNotColumnar
	}
	if err := o.size.part(); err != nil {
		return nil, err
	}
	o.size.paths++
	if o.byPath == nil {
		o.byPath = map[string]*dynamic{}
	}
	d := &dynamic{path: path, depth: o.depth, size: o.size, top: o.depth.depth == 0}
	o.byPath[path] = d
	o.paths = append(o.paths, d)
	return d, nil
}

// head appends what precedes the values: paths and types.
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

// write writes the column's rows in the given order.
func (o *jsonObject) write(s *sink, rows []uint32) {
	for _, d := range o.paths {
		if d.used() {
			d.write(s, rows)
		}
	}
}

// reset removes all rows. It keeps paths, types and memory, unless the memory is much larger than the last block
// needed.
func (c *jsonColumn) reset() {
	c.rows, c.doc, c.size.cells = 0, jsonscan.Walker{}, 0
	c.root.reset()
}

func (o *jsonObject) reset() {
	for _, d := range o.paths {
		d.reset()
	}
}
