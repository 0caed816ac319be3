package native

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Default returns a column that has the default value of its type in all rows.
func Default(name, kind string, rows int) (Column, error) {
	d, err := newDefaults(kind)
	if err != nil {
		return Column{}, err
	}
	return Column{Name: name, Type: kind, Rows: rows, state: d.state, write: func(s *sink) {
		for _, width := range d.widths {
			for left := rows * width; left > 0; {
				n := min(left, sinkBytes)
				clear(s.reserve(n))
				left -= n
				s.room()
			}
		}
	}}, nil
}

// defaults is the encoding of a type's default values: zeros. An empty array is an offset of zero without elements.
type defaults struct {
	widths []int // bytes of a row in each part
	heads  int   // number of LowCardinality columns, each with a head
}

func newDefaults(kind string) (d defaults, err error) {
	switch kind {
	case "Bool", "UInt8", "String":
		return defaults{widths: []int{1}}, nil
	case "UInt64", "Float64":
		return defaults{widths: []int{8}}, nil
	}
	name, inner, ok := strings.Cut(strings.TrimSuffix(kind, ")"), "(")
	switch {
	case ok && name == "Array":
		d.widths, d.heads = []int{8}, strings.Count(inner, "LowCardinality(")
		return d, nil
	case ok && name == "Tuple":
		for len(inner) > 0 {
			var field string
			field, inner = cutField(inner)
			_, kind, named := strings.Cut(field, " ")
			if !named {
				return d, fmt.Errorf("no name in %q", field)
			}
			of, err := newDefaults(kind)
			if err != nil {
				return d, err
			}
			d.widths, d.heads = append(d.widths, of.widths...), d.heads+of.heads
		}
		return d, nil
	}
	return d, fmt.Errorf("no default of type %s", kind)
}

// cutField splits off the first field of a tuple.
func cutField(fields string) (first, rest string) {
	depth := 0
	for i, c := range fields {
		switch c {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				return strings.TrimSpace(fields[:i]), strings.TrimSpace(fields[i+1:])
			}
		}
	}
	return strings.TrimSpace(fields), ""
}

func (d defaults) state(b []byte) []byte {
	for range d.heads {
		b = binary.LittleEndian.AppendUint64(b, 1)
	}
	return b
}

// Has reports whether a row has one of the names, or a property at one of the paths.
func (b *Block) Has(names, paths []string) bool {
	for _, name := range b.key.Names.Values {
		for _, n := range names {
			if string(name) == n {
				return true
			}
		}
	}
	for _, path := range paths {
		if d := b.properties.root.byPath[path]; d != nil && d.used() {
			return true
		}
	}
	return false
}
