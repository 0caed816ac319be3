// Package e2e holds the tests that run the real binary against real servers.
package e2e

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/testing/servers"
	"github.com/penstock/penstock/receiver/tenant"
	"github.com/penstock/penstock/tools/devstack"
)

// penstock is the binary under test, built once with the race detector and fault points. plain is the users' binary,
// for measurements.
var (
	penstock = sync.OnceValues(func() (string, error) { return build("-race", "-tags", "chaos") })
	plain    = sync.OnceValues(func() (string, error) { return build() })
	built    []string // their folders
)

func build(flags ...string) (string, error) {
	dir, err := os.MkdirTemp("", "penstock-e2e-")
	if err != nil {
		return "", err
	}
	built = append(built, dir)
	path := filepath.Join(dir, "penstock")
	args := append([]string{"build"}, flags...)
	out, err := exec.Command("go",
		append(args, "-o", path, "github.com/penstock/penstock/cmd/penstock")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build penstock: %w\n%s", err, out)
	}
	return path, nil
}

func TestMain(m *testing.M) {
	if what := os.Getenv(recordingEnv); what != "" {
		os.Exit(postRecording(what))
	}
	flag.Parse()
	if p := flag.Lookup("test.parallel"); p.Value.String() == p.DefValue {
		// Most of a test's time is spent waiting: for a roll, a retry, a lease.
		flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0)))
	}
	if testing.Short() {
		fmt.Println("all tests here need servers: run without -short")
		return
	}
	// A process with the race detector sleeps a second before it ends. The tests end hundreds of processes.
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=10")
	}
	code := m.Run()
	for _, dir := range built {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

const (
	key = "test-key"
	// A key and a secret of the lengths that GameAnalytics' client insists on.
	gameKey    = "0123456789abcdef0123456789abcdef"
	gameSecret = "0123456789abcdef0123456789abcdef01234567"
)

// stack is the servers of one test; receivers and loaders are started on it.
type stack struct {
	t          testing.TB
	dir        string
	backend    *backend
	nats       *devstack.NATS // nil: the backend has another queue
	minio      *devstack.MinIO
	clickhouse *devstack.ClickHouse
	db         driver.Conn // database penstock
	environ    []string    // of every process, after what env sets
}

// newStack starts the servers and runs `penstock setup`.
func newStack(t testing.TB) *stack {
	t.Helper()
	return newStackOn(t, onNATS)
}

// newStackOn does so with another bucket and queue.
func newStackOn(t testing.TB, open func(*stack) *backend) *stack {
	t.Helper()
	s := &stack{t: t, dir: t.TempDir(), clickhouse: servers.ClickHouse(t)}
	s.backend = open(s)
	out, err := s.run("setup")
	if err != nil {
		t.Fatalf("setup: %v\n%s", err, out)
	}
	s.db = s.open("penstock")
	return s
}

func (s *stack) open(database string) driver.Conn {
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{s.clickhouse.Addr()},
		Auth: clickhouse.Auth{Database: database, Username: s.clickhouse.User(), Password: s.clickhouse.Password()}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

func (s *stack) bucket() *objstore.Bucket {
	return objstore.Open(objstore.Options{Endpoint: s.backend.endpoint, Region: "us-east-1", Bucket: s.backend.bucket,
		AccessKey: s.backend.key, SecretKey: s.backend.secretKey, PathStyle: true})
}

// bucketWithoutRules takes the bucket's notification rules away.
func (s *stack) bucketWithoutRules() {
	s.t.Helper()
	if err := s.bucket().Notify(s.t.Context(), nil, nil, nil); err != nil {
		s.t.Fatal(err)
	}
}

// env is the configuration of every process, all by environment.
func (s *stack) env(more ...string) []string {
	sum, game := tenant.HashKey(key), tenant.HashKey(gameKey)
	env := append(os.Environ(),
		"PENSTOCK_STORAGE_ENDPOINT="+s.backend.endpoint,
		"PENSTOCK_STORAGE_ACCESS_KEY="+s.backend.key,
		"PENSTOCK_STORAGE_SECRET_KEY="+s.backend.secretKey,
		s.backend.lease+"=5s",
		"PENSTOCK_CLICKHOUSE_ADDRESSES=["+s.clickhouse.Addr()+"]",
		"PENSTOCK_CLICKHOUSE_USER="+s.clickhouse.User(),
		"PENSTOCK_CLICKHOUSE_PASSWORD="+s.clickhouse.Password(),
		"PENSTOCK_RECEIVER_KEYS=[{project: test, sha256: "+hex.EncodeToString(
			sum[:])+"}, {project: test, sha256: "+hex.EncodeToString(game[:])+", secret: "+gameSecret+"}]",
		"PENSTOCK_BATCHER_ROLL_AGE=1s",
		"PENSTOCK_LOADER_BACKOFF_MIN=100ms", "PENSTOCK_LOADER_BACKOFF_MAX=1s",
		"PENSTOCK_BATCHER_BACKOFF_MIN=50ms", "PENSTOCK_BATCHER_BACKOFF_MAX=500ms",
	)
	return slices.Concat(env, s.backend.env, s.environ, more)
}

// run runs a command to its end. It returns the results, followed by standard error.
func (s *stack) run(args ...string) (string, error) {
	path, err := penstock()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(s.t.Context(), path, args...)
	cmd.Env, cmd.Dir = s.env(), s.dir
	var out, said strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &said
	err = cmd.Run()
	return out.String() + said.String(), err
}

// role is a receiver or loader that runs.
type role struct {
	*devstack.Process
	t     testing.TB
	log   string
	URL   string // of the receiver's listener
	Admin string
	args  []string
	env   []string

	binary func() (string, error) // nil: penstock
}

// start starts a receiver or a loader and waits until it is ready.
func (s *stack) start(name, command string, env ...string) *role {
	s.t.Helper()
	r := s.launch(name, command, env...)
	r.awaitReady()
	return r
}

// launch does not wait.
func (s *stack) launch(name, command string, env ...string) *role {
	s.t.Helper()
	r := s.prepare(name, command, env...)
	r.spawn()
	return r
}

// prepare starts nothing.
func (s *stack) prepare(name, command string, env ...string) *role {
	r := &role{t: s.t, URL: "http://" + address(s.t), Admin: "http://" + address(s.t), args: []string{command}}
	r.env = s.env(append([]string{
		"PENSTOCK_ADMIN_LISTEN=" + strings.TrimPrefix(r.Admin, "http://"),
		"PENSTOCK_RECEIVER_LISTEN=" + strings.TrimPrefix(r.URL, "http://"),
		"PENSTOCK_RECEIVER_NAME=" + name,
		"PENSTOCK_BATCHER_DIR=" + filepath.Join(s.dir, name),
		"PENSTOCK_LOADER_NAME=" + name,
	}, env...)...)
	r.log = filepath.Join(s.dir, name+".log")
	return r
}

// again starts the process anew, after it ended; its log goes on.
func (r *role) again() {
	r.t.Helper()
	r.spawn()
	r.awaitReady()
}

func (r *role) spawn() {
	r.t.Helper()
	binary := penstock
	if r.binary != nil {
		binary = r.binary
	}
	path, err := binary()
	if err != nil {
		r.t.Fatal(err)
	}
	log := r.log
	p, err := devstack.Start(r.t.Context(),
		devstack.Command{Name: strings.Join(r.args, " "), Path: path, Args: r.args, Env: r.env, LogPath: log})
	if err != nil {
		r.t.Fatal(err)
	}
	r.Process = p
	r.t.Cleanup(func() {
		p.Kill()
		text, _ := os.ReadFile(log)
		if secret := r.secretIn(string(text)); secret != "" { // the log of every role of every test
			r.t.Errorf("%s has the secret %s in it", log, secret)
		}
		if r.t.Failed() {
			r.t.Logf("%s:\n%s", log, text[max(0, len(text)-6000):])
		}
	})
}

// secretIn returns the first secret of the role's environment that the text holds.
func (r *role) secretIn(text string) string {
	for _, e := range r.env {
		name, value, _ := strings.Cut(e, "=")
		if u, err := url.Parse(value); err == nil && u.User != nil {
			value, _ = u.User.Password()
		} else if !strings.HasSuffix(name, "_PASSWORD") && !strings.HasSuffix(name, "_SECRET_KEY") &&
			!strings.HasSuffix(name, "_API_TOKEN") {
			continue
		}
		if len(value) > 5 && strings.HasPrefix(name, "PENSTOCK_") && strings.Contains(text, value) {
			return value
		}
	}
	return ""
}

func (r *role) awaitReady() {
	r.t.Helper()
	eventually(r.t, 20*time.Second, "ready: "+r.log, func() error {
		select {
		case <-r.Done():
			r.t.Fatalf("%s ended: %v\n%s", r.log, r.Err(), r.LogTail())
		default:
		}
		resp, err := http.Get(r.Admin + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != 200 {
			text, _ := io.ReadAll(resp.Body)
			return fmt.Errorf("%s: %s", resp.Status, text)
		}
		return nil
	})
}

// term sends SIGTERM and waits for a clean end.
func (r *role) term() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	r.Stop(ctx)
	text, _ := os.ReadFile(r.LogPath)
	if !strings.Contains(string(text), "msg=\"drained") {
		r.t.Errorf("%s did not drain:\n%s", r.Name, r.LogTail())
	}
}

func (r *role) metric(name string) float64 {
	r.t.Helper()
	resp, err := http.Get(r.Admin + "/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	var sum float64
	name, labels, _ := strings.Cut(strings.TrimSuffix(name, "}"), "{")
	for line := range strings.Lines(string(text)) {
		family, rest, labelled := strings.Cut(line, "{")
		matches := labelled && family == name || !labelled && strings.HasPrefix(line, name+" ")
		for label := range strings.SplitSeq(labels, ",") {
			matches = matches && strings.Contains(rest, label)
		}
		if matches {
			var v float64
			if _, err := fmt.Sscan(line[strings.LastIndexByte(strings.TrimSpace(line), ' '):], &v); err != nil {
				r.t.Fatalf("%q: %v", line, err)
			}
			sum += v
		}
	}
	return sum
}

// address is a free one on this machine.
func address(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// eventually repeats what until it is fine.
func eventually(t testing.TB, limit time.Duration, name string, what func() error) {
	t.Helper()
	end := time.Now().Add(limit)
	for {
		err := what()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s: %v", name, limit, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// answer is the receiver's answer.
type answer struct {
	Accepted int    `json:"accepted"`
	Rejected int    `json:"rejected"`
	Request  string `json:"request_id"`
	Object   string `json:"object"`
	Error    struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
	Errors []struct {
		Index   int    `json:"index"`
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"errors"`
}

// post sends a body as it is.
func post(t *testing.T, url, body string, header ...string) (int, answer) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	var a answer
	if err := json.Unmarshal(text, &a); err != nil {
		t.Fatalf("%s: %q: %v", resp.Status, text, err)
	}
	return resp.StatusCode, a
}

// one is the single value of a query.
func one[T any](s *stack, query string, args ...any) T {
	s.t.Helper()
	var v T
	if err := s.db.QueryRow(s.t.Context(), query, args...).Scan(&v); err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
	return v
}

// loadedRows waits until the ledger has that many rows of loaded objects. The table may have fewer: merges collapse
// resends.
func (s *stack) loadedRows(pipeline string, want uint64) {
	s.t.Helper()
	eventually(s.t, time.Minute, "loaded rows of "+pipeline, func() error {
		got := one[uint64](s, "SELECT sum(rows) FROM loads FINAL WHERE status = 'loaded' AND pipeline = '"+pipeline+"'")
		if got != want {
			return fmt.Errorf("%d rows, want %d", got, want)
		}
		return nil
	})
}

// rows waits until a table has that many rows, and no more of them a little later.
func (s *stack) rows(table string, want uint64) {
	s.t.Helper()
	eventually(s.t, time.Minute, "rows in "+table, func() error {
		if got := one[uint64](s, "SELECT count() FROM "+table); got != want {
			return fmt.Errorf("%d rows, want %d", got, want)
		}
		return nil
	})
}

func (s *stack) jetstream() natsjs.JetStream {
	s.t.Helper()
	nc, err := nats.Connect(s.nats.URL())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(nc.Close)
	js, err := natsjs.New(nc)
	if err != nil {
		s.t.Fatal(err)
	}
	return js
}

// named is a query's parameter.
func named(name string, value any) driver.NamedValue { return clickhouse.Named(name, value) }
