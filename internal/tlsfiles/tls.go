package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
)

// Server names the files of a listener, in PEM.
type Server struct {
	Cert     string // with the chain up to the CA
	Key      string
	ClientCA string // of the certificates that clients must have; empty: they need none
}

// Config returns how the listener serves TLS 1.2 and later, with HTTP/2.
func (s Server) Config(log *slog.Logger) (*tls.Config, error) {
	files, err := watch("certificate "+s.Cert, log, s.read, s.Cert, s.Key, s.ClientCA)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return files.get(), nil
		},
	}, nil
}

func (s Server) read() (*tls.Config, error) {
	pair, err := keyPair(s.Cert, s.Key)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		Certificates: []tls.Certificate{*pair}}
	if s.ClientCA == "" {
		return c, nil
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.ClientCAs, err = pool(s.ClientCA)
	return c, err
}

// Client names the files of a client, in PEM. The zero value is one that trusts the system's CAs.
type Client struct {
	CA         string // that the server's certificate must come from; empty: the system's
	Cert       string // of the client itself; empty: none
	Key        string
	ServerName string // in the server's certificate; empty: the host of the address
}

// Config returns how the client connects. The CA is read once, certificate and key again when they change.
func (c Client) Config(log *slog.Logger) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CA != "" {
		var err error
		if t.RootCAs, err = pool(c.CA); err != nil {
			return nil, err
		}
	}
	if c.Cert == "" {
		return t, nil
	}
	files, err := watch("client certificate "+c.Cert, log,
		func() (*tls.Certificate, error) { return keyPair(c.Cert, c.Key) }, c.Cert, c.Key)
	if err != nil {
		return nil, err
	}
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return files.get(), nil }
	return t, nil
}

func keyPair(cert, key string) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read certificate %s and key %s: %w", cert, key, err)
	}
	return &pair, nil
}

func pool(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path) // #nosec G304 -- the operator's configuration names it
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read CA %s: no certificate in PEM in it", path)
	}
	return p, nil
}

// Secret is a text in a file, without the line's end.
type Secret struct{ file *watched[string] }

// OpenSecret reads the file for the first time.
func OpenSecret(path string, log *slog.Logger) (*Secret, error) {
	file, err := watch("secret "+path, log, func() (string, error) {
		text, err := os.ReadFile(path) // #nosec G304 -- the operator's configuration names it
		if err != nil {
			return "", err
		}
		secret := strings.TrimRight(string(text), "\r\n")
		if secret == "" {
			return "", errors.New(path + " is empty")
		}
		return secret, nil
	}, path)
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	return &Secret{file}, nil
}

// Text is what the file holds now.
func (s *Secret) Text() string { return s.file.get() }
