package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/traffic"
)

// storedRows stores one object with that many events.
func (s *stack) storedRows(name string, rows int) {
	s.t.Helper()
	r := s.start(name, "receive", "PENSTOCK_BATCHER_ROLL_AGE=1h")
	var sent traffic.Sent
	if err := traffic.Run(s.t.Context(), traffic.NewClient(r.URL+"/v1/events", key, 2), name, rows, 100, 2, 0,
		&sent); err != nil {
		s.t.Fatal(err)
	}
	r.term()
}

// A lease of Cloudflare cannot be extended. An object that takes longer is delivered again while it is being loaded,
// and each row is there once. While the API is away, the log has one line at the start and one at the end.
func TestLongerThanTheLease(t *testing.T) {
	t.Parallel()
	s := newStackOn(t, onCloudflare)
	s.storedRows("r1", 600)
	l := s.start("l1", "load", "PENSTOCK_TEST_CHUNK_ROWS=20", s.backend.lease+"=300ms")
	s.loadedRows("events", 600)
	// The ledger may count one attempt: on a slow machine the second one begins before the first has its entry.
	eventually(t, time.Minute, "an attempt after the lease", func() error {
		log, err := os.ReadFile(l.log)
		if n := strings.Count(string(log), "msg=loaded "); n < 2 {
			err = errors.Join(err, fmt.Errorf("loaded %d times, want more: the object was loaded within its lease", n))
		}
		return err
	})
	s.rows("events", 600)
	if n := one[int64](s, "SELECT count() - uniqExact(object, object_row) FROM events"); n != 0 {
		t.Errorf("%d rows are there twice", n)
	}
	s.backend.queueAway.begin()
	said := func(text string, want int) func() error {
		return func() error {
			log, err := os.ReadFile(l.log)
			if n := strings.Count(string(log), text); n != want {
				err = fmt.Errorf("%d lines %q, want %d", n, text, want)
			}
			return err
		}
	}
	eventually(t, 20*time.Second, "the outage in the log", said("queue unavailable; nothing is loaded", 2)) // two pipelines
	time.Sleep(time.Second)
	if err := s.backend.queueAway.end(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "its end in the log", said("queue available again", 2))
	if err := said("queue unavailable; nothing is loaded", 2)(); err != nil {
		t.Error(err)
	}
	l.term()
	s.mustVerify()
}

// Cloudflare deletes a message after its retries. A sweep finds its object.
func TestDeletedAtMaxRetries(t *testing.T) {
	t.Parallel()
	s := newStackOn(t, onCloudflare)
	s.storedRows("r1", 200)
	s.backend.cloudflare.SetMaxRetries("penstock-events", 0)
	killed := s.launch("k1", "load", s.backend.lease+"=1s", "PENSTOCK_FAULTPOINT=loader.begun:1")
	select {
	case <-killed.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the loader was not killed")
	}
	eventually(t, 10*time.Second, "Cloudflare deletes the message", func() error {
		if got := s.backend.cloudflare.Deleted("penstock-events"); len(got) != 1 {
			return fmt.Errorf("%d deleted messages, want 1", len(got))
		}
		return nil
	})
	s.start("l1", "load", "PENSTOCK_SWEEP_EVERY=1s", "PENSTOCK_SWEEP_GRACE=1s")
	s.rows("events", 200)
	s.mustVerify()
}
