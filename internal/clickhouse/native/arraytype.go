package native

import (
	"fmt"

	"github.com/penstock/penstock/internal/jsonscan"
)

// arrayType returns the type that the server infers for an array if one column can hold all its elements unchanged;
// otherwise Array(Dynamic). empty is the depth of an array that contains only empty arrays, otherwise 0.
func arrayType(raw []byte, depth nesting) (name string, empty int, err error) {
	var e elements
	p := jsonscan.NewWalker(raw)
	err = p.Elements(func() error {
		switch p.Peek() {
		case 'n':
			e.nulls = true
			return p.Word("null")
		case '{':
			e.seen[jsonscan.ObjectValue] = true
			return p.Skip()
		}
		v, err := p.Value()
		if err != nil {
			return err
		}
		e.seen[v.Kind] = true
		switch v.Kind {
		case jsonscan.ArrayValue:
			name, empty, err := arrayType(v.Raw, depth)
			if err != nil {
				return err
			}
			e.array(name, empty)
		case jsonscan.IntValue, jsonscan.UintValue:
			e.inexact = e.inexact || !v.Exact()
			e.negative = e.negative || v.Kind == jsonscan.IntValue && int64(v.Bits) < 0
		}
		return nil
	})
	if err != nil {
		return "", 0, err
	}
	return e.arrayType(depth)
}

// elements summarizes an array's elements.
type elements struct {
	seen     [8]bool // by kind of value
	nulls    bool
	inexact  bool   // an integer that a float cannot hold
	negative bool   // an integer below 0
	inner    string // type of the nested arrays
	open     int    // depth of nested arrays while all are empty
	mixed    bool   // the types differ
}

// array adds a nested array.
func (e *elements) array(name string, empty int) {
	switch {
	case e.inner == "",
		e.open > 0 && (empty > e.open || empty == 0 && arrayDepth(name) >= e.open):
		e.inner, e.open = name, empty
	case e.open > 0 && empty == 0, empty > arrayDepth(e.inner), empty == 0 && name != e.inner:
		e.mixed = true
	}
}

func (e *elements) arrayType(depth nesting) (name string, empty int, err error) {
	kinds := 0
	var kind jsonscan.ValueKind
	for k, s := range e.seen {
		if s {
			kinds++
			kind = jsonscan.ValueKind(k)
		}
	}
	numbers := !e.seen[jsonscan.BoolValue] && !e.seen[jsonscan.StringValue] && !e.seen[jsonscan.ArrayValue] &&
		!e.seen[jsonscan.ObjectValue]
	switch {
	case kinds == 0 && e.nulls:
		return "Array(Nullable(String))", 0, nil
	case kinds == 0:
		return "Array(Nullable(String))", 1, nil
	case kinds == 1 && kind == jsonscan.ObjectValue && !e.nulls:
		if depth.full() {
			return "", 0, ErrNotColumnar
		}
		return "Array(" + objectType(depth) + ")", 0, nil
	case kinds == 1 && kind == jsonscan.ArrayValue && !e.nulls && !e.mixed:
		if e.open > 0 {
			e.open++
		}
		return "Array(" + e.inner + ")", e.open, nil
	case kinds == 1 && kind < jsonscan.ArrayValue:
		return "Array(Nullable(" + typeName(kind) + "))", 0, nil
	case numbers && !e.seen[jsonscan.FloatValue] && !e.negative:
		return "Array(Nullable(UInt64))", 0, nil
	case numbers && e.seen[jsonscan.FloatValue] && !e.inexact:
		return "Array(Nullable(Float64))", 0, nil
	}
	return "Array(Dynamic)", 0, nil
}

// arrayDepth returns how many arrays are nested in a type.
func arrayDepth(name string) (n int) {
	for inner, ok := cutArray(name); ok; inner, ok = cutArray(inner) {
		n++
	}
	return n
}

// nesting is the depth of objects within arrays, in a JSON column with a limit of paths.
type nesting struct{ depth, paths int }

func (n nesting) below() nesting { return nesting{n.depth + 1, n.paths / 4} }

// full reports whether the server forbids objects within arrays at this depth.
func (n nesting) full() bool { return n.depth > 2 }

// objectType is the type of objects within an array, with the limits that the server sets when it parses text.
func objectType(depth nesting) string {
	return fmt.Sprintf("JSON(max_dynamic_types=%d, max_dynamic_paths=%d)", 16>>depth.depth, depth.paths/4)
}
