package codec

import (
	"math"
	"math/rand/v2"
	"testing"
)

// A list returns the numbers that were added, whatever widths they need and in whatever order these come.
func TestNumbers(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var l numbers
	for round := range 200 {
		var want []uint64
		width := rnd.IntN(9)
		for range rnd.IntN(300) {
			if rnd.IntN(60) == 0 {
				width = rnd.IntN(9)
			}
			v := uint64(0)
			if width > 0 {
				v = rnd.Uint64() >> (64 - 8*width)
			}
			l.add(v)
			want = append(want, v)
			if rnd.IntN(20) == 0 {
				l.drop()
				want = want[:len(want)-1]
			}
		}
		if l.n != len(want) || len(l.bytes) != l.n*l.width {
			t.Fatalf("%d numbers in %d bytes of width %d, want %d numbers", l.n, len(l.bytes), l.width, len(want))
		}
		for i, v := range want {
			if got := l.at(uint32(i)); got != v {
				t.Fatalf("number %d is %x, want %x", i, got, v)
			}
		}
		if l.reset(); round%3 == 0 {
			l.width = 0
		}
	}
}

func TestZigzag(t *testing.T) {
	for _, v := range []int64{0, 1, -1, 127, -128, math.MaxInt64, math.MinInt64} {
		if got := zagzig(zigzag(v)); got != v {
			t.Errorf("%d comes back as %d", v, got)
		}
		if small := v > -129 && v < 128; small && zigzag(v) > 255 {
			t.Errorf("%d needs more than a byte: %d", v, zigzag(v))
		}
	}
}
