package app

import (
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/tlsfiles"
	"github.com/penstock/penstock/receiver/admission"
)

// Limits of a connection to any listener.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = admission.MaxHead
	maxStreams    = 100      // requests at once on one HTTP/2 connection
	maxFrame      = 16 << 10 // bytes; each connection has a buffer for the largest that it was sent
)

// newServer makes a server with limits. It serves TLS and HTTP/2 if certificate files are configured.
func newServer(h http.Handler, files config.ServerTLS, log *slog.Logger) (*http.Server, error) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		// Clients cause failed handshakes. A log line for each would let anybody fill the log.
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerStream: 1 << 20,
			MaxReceiveBufferPerConnection: 4 << 20, MaxReadFrameSize: maxFrame, SendPingTimeout: idleTimeout / 4,
			PingTimeout:      headerTimeout,
			WriteByteTimeout: idleTimeout},
	}
	if files.Cert == "" {
		return s, nil
	}
	var err error
	s.TLSConfig, err = tlsfiles.Server(files).Config(log)
	return s, err
}

// serve serves until the server is shut down, with TLS if it is configured.
func serve(s *http.Server, l net.Listener) error {
	if s.TLSConfig != nil {
		return s.ServeTLS(l, "", "")
	}
	return s.Serve(l)
}
