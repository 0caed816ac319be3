package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/batcher"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/version"
	"github.com/penstock/penstock/internal/wallclock"
	"github.com/penstock/penstock/loader"
	"github.com/penstock/penstock/receiver/protocol/otlpgrpc"
	"github.com/penstock/penstock/receiver/tap"
)

// Receive is the role that accepts events over HTTP and stores them as objects.
type Receive struct {
	cfg      config.Config
	log      *slog.Logger
	reg      *prometheus.Registry
	intake   *intake
	bucket   *bucketWatch
	draining atomic.Bool
}

// NewReceive makes a receiver. It neither listens nor writes before Run.
func NewReceive(cfg config.Config, log *slog.Logger) (*Receive, error) {
	reg := newRegistry()
	p := newProcess(cfg, log, reg)
	name, err := receiverName(cfg)
	if err != nil {
		return nil, explainDir(cfg.Batcher.Dir, err)
	}
	p.trace("receive", name)
	in, err := newIntake(p, "receive", pipeline.Specs(), &tap.Tap{})
	if err != nil {
		p.tracer.Close()
		return nil, err
	}
	return &Receive{cfg: cfg, log: log, reg: reg, intake: in, bucket: newBucketWatch(p)}, nil
}

// Run accepts events until ctx ends. Then it rejects new ones, and returns when all batches are stored or process.drain
// is over.
func (r *Receive) Run(ctx context.Context) error {
	defer r.intake.tracer.Close()
	if limitMemory(receiveMemory, r.log) {
		fillMemory()
	}
	ops, closeOps := NewOperator(r.cfg, loader.NewIsolation(nil), r.log)
	defer closeOps()
	ops.Name, ops.Tap, ops.Receives = r.intake.name, r.intake.tap, true
	adm, err := listenAdmin(r.cfg.Admin, operate.API{Operator: ops, Metrics: r.reg, Ready: r.ready, Status: r.status},
		r.log)
	if err != nil {
		return err
	}
	defer adm.listener.Close()
	if err := r.intake.start(); err != nil {
		return err
	}
	for _, b := range r.intake.batchers {
		r.intake.clock.Found(b.Newest())
	}
	r.intake.clock.Check(ctx)
	servers, err := r.listen()
	if err != nil {
		return err
	}
	listening := []any{"listen", servers[0].listener.Addr().String(), "otlp_grpc_listen", ""}
	if len(servers) > 1 {
		listening[3] = servers[1].listener.Addr().String()
	}
	r.log.Info("receiving", append(listening, "admin", adm.listener.Addr().String(),
		"durability", r.cfg.Receiver.Durability, "format", r.cfg.Batcher.Format)...)
	if r.intake.receiver.Keys() == 0 {
		r.log.Warn("receiver.keys and receiver.projects have no key; every request gets 401")
	}

	// The stages stop in the order of an event's way: the server, the reporter, the batchers, and last the admin listener,
	// which reports on them.
	var g errgroup.Group
	adminCtx, stopAdmin := context.WithCancel(context.Background())
	defer stopAdmin()
	g.Go(func() error { return adm.run(adminCtx) })
	g.Go(func() error { r.intake.clock.Run(adminCtx, watchEvery(wallclock.CheckEvery)); return nil })
	g.Go(func() error { r.bucket.run(adminCtx); return nil })
	cause := r.serve(ctx, servers)
	err = errors.Join(cause, r.intake.stop())
	stopAdmin()
	err = errors.Join(err, g.Wait())
	if err == nil {
		r.log.Info("drained: every batch is stored")
	}
	return err
}

// listen opens the listeners for clients: HTTP, and OTLP over gRPC if configured.
func (r *Receive) listen() ([]*publicServer, error) {
	c := r.cfg.Receiver
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, explainListen("receiver.listen", c.Listen, err)
	}
	server, err := newServer(r.intake.receiver, c.TLS, r.log)
	if err != nil {
		return nil, fmt.Errorf("receiver.tls: %w", err)
	}
	servers := []*publicServer{{server, listener}}
	if c.OTLPGRPCListen != "" {
		listener, err := net.Listen("tcp", c.OTLPGRPCListen)
		if err != nil {
			return nil, explainListen("receiver.otlp_grpc_listen", c.OTLPGRPCListen, err)
		}
		grpc, err := newServer(otlpgrpc.Handler(r.intake.receiver), c.TLS, r.log)
		if err != nil {
			return nil, fmt.Errorf("receiver.tls: %w", err)
		}
		grpc.Protocols = otlpgrpc.Protocols()
		servers = append(servers, &publicServer{grpc, listener})
	}
	return servers, nil
}

// serve serves clients until ctx ends or a server fails, and then finishes the requests under way.
func (r *Receive) serve(ctx context.Context, servers []*publicServer) (cause error) {
	failed := make(chan error, len(servers))
	for _, server := range servers {
		server.listener = r.intake.receiver.Attach(server.Server, server.listener)
		go server.serve(failed)
	}
	select {
	case <-ctx.Done():
		r.log.Info("draining", "deadline", time.Duration(r.cfg.Process.Drain))
	case cause = <-failed:
	}
	r.draining.Store(true)
	// Requests under way get half of the deadline, uploads all of it.
	quiet, cancel := context.WithTimeout(context.Background(), time.Duration(r.cfg.Process.Drain)/2)
	defer cancel()
	for _, server := range servers {
		if err := server.Shutdown(quiet); err != nil {
			r.log.Warn("requests cut off", "error", err)
			server.Close()
		}
	}
	return cause
}

// publicServer is a server of clients' requests with its listener.
type publicServer struct {
	*http.Server
	listener net.Listener
}

// serve ends when the server is shut down, or reports why it failed.
func (s *publicServer) serve(failed chan<- error) {
	if err := serve(s.Server, s.listener); !errors.Is(err, http.ErrServerClosed) {
		failed <- err
	}
}

func (r *Receive) status() operate.RoleStatus {
	st := operate.RoleStatus{Role: "receive", Version: version.Current().Version, Bucket: r.bucket.problem()}
	if err := r.intake.clock.Err(); err != nil {
		st.Error = "every event is refused: " + err.Error()
	}
	if r.intake.projects != nil {
		st.Projects = r.intake.projects.Problem()
	}
	in := r.intake.receiver
	counts, usage := in.Counts(), in.Usage()
	st.Intake, st.Usage, st.Redacted = &counts, &usage, in.Redacted()
	for _, b := range r.intake.batchers {
		st.Batchers = append(st.Batchers, b.Stats())
	}
	return st
}

// ready returns why events cannot be accepted now.
func (r *Receive) ready() error {
	return errors.Join(r.intake.ready(r.draining.Load()), r.intake.clock.Err())
}

func (in *intake) ready(draining bool) error {
	if draining {
		return batcher.ErrClosed
	}
	events := in.batchers[0] // a full errors pipeline keeps no event away
	if err := events.Ready(); err != nil {
		return err
	}
	// A running receiver continues to accept events on its disk. A new receiver with a wrong configuration must not
	// replace running ones.
	if none, err := events.Refused(); none && err != nil {
		return fmt.Errorf("no object was stored since the start: %w", err)
	}
	return nil
}
