package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/penstock/penstock/internal/traffic"
)

// verified is a line of `penstock verify --json`.
type verified struct {
	Pipeline    string
	Objects     int
	Waiting     int
	BucketRows  int `json:"bucket_rows"`
	LedgerRows  int `json:"ledger_rows"`
	TableRows   int `json:"table_rows"`
	Collapsed   int
	Expired     int
	Others      int
	Ignored     int
	Differences []struct{ Key, Kind, Message string }
}

// verify runs the audit; the events pipeline's line is returned.
func (s *stack) verify(args ...string) (verified, error) {
	s.t.Helper()
	out, err := s.run(append([]string{"verify", "--json", "--grace", "0s"}, args...)...)
	var v verified
	line, _, _ := strings.Cut(out, "\n")
	if jsonErr := json.Unmarshal([]byte(line), &v); jsonErr != nil {
		return v, fmt.Errorf("verify: %w\n%s", cmp.Or(err, jsonErr), out) // ClickHouse may just be starting again
	}
	return v, err
}

func (s *stack) mustVerify() verified {
	s.t.Helper()
	// A loader's failures become an object of the errors pipeline later, and are loaded even later.
	v, err := s.verify()
	for end := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(end); v, err = s.verify() {
		time.Sleep(500 * time.Millisecond)
	}
	if err != nil || len(v.Differences) > 0 {
		s.t.Errorf("verify: %v, %+v", err, v)
	}
	return v
}

// The stream is deleted with 100 objects waiting: one sweep brings them all.
func TestSweepAfterStreamIsDeleted(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive", "PENSTOCK_BATCHER_ROLL_AGE=1h", "PENSTOCK_BATCHER_OBJECT_WAIT=1ms")
	for i := range 100 {
		if code, a := post(t, r.URL+"/v1/events?durability=object",
			fmt.Sprintf(`[{"name":"a","i":%d},{"name":"b"}]`, i)); code != 200 {
			t.Fatalf("answer %d %+v", code, a)
		}
	}
	nc, err := nats.Connect(s.nats.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), "PENSTOCK_events"); err != nil {
		t.Fatal(err)
	}
	v, err := s.verify()
	if err == nil || len(v.Differences) != 100 || v.Differences[0].Kind != "missing" {
		t.Fatalf("verify before the sweep: %v, %d differences", err, len(v.Differences))
	}
	for i, want := range []string{`"enqueued":100,"told":0`, `"enqueued":0,"told":100`} {
		out, err := s.run("sweep", "--json")
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("sweep %d: %v\n%s", i, err, out)
		}
	}
	// Purged notifications are sent again on demand.
	st, err := js.Stream(t.Context(), "PENSTOCK_events")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := s.run("sweep", "--again", "--json"); err != nil || !strings.Contains(out, `"enqueued":100,"told":0`) {
		t.Errorf("sweep --again: %v\n%s", err, out)
	}
	if st, err = js.Stream(t.Context(), "PENSTOCK_events"); err != nil {
		t.Fatal(err)
	}
	if n := st.CachedInfo().State.Msgs; n != 100 {
		t.Errorf("%d messages after two sweeps, want 100", n)
	}
	s.start("l1", "load")
	s.rows("events", 200)
	eventually(t, 20*time.Second, "verify is clean", func() error {
		v, err := s.verify()
		if err == nil && (v.Objects != 100 || v.TableRows != 200 || v.BucketRows != 200 || v.LedgerRows != 200) {
			err = fmt.Errorf("%+v", v)
		}
		return err
	})
}

// A loader finds objects without notifications automatically.
func TestPeriodicSweep(t *testing.T) { onEach(t, periodicSweep) }

func periodicSweep(t *testing.T, s *stack) {
	r := s.start("r1", "receive")
	post(t, r.URL+"/v1/events?durability=object", `[{"name":"a"},{"name":"b"}]`)
	eventually(t, 10*time.Second, "the notification", func() error {
		if n, err := s.backend.waiting(); err != nil || n != 1 {
			return fmt.Errorf("%d messages, %v", n, err)
		}
		return nil
	})
	if err := s.backend.purge(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"l1", "l2"} {
		s.start(name, "load", "PENSTOCK_SWEEP_EVERY=1s", "PENSTOCK_SWEEP_GRACE=1s")
	}
	s.rows("events", 2)
	s.mustVerify()
}

// Without any queue: loaders sweep, and share the work by claims in the bucket.
func TestNoQueue(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.nats.Kill()
	none := []string{"PENSTOCK_STORAGE_NOTIFY=none", "PENSTOCK_SWEEP_POLL=500ms", "PENSTOCK_QUEUE_URL=nats://127.0.0.1:1"}
	r := s.start("r1", "receive", append(none, "PENSTOCK_BATCHER_ROLL_AGE=200ms")...)
	for _, name := range []string{"l1", "l2", "l3"} {
		s.start(name, "load", none...)
	}
	var sent traffic.Sent
	if err := traffic.Run(t.Context(), traffic.NewClient(r.URL+"/v1/events", key, 4), "n", 10_000, 20, 4, 3000,
		&sent); err != nil {
		t.Fatal(err)
	}
	s.rows("events", 10_000)
	if n := one[uint64](s, "SELECT uniqExact(loader) FROM loads WHERE status = 'loaded'"); n < 2 {
		t.Errorf("%d loaders have shared the work", n)
	}
	if n := one[uint64](s, "SELECT countIf(attempts > 1) FROM loads WHERE status = 'loaded'"); n != 0 {
		t.Errorf("%d objects were begun twice", n)
	}
	s.mustVerify()
	if err := s.nats.Restart(t.Context()); err != nil { // or its end would count as a failure
		t.Fatal(err)
	}
}

// A receiver notifies the queue for a store that cannot.
func TestNotifySelf(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	// The store has no rules, so only the receiver can have notified the queue.
	s.bucketWithoutRules()
	self := "PENSTOCK_STORAGE_NOTIFY=self"
	r := s.start("r1", "receive", self)
	l := s.start("l1", "load", self, "PENSTOCK_SWEEP_EVERY=1h")
	post(t, r.URL+"/v1/events", `[{"name":"a"},{"name":"b"}]`)
	s.rows("events", 2)
	// NATS away: the receiver does not notice, and the sweep brings the rest.
	s.nats.Kill()
	if code, _ := post(t, r.URL+"/v1/events?durability=object", `{"name":"c"}`); code != 200 {
		t.Errorf("answer %d while NATS is away", code)
	}
	if err := s.nats.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := s.run("sweep"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.rows("events", 3)
	l.term()
	s.mustVerify()
}

// The audit finds and names all differences.
func TestVerifyFindsDifferences(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive")
	l := s.start("l1", "load")
	var keys []string
	for i := range 4 {
		_, a := post(t, r.URL+"/v1/events?durability=object",
			fmt.Sprintf(`[{"name":"a","event_id":"%d-a"},{"name":"b"},{"name":"c"}]`, i))
		keys = append(keys, a.Object)
	}
	// A client's resend: collapsed by a merge, it is no difference.
	post(t, r.URL+"/v1/events?durability=object", `[{"name":"a","event_id":"0-a"}]`)
	s.loadedRows("events", 13)
	for _, query := range []string{
		"OPTIMIZE TABLE events FINAL",
		"INSERT INTO events SELECT * FROM events WHERE object = '" + keys[1] + "' AND object_row = 1",
		"DELETE FROM events WHERE object = '" + keys[2] + "' AND object_row = 2",
		"DELETE FROM loads WHERE key = '" + keys[3] + "'",
	} {
		if err := s.db.Exec(t.Context(), query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	l.term()
	v, err := s.verify()
	if err == nil {
		t.Error("verify says nothing")
	}
	kinds := map[string]string{}
	for _, d := range v.Differences {
		kinds[d.Key] = d.Kind
	}
	want := map[string]string{keys[1]: "double", keys[2]: "short", keys[3]: "missing"}
	if fmt.Sprint(kinds) != fmt.Sprint(want) {
		t.Errorf("differences %v, want %v", kinds, want)
	}
	if v.Collapsed != 1 {
		t.Errorf("collapsed %d, want 1", v.Collapsed)
	}
}
