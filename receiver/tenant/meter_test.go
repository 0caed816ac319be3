package tenant

import (
	"testing"
	"time"

	"github.com/penstock/penstock/receiver/errcode"
)

var start = time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

func limitedTenant(t *testing.T, p Project) *Tenant[string] {
	t.Helper()
	p.Name = "game"
	s := newStore()
	if err := s.Replace([]Project{p}, nil); err != nil {
		t.Fatal(err)
	}
	return s.Project("game")
}

// send takes a request through its account; nil: it was accepted.
func send(tenant *Tenant[string], bytes int64, events int, now time.Time) *Limit {
	a := tenant.Open("")
	if l := a.Enter(bytes, now); l != nil {
		return l
	}
	if l := a.Count(events, now); l != nil {
		a.Refund()
		return l
	}
	a.Use(events, bytes, now)
	return nil
}

func TestRates(t *testing.T) {
	tenant := limitedTenant(t, Project{Events: Rate{PerSecond: 10, Burst: 100}, Bytes: Rate{PerSecond: 1000, Burst: 5000}})
	for _, c := range []struct {
		at     float64
		bytes  int64
		events int
		of     string // empty: accepted
		left   int64
		wait   time.Duration
	}{
		{0, 1000, 60, "", 0, 0},
		{0, 4500, 1, "bytes", 4000, 500 * time.Millisecond},
		{0, 1000, 60, "events", 40, 2 * time.Second},
		{2, 1000, 60, "", 0, 0},
		{2, 1, 1, "events", 0, 100 * time.Millisecond},
		{100, 6000, 300, "", 0, 0}, // more than the burst: once, from full buckets
		{100, 1, 1, "events", 0, 20100 * time.Millisecond},
	} {
		l := send(tenant, c.bytes, c.events, at(c.at))
		if l == nil {
			l = &Limit{}
		}
		if l.Of != c.of || l.Left != c.left || l.Wait.Round(time.Millisecond) != c.wait {
			t.Errorf("%+v: got %q, %d left, wait %s", c, l.Of, l.Left, l.Wait)
		}
		if c.of != "" && (l.PerDay || l.Error().Code != errcode.RateLimited || l.Seconds() < 1) {
			t.Errorf("%+v: got %+v", c, l)
		}
	}
}

// A refund leaves the buckets as they were.
func TestRefund(t *testing.T) {
	tenant := limitedTenant(t, Project{Events: Rate{PerSecond: 1, Burst: 100}, Bytes: Rate{PerSecond: 1, Burst: 1000}})
	for range 5 {
		a := tenant.Open("")
		if l := a.Enter(900, start); l != nil {
			t.Fatalf("%+v", l)
		}
		a.Grow(1500)
		if l := a.Count(90, start); l != nil {
			t.Fatalf("%+v", l)
		}
		a.Refund()
	}
	if l := send(tenant, 1000, 100, start); l != nil {
		t.Errorf("full buckets after refunds: %+v", l)
	}
}

// A flood is rejected by its heads, because similar requests had too many events.
func TestFloodIsNotEntered(t *testing.T) {
	tenant := limitedTenant(t, Project{Events: Rate{PerSecond: 100, Burst: 200}})
	for _, want := range []bool{true, true, false} {
		if l := send(tenant, 900, 90, start); (l == nil) != want {
			t.Fatalf("%+v", l)
		}
	}
	enter := func(bytes int64, encoding string, now time.Time) *Limit {
		a := tenant.Open(encoding)
		return a.Enter(bytes, now)
	}
	if l := enter(900, "", start); l == nil || l.Left != 20 {
		t.Errorf("as long: %+v", l)
	}
	if l := enter(1800, "", start); l == nil || l.Seconds() != 2 {
		t.Errorf("twice as long: %+v", l)
	}
	if l := enter(800, "", start); l != nil {
		t.Errorf("shorter: %+v", l)
	}
	if l := enter(900, "gzip", start); l != nil {
		t.Errorf("another encoding: %+v", l)
	}
	if l := enter(900, "", at(0.7)); l != nil {
		t.Errorf("when 90 events fit: %+v", l)
	}
}

func TestQuota(t *testing.T) {
	tenant := limitedTenant(t, Project{Quota: Quota{Events: 100, Bytes: 10_000}})
	for i, want := range []bool{true, true, false} { // the one that crosses the quota is the last
		if l := send(tenant, 10, 60, start); (l == nil) != want {
			t.Fatalf("%d: %+v", i, l)
		}
	}
	l := send(tenant, 10, 1, start)
	if l == nil || !l.PerDay || l.Of != "events" || l.Limit != 100 || l.Wait != 4*time.Hour ||
		l.Name() != "events a day" ||
		l.Error().Code != errcode.QuotaExceeded {
		t.Errorf("%+v", l)
	}
	if l := send(tenant, 20_000, 1, start.Add(4*time.Hour)); l != nil {
		t.Errorf("the next day: %+v", l)
	}
	if l := send(tenant, 1, 1, start.Add(5*time.Hour)); l == nil || l.Of != "bytes" {
		t.Errorf("beyond the bytes: %+v", l)
	}
}

func TestNoLimits(t *testing.T) {
	var none *Tenant[string]
	for _, a := range []Account{none.Open(""), limitedTenant(t, Project{}).Open("")} {
		if a.Limited() || a.Enter(1<<40, start) != nil || a.Count(1<<30, start) != nil {
			t.Errorf("%+v is limited", a)
		}
		a.Grow(1)
		a.Use(1, 1, start)
		a.Refund()
	}
}

// Limits survive other settings: a new file fills nobody's bucket.
func TestMeterOutlivesSettings(t *testing.T) {
	s := newStore()
	replace := func(r Rate) {
		t.Helper()
		if err := s.Replace([]Project{{Name: "game", Events: r}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	replace(Rate{PerSecond: 1, Burst: 100})
	if l := send(s.Project("game"), 1, 100, start); l != nil {
		t.Fatalf("%+v", l)
	}
	replace(Rate{PerSecond: 2, Burst: 50})
	if l := send(s.Project("game"), 1, 20, start); l == nil || l.Limit != 2 || l.Wait != 25*time.Second {
		// A body as long as the last one is taken to have as many events, which need a full bucket.
		t.Errorf("%+v", l)
	}
}
