package app

import (
	"log/slog"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/queue/jetstream"
)

// OpenQueue opens a connection to the queue at queue.url. The scheme of the URL chooses the adapter: each has a case
// here. name identifies the connection to the server. A process opens several, so the adapter must connect to a server
// that all processes share.
func OpenQueue(c config.Queue, name string, log *slog.Logger) (queue.Queue, error) {
	switch scheme, _, _ := strings.Cut(c.URL, "://"); scheme {
	default: // nats, tls, ws, wss, or host:port without a scheme
		return openJetStream(c, name, log)
	}
}

func openJetStream(c config.Queue, name string, log *slog.Logger) (queue.Queue, error) {
	q, err := jetstream.Connect(jetstream.Options{URL: c.URL, User: c.User, Password: c.Password, Creds: c.Creds,
		TLS: c.TLS.Config(log), AckWait: time.Duration(c.AckWait), MaxAge: time.Duration(c.MaxAge),
		MaxBytes: int64(c.MaxBytes), Replicas: c.Replicas}, name, log)
	if err != nil {
		return nil, err // a nil *jetstream.Queue in the interface would not be nil
	}
	return q, nil
}
