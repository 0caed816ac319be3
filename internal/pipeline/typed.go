package pipeline

import "slices"

// TypedKind is the type of a Typed's values.
type TypedKind uint8

// The types of a Typed.
const (
	TypedInt   TypedKind = iota // int64
	TypedFloat                  // float64
	TypedBool
	TypedText
)

// Typed is the values that the events of a batch have at one path of their
// properties, of one type. They are not in the events' own Properties then.
type Typed struct {
	Path string // keys joined by dots; no key has a dot
	Kind TypedKind

	First uint32   // the batch begins at this place
	Rows  []uint32 // the places of the events that have a value, ascending
	Bits  []uint64 // their values: a whole number, a float's bits, 0 or 1
	Text  []byte   // strings, one after the other
	Ends  []uint32 // where each ends in Text
	Begin uint32   // where the first begins
}

// String is the i-th value of a Typed of text.
func (t *Typed) String(i int) []byte {
	from := t.Begin
	if i > 0 {
		from = t.Ends[i-1]
	}
	return t.Text[from:t.Ends[i]:t.Ends[i]]
}

// Reset empties t and keeps its memory.
func (t *Typed) Reset() {
	*t = Typed{Path: t.Path, Kind: t.Kind, Rows: t.Rows[:0], Bits: t.Bits[:0], Text: t.Text[:0], Ends: t.Ends[:0]}
}

// Slice is the values of a range of events, as a separate batch.
func (t *Typed) Slice(from, to uint32) *Typed {
	from, to = from+t.First, to+t.First
	if n := len(t.Rows); n == 0 || from <= t.Rows[0] && t.Rows[n-1] < to {
		s := *t
		s.First = from
		return &s
	}
	a, _ := slices.BinarySearch(t.Rows, from)
	b, _ := slices.BinarySearch(t.Rows, to)
	s := &Typed{Path: t.Path, Kind: t.Kind, First: from, Rows: t.Rows[a:b], Text: t.Text, Begin: t.Begin}
	if t.Kind == TypedText {
		s.Ends = t.Ends[a:b]
		if a > 0 {
			s.Begin = t.Ends[a-1]
		}
	} else {
		s.Bits = t.Bits[a:b]
	}
	return s
}
