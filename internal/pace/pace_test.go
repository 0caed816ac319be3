package pace

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/bubble"
)

// Work is followed by a pause of the same length after each part, and never by a longer one than longest.
func TestPauses(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var p Pace
		did := func(n int, work time.Duration) time.Duration {
			time.Sleep(work)
			began := time.Now()
			p.Did(n)
			return time.Since(began)
		}
		for i, c := range []struct {
			n          int
			work, want time.Duration
		}{
			{part - 1, 0, 0},
			{1, 0, longest}, // the first
			{part / 2, time.Millisecond / 2, 0},
			{part / 2, time.Millisecond / 2, time.Millisecond},
			{3 * part, time.Second, longest},
			{part, 0, 0},
		} {
			if got := did(c.n, c.work); got != c.want {
				t.Errorf("%d: %d bytes after %s: a pause of %s, want %s", i, c.n, c.work, got, c.want)
			}
		}
	})
}

func TestReader(t *testing.T) {
	want := make([]byte, 3*part+17)
	for i := range want {
		want[i] = byte(i * i >> 3)
	}
	r := NewReader(bytes.NewReader(append(want, 'x')), int64(len(want)))
	for range 2 { // a PUT that is tried again
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes (%v), want the %d", len(got), err, len(want))
		}
		if at, err := r.Seek(0, io.SeekStart); at != 0 || err != nil {
			t.Fatalf("seek: %d, %v", at, err)
		}
	}
}
