package tokenbucket

import (
	"testing"
	"time"
)

var (
	start = time.Date(2026, 11, 22, 3, 45, 0, 0, time.UTC)
	ten   = Rate{PerSecond: 10, Burst: 20}
)

func after(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }

func TestWait(t *testing.T) {
	var b Bucket
	if got := b.Wait(ten, 20, start); got != 0 {
		t.Errorf("a full bucket: wait %s, want 0", got)
	}
	b.Take(20)
	for _, c := range []struct {
		n    float64
		at   float64
		want time.Duration
	}{
		{1, 0, 100 * time.Millisecond},
		{10, 0, time.Second},
		{10, 0.5, 500 * time.Millisecond},
		{10, 1, 0},
		{1000, 1, time.Second}, // fits when the bucket is full
		{1000, 2, 0},
	} {
		if got := b.Wait(ten, c.n, after(c.at)); got != c.want {
			t.Errorf("%v at %v s: wait %s, want %s", c.n, c.at, got, c.want)
		}
	}
}

func TestDebt(t *testing.T) {
	var b Bucket
	b.Wait(ten, 50, start)
	b.Take(50)
	if got := b.Level(ten, start); got != -30 {
		t.Errorf("level %v, want -30", got)
	}
	if got, want := b.Wait(ten, 1, start), 3100*time.Millisecond; got != want {
		t.Errorf("30 in debt: wait %s, want %s", got, want)
	}
	b.GiveBack(50)
	if got := b.Wait(ten, 20, start); got != 0 {
		t.Errorf("given back: wait %s, want 0", got)
	}
}

func TestFillStopsAtBurst(t *testing.T) {
	var b Bucket
	b.TakeDownTo(ten, 20, 0, start)
	b.GiveBack(100)
	if b.TakeDownTo(ten, 21, 0, after(100)) {
		t.Error("took 21 of a burst of 20")
	}
	if !b.TakeDownTo(ten, 20, 0, after(100)) {
		t.Error("did not take 20 of a burst of 20")
	}
}

func TestFloor(t *testing.T) {
	var b Bucket
	if !b.TakeDownTo(ten, 25, -5, start) || b.TakeDownTo(ten, 1, -5, start) {
		t.Errorf("left %v: a credit of 5 lets through 25 and no more", b.left)
	}
	b.Spend(ten, 100, -5, start)
	if b.left != -5 {
		t.Errorf("left %v, want the debt to stop at -5", b.left)
	}
	b.Take(5)
	b.Spend(ten, 100, -5, start)
	if b.left != -10 {
		t.Errorf("left %v, want a larger debt to stay at -10", b.left)
	}
}

func TestOtherRate(t *testing.T) {
	var b Bucket
	b.Wait(ten, 20, start)
	b.Take(20)
	if got, want := b.Wait(Rate{PerSecond: 20, Burst: 20}, 20, start), time.Second; got != want {
		t.Errorf("at twice the rate: wait %s, want %s", got, want)
	}
}
