package native

import (
	"encoding/binary"
	"slices"

	"github.com/penstock/penstock/internal/jsonscan"
)

// dynamic is a column of values of any type.
type dynamic struct {
	path  string
	depth nesting
	size  *extent
	index []byte // type of each row so far; null: no value
	types []*typed
	at    []uint32 // see locate
}

const null = 255

// typed is the values of one type.
type typed struct {
	name    string
	n       int
	data    []byte
	array   bool
	nulls   []byte      // for an array's elements; nil: not nullable
	element *typed      // for an array of one type
	dynamic *dynamic    // for an array of several types
	objects *jsonObject // for an array of objects
	count   int         // elements so far

	code   []byte   // see locate
	starts []uint32 // see locate
}

// of returns the values of a type, and its index.
func (d *dynamic) of(name string) (*typed, byte, error) {
	for i, t := range d.types {
		if t.name == name {
			return t, byte(i), nil
		}
	}
	if len(d.types) == null-1 {
		return nil, 0, ErrNotColumnar
	}
	if err := d.size.part(); err != nil {
		return nil, 0, err
	}
	t := newTyped(name, d.depth, d.size)
	d.types = append(d.types, t)
	return t, byte(len(d.types) - 1), nil
}

// put gives a row a value of type i. Values of one type arrive in the order of rows.
func (d *dynamic) put(row int, i byte) error {
	if row < len(d.index) {
		if d.index[row] != null {
			return ErrNotColumnar // the document has the path twice
		}
		d.index[row] = i
		return nil
	}
	if d.size.cells += row + 1 - len(d.index); d.size.cells > maxCells {
		return ErrNotColumnar
	}
	for len(d.index) < row {
		d.index = append(d.index, null)
	}
	d.index = append(d.index, i)
	return nil
}

// add reads a value that is not null.
func (d *dynamic) add(p *jsonscan.Walker, row int) error {
	if p.Peek() == '{' { // an object among values of other types
		if d.depth.full() {
			return ErrNotColumnar // the server has the same limit
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

// used reports whether there is any value. A reused block may have paths and types without rows.
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
	var as [256]byte // index of each type among the types in use
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
		s.bytes(make([]byte, len(rows)))
		d.types[0].write(s, rows)
		return
	}
	// The index of each row's value among the values of its type.
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

func (d *dynamic) reset() {
	d.index = emptied(d.index)
	for _, t := range d.types {
		t.reset()
	}
}
