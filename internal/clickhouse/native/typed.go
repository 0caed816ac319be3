package native

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"

	"github.com/penstock/penstock/internal/jsonscan"
)

func newTyped(name string, depth nesting, size *extent) *typed {
	t := &typed{name: name}
	inner, ok := cutArray(name)
	if !ok {
		if strings.HasPrefix(name, "JSON") {
			t.objects = &jsonObject{depth: depth.below(), size: size}
		}
		return t
	}
	t.array = true
	switch {
	case strings.HasPrefix(inner, "JSON"):
		t.objects = &jsonObject{depth: depth.below(), size: size}
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

// add appends a value of this type.
func (t *typed) add(v jsonscan.Value) error {
	t.n++
	if t.array != (v.Kind == jsonscan.ArrayValue) {
		return ErrNotColumnar
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

// zero appends the placeholder of a null element.
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
	t.data = binary.LittleEndian.AppendUint64(t.data, uint64(t.count)) // the offset after this array
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

// write writes the values of the given rows.
func (t *typed) write(s *sink, rows []uint32) {
	switch {
	case t.array:
		t.writeArrays(s, rows)
	case t.objects != nil:
		t.objects.write(s, rows)
	case t.name == "String":
		starts := t.textStarts(s.starts)
		s.starts = starts
		for _, row := range rows {
			if text := t.data[starts[row]:starts[row+1]]; len(text) < sinkBytes {
				s.buf = append(s.buf, text...)
				s.room()
			} else {
				s.bytes(text)
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

// textStarts returns where each of the strings starts, and where the last one ends, in reused memory.
func (t *typed) textStarts(used []uint32) []uint32 {
	starts := slices.Grow(used[:0], t.n+1)[:t.n+1]
	from := uint32(0)
	for i := range t.n {
		starts[i] = from
		size, k := binary.Uvarint(t.data[from:])
		from += uint32(k) + uint32(size)
	}
	starts[t.n] = from
	return starts
}

// elements returns the range of an array's elements.
func (t *typed) elements(at uint32) (from, end uint32) {
	if at > 0 {
		from = uint32(binary.LittleEndian.Uint64(t.data[8*(at-1):]))
	}
	return from, uint32(binary.LittleEndian.Uint64(t.data[8*at:]))
}

func (t *typed) writeArrays(s *sink, rows []uint32) {
	var elements []uint32
	for _, row := range rows {
		from, end := t.elements(row)
		for e := from; e < end; e++ {
			elements = append(elements, e)
		}
		s.uint64(uint64(len(elements)))
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
			s.buf = append(s.buf, t.nulls[e])
			s.room()
		}
	}
	t.element.write(s, elements)
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

// appendText appends a string after its length. The length is known only after unescaping. So space is left for the
// length of the escaped string, which is never shorter.
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
