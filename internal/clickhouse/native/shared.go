package native

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
)

// columnPaths is the most paths of a JSON column that are columns of a block. All other paths share one column: each
// row has a list of them with their values. A path that is a column costs the server for each row of the block,
// whether the row has it or not; in the shared column it costs for each value.
const columnPaths = 256

// split returns the paths that become columns, and those that are shared, both in order. The most frequent paths become
// columns. Of equally frequent ones these are the last in order, because the server chooses in the same way when it
// merges parts: so it need not move values between the two.
func (o *jsonObject) split(limit int) (columns, rest []*dynamic) {
	for _, d := range o.paths {
		if d.used() {
			columns = append(columns, d)
		}
	}
	byPath := func(x, y *dynamic) int { return strings.Compare(x.path, y.path) }
	if len(columns) > limit {
		slices.SortFunc(columns, func(x, y *dynamic) int { return cmp.Or(y.values()-x.values(), byPath(y, x)) })
		columns, rest = columns[:limit], columns[limit:]
		slices.SortFunc(columns, byPath)
		slices.SortFunc(rest, byPath)
	}
	return columns, rest
}

// values returns the number of rows that have the path.
func (d *dynamic) values() (n int) {
	for _, t := range d.types {
		n += t.n
	}
	return n
}

// shared writes paths that are not columns. The server has them as Map(String, String), where a value is its type and
// its bytes.
type shared struct {
	paths  []*dynamic
	rows   int
	types  []sharedType
	ends   []uint32 // for each row, the end of its values
	values []sharedValue
}

// sharedType is the values of one type of a path.
type sharedType struct {
	*typed
	path []byte // after its length
	form sharedForm
}

// sharedForm is how a value is written.
type sharedForm byte

const (
	formOther  sharedForm = iota
	formNumber            // 8 bytes
	formText
)

// sharedValue is a value of a row: its place among those of a type.
type sharedValue struct{ of, at uint32 }

// head appends what precedes the values. Version 2 of an object's serialization has shared paths, unlike version 3.
func (s *shared) head(b []byte, columns []*dynamic) []byte {
	b = binary.LittleEndian.AppendUint64(b, 2)
	b = binary.AppendUvarint(b, uint64(len(columns)))
	for _, d := range columns {
		b = appendString(b, d.path)
	}
	for _, d := range columns {
		b = d.head(b)
	}
	return b
}

// gather lists the values of each row, in the order of their paths.
func (s *shared) gather() {
	s.ends = make([]uint32, s.rows+1)
	for _, d := range s.paths {
		for i, kind := range d.index {
			if kind != null {
				s.ends[d.row(i)+1]++
			}
		}
	}
	for row := range s.rows {
		s.ends[row+1] += s.ends[row]
	}
	s.values = make([]sharedValue, s.ends[s.rows])
	next := slices.Clone(s.ends)
	for _, d := range s.paths {
		var count [256]uint32
		first := uint32(len(s.types))
		for i, kind := range d.index {
			if kind != null {
				row := d.row(i)
				s.values[next[row]] = sharedValue{first + uint32(kind), count[kind]}
				next[row]++
				count[kind]++
			}
		}
		for _, t := range d.types {
			s.types = append(s.types, sharedType{t, appendString(nil, d.path), t.locate()})
		}
	}
}

func (s *shared) of(row uint32) []sharedValue { return s.values[s.ends[row]:s.ends[row+1]] }

// write writes the given rows: the end of each row's values, then all paths, then all values.
func (s *shared) write(k *sink, rows []uint32) {
	s.gather()
	end := uint64(0)
	for _, row := range rows {
		end += uint64(len(s.of(row)))
		k.uint64(end)
		k.room()
	}
	for _, row := range rows {
		for _, v := range s.of(row) {
			k.buf = append(k.buf, s.types[v.of].path...)
			k.room()
		}
	}
	var value []byte
	for _, row := range rows {
		for _, v := range s.of(row) {
			switch t := &s.types[v.of]; t.form {
			case formNumber:
				k.buf = append(k.buf, 9, t.code[0])
				k.buf = append(k.buf, t.data[8*v.at:8*v.at+8]...)
			case formText:
				text := t.data[t.starts[v.at]:t.starts[v.at+1]]
				k.buf = append(binary.AppendUvarint(k.buf, uint64(len(text)+1)), t.code[0])
				k.bytes(text)
			default:
				value = t.appendAt(append(value[:0], t.code...), v.at)
				k.buf = binary.AppendUvarint(k.buf, uint64(len(value)))
				k.bytes(value)
			}
			k.room()
		}
	}
	s.types, s.ends, s.values = nil, nil, nil
}

// locate prepares appendAt.
func (t *typed) locate() sharedForm {
	t.code = appendCode(t.code[:0], t.name)
	switch {
	case t.objects != nil:
		for _, d := range t.objects.paths {
			d.locate()
		}
	case t.dynamic != nil:
		t.dynamic.locate()
	case t.element != nil:
		t.element.locate()
	case t.name == "String":
		t.starts = t.textStarts(t.starts)
		return formText
	case t.name != "Bool":
		return formNumber
	}
	return formOther
}

func (d *dynamic) locate() {
	var count [256]uint32
	d.at = d.at[:0]
	for _, kind := range d.index {
		d.at = append(d.at, count[kind])
		count[kind]++
	}
	for _, t := range d.types {
		t.locate()
	}
}

// appendAt appends a value without its type, as the server's format RowBinary has it.
func (t *typed) appendAt(b []byte, at uint32) []byte {
	switch {
	case t.array:
		from, end := t.elements(at)
		b = binary.AppendUvarint(b, uint64(end-from))
		for e := from; e < end; e++ {
			b = t.appendElement(b, e)
		}
		return b
	case t.objects != nil:
		return t.objects.appendAt(b, at)
	case t.name == "String":
		return append(b, t.data[t.starts[at]:t.starts[at+1]]...)
	case t.name == "Bool":
		return append(b, t.data[at])
	}
	return append(b, t.data[8*at:8*at+8]...)
}

func (t *typed) appendElement(b []byte, e uint32) []byte {
	switch {
	case t.objects != nil:
		return t.objects.appendAt(b, e)
	case t.dynamic != nil:
		return t.dynamic.appendAt(b, e)
	case t.nulls != nil:
		if b = append(b, t.nulls[e]); t.nulls[e] != 0 {
			return b
		}
	}
	return t.element.appendAt(b, e)
}

func (o *jsonObject) appendAt(b []byte, row uint32) []byte {
	n := 0
	for _, d := range o.paths {
		if d.has(row) {
			n++
		}
	}
	b = binary.AppendUvarint(b, uint64(n))
	for _, d := range o.paths {
		if d.has(row) {
			b = d.appendAt(appendString(b, d.path), row)
		}
	}
	return b
}

func (d *dynamic) has(row uint32) bool { return int(row) < len(d.index) && d.index[row] != null }

// appendAt appends a value after its type.
func (d *dynamic) appendAt(b []byte, row uint32) []byte {
	if !d.has(row) {
		return append(b, codeNothing)
	}
	t := d.types[d.index[row]]
	return t.appendAt(append(b, t.code...), d.at[row])
}

// The server's codes of types.
const (
	codeNothing  = 0x00
	codeUInt64   = 0x04
	codeInt64    = 0x0a
	codeFloat64  = 0x0e
	codeString   = 0x15
	codeArray    = 0x1e
	codeNullable = 0x23
	codeDynamic  = 0x2b
	codeBool     = 0x2d
	codeJSON     = 0x30
)

// dynamicTypes is max_dynamic_types of Dynamic.
const dynamicTypes = 32

// appendCode appends the code of a type.
func appendCode(b []byte, name string) []byte {
	if inner, ok := cutArray(name); ok {
		return appendCode(append(b, codeArray), inner)
	}
	if inner, ok := cutNullable(name); ok {
		return appendCode(append(b, codeNullable), inner)
	}
	switch name {
	case "UInt64":
		return append(b, codeUInt64)
	case "Int64":
		return append(b, codeInt64)
	case "Float64":
		return append(b, codeFloat64)
	case "String":
		return append(b, codeString)
	case "Bool":
		return append(b, codeBool)
	case "Dynamic":
		return append(b, codeDynamic, dynamicTypes)
	}
	types, paths := objectLimits(name)
	b = append(b, codeJSON, 0) // version 0 of the code
	b = binary.AppendUvarint(b, uint64(paths))
	return append(b, byte(types), 0, 0, 0) // no typed paths, none to skip
}

// objectLimits returns the limits in a type that objectType has made.
func objectLimits(name string) (types, paths int) {
	limits := strings.FieldsFunc(name, func(c rune) bool { return c < '0' || c > '9' })
	types, _ = strconv.Atoi(limits[0])
	paths, _ = strconv.Atoi(limits[1])
	return types, paths
}
