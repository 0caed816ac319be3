package devstack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// minioVersion is the last commit that its community published, as a Go module's version. There are no binaries of it.
const minioVersion = "v0.0.0-20260212201848-7aac2a2c5b7c"

// user is the name that every server knows its only user by.
const user = "penstock"

// defaultSecretKey is the password of a server for which none is given: one that a test runs.
const defaultSecretKey = "penstock-secret"

// MinIO returns the MinIO program, built at its pinned version if it is not there yet. It is a separate program and
// never a part of ours: its licence is the AGPL.
func (f *Fetcher) MinIO(ctx context.Context) (string, error) {
	dir, err := f.fetch(ctx, "minio-"+minioVersion, func(ctx context.Context, dir string) error {
		return f.goInstall(ctx, "MinIO "+minioVersion, "3 to 5 minutes on two cores, once; about 1,100 packages",
			"github.com/minio/minio@"+minioVersion, dir)
	})
	if err != nil {
		return "", fmt.Errorf("fetch MinIO: %w", err)
	}
	return filepath.Join(dir, "minio"), nil
}

// MinIOOptions say how to run MinIO.
type MinIOOptions struct {
	Binary      string // see Fetcher.MinIO
	Data        string // the folder for objects, queued notifications and log, made when missing
	Port        int    // S3; 0: a free one
	ConsolePort int    // the web console; 0: a free one
	AccessKey   string // at least 3 characters; "": penstock
	SecretKey   string // at least 8 characters; "": penstock-secret

	Targets     []NotifyTarget // where buckets may send their notifications; each bucket still has to be told
	NATSAddress string         // host:port of the NATS that all Targets are in; see NATS.Addr
	NATSUser    string         // "": penstock
	NATSPass    string         // "": penstock-secret
	// QueueDir is where notifications wait until they are sent, so that they outlast an outage of NATS. MinIO looks into
	// it every 3 s, so each comes up to 3 s late. "": they are sent at once, and are lost while NATS is away.
	QueueDir string
}

// NotifyTarget is a JetStream subject that MinIO can notify. The stream that takes the subject must exist before the
// first notification.
type NotifyTarget struct {
	ID      string // letters, digits, underscores
	Subject string
}

// ARN is the target's name in a bucket's notification configuration.
func (t NotifyTarget) ARN() string { return "arn:minio:sqs::" + t.ID + ":nats" }

// MinIO is a running MinIO on one folder.
type MinIO struct {
	*Process
	options MinIOOptions
	ports   ports
}

// StartMinIO starts MinIO and returns when it serves S3 requests and its console. ctx is for the start alone.
func StartMinIO(ctx context.Context, o MinIOOptions) (*MinIO, error) {
	if o.AccessKey == "" {
		o.AccessKey = user
	}
	if o.SecretKey == "" {
		o.SecretKey = defaultSecretKey
	}
	if o.NATSUser == "" {
		o.NATSUser = user
	}
	if o.NATSPass == "" {
		o.NATSPass = defaultSecretKey
	}
	return untilFree(func() (*MinIO, ports, error) {
		chosen, err := choose(port{number: o.Port, use: "MinIO"}, port{number: o.ConsolePort, use: "MinIO console"})
		if err != nil {
			return nil, nil, err
		}
		m := &MinIO{options: o, ports: chosen}
		if err := m.Restart(ctx); err != nil {
			return nil, chosen, err
		}
		return m, chosen, nil
	})
}

// Restart starts the server again, on the same ports and data, and returns when it answers. It stops a running process
// first. Do not use m meanwhile.
func (m *MinIO) Restart(ctx context.Context) error {
	if m.Process != nil {
		m.Stop(ctx)
	}
	env, err := m.environment()
	if err != nil {
		return fmt.Errorf("start MinIO: %w", err)
	}
	process, err := launch(ctx, Command{
		Name: "MinIO",
		Path: m.options.Binary,
		Args: []string{
			"server",
			"--address", address(m.ports[0].number),
			"--console-address", address(m.ports[1].number),
			"--certs-dir", filepath.Join(m.options.Data, "certs"), // by default ~/.minio
			filepath.Join(m.options.Data, "drive"),
		},
		Env:     env,
		LogPath: filepath.Join(m.options.Data, "minio.log"),
	}, m.ports, func(ctx context.Context) error {
		// "live" answers before buckets and users are loaded, and requests then get a 503. The console comes last.
		if _, err := httpGet(ctx, m.Endpoint()+"/minio/health/cluster"); err != nil {
			return err
		}
		return listens(ctx, address(m.ports[1].number))
	})
	if err != nil {
		return err
	}
	m.Process = process
	return nil
}

// environment is the server's whole configuration.
func (m *MinIO) environment() ([]string, error) {
	env := append(without(os.Environ(), "MINIO_"),
		"MINIO_ROOT_USER="+m.options.AccessKey,
		"MINIO_ROOT_PASSWORD="+m.options.SecretKey,
		"MINIO_UPDATE=off",
	)
	for _, target := range m.options.Targets {
		set := func(name, value string) { env = append(env, "MINIO_NOTIFY_NATS_"+name+"_"+target.ID+"="+value) }
		set("ENABLE", "on")
		set("ADDRESS", m.options.NATSAddress)
		set("USERNAME", m.options.NATSUser)
		set("PASSWORD", m.options.NATSPass)
		set("SUBJECT", target.Subject)
		set("JETSTREAM", "on")
		if m.options.QueueDir == "" {
			continue
		}
		queue, err := filepath.Abs(filepath.Join(m.options.QueueDir, target.ID)) // MinIO takes no other
		if err != nil {
			return nil, err
		}
		if err := os.MkdirAll(queue, 0o700); err != nil {
			return nil, err
		}
		set("QUEUE_DIR", queue)
	}
	return env, nil
}

// Endpoint is the S3 API's URL.
func (m *MinIO) Endpoint() string { return "http://" + address(m.ports[0].number) }

// Console is the web console's URL.
func (m *MinIO) Console() string { return "http://" + address(m.ports[1].number) }

// AccessKey is the root user's name.
func (m *MinIO) AccessKey() string { return m.options.AccessKey }

// SecretKey is the root user's password.
func (m *MinIO) SecretKey() string { return m.options.SecretKey }
