package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/tlsfiles"
)

// Limits of a connection to any of our listeners.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10 // bytes of a request's line and headers
	maxStreams    = 100      // requests at once on one HTTP/2 connection
)

// newServer is a server with limits, which serves TLS and HTTP/2 if the files of a certificate are configured.
func newServer(h http.Handler, files config.ServerTLS, log *slog.Logger) (*http.Server, error) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		// Handshakes that fail are the clients' doing: one line each would let anybody fill the log.
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerStream: 1 << 20,
			MaxReceiveBufferPerConnection: 4 << 20, SendPingTimeout: idleTimeout / 4, PingTimeout: headerTimeout,
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

// checkOrigin keeps web pages away from the admin listener. A page can make a browser on this machine send requests, and
// with a host name of its own that it points here (DNS rebinding) also read the answers. A request whose host is an
// address cannot come that way.
func checkOrigin(h http.Handler, hosts []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !knownHost(r.Host, hosts) {
			apiError(w, http.StatusForbidden, fmt.Sprintf("host %q is not known here: add its name to admin.hosts", r.Host))
			return
		}
		scheme := "http://"
		if r.TLS != nil {
			scheme = "https://"
		}
		if origin := r.Header["Origin"]; len(origin) > 1 || len(origin) == 1 && !strings.EqualFold(origin[0], scheme+r.Host) {
			apiError(w, http.StatusForbidden, fmt.Sprintf("the admin listener answers no page of another site: origin %q", origin))
			return
		}
		h.ServeHTTP(w, r)
	})
}

func knownHost(hostport string, hosts []string) bool {
	name := hostName(hostport)
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	return slices.ContainsFunc(hosts, func(h string) bool { return h == "*" || strings.EqualFold(h, name) })
}

// hostName is a host without its port, without the brackets of an IPv6 address and without a final dot.
func hostName(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	return strings.TrimSuffix(host, ".")
}

// adminHosts are the names by which the admin listener is known.
func adminHosts(c config.Admin) []string {
	hosts := append([]string{"localhost"}, c.Hosts...)
	if name := hostName(c.Listen); name != "" {
		hosts = append(hosts, name)
	}
	return hosts
}
