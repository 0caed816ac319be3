package e2e

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/load"
	"github.com/penstock/penstock/internal/traffic"
)

const projectsSalt = "a salt of sixteen"

// projects writes the stack's projects file and names it to all that is started.
func (s *stack) projects(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(s.dir, "projects.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.environ = append(s.environ, "PENSTOCK_RECEIVER_PROJECTS="+path)
	return path
}

// newKey is `penstock keys add`, or another of its kind that prints a key.
func (s *stack) newKey(args ...string) string {
	s.t.Helper()
	out := s.must(append([]string{"keys"}, args...)...)
	found := regexp.MustCompile(`(?m)^key +(ps_\S+)$`).FindStringSubmatch(out)
	if found == nil {
		s.t.Fatalf("no key in %q", out)
	}
	return found[1]
}

// postAs sends with a key of the file's.
func postAs(t *testing.T, r *role, key, body string) (int, map[string]any, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.URL+"/v1/events", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	var a map[string]any
	if err := json.Unmarshal(text, &a); err != nil {
		t.Fatalf("%s %q: %v", resp.Status, text, err)
	}
	return resp.StatusCode, a, resp.Header
}

func codeOf(a map[string]any) string {
	e, _ := a["error"].(map[string]any)
	code, _ := e["code"].(string)
	return code
}

// answers waits until a key is answered so.
func answers(t *testing.T, r *role, key string, status int, code string) {
	t.Helper()
	eventually(t, 10*time.Second, fmt.Sprintf("%d %s", status, code), func() error {
		if got, a, _ := postAs(t, r, key, `{"name":"probe"}`); got != status || codeOf(a) != code {
			return fmt.Errorf("%d %s", got, codeOf(a))
		}
		return nil
	})
}

// Keys come and go while a receiver runs; a file that cannot be used changes nothing.
func TestKeysOfARunningReceiver(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	path := s.projects(t, "# ours\nprojects: {}\n")
	r := s.start("r1", "receive", "PENSTOCK_ADMIN_TOKEN=operators")
	first := s.newKey("add", "game", "--name", "ci")
	answers(t, r, first, 202, "")
	// By the admin listener as well.
	other := s.newKey("add", "game", "--server", r.Admin, "--token", "operators")
	answers(t, r, other, 202, "")

	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct{ text, why string }{{"", "no projects stand in it"},
		{string(good) + "project: {}\n", "unknown field project (from line "}} {
		if err := os.WriteFile(path, []byte(bad.text), 0o600); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "the receiver says that the file is bad", func() error {
			if log, _ := os.ReadFile(r.log); !strings.Contains(string(log), bad.why) {
				return fmt.Errorf("the log does not say why:\n%s", log)
			}
			if v := r.metric("penstock_receiver_projects_invalid"); v != 1 {
				return fmt.Errorf("%v", v)
			}
			return nil
		})
		answers(t, r, first, 202, "")
	}
	if out, err := s.run("keys", "revoke", "game", "ci"); err == nil || !strings.Contains(out, "fix that first") {
		t.Errorf("%v %s", err, out)
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the file is good again", func() error {
		if v := r.metric("penstock_receiver_projects_invalid"); v != 0 {
			return fmt.Errorf("%v", v)
		}
		return nil
	})

	second := s.newKey("rotate", "game", "ci", "--overlap", "4s")
	rotated := time.Now()
	answers(t, r, second, 202, "")
	if got, a, _ := postAs(t, r, first, `{"name":"probe"}`); time.Since(rotated) < 3*time.Second && got != 202 {
		t.Errorf("the old key in the overlap: %d %v", got, a)
	}
	answers(t, r, first, 401, "expired_key")
	answers(t, r, second, 202, "")
	if out := s.must("keys", "list", "game"); !strings.Contains(out, "expired") || !strings.Contains(out, "3 keys") {
		t.Errorf("%s", out)
	}
	s.must("keys", "revoke", "game", "ci")
	answers(t, r, second, 401, "unknown_key")
	answers(t, r, other, 202, "")
	answers(t, r, key, 202, "") // receiver.keys
	if text, _ := os.ReadFile(path); !strings.HasPrefix(string(text), "# ours\n") {
		t.Errorf("the comment is gone:\n%s", text)
	}
}

// Rows show the effect of a project's settings.
func TestProjectSettings(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	path := s.projects(t, `projects:
  shop:
    names: [position, call, probe]
    sample: {by: session, keep: 0.25, names: [position]}
    drop: [properties.email, properties.user.name, session_id]
    hash: [user_id, properties.user.phone, properties.list.ip, context.ip]
    salt: ${SHOP_SALT}
`)
	s.environ = append(s.environ, "SHOP_SALT="+projectsSalt)
	r := s.start("r1", "receive")
	s.start("l1", "load")
	k := s.newKey("add", "shop", "--large")
	answers(t, r, k, 202, "")

	// Sessions are all in or all out, whatever requests their events come in.
	const sessions, each = 800, 3
	var taken, sampled float64
	for i := range each {
		for from := 0; from < sessions; from += 100 {
			var body strings.Builder
			for j := from; j < from+100; j++ {
				fmt.Fprintf(&body, `{"name":"position","session_id":"s-%d","properties":{"session":"s-%d","i":%d}}`+"\n", j, j, i)
			}
			status, a, _ := postAs(t, r, k, body.String())
			n, _ := a["sampled"].(float64)
			if status != 202 || a["accepted"].(float64)+n != 100 {
				t.Fatalf("%d %v", status, a)
			}
			taken, sampled = taken+a["accepted"].(float64), sampled+n
		}
	}
	big := strings.Repeat("x", 100<<10)
	call := `{"name":"call","user_id":"u1","session_id":"s1","email":"secret@example.com","text":"` + big +
		`","user":{"name":"secret","phone":"123","age":7},"list":[{"ip":"secret","n":1},{"ip":2}],"blob":{"email":"stays"}}`
	if status, a, _ := postAs(t, r, k, call); status != 202 {
		t.Fatalf("%d %v", status, a)
	}
	status, a, _ := postAs(t, r, k, `{"name":"other"}`)
	if status != 400 || !strings.Contains(fmt.Sprint(a["errors"]), "name_not_allowed") {
		t.Errorf("%d %v", status, a)
	}
	s.rows("errors WHERE code = 'name_not_allowed'", 1) // and the probes before the key was known
	count := func(where string) uint64 { return one[uint64](s, "SELECT count() FROM events WHERE "+where) }
	eventually(t, time.Minute, "rows", func() error {
		if n := count("name = 'position'"); n != uint64(taken) {
			return fmt.Errorf("%d, want %v", n, taken)
		}
		if n := count("name = 'call'"); n != 1 {
			return fmt.Errorf("%d calls", n)
		}
		return nil
	})
	if n := one[uint64](s,
		"SELECT countIf(n != 3) FROM (SELECT toString(properties.session) AS s, count() AS n FROM events WHERE name = "+
			"'position' GROUP BY s)"); n != 0 {
		t.Errorf("%d sessions are taken in part", n)
	}
	in := float64(one[uint64](s, "SELECT uniqExact(toString(properties.session)) FROM events WHERE name = 'position'"))
	if off := 4 * math.Sqrt(0.25*0.75/sessions); math.Abs(in/sessions-0.25) > off {
		t.Errorf("%v of %d sessions are taken", in, sessions)
	}
	if got := r.metric(`penstock_receiver_sampled_events_total{project="shop"}`); got != sampled {
		t.Errorf("%v are counted as sampled, want %v", got, sampled)
	}

	hashed := func(text string) string {
		h := hmac.New(sha256.New, []byte(projectsSalt))
		h.Write([]byte(text))
		return hex.EncodeToString(h.Sum(nil))
	}
	row := one[string](s,
		"SELECT toJSONString(tuple(user_id, session_id, toString(context.ip))) FROM events WHERE name = 'call'")
	whole := one[string](s, "SELECT toJSONString(properties) || toJSONString(context) FROM events WHERE name = 'call'")
	if got := one[string](s, "SELECT user_id FROM events WHERE name = 'call'"); got != hashed("u1") {
		t.Errorf("user %s in %s", got, row)
	}
	for _, want := range []string{hashed("123"), hashed("secret"), hashed("2"), hashed("127.0.0.1"), `"age":`, "stays",
		"$blob"} {
		if !strings.Contains(whole, want) {
			t.Errorf("%s is not in %s", want, whole)
		}
	}
	for _, gone := range []string{"secret", `"123"`, "127.0.0.1", `"name"`} {
		if strings.Contains(whole, gone) {
			t.Errorf("%s is still in %s", gone, whole)
		}
	}
	if n := count("session_id != ''"); n != 0 {
		t.Errorf("%d rows have a session", n)
	}
	for path, want := range map[string]float64{"properties.email": 1, "properties.user.name": 1,
		"session_id": sessions*each*in/sessions + 1, "properties.list.ip": 2} {
		if got := r.metric(`penstock_receiver_redacted_values_total{done="` + map[bool]string{true: "hash",
			false: "drop"}[strings.HasSuffix(path, "ip")] + `",path="` + path + `"`); got != want {
			t.Errorf("%s: %v are counted, want %v", path, got, want)
		}
	}

	// The name is now allowed, and its rejected events are redriven.
	text, _ := os.ReadFile(path)
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), "probe]", "probe, other]", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := s.must("errors", "redrive", "--code", "name_not_allowed"); !strings.Contains(out, "1 accepted") {
		t.Errorf("%s", out)
	}
	eventually(t, time.Minute, "the redriven event", func() error {
		if n := count("name = 'other'"); n != 1 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
}

// What clients hear beyond limits, and that quotas outlive a restart.
func TestLimits(t *testing.T) {
	if now := time.Now().UTC(); now.Hour() == 23 && now.Minute() > 55 {
		t.Skip("quotas end at midnight")
	}
	s := newStack(t)
	s.projects(t, "projects:\n  slow: {rate: {events: 10/s, burst: 3s}}\n  few: {quota: {events: 50}}\n")
	r := s.start("r1", "receive")
	slow, few := s.newKey("add", "slow"), s.newKey("add", "few")
	answers(t, r, slow, 202, "")
	answers(t, r, few, 202, "")
	events := func(n int) string { return strings.Repeat(`{"name":"a"}`+"\n", n) }
	for _, c := range []struct {
		key, code, per string
		limit          float64
	}{{slow, "rate_limited", "second", 10}, {few, "quota_exceeded", "day", 50}} {
		var status int
		var a map[string]any
		var h http.Header
		accepted := 0.0
		for i := 0; status != 429; i++ {
			if status, a, h = postAs(t, r, c.key, events(25)); status == 202 {
				accepted += a["accepted"].(float64)
			} else if status != 429 || i > 10 {
				t.Fatalf("%d %v", status, a)
			}
		}
		l, _ := a["limit"].(map[string]any)
		if codeOf(a) != c.code || l["of"] != "events" || l["per"] != c.per || l["limit"] != c.limit || l["left"] == nil ||
			a["accepted"] != 0.0 {
			t.Errorf("%v", a)
		}
		if h.Get("Retry-After") != fmt.Sprint(l["retry_after"]) && c.per == "second" ||
			h.Get("RateLimit-Limit") != fmt.Sprint(c.limit) {
			t.Errorf("%v beside %v", h, l)
		}
		if at, err := time.Parse(time.RFC3339, l["retry_at"].(string)); err != nil || c.per == "day" &&
			at.Format(time.TimeOnly) != "00:00:00" {
			t.Errorf("%v: %v", l, err)
		}
		if accepted < 25 || accepted > 75 {
			t.Errorf("%s: %v events were taken", c.code, accepted)
		}
	}
	r.term()
	r.again()
	answers(t, r, few, 429, "quota_exceeded")
	if got := r.metric(`penstock_receiver_limited_requests_total{limit="events a day",project="few"}`); got < 1 {
		t.Errorf("%v requests are counted", got)
	}
}

// One project sends ten times its limit, another sends steadily. All events of the second are accepted. The test prints
// its latency, alone and beside the flood. PENSTOCK_FLOOD_SECONDS=20 is long enough for figures.
func TestFlood(t *testing.T) {
	seconds := time.Duration(number("PENSTOCK_FLOOD_SECONDS", 3)) * time.Second
	const limit, batch, steady = 5000, 100, 4000
	s := newStack(t)
	s.projects(t, fmt.Sprintf("projects:\n  flood: {rate: {events: %d/s, burst: 1s}}\n", limit))
	r := s.prepare("r1", "receive", "PENSTOCK_BATCHER_ROLL_AGE=5s")
	r.binary = plain // times under the race detector mean nothing
	r.spawn()
	r.awaitReady()
	flooder := s.newKey("add", "flood")
	answers(t, r, flooder, 202, "")
	addr := strings.TrimPrefix(r.URL, "http://")
	var run uint64
	calm := func() *load.Sent {
		c := load.Clients{Connections: 16, Rate: steady, Duration: seconds, First: run << 32,
			Dial: func(ctx context.Context) (load.Poster, error) { return load.Dial(ctx, addr, key) }}
		run++
		c.Bodies = append(c.Bodies, traffic.NewBody(traffic.New(fmt.Sprint("calm", run), run), 20))
		sent, err := c.Run(t.Context(), &load.Counts{})
		if err != nil {
			t.Fatal(err)
		}
		if sent.Accepted+sent.Unsent != int64(steady*seconds.Seconds()) || sent.Failed() != 0 || sent.Rejected != 0 {
			t.Errorf("%d accepted, %d unsent, failures %v", sent.Accepted, sent.Unsent, sent.Failures)
		}
		return sent
	}
	tell := func(what string, sent *load.Sent) {
		t.Logf("%-34s %d accepted, p50 %s, p99 %s, max %s, %d unsent", what, sent.Accepted,
			sent.Latency.Quantile(0.5).Round(10*time.Microsecond),
			sent.Latency.Quantile(0.99).Round(10*time.Microsecond), sent.Latency.Max().Round(10*time.Microsecond), sent.Unsent)
	}
	// flood sends on separate connections at a pace, whatever the answers.
	flood := func(key string) (stop func() (taken, refused int64)) {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var mu sync.Mutex
		var taken, refused int64
		due := make(chan struct{}, 64)
		wg.Go(func() {
			tick := time.NewTicker(time.Second * batch / (10 * limit))
			defer tick.Stop()
			for ctx.Err() == nil {
				<-tick.C
				select {
				case due <- struct{}{}:
				default:
				}
			}
		})
		for i := range 16 {
			wg.Go(func() {
				body := traffic.NewBody(traffic.New(fmt.Sprint("flood", i), uint64(i)), batch)
				conn, err := load.Dial(ctx, addr, key)
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				for n := uint64(i) << 40; ; n += batch {
					select {
					case <-ctx.Done():
						return
					case <-due:
					}
					a, err := conn.Post(body, n)
					mu.Lock()
					if refusal, ok := errors.AsType[*load.StatusError](err); ok && refusal.Status == 429 {
						refused += batch
					} else if err != nil {
						t.Error(err)
					}
					taken += int64(a.Accepted)
					mu.Unlock()
					if _, ok := errors.AsType[net.Error](err); ok {
						return
					}
				}
			})
		}
		return func() (int64, int64) {
			cancel()
			wg.Wait()
			return taken, refused
		}
	}
	tell("alone:", calm())
	cpu := r.metric("process_cpu_seconds_total")
	tell("alone, again:", calm())
	alone := r.metric("process_cpu_seconds_total") - cpu
	began := time.Now()
	stop := flood(flooder)
	cpu = r.metric("process_cpu_seconds_total")
	beside := calm()
	besideCPU := r.metric("process_cpu_seconds_total") - cpu
	taken, refused := stop()
	tell("beside a limited flood:", beside)
	most := limit * (time.Since(began).Seconds() + 2)
	t.Logf("of the flood %d events were taken, %d refused, in %s; the receiver's CPU %.2f s, without it %.2f s", taken,
		refused, time.Since(began).Round(time.Millisecond), besideCPU, alone)
	if float64(taken) > most || taken == 0 || refused < 3*taken {
		t.Errorf("of the flood %d events were taken (at most %.0f), %d refused", taken, most, refused)
	}
	// The same flood without a limit.
	stop = flood(key)
	beside = calm()
	taken, _ = stop()
	tell("beside the same without a limit:", beside)
	t.Logf("of that flood %d events were taken", taken)
}
