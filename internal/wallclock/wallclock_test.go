package wallclock

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/bubble"
)

func TestWatch(t *testing.T) {
	away := errors.New("away")
	today := time.Date(2026, 11, 25, 18, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name   string
		now    time.Time
		offset time.Duration
		store  error
		newest time.Time
		want   string // "": events are taken
	}{
		{"right", today, time.Second, nil, time.Time{}, ""},
		{"a little off", today, -14 * time.Minute, nil, time.Time{}, ""},
		{"behind the store", today, -16 * time.Minute, nil, time.Time{}, "16m0s behind the store's"},
		{"ahead of the store", today, 365 * 24 * time.Hour, nil, time.Time{}, "ahead of the store's"},
		{"store away", today, 0, away, time.Time{}, ""},
		{"1970, store away", time.Unix(30, 0), 0, away, time.Time{}, "before this version was built"},
		{"1970, store there", time.Unix(30, 0), -56 * 365 * 24 * time.Hour, nil, time.Time{}, "behind the store's"},
		{"before the newest segment, store away", today, 0, away, today.Add(time.Hour), "newest segment"},
		{"shortly before the newest segment", today, 0, away, today.Add(time.Minute), ""},
		{"a segment from the future, store there", today, 0, nil, today.Add(9000 * time.Hour), ""},
		{"after the newest segment", today, 0, away, today.Add(-time.Hour), ""},
	} {
		w := New(func(context.Context) (time.Duration, error) { return tt.offset, tt.store },
			func() time.Time { return tt.now },
			slog.New(slog.DiscardHandler))
		w.Found(tt.newest)
		w.Found(tt.newest.Add(-time.Hour))
		w.Check(t.Context())
		err := w.Err()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// A clock that is set after the last measurement is noticed while the store is away, and so is its correction.
func TestWatchNoticesAClockThatIsSet(t *testing.T) {
	var away error
	set := time.Duration(0)
	w := New(func(context.Context) (time.Duration, error) { return time.Minute, away },
		func() time.Time { return time.Now().Add(set) }, slog.New(slog.DiscardHandler))
	w.Check(t.Context())
	away = errors.New("away")
	for _, tt := range []struct {
		set  time.Duration
		want string
	}{
		{0, ""}, {-56 * 365 * 24 * time.Hour, "behind the store's"}, {10 * time.Minute, ""},
		{15 * time.Minute, "16m0s ahead of the store's"}, {-15 * time.Minute, ""},
	} {
		set = tt.set
		w.Check(t.Context())
		if err := w.Err(); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("set by %s: got %v, want %q", tt.set, err, tt.want)
		}
	}
}

// A clock that jumps while the process runs is noticed, and so is its correction.
func TestWatchRecovers(t *testing.T) {
	offset := time.Hour
	w := New(func(context.Context) (time.Duration, error) { return offset, nil }, time.Now, slog.New(slog.DiscardHandler))
	w.Check(t.Context())
	if w.Err() == nil || w.Offset() != time.Hour {
		t.Errorf("an hour off: %v, offset %s", w.Err(), w.Offset())
	}
	offset = 0
	w.Check(t.Context())
	if w.Err() != nil || w.Offset() != 0 {
		t.Errorf("corrected: %v, offset %s", w.Err(), w.Offset())
	}
}

// A right clock is compared every minute, and a wrong one every two seconds until it is right.
func TestRun(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var asked, offset atomic.Int64
		ask := func(context.Context) (time.Duration, error) { asked.Add(1); return time.Duration(offset.Load()), nil }
		w := New(ask, time.Now, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx, CheckEvery) }()
		time.Sleep(10*time.Minute + time.Second)
		if n := asked.Load(); n != 10 || w.Err() != nil {
			t.Errorf("asked %d times in ten minutes, want 10; %v", n, w.Err())
		}
		offset.Store(int64(time.Hour))
		time.Sleep(time.Minute)
		if err := w.Err(); err == nil || w.Offset() != time.Hour {
			t.Errorf("an hour ahead: %v, offset %s", err, w.Offset())
		}
		before := asked.Load()
		time.Sleep(20 * time.Second)
		if n := asked.Load() - before; n != 10 {
			t.Errorf("asked %d times in 20 s, want 10", n)
		}
		offset.Store(0)
		time.Sleep(2 * time.Second)
		if err := w.Err(); err != nil {
			t.Errorf("right again: %v", err)
		}
		cancel()
		<-done
	})
}
