package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue/jetstream"
	"github.com/penstock/penstock/tools/devstack"
)

// tools are the programs of the stack.
type tools struct {
	nats, minio string
	clickhouse  devstack.ClickHouseEngine
}

// fetchTools gets what is missing, with progress on standard error.
func fetchTools(ctx context.Context, s streams) (t tools, err error) {
	cache, err := devstack.CacheDir()
	if err != nil {
		return t, err
	}
	fetch := &devstack.Fetcher{Cache: cache, Progress: s.err}
	if t.clickhouse, err = fetch.ClickHouse(ctx); err != nil {
		return t, err
	}
	if t.nats, err = fetch.NATS(ctx); err != nil {
		return t, err
	}
	t.minio, err = fetch.MinIO(ctx)
	return t, err
}

// servers are what a local stack stands on, and all processes that were started
// on it. Those that it does without are nil.
type servers struct {
	nats       *devstack.NATS
	clickhouse *devstack.ClickHouse
	minio      *devstack.MinIO
	files      config.ClientTLS    // for requests to roles
	processes  []*devstack.Process // in the order of their start; they stop in the other
}

// secrets are the passwords of the servers.
type secrets struct{ clickhouse, minio, nats string }

// serverOptions say which servers to start, and where.
type serverOptions struct {
	data     string   // a folder a server below it
	ports    devPorts // 0: a free one
	queue    bool     // start NATS, and have MinIO notify it
	tables   bool     // start ClickHouse
	secrets  secrets  // empty ones: those of tests
	queueDir string   // see devstack.MinIOOptions
}

// start starts the servers and writes their addresses into cfg. What an error
// leaves running is stop's.
func (s *servers) start(ctx context.Context, have tools, cfg *config.Config, o serverOptions) (err error) {
	minio := devstack.MinIOOptions{Binary: have.minio, Data: filepath.Join(o.data, "minio"), Port: o.ports.minio, ConsolePort: o.ports.console,
		SecretKey: o.secrets.minio, QueueDir: o.queueDir}
	if o.queue {
		if s.nats, err = devstack.StartNATS(ctx, devstack.NATSOptions{Binary: have.nats, Data: filepath.Join(o.data, "nats"), Port: o.ports.nats,
			Password: o.secrets.nats}); err != nil {
			return err
		}
		s.processes = append(s.processes, s.nats.Process)
		cfg.Queue.URL, cfg.Queue.User, cfg.Queue.Password = "nats://"+s.nats.Addr(), s.nats.User(), s.nats.Password()
		minio.NATSAddress, minio.NATSUser, minio.NATSPass = s.nats.Addr(), s.nats.User(), s.nats.Password()
		for _, spec := range pipeline.Specs() {
			minio.Targets = append(minio.Targets, devstack.NotifyTarget{ID: strings.ToUpper(spec.Name), Subject: jetstream.Subject(spec)})
		}
	}
	if o.tables {
		if s.clickhouse, err = devstack.StartClickHouse(ctx, devstack.ClickHouseOptions{Engine: have.clickhouse, Data: filepath.Join(o.data, "clickhouse"),
			TCPPort: o.ports.tcp, HTTPPort: o.ports.http, Password: o.secrets.clickhouse}); err != nil {
			return err
		}
		s.processes = append(s.processes, s.clickhouse.Process)
		cfg.ClickHouse.Addresses = []string{s.clickhouse.Addr()}
		cfg.ClickHouse.User, cfg.ClickHouse.Password = s.clickhouse.User(), s.clickhouse.Password()
	}
	if o.queue {
		if err := makeStreams(ctx, *cfg); err != nil {
			return err
		}
	}
	if s.minio, err = devstack.StartMinIO(ctx, minio); err != nil {
		return err
	}
	s.processes = append(s.processes, s.minio.Process)
	cfg.Storage.Endpoint, cfg.Storage.AccessKey, cfg.Storage.SecretKey, cfg.Storage.PathStyle = s.minio.Endpoint(), s.minio.AccessKey(), s.minio.SecretKey(), true
	return nil
}

// makeStreams makes the queue's streams: MinIO's targets want them to be there.
func makeStreams(ctx context.Context, cfg config.Config) error {
	log, err := newLogger(io.Discard, cfg.Process)
	if err != nil {
		return err
	}
	q, err := connectQueue(cfg.Queue, "penstock-dev", log)
	if err != nil {
		return err
	}
	defer q.Close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return q.Setup(ctx, pipeline.Specs())
}

// startRole starts a role as a process of its own, of this very program, and
// waits until it is ready. env overrides the configuration.
func (s *servers) startRole(ctx context.Context, role, file, admin, log string, env ...string) (*devstack.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := devstack.Start(ctx, devstack.Command{Name: "penstock " + role, Path: self, Args: []string{role, "--config", file},
		Env: append(append(plainEnviron(), "PENSTOCK_ADMIN_LISTEN="+admin[strings.Index(admin, "://")+3:]), env...), LogPath: log})
	if err != nil {
		return nil, err
	}
	s.processes = append(s.processes, p)
	client := http.DefaultClient
	if s.files != (config.ClientTLS{}) {
		client = s.files.HTTPClient()
	}
	return p, awaitReady(ctx, client, p, admin+"/readyz")
}

// stop ends the processes, the last started first: the receiver's batches are
// still stored, and the loads under way still finish. Each has so long.
func (s *servers) stop(limit time.Duration) {
	for _, p := range slices.Backward(s.processes) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		p.Stop(ctx)
		cancel()
	}
}

// plainEnviron is our environment without overrides of the configuration: they
// are in the file that we have written, and our flags over them.
func plainEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return config.IsOverride(name)
	})
}

func awaitReady(whole context.Context, client *http.Client, p *devstack.Process, url string) error {
	ctx, cancel := context.WithTimeout(whole, 30*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-p.Done():
			return fmt.Errorf("%s ended: %w", p.Name, p.Err())
		case <-whole.Done():
			return whole.Err()
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after 30 s; the end of %s:\n%s", p.Name, p.LogPath, p.LogTail())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func freePort() (int, error) {
	l, err := net.Listen("tcp", loopback(0))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
