package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A table's TTL deletes old rows. Loaded objects stay loaded, late ones are loaded, and the missing rows are no
// difference.
func TestTimeToLive(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive")
	l := s.start("l1", "load")
	s.send(r, "a", 300, 0)
	s.rows("events", 300)
	objects := func() uint64 {
		return one[uint64](s,
			"SELECT count() FROM loads FINAL WHERE pipeline = 'events' AND status = 'loaded' AND failures = 0")
	}
	eventually(t, 20*time.Second, "the ledger", func() error {
		if rows := one[uint64](s,
			"SELECT sum(rows) FROM loads FINAL WHERE pipeline = 'events' AND status = 'loaded'"); rows != 300 {
			return fmt.Errorf("%d rows", rows)
		}
		return nil
	})
	for _, query := range []string{
		"ALTER TABLE events MODIFY SETTING merge_with_ttl_timeout = 0",
		"ALTER TABLE events MODIFY TTL toDateTime(received_at) + INTERVAL 1 SECOND",
		"OPTIMIZE TABLE events FINAL",
	} {
		if err := s.db.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 20*time.Second, "the rows are gone", func() error {
		if n := one[uint64](s, "SELECT count() FROM events"); n != 0 {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
	before := objects()
	for _, args := range [][]string{{}, {"--replace"}} {
		for range 4 {
			out := s.must(append([]string{"reingest", "--since", "1h"}, args...)...)
			if !strings.Contains(out, "expired") {
				t.Errorf("reingest %v: %s", args, out)
			}
		}
	}
	if n := objects(); n != before {
		t.Errorf("%d objects are loaded after re-ingesting, %d before", n, before)
	}
	// Rows that expire while they are loaded.
	s.send(r, "b", 300, 0)
	eventually(t, 40*time.Second, "the late ones in the ledger", func() error {
		if rows := one[uint64](s,
			"SELECT sum(rows) FROM loads FINAL WHERE pipeline = 'events' AND status = 'loaded'"); rows != 600 {
			return fmt.Errorf("%d rows", rows)
		}
		return nil
	})
	if n := l.metric(`penstock_loader_failures_total{pipeline="events"`); n != 0 {
		t.Errorf("%v failures", n)
	}
	eventually(t, 20*time.Second, "the late rows are gone", func() error {
		if err := s.db.Exec(t.Context(), "OPTIMIZE TABLE events FINAL"); err != nil {
			return err
		}
		if n := one[uint64](s, "SELECT count() FROM events"); n != 0 {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
	if v := s.mustVerify(); v.Expired != 600 {
		t.Errorf("verify: %+v", v)
	}
}
