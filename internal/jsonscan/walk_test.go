package jsonscan

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
)

// Numbers are those of strconv, bit for bit.
func TestWalkerNumbers(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	texts := []string{"0.0", "-0.0", "0.1", "123456789012345.6", "99999999999999.9", "-1.5", "1e5", "1.5e-7",
		"0.30000000000000004", "18446744073709551615", "1.7976931348623157e308", "5e-324", "100000000000000000000"}
	for range 200_000 {
		texts = append(texts, strconv.FormatFloat(rnd.NormFloat64()*math.Pow(10, float64(rnd.IntN(12))), 'f', rnd.IntN(9),
			64))
	}
	for _, text := range texts {
		w := NewWalker([]byte(text + ","))
		v, err := w.Value()
		if text == "-0" {
			continue // a whole number, which has one zero
		}
		if err != nil || w.At() != len(text) || string(v.Raw) != text {
			t.Fatalf("%s: %q at %d, %v", text, v.Raw, w.At(), err)
		}
		want, _ := strconv.ParseFloat(text, 64)
		got := math.Float64frombits(v.Bits)
		if v.Kind != FloatValue {
			if got = v.Float(); v.Kind == IntValue {
				got = float64(int64(v.Bits))
			}
		}
		if math.Float64bits(got) != math.Float64bits(want) {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

func TestWalkerText(t *testing.T) {
	for _, tt := range []struct {
		in, content string
		escaped     bool
	}{{`""`, ``, false}, {`"abc"`, `abc`, false}, {`"a\"b"`, `a"b`, true}, {`"\\"`, `\`, true},
		{`"eight ch\n and more of it"`, "eight ch\n and more of it", true}, {`"ü😀"`, "ü😀", false}} {
		w := NewWalker([]byte(tt.in + `,"next"`))
		v, err := w.Value()
		if err != nil || v.Escaped != tt.escaped || string(v.AppendText(nil)) != tt.content || w.At() != len(tt.in) {
			t.Errorf("%s: %q, escaped %v, at %d, %v", tt.in, v.AppendText(nil), v.Escaped, w.At(), err)
		}
	}
	for _, bad := range []string{`"`, `"a`, `"a\`, `"a\"`} {
		w := NewWalker([]byte(bad))
		if _, err := w.Value(); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}
