package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/batcher"
	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/version"
	"github.com/penstock/penstock/receiver/protocol/otlpgrpc"
)

func runReceive(ctx context.Context, s streams, args []string) error {
	fs := newFlags(s, "receive",
		"Takes events over HTTP (POST /v1/events), gathers them and stores each batch as an object.\nSIGTERM: refuses new events, stores what it has, leaves.")
	path := configFlag(fs)
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	cfg, err := readConfig(*path)
	if err != nil {
		return err
	}
	log, err := app.NewLogger(s.err, cfg.Process)
	if err != nil {
		return err
	}
	if limitMemory(receiveMemory, log) {
		fillMemory()
	}
	reg := newRegistry()
	in, err := buildIntake(cfg, "receive", pipeline.Specs(), log, reg)
	if err != nil {
		return err
	}
	ops := newOperator(cfg, log)
	defer ops.close()
	var draining atomic.Bool
	clock := watchClock(cfg, log, reg)
	ready := readiness{func() error { return errors.Join(in.ready(draining.Load()), clock.Err()) }, in.remarks}
	adm, err := listenAdmin(cfg.Admin, reg, ops, ready, func() operate.RoleStatus {
		st := operate.RoleStatus{Role: "receive", Version: version.Current().Version}
		for _, b := range in.batchers {
			st.Batchers = append(st.Batchers, b.Stats())
		}
		return st
	})
	if err != nil {
		return err
	}
	defer adm.listener.Close()
	if err := in.start(); err != nil {
		return err
	}
	for _, b := range in.batchers {
		clock.Found(b.Newest())
	}
	clock.Check(ctx)
	listener, err := net.Listen("tcp", cfg.Receiver.Listen)
	if err != nil {
		return fmt.Errorf("receiver.listen: %w", err)
	}
	server, err := newServer(refuseByClock(in.receiver, clock, cfg.Receiver.RetryAfter), cfg.Receiver.TLS, log)
	if err != nil {
		return fmt.Errorf("receiver.tls: %w", err)
	}
	servers := []*publicServer{{server, listener}}
	grpcListen := ""
	if cfg.Receiver.OTLPGRPCListen != "" {
		listener, err := net.Listen("tcp", cfg.Receiver.OTLPGRPCListen)
		if err != nil {
			return fmt.Errorf("receiver.otlp_grpc_listen: %w", err)
		}
		grpc := otlpgrpc.NewServer(in.receiver)
		grpc.TLSConfig = server.TLSConfig
		servers = append(servers, &publicServer{grpc, listener})
		grpcListen = listener.Addr().String()
	}
	log.Info("receiving", "listen", listener.Addr().String(), "otlp_grpc_listen", grpcListen, "admin",
		adm.listener.Addr().String(), "durability", cfg.Receiver.Durability, "format", cfg.Batcher.Format)
	if in.receiver.Keys() == 0 {
		log.Warn("there is no key, neither in receiver.keys nor by receiver.projects: every request will be answered with 401")
	}

	// Each stage stops after the one before it in an event's way: the server,
	// the reporter, the batchers, and last the admin listener that tells of them.
	var g errgroup.Group
	adminCtx, stopAdmin := context.WithCancel(context.Background())
	defer stopAdmin()
	failed := make(chan error, len(servers))
	g.Go(func() error { return adm.run(adminCtx) })
	g.Go(func() error { clock.Run(adminCtx); return nil })
	for _, server := range servers {
		server.ConnContext, server.listener = in.receiver.ConnContext, in.receiver.Listen(server.listener)
		go server.serve(failed)
	}
	var cause error
	select {
	case <-ctx.Done():
		log.Info("draining", "deadline", cfg.Process.Drain.String())
	case cause = <-failed:
	}
	draining.Store(true)
	// Requests under way get half of the deadline, uploads the whole of it.
	quiet, cancel := context.WithTimeout(context.Background(), time.Duration(cfg.Process.Drain)/2)
	for _, server := range servers {
		if err := server.Shutdown(quiet); err != nil {
			log.Warn("requests were cut off", "error", err)
			server.Close()
		}
	}
	cancel()
	err = errors.Join(cause, in.stop())
	stopAdmin()
	err = errors.Join(err, g.Wait())
	if err == nil {
		log.Info("drained: every batch is stored")
	}
	return err
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

// ready tells why events cannot be taken now.
func (in *intake) ready(draining bool) error {
	if draining {
		return batcher.ErrClosed
	}
	events := in.batchers[0] // a full errors pipeline keeps no event away
	if err := events.Ready(); err != nil {
		return err
	}
	// Running receivers go on accepting to disk. One that has just been set up wrong must not take over from them.
	if none, err := events.Refused(); none && err != nil {
		return fmt.Errorf("no object was stored since the start: %w", err)
	}
	return nil
}

// remarks are what a receiver that is ready cannot do now.
func (in *intake) remarks() (all []string) {
	for _, b := range in.batchers {
		if _, err := b.Refused(); err != nil {
			all = append(all, fmt.Sprintf("%s: batches wait on disk: %s", b.Stats().Pipeline, err))
		}
	}
	return all
}
