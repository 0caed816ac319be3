package native

import (
	"fmt"

	"github.com/penstock/penstock/internal/jsonscan"
)

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
			return "", 0, ErrNotColumnar
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
	case !seen[jsonscan.BoolValue] && !seen[jsonscan.StringValue] && !seen[jsonscan.ArrayValue] &&
		!seen[jsonscan.ObjectValue] && seen[jsonscan.FloatValue] && exact:
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
