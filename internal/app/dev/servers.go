package dev

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

	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue/jetstream"
	"github.com/penstock/penstock/tools/devstack"
)

// Tools are the programs of the stack.
type Tools struct {
	nats, minio string
	clickhouse  devstack.ClickHouseEngine
}

// FetchTools downloads or builds missing programs, and shows the progress.
func FetchTools(ctx context.Context, progress io.Writer) (t Tools, err error) {
	cache, err := devstack.CacheDir()
	if err != nil {
		return t, err
	}
	fetch := &devstack.Fetcher{Cache: cache, Progress: progress}
	if t.clickhouse, err = fetch.ClickHouse(ctx); err != nil {
		return t, err
	}
	if t.nats, err = fetch.NATS(ctx); err != nil {
		return t, err
	}
	t.minio, err = fetch.MinIO(ctx)
	return t, err
}

// Servers are the servers of a local stack, and all its processes. Unused servers are nil.
type Servers struct {
	NATS       *devstack.NATS
	ClickHouse *devstack.ClickHouse
	MinIO      *devstack.MinIO
	Processes  []*devstack.Process // in the order of their start; they stop in the other
	Program    string              // penstock, for roles; empty: this very program
	TLS        config.ClientTLS    // for requests to roles
}

// secrets are the passwords of the servers.
type secrets struct{ clickhouse, minio, nats string }

// ServerOptions say which servers to start, and where.
type ServerOptions struct {
	Data     string  // a folder a server below it
	Ports    Ports   // 0: a free one
	Queue    bool    // start NATS, and have MinIO notify it
	Tables   bool    // start ClickHouse
	secrets  secrets // empty ones: those of tests
	queueDir string  // see devstack.MinIOOptions
}

// Start starts the servers and writes their addresses into cfg. After an error, call Stop for those that run.
func (s *Servers) Start(ctx context.Context, have Tools, cfg *config.Config, o ServerOptions) (err error) {
	minio := devstack.MinIOOptions{Binary: have.minio, Data: filepath.Join(o.Data, "minio"), Port: o.Ports.minio,
		ConsolePort: o.Ports.console,
		SecretKey:   o.secrets.minio, QueueDir: o.queueDir}
	if o.Queue {
		if s.NATS, err = devstack.StartNATS(ctx,
			devstack.NATSOptions{Binary: have.nats, Data: filepath.Join(o.Data, "nats"), Port: o.Ports.nats,
				Password: o.secrets.nats}); err != nil {
			return err
		}
		s.Processes = append(s.Processes, s.NATS.Process)
		cfg.Queue.URL, cfg.Queue.User, cfg.Queue.Password = "nats://"+s.NATS.Addr(), s.NATS.User(), s.NATS.Password()
		minio.NATSAddress, minio.NATSUser, minio.NATSPass = s.NATS.Addr(), s.NATS.User(), s.NATS.Password()
		for _, spec := range pipeline.Specs() {
			minio.Targets = append(minio.Targets,
				devstack.NotifyTarget{ID: strings.ToUpper(spec.Name), Subject: jetstream.Subject(spec)})
		}
	}
	if o.Tables {
		if s.ClickHouse, err = devstack.StartClickHouse(ctx,
			devstack.ClickHouseOptions{Engine: have.clickhouse, Data: filepath.Join(o.Data, "clickhouse"),
				TCPPort: o.Ports.tcp, HTTPPort: o.Ports.http, Password: o.secrets.clickhouse}); err != nil {
			return err
		}
		s.Processes = append(s.Processes, s.ClickHouse.Process)
		cfg.ClickHouse.Addresses = []string{s.ClickHouse.Addr()}
		cfg.ClickHouse.User, cfg.ClickHouse.Password = s.ClickHouse.User(), s.ClickHouse.Password()
	}
	if o.Queue {
		if err := makeStreams(ctx, *cfg); err != nil {
			return err
		}
	}
	if s.MinIO, err = devstack.StartMinIO(ctx, minio); err != nil {
		return err
	}
	s.Processes = append(s.Processes, s.MinIO.Process)
	cfg.Storage.Endpoint, cfg.Storage.AccessKey, cfg.Storage.SecretKey, cfg.Storage.PathStyle = s.MinIO.Endpoint(),
		s.MinIO.AccessKey(), s.MinIO.SecretKey(), true
	return nil
}

// makeStreams creates the queue's streams before MinIO starts, which needs them.
func makeStreams(ctx context.Context, cfg config.Config) error {
	log, err := cfg.Process.Logger(io.Discard, nil)
	if err != nil {
		return err
	}
	q, err := app.OpenQueue(cfg, "penstock-dev", log)
	if err != nil {
		return err
	}
	defer q.Close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return q.Setup(ctx, pipeline.Specs(), nil)
}

// StartRole starts a role as a separate process, and
// waits until it is ready. env overrides the configuration.
func (s *Servers) StartRole(ctx context.Context, role, file, admin, log string, env ...string) (*devstack.Process,
	error) {
	self := s.Program
	if self == "" {
		var err error
		if self, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	p, err := devstack.Start(ctx, devstack.Command{Name: "penstock " + role, Path: self,
		Args:    []string{role, "--config", file},
		Env:     append(append(plainEnviron(), "PENSTOCK_ADMIN_LISTEN="+admin[strings.Index(admin, "://")+3:]), env...),
		LogPath: log})
	if err != nil {
		return nil, err
	}
	s.Processes = append(s.Processes, p)
	client := http.DefaultClient
	if s.TLS != (config.ClientTLS{}) {
		client = s.TLS.HTTPClient()
	}
	return p, AwaitReady(ctx, client, p, admin+"/readyz")
}

// Stop ends the processes, the last started first, so that the receiver's batches are stored and the loads finish.
// limit is for each process.
func (s *Servers) Stop(limit time.Duration) {
	for _, p := range slices.Backward(s.Processes) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		p.Stop(ctx)
		cancel()
	}
}

// plainEnviron is our environment without overrides of the configuration, because the written file has their values
// already.
func plainEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return config.IsOverride(name)
	})
}

// AwaitReady waits until url answers 200.
func AwaitReady(whole context.Context, client *http.Client, p *devstack.Process, url string) error {
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

// Loopback is the address of a port on this machine.
func Loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// FreePort is a port that nobody listens on.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", Loopback(0))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
