package pipeline

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// valuesOf is what a Typed says: the values by their events' places in the batch.
func valuesOf(t *Typed) map[uint32]string {
	all := map[uint32]string{}
	for i, row := range t.Rows {
		if t.Kind == TypedText {
			all[row-t.First] = string(t.String(i))
		} else {
			all[row-t.First] = fmt.Sprint(t.Bits[i])
		}
	}
	return all
}

// typedOf makes a Typed of the values of a batch that begins at a place.
func typedOf(kind TypedKind, first uint32, values map[uint32]string, events uint32) *Typed {
	t := &Typed{Path: "a.b", Kind: kind, First: first}
	for at := range events {
		v, ok := values[at]
		if !ok {
			continue
		}
		t.Rows = append(t.Rows, first+at)
		if kind == TypedText {
			t.Text = append(t.Text, v...)
			t.Ends = append(t.Ends, uint32(len(t.Text)))
		} else {
			var bits uint64
			fmt.Sscan(v, &bits)
			t.Bits = append(t.Bits, bits)
		}
	}
	return t
}

// A slice has the values of its events, also a slice of a slice, and leaves those of the whole.
func TestSlice(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 2000 {
		kind := TypedKind(random.IntN(4))
		events, first := random.Uint32N(12), random.Uint32N(3)*1000
		values := map[uint32]string{}
		for at := range events {
			if random.IntN(3) > 0 {
				values[at] = fmt.Sprint(random.IntN(100_000))
				if kind == TypedText && random.IntN(4) == 0 {
					values[at] = ""
				}
			}
		}
		whole := typedOf(kind, first, values, events)
		if diff := cmp.Diff(values, valuesOf(whole)); diff != "" {
			t.Fatalf("round %d: the test's own Typed is wrong (-want +got):\n%s", round, diff)
		}
		part, begin, length := whole, uint32(0), events
		for range 3 {
			from := random.Uint32N(length + 1)
			to := from + random.Uint32N(length-from+1)
			part, begin, length = part.Slice(from, to), begin+from, to-from
			want := map[uint32]string{}
			for at := range length {
				if v, ok := values[begin+at]; ok {
					want[at] = v
				}
			}
			if diff := cmp.Diff(want, valuesOf(part)); diff != "" || part.Path != "a.b" || part.Kind != kind {
				t.Fatalf("round %d, events %d to %d of %v: path %s, kind %d (-want +got):\n%s", round, begin, begin+length,
					values, part.Path, part.Kind, diff)
			}
		}
		if diff := cmp.Diff(values, valuesOf(whole)); diff != "" {
			t.Fatalf("round %d: the whole has changed (-want +got):\n%s", round, diff)
		}
	}
}

// A text that is appended to must not overwrite the next one.
func TestStringIsClipped(t *testing.T) {
	typed := typedOf(TypedText, 0, map[uint32]string{0: "ab", 1: "cd"}, 2)
	_ = append(typed.String(0), 'X')
	if got := string(typed.String(1)); got != "cd" {
		t.Errorf("got %s, want cd", got)
	}
}

func TestReset(t *testing.T) {
	for _, kind := range []TypedKind{TypedInt, TypedText} {
		typed := typedOf(kind, 5, map[uint32]string{0: "1", 1: "2"}, 2)
		rows := &typed.Rows[0]
		typed.Reset()
		if len(typed.Rows)+len(typed.Bits)+len(typed.Text)+len(typed.Ends) > 0 || typed.First != 0 || typed.Begin != 0 ||
			typed.Path != "a.b" || typed.Kind != kind {
			t.Errorf("got %+v", typed)
		}
		if again := append(typed.Rows, 1); &again[0] != rows {
			t.Error("its memory is not kept")
		}
	}
}
