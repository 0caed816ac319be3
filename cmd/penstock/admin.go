package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/version"
)

// admin is the listener for operators.
type admin struct {
	listener net.Listener
	server   *http.Server
}

func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// readiness is what GET /readyz asks.
type readiness struct {
	ready   func() error    // why the role is not ready; nil: it is
	remarks func() []string // what it cannot do although it is; nil: it says nothing more
}

// listenAdmin opens the admin listener. status is asked at each GET /status.
func listenAdmin(cfg config.Admin, reg *prometheus.Registry, ops *operator, ready readiness,
	status func() operate.RoleStatus) (*admin, error) {
	token, err := cfg.Secret(ops.log)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("admin.listen: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready.ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
		if ready.remarks != nil {
			for _, line := range ready.remarks() {
				fmt.Fprintln(w, line)
			}
		}
		for _, warning := range status().Warnings() {
			fmt.Fprintln(w, warning)
		}
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, version.Current()) })
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, status()) })
	// A profile costs CPU: for operators.
	mux.HandleFunc("GET /debug/pprof/", guard(token, pprof.Index))
	mux.HandleFunc("GET /debug/pprof/profile", guard(token, pprof.Profile))
	handleOperations(mux, ops, token)
	server, err := newServer(checkOrigin(mux, adminHosts(cfg)), cfg.TLS, ops.log)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("admin.tls: %w", err)
	}
	return &admin{listener: l, server: server}, nil
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// run serves until ctx ends.
func (a *admin) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { a.server.Close() })
	defer stop()
	if err := serve(a.server, a.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}
