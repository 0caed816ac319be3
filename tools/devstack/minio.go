package devstack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// minioVersion is the last commit that its community published, as a module version. There are no binaries of it.
const minioVersion = "v0.0.0-20260212201848-7aac2a2c5b7c"

// user is the only user of every server.
const user = "penstock"

// defaultSecretKey is the default password, for servers of tests.
const defaultSecretKey = "penstock-secret"

// MinIO returns the path of the MinIO program. If it is missing, MinIO builds the pinned version. It is a separate
// program and never a part of Penstock, because its licence is the AGPL.
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

// MinIOOptions configure MinIO.
type MinIOOptions struct {
	Binary      string // see Fetcher.MinIO
	Data        string // folder for objects, queued notifications and log; created if missing
	Port        int    // S3; 0: any free port
	ConsolePort int    // web console; 0: any free port
	AccessKey   string // at least 3 characters; "": penstock
	SecretKey   string // at least 8 characters; "": penstock-secret

	Targets     []NotifyTarget // targets that buckets can use; each bucket still needs rules
	NATSAddress string         // host:port of the NATS of all Targets; see NATS.Addr
	NATSUser    string         // "": penstock
	NATSPass    string         // "": penstock-secret
	// QueueDir stores notifications until they are sent, so that they survive an outage of NATS. MinIO polls it every 3 s,
	// so each is up to 3 s late. "": notifications are sent at once, and lost while NATS is away.
	QueueDir string
}

// NotifyTarget is a JetStream subject that MinIO can notify. The subject's stream must exist before the first
// notification.
type NotifyTarget struct {
	ID      string // letters, digits, underscores
	Subject string
}

// ARN is the target's name in a bucket's notification configuration.
func (t NotifyTarget) ARN() string { return "arn:minio:sqs::" + t.ID + ":nats" }

// MinIO is a running MinIO.
type MinIO struct {
	*Process
	options MinIOOptions
	ports   ports
}

// StartMinIO starts MinIO, and returns when S3 and the console answer. ctx is only for the start.
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

// Restart stops the server if it runs, and starts it with the same ports and data. It returns when the server answers.
// Do not use m meanwhile.
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
		// "live" answers before buckets and users are loaded, when requests still get a 503. The console starts last.
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

// environment is the server's complete configuration.
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
		queue, err := filepath.Abs(filepath.Join(m.options.QueueDir, target.ID)) // MinIO requires an absolute path
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
