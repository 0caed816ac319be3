package app

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/penstock/penstock/batcher"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/penstock/penstock/loader"
)

// nobody is an address at which no server answers.
const nobody = "127.0.0.1:1"

// aloneConfig is a configuration of which no server can be reached, without a queue.
func aloneConfig(t *testing.T) config.Config {
	t.Helper()
	c := config.Default()
	c.Storage.Endpoint, c.Storage.Notify, c.Storage.PathStyle = "http://"+nobody, "none", true
	c.ClickHouse.Addresses, c.Queue.URL = []string{nobody}, "nats://"+nobody
	c.Batcher.Dir, c.Admin.Listen = filepath.Join(t.TempDir(), "wal"), "127.0.0.1:0"
	c.Process.Drain = config.Duration(time.Second)
	return c
}

var discard = slog.New(slog.DiscardHandler)

// A loader waits for ClickHouse, logs that meanwhile, and ends with its context.
func TestLoadWaitsForTables(t *testing.T) {
	c := aloneConfig(t)
	c.Admin.Listen = freeAddress(t)
	l, err := NewLoad(c, loader.NewIsolation(nil), discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	awaitAnswer(t, "http://"+c.Admin.Listen+"/readyz", 503, "the tables could not be checked yet")
	awaitAnswer(t, "http://"+c.Admin.Listen+"/status", 200, `"role":"load"`)
	awaitAnswer(t, "http://"+c.Admin.Listen+"/metrics", 200, `penstock_loader_paused{pipeline="events"} 0`)
	awaitAnswer(t, "http://"+c.Admin.Listen+"/metrics", 200, "penstock_clickhouse_available 0")
	awaitAnswer(t, "http://"+c.Admin.Listen+"/metrics", 200, "penstock_bucket_available 0")
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
}

func TestLoadIsReady(t *testing.T) {
	l, err := NewLoad(aloneConfig(t), loader.NewIsolation(nil), discard)
	if err != nil {
		t.Fatal(err)
	}
	defer l.outlet.close()
	l.checked.Store(true)
	if err := l.ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	l.draining.Store(true)
	if err := l.ready(); err == nil || err.Error() != "draining" {
		t.Errorf("while it drains: %v", err)
	}
	var pipelines []string
	for _, s := range l.status().Loaders {
		pipelines = append(pipelines, s.Pipeline)
	}
	if diff := cmp.Diff([]string{"events", "errors"}, pipelines); diff != "" {
		t.Errorf("loaders (-want +got):\n%s", diff)
	}
}

// Without a queue a loader polls, and only the full sweep goes on beside it. With one there are both sweeps.
func TestSweepsOfALoader(t *testing.T) {
	for _, tt := range []struct {
		notify string
		full   time.Duration
		sweeps int // of both pipelines, and the refresh of rollups
		polls  bool
	}{{"none", time.Hour, 3, true}, {"none", 0, 1, true}, {"storage", time.Hour, 5, false}, {"self", 0, 3, false}} {
		c := aloneConfig(t)
		c.Storage.Notify, c.Sweep.FullEvery = tt.notify, config.Duration(tt.full)
		out, err := newOutlet(newProcess(c, discard, newRegistry()), loader.NewIsolation(nil))
		if err != nil {
			t.Fatal(err)
		}
		if len(out.sweeps) != tt.sweeps {
			t.Errorf("notify %s, full sweep every %s: %d sweeps, want %d", tt.notify, tt.full, len(out.sweeps), tt.sweeps)
		}
		if _, polls := out.deliveries(pipeline.Spec{Name: "x", Prefix: "x/"}).(*loader.Poller); polls != tt.polls {
			t.Errorf("notify %s: it polls %v, want %v", tt.notify, polls, tt.polls)
		}
		if out.stopReports() != nil {
			t.Error("reports that never ran cannot be stopped")
		}
		out.close()
	}
}

// Invalid input of a child process is an error before anything is limited or loaded.
func TestLoadAloneIsRefused(t *testing.T) {
	for _, tt := range []struct{ table, in, want string }{
		{"x", "{}", `there is no pipeline "x"`},
		{"events", "", "read the notification: EOF"},
		{"events", `{"Key":5}`, "read the notification: json: "},
	} {
		var out bytes.Buffer
		err := LoadAlone(t.Context(), aloneConfig(t), tt.table, strings.NewReader(tt.in), &out, discard)
		if err == nil || !strings.Contains(err.Error(), tt.want) || out.Len() > 0 {
			t.Errorf("%s %q: %v, printed %q; want %q", tt.table, tt.in, err, &out, tt.want)
		}
	}
}

// An object of which ClickHouse cannot be asked is no killer: the verdict is an outage.
func TestVerdictOfAnOutage(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var out bytes.Buffer
	n := pipeline.Notification{Key: "events/x.parquet"}
	if err := loadAlone(ctx, newProcess(aloneConfig(t), discard, newRegistry()), pipeline.Events, n, &out); err != nil {
		t.Fatal(err)
	}
	if err := verdict(out.Bytes(), nil); retry.ClassOf(err) != retry.Outage || errors.Is(err, loader.ErrKilled) {
		t.Errorf("printed %s: %v of class %s, want an outage", &out, err, retry.ClassOf(err))
	}
}

func TestMemoryLimits(t *testing.T) {
	if got := aloneLimit(); got == 0 || got > aloneMemory {
		t.Errorf("a child may take %d bytes, want 1 to %d", got, aloneMemory)
	}
	t.Cleanup(func() { debug.SetMemoryLimit(math.MaxInt64) })
	t.Setenv("GOMEMLIMIT", "1GiB")
	if limitMemory(5<<20, discard) {
		t.Error("GOMEMLIMIT is overridden")
	}
	t.Setenv("GOMEMLIMIT", "")
	if got := debug.SetMemoryLimit(-1); !limitMemory(300<<20, discard) || debug.SetMemoryLimit(-1) != 300<<20 {
		t.Errorf("the limit was %d and is %d, want %d", got, debug.SetMemoryLimit(-1), 300<<20)
	}
}

// appended records appended events.
type appended struct{ events []pipeline.Event }

func (a *appended) Append(_ context.Context, events []pipeline.Event, _ []pipeline.Blob,
	_ pipeline.Durability) (pipeline.Ticket, error) {
	a.events = append(a.events, events...)
	return nil, nil
}

func TestShiftedClock(t *testing.T) {
	to := &appended{}
	if got := shiftedClock(to); got != to {
		t.Errorf("without a shift the appender becomes a %T", got)
	}
	events := []pipeline.Event{{ReceivedAt: 10}, {ReceivedAt: 20, Timestamp: 7}}
	if _, err := (shifted{to, -5}).Append(t.Context(), events, nil, pipeline.Disk); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]pipeline.Event{{ReceivedAt: 5}, {ReceivedAt: 15, Timestamp: 7}}, to.events); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// told is a queue that records enqueued notifications.
type told struct {
	queue.Queue
	all      []pipeline.Notification
	failures int // before it accepts
}

func (q *told) Enqueue(ctx context.Context, _ pipeline.Spec, n pipeline.Notification, again bool) (bool, error) {
	if _, limited := ctx.Deadline(); !limited || again {
		return false, errors.New("it waits for ever, or tells again")
	}
	if q.failures--; q.failures >= 0 {
		return false, errors.New("away")
	}
	q.all = append(q.all, n)
	return false, nil
}

// An unreachable queue delays no upload, and gets the notifications once it is back. The log names objects without a
// notification.
func TestNotifier(t *testing.T) {
	o := pipeline.Object{Key: "events/x", ETag: "e", Size: 7, Meta: pipeline.Meta{Rows: 3}}
	for _, failures := range []int{0, 3, 1000} {
		bubble.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			q := &told{failures: failures}
			n := newNotifier(q, slog.New(slog.NewTextHandler(&log, nil)))
			go n.run()
			began := time.Now()
			n.add(pipeline.Events, o)
			if took := time.Since(began); took > 0 {
				t.Errorf("an upload waited %s", took)
			}
			time.Sleep(2 * notifyFor)
			synctest.Wait()
			want := []pipeline.Notification{{Key: "events/x", ETag: "e", Size: 7}}
			if failures == 1000 {
				want = nil
			}
			if diff := cmp.Diff(want, q.all); diff != "" {
				t.Errorf("after %d failures (-want +got):\n%s", failures, diff)
			}
			began = time.Now()
			n.add(pipeline.Events, o)
			n.stop()
			if took := time.Since(began); took > notifyDrain+notifyWait {
				t.Errorf("stop took %s", took)
			}
			if warned := strings.Contains(log.String(), "key=events/x error=away"); warned != (failures == 1000) {
				t.Errorf("%d failures: logged %s", failures, &log)
			}
		})
	}
}

// An operator's receiver has a separate log beside that of a receiver that may run here.
func TestReceiverOfAnOperator(t *testing.T) {
	c := aloneConfig(t)
	c.Receiver.Name = "r1"
	c.Receiver.Keys = []config.Key{{Project: "p", SHA256: hashOf("key")}}
	o, closeOperator := NewOperator(c, loader.NewIsolation(nil), discard)
	defer closeOperator()
	folders := func() (names []string) {
		entries, _ := os.ReadDir(filepath.Join(c.Batcher.Dir, "redrive"))
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	var stops []func() error
	for range 2 { // metrics of one must not clash with those of the other
		_, stop, err := o.Receiver()
		if err != nil {
			t.Fatal(err)
		}
		stops = append(stops, stop)
	}
	if got := folders(); len(got) != 2 {
		t.Errorf("two receivers have the folders %q", got)
	}
	for _, stop := range stops {
		if err := stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
	_, stop, err := o.Receiver()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if got := folders(); len(got) != 2 {
		t.Errorf("a third receiver does not take a folder that is free: %q", got)
	}
	c.Receiver.Keys[0].SHA256 = "x"
	wrong, closeWrong := NewOperator(c, loader.NewIsolation(nil), discard)
	defer closeWrong()
	if _, _, err := wrong.Receiver(); err == nil || !strings.Contains(err.Error(), "receiver.keys[0].sha256") {
		t.Errorf("a wrong key: %v", err)
	}
}

// Without a queue, both functions return none. An unreachable queue is an outage.
func TestQueueOfAnOperator(t *testing.T) {
	c := aloneConfig(t)
	o, closeOperator := NewOperator(c, loader.NewIsolation(nil), discard)
	defer closeOperator()
	for name, get := range map[string]func(context.Context) (operate.Queue, error){"Queue": o.Queue, "Peek": o.Peek} {
		if q, err := get(t.Context()); q != nil && q != queue.Queue(nil) || err != nil {
			t.Errorf("%s without a queue: %v, %v", name, q, err)
		}
	}
	if l, err := o.Loader(t.Context(), pipeline.Events); l == nil || err != nil {
		t.Errorf("a loader without a queue: %v, %v", l, err)
	}
	c.Storage.Notify = "storage"
	away, closeAway := NewOperator(c, loader.NewIsolation(nil), discard)
	defer closeAway()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	for name, err := range map[string]error{
		"Queue":  second(away.Queue(ctx)),
		"Peek":   second(away.Peek(ctx)),
		"Loader": second(away.Loader(ctx, pipeline.Events)),
	} {
		if retry.ClassOf(err) != retry.Outage {
			t.Errorf("%s of a queue that is away: %v of class %s, want an outage", name, err, retry.ClassOf(err))
		}
	}
}

func second[T any](_ T, err error) error { return err }

// Setup reports what it did, and for a failure the setting.
func TestSetupSaysHowFarItCame(t *testing.T) {
	store := httptest.NewServer(gofakes3.New(s3mem.New()).Server())
	defer store.Close()
	for _, tt := range []struct {
		name    string
		change  func(*config.Config)
		printed string
		want    []string
	}{
		{"no store", func(*config.Config) {}, "", []string{"storage.endpoint", nobody}},
		{"no ClickHouse", func(c *config.Config) { c.Storage.Endpoint = store.URL }, "bucket         ok  created penstock\n",
			[]string{"clickhouse.addresses", nobody}},
		{"no queue", func(c *config.Config) { c.Storage.Notify = "storage" }, "", []string{nobody}},
	} {
		c := aloneConfig(t)
		c.Storage.AccessKey, c.Storage.SecretKey = "a", "s"
		tt.change(&c)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		var out strings.Builder
		err := Setup(ctx, c, false, &out)
		cancel()
		if out.String() != tt.printed {
			t.Errorf("%s: printed %q, want %q", tt.name, &out, tt.printed)
		}
		for _, want := range tt.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", tt.name, err, want)
			}
		}
	}
}

// A receiver that drains is not ready, whatever else holds.
func TestIntakeIsReady(t *testing.T) {
	c := aloneConfig(t)
	in, err := newIntake(newProcess(c, discard, newRegistry()), "receive", pipeline.Specs(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.start(); err != nil {
		t.Fatal(err)
	}
	defer in.stop()
	if err := in.ready(false); err != nil {
		t.Errorf("not ready: %v", err)
	}
	if err := in.ready(true); !errors.Is(err, batcher.ErrClosed) {
		t.Errorf("while it drains: %v, want %v", err, batcher.ErrClosed)
	}
}

// An unusable setting is an error at start, and leaves no folder locked.
func TestIntakeIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*config.Config)
		want   string
	}{
		{"a format", func(c *config.Config) { c.Batcher.Format = "csv" }, `unknown format "csv"`},
		{"a proxy", func(c *config.Config) { c.Receiver.TrustedProxies = []string{"x"} }, "receiver.trusted_proxies"},
		{"schemas", func(c *config.Config) { c.Schemas.Mode, c.Schemas.Dir = "warn", "/does/not/exist" }, "schemas.dir"},
		{"projects", func(c *config.Config) { c.Receiver.Projects = "/does/not/exist.yaml" }, "receiver.projects"},
		{"a folder", func(c *config.Config) { c.Batcher.Dir = "/dev/null/wal" }, "it is a file, not a folder"},
	} {
		c := aloneConfig(t)
		tt.change(&c)
		for range 2 { // the second one finds the folder free
			_, err := newIntake(newProcess(c, discard, newRegistry()), "redrive", pipeline.Specs(), nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
			}
		}
		entries, _ := os.ReadDir(filepath.Join(c.Batcher.Dir, "redrive"))
		if len(entries) > 1 {
			t.Errorf("%s: %d folders are left, want one that is used again", tt.name, len(entries))
		}
	}
}

// The log names no queue where none is used.
func TestQueueText(t *testing.T) {
	cfg := config.Default()
	cfg.Queue.URL = "nats://user:secret@queue:4222"
	for notify, want := range map[string]string{"self": "nats://user:[HIDDEN]@queue:4222",
		"none": "none (storage.notify); the bucket is listed"} {
		cfg.Storage.Notify = notify
		if got := queueText(cfg); got != want {
			t.Errorf("notify %s: %q, want %q", notify, got, want)
		}
	}
}
