package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/operate/console"
)

// admin is the listener for operators.
type admin struct {
	listener net.Listener
	server   *http.Server
	trail    *operate.Trail
}

// listenAdmin opens the admin listener for an API, which gets its tokens and its host names here.
func listenAdmin(cfg config.Admin, api operate.API, log *slog.Logger) (*admin, error) {
	token, err := cfg.Secret(log)
	if err != nil {
		return nil, err
	}
	api.Access = operate.NewAccess(token, cfg.Tokens)
	api.Console = console.New(api.Operator, api.Access, log).Handler()
	api.Hosts = operate.AdminHosts(cfg)
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, explainListen("admin.listen", cfg.Listen, err)
	}
	server, err := newServer(api.Handler(), cfg.TLS, log)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("admin.tls: %w", err)
	}
	return &admin{listener: l, server: server, trail: api.Operator.Trail}, nil
}

// run serves until ctx ends.
func (a *admin) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { a.server.Close() })
	defer stop()
	var trail sync.WaitGroup
	trail.Go(func() { a.trail.Run(ctx) })
	defer trail.Wait()
	if err := serve(a.server, a.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}
