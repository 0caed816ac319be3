package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/traffic"
)

// A loader is killed at each point of its work, and another goes on: every
// row is there once. With the deduplication window of 1 block, the token
// cannot help.
func TestLoaderKilledAtFaultPoints(t *testing.T) {
	t.Parallel()
	t.Run("window 10000", func(t *testing.T) {
		t.Parallel()
		killedAtFaultPoints(t, newStack(t), 10000)
	})
	t.Run("window 1", func(t *testing.T) {
		onEach(t, func(t *testing.T, s *stack) { killedAtFaultPoints(t, s, 1) })
	})
}

func killedAtFaultPoints(t *testing.T, s *stack, window int) {
	if err := s.db.Exec(t.Context(),
		fmt.Sprintf("ALTER TABLE events MODIFY SETTING non_replicated_deduplication_window = %d", window)); err != nil {
		t.Fatal(err)
	}
	lease := s.backend.lease + "=3s"
	want := uint64(0)
	points := []string{"loader.begun:1", "loader.chunk:1", "loader.chunk:3", "loader.inserted:1", "loader.recorded:1"}
	if s.nats == nil { // the points differ only in ledger and table: two of them suffice for another queue
		points = []string{"loader.chunk:3", "loader.recorded:1"}
	}
	for i, point := range points {
		r := s.start(fmt.Sprintf("r%d", i), "receive", "PENSTOCK_BATCHER_ROLL_AGE=1h")
		var sent traffic.Sent
		if err := traffic.Run(t.Context(), traffic.NewClient(r.URL+"/v1/events", key, 2), fmt.Sprint("k", i), 2000, 100, 2,
			0, &sent); err != nil {
			t.Fatal(err)
		}
		r.term()
		want += 2000
		killed := s.launch(fmt.Sprintf("k%d", i), "load", "PENSTOCK_TEST_CHUNK_ROWS=500", lease,
			"PENSTOCK_FAULTPOINT="+point)
		select {
		case <-killed.Done():
		case <-time.After(30 * time.Second):
			t.Fatalf("%s is not reached", point)
		}
		// Another block between the attempts pushes the token out of a window of 1.
		if err := s.db.Exec(t.Context(),
			"INSERT INTO events (event_id, project, name, object) SELECT generateUUIDv4(), 'other', 'other', 'other'"); err != nil {
			t.Fatal(err)
		}
		// The other loader has other limits: it cuts the object as the first did.
		next := s.start(fmt.Sprintf("l%d", i), "load", "PENSTOCK_TEST_CHUNK_ROWS=777", lease)
		eventually(t, time.Minute, point, func() error {
			if got := one[uint64](s, "SELECT count() FROM loads FINAL WHERE status = 'loaded'"); got != uint64(i+1) {
				return fmt.Errorf("%d objects are loaded, want %d", got, i+1)
			}
			return nil
		})
		next.term()
		if got := one[uint64](s, "SELECT count() FROM events WHERE project = 'test'"); got != want {
			t.Fatalf("%s: %d rows, want %d", point, got, want)
		}
	}
	if n := one[int64](s, "SELECT count() - uniqExact(object, object_row) FROM events WHERE project = 'test'"); n != 0 {
		t.Errorf("%d rows are there twice", n)
	}
	s.mustVerify()
}

// Several loaders have the same notification at once.
func TestSameNotificationAtOnce(t *testing.T) { onEach(t, sameNotificationAtOnce) }

func sameNotificationAtOnce(t *testing.T, s *stack) {
	r := s.start("r1", "receive", "PENSTOCK_BATCHER_ROLL_AGE=1h")
	var sent traffic.Sent
	if err := traffic.Run(t.Context(), traffic.NewClient(r.URL+"/v1/events", key, 2), "k", 5000, 100, 2, 0,
		&sent); err != nil {
		t.Fatal(err)
	}
	// Cloudflare cannot extend a lease of 1 s, and the object takes longer: each
	// delivery comes again while the one before is being worked on.
	var loaders []*role
	for i := range 4 {
		loaders = append(loaders, s.start(fmt.Sprintf("l%d", i), "load", "PENSTOCK_TEST_CHUNK_ROWS=100",
			s.backend.lease+"=1s"))
	}
	r.term()
	for range 6 {
		out, err := s.run("sweep", "--json") // and the sweep tells of it once more
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	s.rows("events", 5000)
	for _, l := range loaders {
		l.term()
	}
	if n := one[int64](s, "SELECT count() - uniqExact(object, object_row) FROM events"); n != 0 {
		t.Errorf("%d rows are there twice", n)
	}
	s.mustVerify()
}
