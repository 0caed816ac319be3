package alerts

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue/jetstream"
	"github.com/penstock/penstock/internal/testing/servers"
	"github.com/penstock/penstock/receiver/tenant"
	"github.com/penstock/penstock/tools/devstack"
)

const key = "test-key"

// stack is a pipeline of real processes, with a proxy in front of the bucket and one in front of ClickHouse.
type stack struct {
	t             testing.TB
	dir, binary   string
	env           []string
	receive, load *role
	bucket        *objstore.Bucket
	bucketDown    atomic.Bool
	ahead         atomic.Int64 // of the bucket's clock, ns
	table         *tcpProxy
	tableHTTP     string       // ClickHouse's URL, with its password
	every         atomic.Int64 // ns between two requests; 0: none
	wrong, large  atomic.Bool  // requests have events without a name; events are large
}

// role is a receiver or a loader.
type role struct {
	*devstack.Process
	command   string
	url       string
	admin     string
	configure []string
}

func newStack(t testing.TB) *stack {
	nats, ch := servers.NATS(t), servers.ClickHouse(t)
	q, err := jetstream.Connect(jetstream.Options{URL: nats.URL(), AckWait: 5 * time.Second, MaxAge: time.Hour,
		MaxBytes: 1 << 28, Replicas: 1}, "alerts", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if err := q.Setup(t.Context(), pipeline.Specs(), nil); err != nil {
		t.Fatal(err)
	}
	targets, _ := servers.Targets(pipeline.Specs(), jetstream.Subject)
	minio := servers.MinIO(t, devstack.MinIOOptions{Targets: targets, NATSAddress: nats.Addr()})
	s := &stack{t: t, dir: t.TempDir(), table: newTCPProxy(t, ch.Addr()), tableHTTP: ch.HTTPWithPassword()}
	s.binary = filepath.Join(s.dir, "penstock")
	build := exec.Command("go", "build", "-tags", "chaos", "-o", s.binary, "./cmd/penstock")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	store := s.storeProxy(minio.Endpoint())
	s.bucket = objstore.Open(objstore.Options{Endpoint: minio.Endpoint(), Region: "us-east-1", Bucket: "penstock",
		AccessKey: minio.AccessKey(), SecretKey: minio.SecretKey(), PathStyle: true})
	sum := tenant.HashKey(key)
	s.env = append(os.Environ(),
		"PENSTOCK_STORAGE_ENDPOINT="+store, "PENSTOCK_STORAGE_ACCESS_KEY="+minio.AccessKey(),
		"PENSTOCK_STORAGE_SECRET_KEY="+minio.SecretKey(), "PENSTOCK_QUEUE_URL="+nats.URL(), "PENSTOCK_QUEUE_ACK_WAIT=2s",
		"PENSTOCK_CLICKHOUSE_ADDRESSES=["+s.table.address()+"]", "PENSTOCK_CLICKHOUSE_USER="+ch.User(),
		"PENSTOCK_CLICKHOUSE_PASSWORD="+ch.Password(),
		"PENSTOCK_RECEIVER_KEYS=[{project: game, sha256: "+hex.EncodeToString(sum[:])+"}]",
		"PENSTOCK_BATCHER_ROLL_AGE=500ms", "PENSTOCK_BATCHER_MAX_DISK=4MiB", "PENSTOCK_BATCHER_MAX_SEGMENT=4MiB",
		"PENSTOCK_BATCHER_BACKOFF_MIN=50ms", "PENSTOCK_BATCHER_BACKOFF_MAX=200ms",
		"PENSTOCK_TEST_WATCH_MS=250", // 15 s
	)
	if out, err := s.run("setup"); err != nil {
		t.Fatalf("setup: %v\n%s", err, out)
	}
	s.receive, s.load = s.start("receive"), s.start("load")
	s.every.Store(int64(15 * time.Millisecond))
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	wg.Go(func() { s.send(ctx) })
	t.Cleanup(func() { stop(); wg.Wait() })
	return s
}

// run runs a command to its end.
func (s *stack) run(args ...string) (string, error) {
	cmd := exec.CommandContext(s.t.Context(), s.binary, args...)
	cmd.Env, cmd.Dir = s.env, s.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// storeProxy is in front of the bucket.
func (s *stack) storeProxy(endpoint string) string {
	to, err := url.Parse(endpoint)
	if err != nil {
		s.t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
		ModifyResponse: func(r *http.Response) error {
			r.Header.Set("Date", time.Now().Add(time.Duration(s.ahead.Load())).UTC().Format(http.TimeFormat))
			return nil
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if s.bucketDown.Load() {
			panic(http.ErrAbortHandler) // the connection is closed
		}
		proxy.ServeHTTP(w, req)
	}))
	s.t.Cleanup(server.Close)
	return server.URL
}

func free(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *stack) start(command string) *role {
	r := &role{command: command, url: free(s.t), admin: free(s.t)}
	r.configure = []string{"PENSTOCK_ADMIN_LISTEN=" + r.admin, "PENSTOCK_RECEIVER_LISTEN=" + r.url,
		"PENSTOCK_RECEIVER_NAME=" + command, "PENSTOCK_BATCHER_DIR=" + filepath.Join(s.dir, command)}
	s.spawn(r)
	s.t.Cleanup(func() { r.Kill() })
	return r
}

// spawn starts a role's process, and waits until it is ready.
func (s *stack) spawn(r *role) {
	log := filepath.Join(s.dir, r.command+".log")
	p, err := devstack.Start(context.Background(), devstack.Command{Name: r.command, Path: s.binary,
		Args: []string{r.command}, Env: append(s.env, r.configure...), LogPath: log})
	if err != nil {
		s.t.Fatal(err)
	}
	r.Process = p
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + r.admin + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == 200 {
				return
			}
		}
		if time.Now().After(until) {
			s.t.Fatalf("%s is not ready: %v\n%s", r.command, err, p.LogTail())
		}
	}
}

// send is the clients' traffic.
func (s *stack) send(ctx context.Context) {
	long := strings.Repeat("x", 200<<10)
	for n := 0; ctx.Err() == nil; n++ {
		every := time.Duration(s.every.Load())
		if every == 0 {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		body := fmt.Sprintf(`{"name":"a","n":%d}`, n)
		switch {
		case s.wrong.Load() && n%8 == 0:
			body = ""
		case s.wrong.Load() && n%2 == 0:
			body = fmt.Sprintf(`{"nme":"a","n":%d}`, n)
		case s.large.Load():
			body = fmt.Sprintf(`{"name":"a","n":%d,"text":%q}`, n, long)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.receive.url+"/v1/events",
			strings.NewReader(body))
		if err != nil {
			panic(err)
		}
		req.Header.Set("Authorization", "Bearer "+key)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		time.Sleep(every)
	}
}

// tcpProxy is in front of ClickHouse.
type tcpProxy struct {
	listener net.Listener
	to       string
	down     atomic.Bool
	delay    atomic.Int64 // ns of each piece that a client sends
	mu       sync.Mutex
	open     map[net.Conn]bool
}

func newTCPProxy(t testing.TB, to string) *tcpProxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tcpProxy{listener: l, to: to, open: map[net.Conn]bool{}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	t.Cleanup(func() { l.Close(); p.cut() })
	return p
}

func (p *tcpProxy) address() string { return p.listener.Addr().String() }

// cut closes all connections.
func (p *tcpProxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		c.Close()
	}
}

func (p *tcpProxy) serve(client net.Conn) {
	defer client.Close()
	if p.down.Load() {
		return
	}
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	p.open[client] = true
	p.mu.Unlock()
	go func() { io.Copy(client, server); client.Close() }()
	for buf := make([]byte, 64<<10); ; {
		n, err := client.Read(buf)
		if time.Sleep(time.Duration(p.delay.Load())); err != nil {
			break
		}
		if _, err := server.Write(buf[:n]); err != nil {
			break
		}
	}
	p.mu.Lock()
	delete(p.open, client)
	p.mu.Unlock()
}
