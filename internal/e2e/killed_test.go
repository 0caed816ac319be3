package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/load"
)

// A loader is killed in the middle of an object: another has loaded it within 30
// seconds, by the default of queue.ack_wait, with a queue and without.
func TestKilledLoaderIsReplaced(t *testing.T) {
	t.Parallel()
	for _, notify := range []string{"storage", "none"} {
		t.Run(notify, func(t *testing.T) {
			t.Parallel()
			s := newStack(t)
			env := []string{"PENSTOCK_STORAGE_NOTIFY=" + notify, "PENSTOCK_QUEUE_ACK_WAIT=" + defaultOf(t, "ack_wait")}
			if notify == "none" {
				s.bucketWithoutRules()
			}
			r := s.start("r1", "receive", env...)
			victim := s.start("l1", "load", append(env, "PENSTOCK_FAULTPOINT=loader.begun:1")...)
			s.send(r, "a", 500, 0)
			select {
			case <-victim.Done():
			case <-time.After(time.Minute):
				t.Fatal("the loader did not reach the middle of an object")
			}
			died := time.Now()
			s.start("l2", "load", env...)
			eventually(t, 90*time.Second, "another loader has it", func() error {
				if n := one[uint64](s, "SELECT count() FROM loads FINAL WHERE status = 'loaded' AND loader = 'l2'"); n == 0 {
					return fmt.Errorf("it is not loaded")
				}
				return nil
			})
			if took := time.Since(died); took > 30*time.Second {
				t.Errorf("another loader had it after %s, want 30 s at most", took)
			}
			s.rows("events", 500)
		})
	}
}

// defaultOf is a field's value in the example configuration, which holds the defaults.
func defaultOf(t *testing.T, field string) string {
	t.Helper()
	text, err := os.ReadFile("../../penstock.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), field+": "); ok {
			value, _, _ = strings.Cut(value, " ")
			return value
		}
	}
	t.Fatalf("no %s in the example configuration", field)
	return ""
}

// An object that kills every loader becomes a dead letter, and a good one whose
// loaders were killed is loaded: both alone, in a process with a memory limit.
func TestObjectThatKillsLoaders(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	env := []string{"PENSTOCK_QUEUE_ACK_WAIT=1s", "PENSTOCK_LOADER_MAX_UNFINISHED=3"}
	deadly := append(env, "PENSTOCK_FAULTPOINT=loader.decoding:1") // its child inherits it
	s.put("events/deadly.ndjson", []byte(`{"name":"a"}`+"\n"), nil)
	l := s.prepare("l1", "load", deadly...)
	for i := range 3 {
		l.spawn()
		select {
		case <-l.Done():
		case <-time.After(30 * time.Second):
			t.Fatalf("loader %d was not killed", i+1)
		}
	}
	l.spawn()
	l.awaitReady()
	s.dead("events/deadly.ndjson", "killed_loader")
	if out := s.must("dlq", "list"); !strings.Contains(out, "killed_loader") {
		t.Errorf("dlq list: %s", out)
	}
	l.term()
	s.start("l2", "load", env...)
	s.must("dlq", "redrive", "events/deadly.ndjson")
	eventually(t, 30*time.Second, "it is loaded alone", func() error {
		if n := one[uint64](s,
			"SELECT count() FROM loads FINAL WHERE key = 'events/deadly.ndjson' AND status = 'loaded' AND unfinished = 0"); n != 1 {
			return fmt.Errorf("%d objects are loaded", n)
		}
		return nil
	})
	s.rows("events", 1)
}

// A small file that becomes a row of 1.4 GB is given up, and neither the loader
// nor the good object beside it suffers.
func TestHugeRow(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	l := s.prepare("l1", "load", "PENSTOCK_QUEUE_ACK_WAIT=10s", "PENSTOCK_LOADER_MAX_ATTEMPTS=1")
	l.binary = plain // the race detector multiplies memory
	l.spawn()
	l.awaitReady()
	var columns []string
	for i := range 12 {
		columns = append(columns, fmt.Sprintf("repeat(repeat('x', 1000000), 126) AS c%d", i))
	}
	to := fmt.Sprintf("s3('%s/penstock/events/huge.parquet', '%s', '%s', 'Parquet')", s.minio.Endpoint(),
		s.minio.AccessKey(), s.minio.SecretKey())
	query := "INSERT INTO FUNCTION " + to + " SELECT " + strings.Join(columns, ", ") +
		" SETTINGS output_format_parquet_compression_method = 'zstd', max_threads = 1"
	if err := s.db.Exec(t.Context(), query); err != nil {
		t.Fatal(err)
	}
	s.put("events/good.ndjson", []byte(`{"name":"a"}`+"\n"), nil)
	if got := s.state("events/good.ndjson"); got.State != pipeline.Loaded {
		t.Errorf("good.ndjson is %s", got.State)
	}
	s.dead("events/huge.parquet", "unreadable_object")
	peak, err := load.PeakRSS(l.Pid)
	if err != nil || peak > 700<<20 {
		t.Errorf("the loader took %d bytes, error %v", peak, err)
	}
	select {
	case <-l.Done():
		t.Error("the loader was killed")
	default:
	}
}
