package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/traffic"
)

// portBase finds eight free ports in a row.
func portBase(t *testing.T) int {
	t.Helper()
next:
	for base := 20000 + os.Getpid()%12000; base < 60000; base += 8 {
		for p := base; p < base+8; p++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
			if err != nil {
				continue next
			}
			l.Close()
		}
		return base
	}
	t.Fatal("no eight free ports in a row")
	return 0
}

// The main job by the one command: every event that is sent is a row, once.
func TestDev(t *testing.T) {
	path, err := penstock()
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	used := map[string]bool{}
	for _, format := range []string{"parquet", "ndjson"} {
		t.Run(format, func(t *testing.T) {
			defer func() { forgetPasswords(t, data, used) }()
			cmd := exec.CommandContext(t.Context(), path, "dev", "--data", data, "--port-base", fmt.Sprint(portBase(t)),
				"--events", "20000", "--exit", "--json", "--roll", "1s", "--format", format)
			var out, errs strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &errs
			if err := cmd.Run(); err != nil {
				logs, _ := filepath.Glob(filepath.Join(data, "*.log"))
				for _, log := range logs {
					text, _ := os.ReadFile(log)
					t.Logf("%s:\n%s", log, text[max(0, len(text)-3000):])
				}
				t.Fatalf("%v\n%s%s", err, out.String(), errs.String())
			}
			var sum struct {
				Sent, Accepted, Rejected, Objects, Rows int
				Distinct                                int `json:"distinct_event_ids"`
			}
			if err := json.Unmarshal([]byte(out.String()), &sum); err != nil {
				t.Fatalf("%q: %v", out.String(), err)
			}
			if sum.Sent != 20000 || sum.Accepted != 20000 || sum.Rejected != 0 || sum.Rows != 20000 || sum.Distinct != 20000 ||
				sum.Objects < 1 {
				t.Errorf("summary %+v", sum)
			}
			if _, err := os.Stat(filepath.Join(data, "dev.json")); err == nil {
				t.Error("dev.json is still there after the end")
			}
		})
	}
}

// forgetPasswords checks and removes the password files of a stopped dev stack. The next start then finds the folder of
// an earlier version: its servers had other passwords, or none. used are the passwords seen so far.
func forgetPasswords(t *testing.T, data string, used map[string]bool) {
	t.Helper()
	for _, name := range []string{"clickhouse-password", "minio-password", "nats-password"} {
		path := filepath.Join(data, name)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o, want 600", name, info.Mode().Perm())
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if password := strings.TrimSpace(string(text)); len(password) < 20 || used[password] {
			t.Errorf("%s is %q: short, or used before", name, password)
		} else {
			used[password] = true
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"clickhouse/users.xml", "clickhouse/config.xml", "nats/nats-server.conf",
		"penstock.yaml"} {
		path := filepath.Join(data, name)
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 600", name, info, err)
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDevPortTaken(t *testing.T) {
	path, err := penstock()
	if err != nil {
		t.Fatal(err)
	}
	base := portBase(t)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+4))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := exec.CommandContext(t.Context(), path, "dev", "--data", t.TempDir(), "--port-base",
		fmt.Sprint(base)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), fmt.Sprintf("port %d (NATS) is taken", base+4)) ||
		!strings.Contains(string(out), "--port-base") {
		t.Errorf("err %v, printed %s", err, out)
	}
}

// Two receivers and two loaders share a bucket and a queue. One of each is stopped midway. Every acknowledged event is
// a row, once.
func TestDrainInTheMiddle(t *testing.T) { onEach(t, drainInTheMiddle) }

func drainInTheMiddle(t *testing.T, s *stack) {
	receivers := []*role{s.start("r1", "receive"), s.start("r2", "receive", "PENSTOCK_BATCHER_FORMAT=ndjson")}
	loaders := []*role{s.start("l1", "load"), s.start("l2", "load")}
	total, batch := number("PENSTOCK_DRAIN_EVENTS", 60_000), 100
	var mu sync.Mutex
	acked := 0
	var wg sync.WaitGroup
	work := make(chan []byte)
	for w := range 8 {
		wg.Go(func() {
			http := &http.Client{Timeout: 20 * time.Second}
			for body := range work {
				// A client of either receiver, going to the other when one is gone.
				for i := 0; ; i++ {
					c := &traffic.Client{URL: receivers[(w+i)%2].URL + "/v1/events", Key: key, HTTP: http}
					ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
					a, err := c.Send(ctx, body)
					cancel()
					if err == nil {
						mu.Lock()
						acked += a.Accepted
						mu.Unlock()
						break
					}
					if t.Context().Err() != nil {
						return
					}
				}
			}
		})
	}
	g := traffic.New("e2e", 1)
	for sent := 0; sent < total; sent += batch {
		var body []byte
		for range batch {
			body = append(g.Append(body), '\n')
		}
		work <- body
		if sent == total/2 {
			wg.Go(receivers[0].term)
			wg.Go(loaders[0].term)
		}
	}
	close(work)
	wg.Wait()
	receivers[1].term()
	if acked != total {
		t.Fatalf("%d acknowledged of %d", acked, total)
	}
	// A resend after a cut connection may be a second row until FINAL: so count ids.
	eventually(t, 3*time.Minute, "all rows", func() error {
		if got := one[uint64](s, "SELECT uniqExact(event_id) FROM events"); got != uint64(total) {
			return fmt.Errorf("%d of %d", got, total)
		}
		return nil
	})
	loaders[1].term()
	if got := one[uint64](s, "SELECT count() FROM events FINAL"); got != uint64(total) {
		t.Errorf("%d rows with FINAL, want %d", got, total)
	}
	if got := one[int64](s, "SELECT count() - uniqExact(object, object_row) FROM events"); got != 0 {
		t.Errorf("%d rows of objects are there twice", got)
	}
	if got := one[uint64](s, "SELECT uniqExact(receiver) FROM events"); got != 2 {
		t.Errorf("rows of %d receivers, want 2", got)
	}
	// Lineage: an object's rows are numbered in its order. A merge may have removed rows of resent events.
	for format, order := range map[string]string{"ndjson.zst": "seq",
		"parquet": "project, name, seq"} {
		if got := one[uint64](s, fmt.Sprintf(`SELECT countIf(n > 1 AND object_row <= before) FROM (
			SELECT object_row, row_number() OVER w AS n, lagInFrame(object_row) OVER w AS before
			FROM events WHERE endsWith(object, '%s') WINDOW w AS (PARTITION BY object ORDER BY %s
			ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW))`, format, order)); got != 0 {
			t.Errorf("%d rows do not stand where their object of %s has them", got, format)
		}
	}
}

// Another reader of the objects: ClickHouse's s3().
func TestObjectsReadByS3Function(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for _, format := range []string{"parquet", "ndjson"} {
		r := s.start("rx-"+format, "receive", "PENSTOCK_BATCHER_FORMAT="+format)
		var sent traffic.Sent
		if err := traffic.Run(t.Context(), traffic.NewClient(r.URL+"/v1/events", key, 4), format, 20_000, 100, 4, 0,
			&sent); err != nil {
			t.Fatal(err)
		}
		r.term()
	}
	s.start("l1", "load")
	s.rows("events", 40_000)
	for _, ext := range []string{"parquet", "ndjson.zst"} {
		from := fmt.Sprintf("s3('%s/penstock/events/dt=*/hr=*/*.%s', '%s', '%s')", s.minio.Endpoint(), ext,
			s.minio.AccessKey(), s.minio.SecretKey())
		sums := "toString((count(), uniqExact(lower(toString(event_id))), sum(toUInt64(seq) % 1000003), " +
			"sum(toInt64(properties.score)), min(name), max(user_id)))"
		ours := one[string](s, "SELECT "+sums+" FROM events WHERE endsWith(object, '"+ext+"')")
		if ext == "parquet" { // frequent values are in typed columns
			sums = strings.Replace(sums, "properties.score", "typed.score", 1)
		}
		theirs := one[string](s, "SELECT "+sums+" FROM "+from)
		if ours != theirs {
			t.Errorf("%s: the table has %s, s3() finds %s", ext, ours, theirs)
		}
		if !strings.HasPrefix(ours, "(20000,20000,") {
			t.Errorf("%s: %s", ext, ours)
		}
	}
}

// A notification that comes again loads nothing; one that says nothing is
// settled and counted.
func TestRedelivery(t *testing.T) { onEach(t, redelivery) }

func redelivery(t *testing.T, s *stack) {
	r := s.start("r1", "receive")
	if code, a := post(t, r.URL+"/v1/events?durability=object",
		`[{"name":"a","level":1},{"name":"b","level":2}]`); code != 200 || a.Object == "" {
		t.Fatalf("answer %d %+v", code, a)
	} else {
		l := s.start("l1", "load")
		s.rows("events", 2)
		// The rows are there a moment before the ledger says so.
		eventually(t, 10*time.Second, "the ledger", func() error {
			if n := one[uint64](s, "SELECT count() FROM loads FINAL WHERE status = 'loaded'"); n != 1 {
				return fmt.Errorf("%d objects are loaded", n)
			}
			return nil
		})
		again := fmt.Sprintf(`{"Records":[{"s3":{"object":{"key":%q}}}]}`, strings.ReplaceAll(a.Object, "/", "%2F"))
		for _, body := range []string{again, again, "not json", `{"Event":"s3:TestEvent"}`,
			`{"Records":[{"s3":{"object":{"key":"elsewhere%2Fx"}}}]}`} {
			if err := s.backend.publish(body); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, 20*time.Second, "all are settled", func() error {
			already, ignored := l.metric(`penstock_loader_objects_total{pipeline="events",result="already"}`),
				l.metric(`penstock_loader_ignored_total{pipeline="events"`)
			if already != 2 || ignored != 3 {
				return fmt.Errorf("already %v, ignored %v", already, ignored)
			}
			return nil
		})
		if got := one[uint64](s, "SELECT count() FROM events"); got != 2 {
			t.Errorf("%d rows, want 2", got)
		}
		if got := one[int64](s, "SELECT sum(toInt64(properties.level)) FROM events"); got != 3 {
			t.Errorf("levels sum to %d", got)
		}
	}
}

// kill -9 of a receiver: acknowledged events are replayed under the same key.
func TestReceiverKilled(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive", "PENSTOCK_BATCHER_ROLL_AGE=1h")
	var sent traffic.Sent
	if err := traffic.Run(t.Context(), traffic.NewClient(r.URL+"/v1/events", key, 4), "k", 5_000, 50, 4, 0,
		&sent); err != nil {
		t.Fatal(err)
	}
	r.Kill()
	r.again()
	if err := traffic.Run(t.Context(), traffic.NewClient(r.URL+"/v1/events", key, 4), "later", 1_000, 50, 4, 0,
		&sent); err != nil {
		t.Fatal(err)
	}
	r.term()
	s.start("l1", "load")
	s.rows("events", 6_000)
	if got := one[uint64](s, "SELECT uniqExact(object) FROM events"); got != 2 {
		t.Errorf("%d objects, want 2: one a process", got)
	}
	// Events sent after the restart sort after those sent before it.
	if got := one[bool](s,
		"SELECT minIf(seq, startsWith(session_id, 'later')) > maxIf(seq, startsWith(session_id, 'k')) FROM events"); !got {
		t.Error("seq begins again after a restart")
	}
	if got := one[uint64](s, "SELECT uniqExact(receiver, seq) FROM events"); got != 6_000 {
		t.Errorf("%d different seqs of 6000", got)
	}
}

// Events that the receiver rejects are rows of the errors table, byte for byte.
func TestRejectsAreRows(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive")
	s.start("l1", "load")
	broken := `{"name":"x","v":1e400}`
	code, a := post(t, r.URL+"/v1/events", "{\"name\":\"good\"}\n"+broken+"\n{\"name\":\"good2\"}", "Content-Type",
		"application/x-ndjson")
	if code != 202 || a.Accepted != 2 || a.Rejected != 1 || a.Errors[0].Index != 1 ||
		a.Errors[0].Code != "number_out_of_range" {
		t.Fatalf("answer %d %+v", code, a)
	}
	s.rows("events", 2)
	s.rows("errors", 1)
	if got := one[string](s,
		"SELECT raw FROM errors WHERE code = 'number_out_of_range' AND stage = 'receiver' AND project = 'test'"); got != broken {
		t.Errorf("raw is %q", got)
	}
}

// A table without a deduplication window would count a repeated insert twice.
func TestTableWithoutWindowIsRefused(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	if err := s.db.Exec(t.Context(), "ALTER TABLE events RESET SETTING non_replicated_deduplication_window"); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"setup", "load"} {
		out, err := s.run(command)
		if err == nil || !strings.Contains(out, "non_replicated_deduplication_window") {
			t.Errorf("%s: err %v, printed %s", command, err, out)
		}
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive")
	s.start("l1", "load")
	post(t, r.URL+"/v1/events", `{"name":"a"}`)
	s.rows("events", 1)
	path, err := penstock()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, "status", "--json")
	cmd.Env = s.env("PENSTOCK_STATUS_ADMINS=[" + r.Admin + "]")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var report struct {
		Pipelines []struct {
			Pipeline  string
			Queue     struct{ Pending int }
			Table     struct{ Rows int }
			Freshness *float64 `json:"freshness_seconds"`
		}
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatal(err)
	}
	if p := report.Pipelines[0]; p.Pipeline != "events" || p.Table.Rows != 1 || p.Freshness == nil || *p.Freshness != 0 {
		t.Errorf("status %s", out)
	}
}
