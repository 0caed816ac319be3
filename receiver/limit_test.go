package receiver

// All sleeps here are in bubbles (internal/testing/bubble), fake time that takes none:
// buckets that fill, days that end.

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/penstock/penstock/internal/testing/intake"
)

func events(n int) string { return strings.Repeat(one+"\n", n) }

// Exactly the rate and the burst get through.
func TestEventRate(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r, s := withProjects(t, nil, Project{Events: Rate{PerSecond: 100, Burst: 500}})
		for range 5 {
			if a := sendFile(t, r, events(100)); a.Status != 202 {
				t.Fatalf("within the burst: %+v", a)
			}
		}
		time.Sleep(300 * time.Millisecond)
		a := sendFile(t, r, events(100))
		if a.Status != 429 || a.Error.Code != "rate_limited" || a.Accepted != 0 || a.Header.Get("Retry-After") != "1" {
			t.Fatalf("%+v", a)
		}
		if l := a.Limit; l.Of != "events" || l.Per != "second" || l.Limit != 100 || l.Burst != 500 || l.Left != 30 ||
			l.RetryAfter != 1 || !l.RetryAt.Equal(time.Now().Add(time.Second).Truncate(time.Millisecond)) {
			t.Errorf("%+v", l)
		}
		if a := sendFile(t, r, events(29)); a.Status != 202 {
			t.Errorf("what is left: %+v", a)
		}
		if a := sendFile(t, r, events(400)); a.Header.Get("Retry-After") != "4" || a.Limit.Left != 1 {
			t.Errorf("%+v", a)
		}
		time.Sleep(4 * time.Second)
		if a := sendFile(t, r, events(400)); a.Status != 202 {
			t.Errorf("after the time that was told: %+v", a)
		}
		if len(s.Failures) != 0 {
			t.Errorf("%d failures", len(s.Failures))
		}
		// Another project knows nothing of it.
		if a := serve(t, r, withKey(post("/v1/events", events(900)))); a.Status != 202 {
			t.Errorf("%+v", a)
		}
	})
}

// More than the burst comes through when nothing else did for long, and is paid for.
func TestLargerThanTheBurst(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r, _ := withProjects(t, nil, Project{Events: Rate{PerSecond: 10, Burst: 100}})
		if a := sendFile(t, r, events(1)); a.Status != 202 {
			t.Fatalf("%+v", a)
		}
		if a := sendFile(t, r, events(300)); a.Status != 429 || a.Limit.RetryAfter != 1 {
			t.Fatalf("not full: %+v", a)
		}
		time.Sleep(time.Second)
		if a := sendFile(t, r, events(300)); a.Status != 202 {
			t.Fatalf("full: %+v", a)
		}
		if a := sendFile(t, r, events(1)); a.Status != 429 || a.Limit.RetryAfter != 21 || a.Limit.Left != 0 {
			t.Fatalf("in debt: %+v", a)
		}
		time.Sleep(21 * time.Second)
		if a := sendFile(t, r, events(1)); a.Status != 202 {
			t.Errorf("paid: %+v", a)
		}
	})
}

// Retry-After of a request that is rejected unread is the time at which it fits, as far as the one before it tells.
func TestRetryAfterOfUnread(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r, _ := withProjects(t, nil, Project{Events: Rate{PerSecond: 10, Burst: 100}})
		if a := sendFile(t, r, events(120)); a.Status != 202 {
			t.Fatalf("full: %+v", a)
		}
		if a := sendFile(t, r, events(120)); a.Status != 429 || a.Limit.RetryAfter != 12 {
			t.Fatalf("in debt by 20: %+v", a)
		}
		time.Sleep(12 * time.Second)
		if a := sendFile(t, r, events(120)); a.Status != 202 {
			t.Errorf("after the time that was told: %+v", a)
		}
	})
}

// After a body with too many events, similar bodies are not read until that many fit. Smaller ones are.
func TestFloodIsNotRead(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r, _ := withProjects(t, nil, Project{Events: Rate{PerSecond: 100, Burst: 200}})
		for _, want := range []int{202, 202, 429} {
			if a := sendFile(t, r, events(90)); a.Status != want {
				t.Fatalf("%+v", a)
			}
		}
		unseen := func(size int) answer {
			t.Helper()
			req := intake.PostReader("/v1/events", unread{t}, "X-API-Key", keyFile)
			req.ContentLength = int64(size)
			return serve(t, r, req)
		}
		if a := unseen(len(events(90))); a.Status != 429 || a.Limit.Left != 20 || a.Limit.RetryAfter != 1 {
			t.Errorf("%+v", a)
		}
		if a := unseen(len(events(180))); a.Limit.RetryAfter != 2 {
			t.Errorf("%+v", a)
		}
		if a := sendFile(t, r, events(10)); a.Status != 202 {
			t.Errorf("smaller: %+v", a)
		}
		if a := sendFile(t, r, string(gzipped([]byte(events(10)+strings.Repeat(" ", 100)))), "Content-Encoding",
			"gzip"); a.Status != 202 {
			t.Errorf("compressed: %+v", a)
		}
		time.Sleep(900 * time.Millisecond)
		if a := sendFile(t, r, events(90)); a.Status != 202 {
			t.Errorf("they fit: %+v", a)
		}
		if a := sendFile(t, r, strings.Repeat(" ", 5000)+one); a.Status != 429 {
			t.Errorf("nothing is left: %+v", a)
		}
		time.Sleep(10 * time.Millisecond)
		if a := sendFile(t, r, strings.Repeat(" ", 5000)+one); a.Status != 202 {
			t.Errorf("longer, after what was there has come in: %+v", a)
		}
	})
}

// unread fails the test if it is read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body is read")
	return 0, nil
}
func (u unread) Close() error { return nil }

func TestByteRate(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r, _ := withProjects(t, nil, Project{Bytes: Rate{PerSecond: 1000, Burst: 2000}})
		body := strings.Repeat(" ", 1900) + one
		if a := sendFile(t, r, body); a.Status != 202 {
			t.Fatalf("%+v", a)
		}
		req := intake.PostReader("/v1/events", unread{t}, "X-API-Key", keyFile)
		req.ContentLength = 1000
		if a := serve(t, r, req); a.Status != 429 || a.Limit.Of != "bytes" || a.Limit.Left != int64(2000-len(body)) ||
			a.Limit.RetryAfter != 1 {
			t.Fatalf("%+v", a)
		}
		time.Sleep(10 * time.Second)
		// A compressed body is admitted by its sent size, and charged by its decompressed size.
		packed := string(gzipped([]byte(strings.Repeat(" ", 5000) + one)))
		if a := sendFile(t, r, packed, "Content-Encoding", "gzip"); a.Status != 202 {
			t.Fatalf("%+v", a)
		}
		if a := sendFile(t, r, one); a.Status != 429 || a.Limit.RetryAfter != 4 {
			t.Fatalf("%+v", a)
		}
		// If the length is not declared, it is charged afterwards.
		time.Sleep(10 * time.Second)
		req = post("/v1/events", strings.Repeat(" ", 2500)+one, "X-API-Key", keyFile)
		req.ContentLength = -1
		if a := serve(t, r, req); a.Status != 202 {
			t.Fatalf("%+v", a)
		}
		if a := sendFile(t, r, one); a.Status != 429 {
			t.Fatalf("%+v", a)
		}
		// So it is where the key stands in the body.
		time.Sleep(10 * time.Second)
		for _, want := range []int{200, 429} {
			if code, a := send(r, "/v1/track",
				`{"event":"a","writeKey":"`+keyFile+`","x":"`+strings.Repeat("x", 1990)+`"}`); code != want {
				t.Errorf("%d %v", code, a)
			}
		}
	})
}

// A request that must be sent again costs nothing.
func TestGivenBack(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r, s := withProjects(t, nil, Project{Events: Rate{PerSecond: 1, Burst: 100},
			Bytes: Rate{PerSecond: 1, Burst: 100_000}, Quota: Quota{Events: 1000}})
		s.Err = errMemory
		for range 5 {
			if a := sendFile(t, r, events(90)); a.Status != 503 {
				t.Fatalf("%+v", a)
			}
		}
		s.Err = nil
		if a := sendFile(t, r, events(101)); a.Status != 202 || r.Usage().Projects["file"].Events != 101 {
			t.Errorf("%+v %+v", a, r.Usage())
		}
		if a := sendFile(t, r, events(50)); a.Status != 429 {
			t.Errorf("%+v", a)
		}
	})
}

// A quota is for a day and for accepted events. It survives a new file and a new receiver.
func TestQuota(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		time.Sleep(20 * time.Hour) // the bubble begins at midnight, by UTC
		p := Project{Quota: Quota{Events: 100}}
		r, _ := withProjects(t, nil, p)
		sendFile(t, r, `{"refused":1}`)
		for range 2 {
			if a := sendFile(t, r, events(60)); a.Status != 202 {
				t.Fatalf("%+v", a)
			}
		}
		check := func(r *Receiver, after time.Duration) {
			t.Helper()
			a := sendFile(t, r, one)
			if a.Status != 429 || a.Error.Code != "quota_exceeded" ||
				a.Header.Get("Retry-After") != strconv.Itoa(int(after.Seconds())) {
				t.Fatalf("%+v", a)
			}
			if l := a.Limit; l.Of != "events" || l.Per != "day" || l.Limit != 100 || l.Burst != 0 || l.Left != 0 ||
				l.RetryAt.Format(time.TimeOnly) != "00:00:00" {
				t.Errorf("%+v", l)
			}
		}
		check(r, 4*time.Hour)
		p.Name = "file"
		keys := []Key{{Project: "file", Name: "x", Hash: HashKey(keyFile)}}
		if err := r.SetProjects([]Project{p}, keys); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		check(r, 3*time.Hour)
		next, _ := withProjects(t, nil, p)
		next.SetUsage(r.Usage())
		check(next, 3*time.Hour)
		time.Sleep(3 * time.Hour)
		for _, r := range []*Receiver{r, next} {
			if a := sendFile(t, r, one); a.Status != 202 ||
				r.Usage().Projects["file"] != (Used{Events: 1, Bytes: int64(len(one))}) {
				t.Errorf("the next day: %+v, %+v", a, r.Usage())
			}
		}
		time.Sleep(24 * time.Hour)
		if u := r.Usage(); len(u.Projects) != 0 {
			t.Errorf("a day later: %+v", u)
		}
		p = Project{Quota: Quota{Bytes: 100}}
		r, _ = withProjects(t, nil, p)
		for _, want := range []int{202, 429} {
			if a := sendFile(t, r, events(10)); a.Status != want {
				t.Errorf("bytes: %+v", a)
			}
		}
	})
}

// Limits survive other settings: a new file fills nobody's bucket.
func TestRateOutlivesTheFile(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r, _ := withProjects(t, nil, Project{Events: Rate{PerSecond: 1, Burst: 100}})
		sendFile(t, r, events(100))
		keys := []Key{{Project: "file", Name: "x", Hash: HashKey(keyFile)}}
		if err := r.SetProjects([]Project{{Name: "file", Events: Rate{PerSecond: 2, Burst: 50}}}, keys); err != nil {
			t.Fatal(err)
		}
		if a := sendFile(t, r, events(20)); a.Status != 429 || a.Limit.RetryAfter != 10 || a.Limit.Limit != 2 {
			t.Errorf("%+v", a)
		}
		time.Sleep(10 * time.Second)
		if a := sendFile(t, r, events(20)); a.Status != 202 {
			t.Errorf("%+v", a)
		}
	})
}

// A client sends ten times its limit: only the limit is accepted, and all of another client's events.
func TestFlood(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r, s := withProjects(t, nil, Project{Events: Rate{PerSecond: 1000, Burst: 1000}})
		taken, others := 0, 0
		for range 1000 { // ten seconds
			if a := sendFile(t, r, events(100)); a.Status == 202 {
				taken += a.Accepted
			} else if a.Status != 429 {
				t.Fatalf("%+v", a)
			}
			if a := serve(t, r, withKey(post("/v1/events", events(10)))); a.Status == 202 {
				others += a.Accepted
			}
			time.Sleep(10 * time.Millisecond)
		}
		if taken < 10_800 || taken > 11_000 || others != 10_000 || len(s.Events) != taken+others || len(s.Failures) != 0 {
			t.Errorf("%d of the flood and %d of the other were taken, %d are stored, %d failures", taken, others, len(s.Events),
				len(s.Failures))
		}
	})
}
