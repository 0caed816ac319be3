package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/operate"
)

// admin is the listener for operators.
type admin struct {
	listener net.Listener
	server   *http.Server
}

// listenAdmin opens the admin listener for an API, which gets its token and its host names here.
func listenAdmin(cfg config.Admin, api operate.API, log *slog.Logger) (*admin, error) {
	var err error
	if api.Token, err = cfg.Secret(log); err != nil {
		return nil, err
	}
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
	return &admin{listener: l, server: server}, nil
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
