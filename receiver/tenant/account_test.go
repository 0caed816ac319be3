package tenant

import (
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// Over any time, at most the burst, the refill and one more request get through, because one may overdraw full buckets.
// A client that waits for Retry-After gets through.
func TestRatesAtRandom(t *testing.T) {
	for seed := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		rate := Rate{PerSecond: 1 + rnd.Float64()*50, Burst: 20 + rnd.Float64()*100}
		tenant := limitedTenant(t, Project{Events: rate})
		now, accepted, largest := start, 0.0, 0.0
		for step := range 400 {
			events := 1 + rnd.IntN(40)
			l := send(tenant, 1<<20-int64(step), events, now) // shorter each time, so none is judged by its head
			// By the head alone, one event is expected, so a client may be rejected twice.
			for try := 0; l != nil && rnd.IntN(4) > 0; try++ {
				if l.Wait <= 0 || l.Left < 0 || l.Left > int64(rate.Burst) || try > 1 && float64(events) <= rate.Burst {
					t.Fatalf("seed %d, step %d, try %d: %d events: %+v", seed, step, try, events, l)
				}
				now = now.Add(l.Wait + time.Millisecond)
				l = send(tenant, 1<<20-int64(step), events, now)
			}
			if l == nil {
				accepted += float64(events)
				largest = max(largest, float64(events))
			}
			if most := rate.Burst + rate.PerSecond*now.Sub(start).Seconds() + largest; accepted > most {
				t.Fatalf("seed %d, step %d: %.0f events in %s, want %.0f at most", seed, step, accepted, now.Sub(start), most)
			}
			now = now.Add(time.Duration(rnd.Int64N(int64(time.Second))))
		}
	}
}

// Requests at the same time are counted exactly: all that were accepted, and nothing twice.
func TestAccountsAtOnce(t *testing.T) {
	const clients, each, quota = 8, 200, 1000
	tenant := limitedTenant(t, Project{Quota: Quota{Events: quota}})
	var wg sync.WaitGroup
	var mu sync.Mutex
	accepted := int64(0)
	for range clients {
		wg.Go(func() {
			for range each {
				if send(tenant, 10, 3, start) == nil {
					mu.Lock()
					accepted += 3
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	tenant.meter.mu.Lock()
	used := tenant.meter.used
	tenant.meter.mu.Unlock()
	if want := (Used{Events: accepted, Bytes: accepted / 3 * 10}); used != want {
		t.Errorf("counted %+v, want %+v", used, want)
	}
	if most := int64(quota + 3*clients); accepted < quota || accepted > most { // those under way when it was crossed
		t.Errorf("%d events came through, want %d to %d", accepted, quota, most)
	}
}

// A key is rejected from the millisecond on at which it expires.
func TestExpired(t *testing.T) {
	end := time.Date(2026, 11, 22, 3, 45, 0, 0, time.FixedZone("east", 3600))
	for _, c := range []struct {
		expires time.Time
		at      time.Duration // after the end
		want    bool
	}{
		{end, -time.Millisecond, false}, {end, 0, true}, {end, time.Hour, true}, {time.Time{}, 0, false},
		{end.UTC(), -time.Millisecond, false}, {end.UTC(), 0, true},
	} {
		k := Key{Expires: c.expires}
		if got := k.Expired(end.Add(c.at).UnixMilli()); got != c.want {
			t.Errorf("expires %s, %s after: got %v, want %v", c.expires, c.at, got, c.want)
		}
	}
}

// A sample keeps its part of the sessions, however much alike their names are, and a part that keeps less keeps some of
// the same.
func TestSampleIsEven(t *testing.T) {
	const n = 20_000
	for what, name := range map[string]func(i int) string{
		"numbers":       func(i int) string { return fmt.Sprint(i) },
		"long, alike":   func(i int) string { return fmt.Sprintf("session-of-a-player-%08d", i) },
		"last is alike": func(i int) string { return fmt.Sprintf("%d-session", i) },
		"ids":           func(i int) string { return fmt.Sprintf("0193b3f0-7b5a-7cde-8f01-%012x", i) },
		"bytes":         func(i int) string { return string([]byte{byte(i), byte(i >> 8)}) },
	} {
		for _, keep := range []float64{0, 0.01, 0.5, 0.9, 1} {
			few := newTenant(Project{Sample: &Sample{By: BySession, Keep: keep / 2}}, 0)
			tenant := newTenant(Project{Sample: &Sample{By: BySession, Keep: keep}}, 0)
			kept := 0
			for i := range n {
				session := []byte(name(i))
				out := tenant.SampledOut([]byte("a"), nil, session, nil)
				if !out {
					kept++
				}
				if out && !few.SampledOut([]byte("a"), nil, session, nil) {
					t.Fatalf("%s: a sample of %g keeps %q, one of %g does not", what, keep/2, session, keep)
				}
			}
			if got, off := float64(kept)/n, 5*math.Sqrt(keep*(1-keep)/n); math.Abs(got-keep) > off {
				t.Errorf("%s: %.4f are kept, want %g", what, got, keep)
			}
		}
	}
}

// A star stands for any text, and nothing else stands for another.
func FuzzNames(f *testing.F) {
	for _, pattern := range []string{"a*b", "*", "**", "a*a", "*a*b*", "a", "", "é*", "a**b", "*ab*ab*"} {
		for _, name := range []string{"", "a", "ab", "aab", "ababab", "xaxbx", "éa", "a*b", "a\nb"} {
			f.Add(pattern, name)
		}
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		parts := strings.Split(pattern, "*")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(strings.ToValidUTF8(parts[i], "?"))
		}
		name, pattern = strings.ToValidUTF8(name, "?"), strings.ToValidUTF8(pattern, "?")
		re, err := regexp.Compile("^(?s:" + strings.Join(parts, ".*") + ")$")
		if err != nil || len(pattern) > 200 {
			return
		}
		if got, want := newMatcher([]string{pattern}).match([]byte(name)), re.MatchString(name); got != want {
			t.Errorf("%q and %q: got %v, want %v", pattern, name, got, want)
		}
	})
}
