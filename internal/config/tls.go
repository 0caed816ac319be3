package config

import (
	"crypto/tls"
	"log/slog"
	"net/http"

	"go.yaml.in/yaml/v3"

	"github.com/penstock/penstock/internal/tlsfiles"
)

// ServerTLS names the PEM files of a listener. Without a certificate it serves plain HTTP.
type ServerTLS struct {
	Cert     string `yaml:"cert" doc:"PEM file of the certificate."`
	Key      string `yaml:"key" doc:"PEM file of its key."`
	ClientCA string `yaml:"client_ca" doc:"PEM file of a CA. Clients must have a certificate that it signed."`
}

// ClientTLS names the PEM files for connections to a server.
type ClientTLS struct {
	CA         string `yaml:"ca" doc:"PEM file of the server's CA. Empty: the system's CAs."`
	Cert       string `yaml:"cert" doc:"PEM file of a client certificate."`
	Key        string `yaml:"key" doc:"PEM file of its key."`
	ServerName string `yaml:"server_name" doc:"Name in the server's certificate. Empty: the host."`
}

// ClickHouseTLS is "true", "false" or a mapping.
type ClickHouseTLS struct {
	Enabled    bool   `yaml:"enabled" default:"false" doc:"Connect with TLS."`
	CA         string `yaml:"ca" doc:"PEM file of the server's CA. Empty: the system's CAs."`
	Cert       string `yaml:"cert" doc:"PEM file of a client certificate."`
	Key        string `yaml:"key" doc:"PEM file of its key."`
	ServerName string `yaml:"server_name" doc:"Name in the server's certificate. Empty: the host."`
}

// Client is the part of it that a client has.
func (c ClickHouseTLS) Client() ClientTLS {
	return ClientTLS{CA: c.CA, Cert: c.Cert, Key: c.Key, ServerName: c.ServerName}
}

// UnmarshalYAML reads true, false or a mapping.
func (c *ClickHouseTLS) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		return n.Decode(&c.Enabled)
	}
	type fields ClickHouseTLS
	return n.Decode((*fields)(c))
}

// URL is that of a listener on this machine.
func (c ServerTLS) URL(listen string) string {
	if c.Cert != "" {
		return "https://" + listen
	}
	return "http://" + listen
}

// Config is the TLS configuration of a client; nil if nothing is configured. The files were checked at start. If they
// disappear later, each connection fails with that error.
func (c ClientTLS) Config(log *slog.Logger) *tls.Config {
	if c == (ClientTLS{}) {
		return nil
	}
	t, err := tlsfiles.Client(c).Config(log)
	if err != nil {
		return &tls.Config{
			MinVersion:         tls.VersionTLS12,
			InsecureSkipVerify: true, // #nosec G402 -- VerifyConnection refuses every server, with an error that helps
			VerifyConnection:   func(tls.ConnectionState) error { return err },
		}
	}
	return t
}

// HTTPClient connects with these files, as to an admin listener.
func (c ClientTLS) HTTPClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	if files := c.Config(slog.New(slog.DiscardHandler)); files != nil {
		t.TLSClientConfig = files
	}
	return &http.Client{Transport: t}
}

// Config is how to connect to ClickHouse; nil without TLS.
func (c ClickHouseTLS) Config(log *slog.Logger) *tls.Config {
	if !c.Enabled {
		return nil
	}
	if files := c.Client().Config(log); files != nil {
		return files
	}
	return &tls.Config{MinVersion: tls.VersionTLS12}
}
