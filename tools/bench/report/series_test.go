package report

import (
	"context"
	"syscall"
	"testing"
	"time"
)

func TestAgeQuantile(t *testing.T) {
	ages := []Ages{{1000, time.Second, 3 * time.Second}, {1000, time.Second, 3 * time.Second},
		{2, 10 * time.Second, 10 * time.Second}}
	for q, want := range map[float64]time.Duration{0: 0, 0.5: 2 * time.Second, 0.75: 2500 * time.Millisecond,
		0.9995: 10 * time.Second, 1: 10 * time.Second} {
		if got := AgeQuantile(ages, q); got < want-5*time.Millisecond || got > want+5*time.Millisecond {
			t.Errorf("quantile %v: %s, want %s", q, got, want)
		}
	}
	if got := AgeQuantile(nil, 0.5); got != 0 {
		t.Errorf("age of no events: %s", got)
	}
}

func TestSampleRSS(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	s := SampleRSS(ctx, 10*time.Millisecond, map[string][]int{"us": {syscall.Getpgrp()}, "nobody": {-1}})
	n := len(s["seconds"])
	if n < 2 || len(s["us"]) != n || len(s["nobody"]) != n || s["us"][0] < 1 || s["nobody"][n-1] != 0 ||
		s["seconds"][n-1] <= s["seconds"][0] {
		t.Errorf("%v", s)
	}
}
