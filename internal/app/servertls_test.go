package app

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/pipeline"
	testservers "github.com/penstock/penstock/internal/testing/servers"
	"github.com/penstock/penstock/internal/testing/tlstest"
	"github.com/penstock/penstock/tools/devstack"
)

// Each server has a certificate of a private CA, for another name than the address, and wants one from us.
func TestServersByTLS(t *testing.T) {
	testservers.Needed(t)
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	cert, key := ca.Issue(t, t.TempDir(), "penstock")
	right := config.ClientTLS{CA: ca.File, Cert: cert, Key: key, ServerName: "store.internal"}
	for _, server := range []struct {
		name string
		ping func(t *testing.T) func(config.ClientTLS) error
	}{{"storage", storageByTLS(ca)}, {"queue", queueByTLS(ca)}, {"clickhouse", clickHouseByTLS(ca)}} {
		t.Run(server.name, func(t *testing.T) {
			ping := server.ping(t)
			if err := ping(right); err != nil {
				t.Errorf("with the CA, a certificate and the name: %v", err)
			}
			for name, wrong := range map[string]struct {
				config.ClientTLS
				want string
			}{
				"no CA":          {config.ClientTLS{Cert: cert, Key: key, ServerName: "store.internal"}, "x509"},
				"another CA":     {config.ClientTLS{CA: other.File, Cert: cert, Key: key, ServerName: "store.internal"}, "x509"},
				"no certificate": {config.ClientTLS{CA: ca.File, ServerName: "store.internal"}, ""},
				"another name":   {config.ClientTLS{CA: ca.File, Cert: cert, Key: key, ServerName: "x.internal"}, "x509"},
				"missing file":   {config.ClientTLS{CA: "/does/not/exist.pem"}, "/does/not/exist.pem"},
			} {
				if err := ping(wrong.ClientTLS); err == nil || !strings.Contains(err.Error(), wrong.want) {
					t.Errorf("%s: got %v, want an error with %q", name, err, wrong.want)
				}
			}
		})
	}
}

func storageByTLS(ca *tlstest.CA) func(*testing.T) func(config.ClientTLS) error {
	return func(t *testing.T) func(config.ClientTLS) error {
		m := testservers.MinIO(t, devstack.MinIOOptions{})
		c := config.Default().Storage
		c.AccessKey, c.SecretKey, c.Endpoint = m.AccessKey(), m.SecretKey(), m.Endpoint()
		if err := OpenBucket(c).Create(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.Endpoint = "https://" + ca.Terminate(t, "store.internal", strings.TrimPrefix(m.Endpoint(), "http://"))
		return func(files config.ClientTLS) error {
			c.TLS = files
			return OpenBucket(c).Ping(t.Context())
		}
	}
}

func queueByTLS(ca *tlstest.CA) func(*testing.T) func(config.ClientTLS) error {
	return func(t *testing.T) func(config.ClientTLS) error {
		cert, key := ca.Issue(t, t.TempDir(), "store.internal")
		n := testservers.NATSWith(t, fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }", cert, key,
			ca.File))
		return func(files config.ClientTLS) error {
			c := config.Default()
			c.Queue.URL, c.Queue.TLS = n.URL(), files
			q, err := OpenQueue(c, "test", slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer q.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			if err := q.Ping(ctx); err != nil {
				return err
			}
			return q.Setup(ctx, pipeline.Specs(), nil)
		}
	}
}

func clickHouseByTLS(ca *tlstest.CA) func(*testing.T) func(config.ClientTLS) error {
	return func(t *testing.T) func(config.ClientTLS) error {
		server := testservers.ClickHouse(t)
		c := config.Default().ClickHouse
		c.Database, c.User, c.Password = "system", server.User(), server.Password()
		c.Addresses = []string{ca.Terminate(t, "store.internal", server.Addr())}
		return func(files config.ClientTLS) error {
			c.TLS = config.ClickHouseTLS{Enabled: true, CA: files.CA, Cert: files.Cert, Key: files.Key,
				ServerName: files.ServerName}
			db, err := clickhouse.Open(TableOptions(c, 1))
			if err != nil {
				return err
			}
			defer db.Close()
			return db.Ping(t.Context())
		}
	}
}
