package devstack

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// natsVersion is the nats-server version to build, as a module version.
const natsVersion = "v2.15.2"

// NATS returns the path of the nats-server program. If it is missing, NATS builds the pinned version.
func (f *Fetcher) NATS(ctx context.Context) (string, error) {
	dir, err := f.fetch(ctx, "nats-server-"+natsVersion, func(ctx context.Context, dir string) error {
		return f.goInstall(ctx, "nats-server "+natsVersion, "about a minute, once; about 250 packages",
			"github.com/nats-io/nats-server/v2@"+natsVersion, dir)
	})
	if err != nil {
		return "", fmt.Errorf("fetch nats-server: %w", err)
	}
	return filepath.Join(dir, "nats-server"), nil
}

// NATSOptions configure nats-server.
type NATSOptions struct {
	Binary string // see Fetcher.NATS
	Data   string // folder for streams and log; created if missing
	Port   int    // for clients; 0: any free port

	Password string // of the user penstock; "": penstock-secret
	Extra    string // additional lines of the server's configuration
}

// NATS is a running nats-server with JetStream.
type NATS struct {
	*Process
	options NATSOptions
	ports   ports
}

// StartNATS starts nats-server, and returns when it answers. ctx is only for the start.
func StartNATS(ctx context.Context, o NATSOptions) (*NATS, error) {
	if o.Password == "" {
		o.Password = defaultSecretKey
	}
	return untilFree(func() (*NATS, ports, error) {
		chosen, err := choose(port{number: o.Port, use: "NATS"})
		if err != nil {
			return nil, nil, err
		}
		n := &NATS{options: o, ports: chosen}
		if err := n.Restart(ctx); err != nil {
			return nil, chosen, err
		}
		return n, chosen, nil
	})
}

// Restart stops the server if it runs, and starts it with the same port and data. It returns when the server answers.
// Do not use n meanwhile.
func (n *NATS) Restart(ctx context.Context) error {
	if n.Process != nil {
		n.Stop(ctx)
	}
	config := filepath.Join(n.options.Data, "nats-server.conf")
	if err := n.configure(config); err != nil {
		return fmt.Errorf("start NATS: %w", err)
	}
	process, err := launch(ctx, Command{
		Name: "NATS",
		Path: n.options.Binary,
		Args: []string{
			"--config", config,
			"--addr", host,
			"--port", strconv.Itoa(n.ports[0].number),
			"--jetstream",
			"--store_dir", filepath.Join(n.options.Data, "jetstream"),
		},
		LogPath: filepath.Join(n.options.Data, "nats-server.log"),
	}, n.ports, func(ctx context.Context) error { return greeted(ctx, n.Addr()) })
	if err != nil {
		return err
	}
	n.Process = process
	return nil
}

// configure writes user and password to a file, because others could read them on the command line.
func (n *NATS) configure(path string) error {
	if err := os.MkdirAll(n.options.Data, 0o700); err != nil {
		return err
	}
	return writePrivate(path, fmt.Sprintf("authorization { user: %q, password: %q }\n%s\n", n.User(), n.Password(),
		n.options.Extra))
}

// Addr is host:port, for MinIO's targets.
func (n *NATS) Addr() string { return address(n.ports[0].number) }

// URL is the clients' URL, with user and password.
func (n *NATS) URL() string {
	u := url.URL{Scheme: "nats", User: url.UserPassword(n.User(), n.Password()), Host: n.Addr()}
	return u.String()
}

// User is the name of the server's user.
func (n *NATS) User() string { return user }

// Password is the user's password.
func (n *NATS) Password() string { return n.options.Password }

// greeted checks that a NATS server with JetStream answers on the address. Its greeting is one line: INFO and a JSON
// object.
func greeted(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(probeTimeout)); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "INFO ") || !strings.Contains(line, `"jetstream":true`) {
		return fmt.Errorf("%s greets with %q, not as NATS with JetStream", addr, cut(line, min(len(line)-1, 100)))
	}
	return nil
}
