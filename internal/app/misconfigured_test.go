package app

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/penstock/penstock/batcher"
	"github.com/penstock/penstock/internal/awsclient"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/retry"
	testservers "github.com/penstock/penstock/internal/testing/servers"
	"github.com/penstock/penstock/loader"
	"github.com/penstock/penstock/tools/devstack"
)

// sections are the fields of a configuration, as batcher.dir, with their values in YAML.
type sections map[string]string

// load reads a configuration with these fields from a file, as a command does.
func (s sections) load(t *testing.T) (config.Config, config.Sources) {
	t.Helper()
	var text strings.Builder
	last := ""
	for _, field := range slices.Sorted(maps.Keys(s)) {
		section, name, _ := strings.Cut(field, ".")
		if section != last {
			fmt.Fprintf(&text, "%s:\n", section)
		}
		fmt.Fprintf(&text, "  %s: %s\n", name, s[field])
		last = section
	}
	path := filepath.Join(t.TempDir(), "penstock.yaml")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, sources, err := config.LoadSources(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for field := range sources {
		sources[field] = "FILE"
	}
	return cfg, sources
}

// with adds fields.
func (s sections) with(more sections) sections {
	all := maps.Clone(s)
	maps.Copy(all, more)
	return all
}

// quiet is a receiver that needs no server to start.
func quiet(t *testing.T) sections {
	return sections{"batcher.dir": filepath.Join(t.TempDir(), "wal"), "receiver.listen": freeAddress(t),
		"admin.listen": freeAddress(t), "storage.endpoint": "http://127.0.0.1:1", "storage.notify": "none",
		"storage.access_key": "AKID", "storage.secret_key": "S3cretPw"}
}

// receiveFails runs a receiver that cannot start.
func receiveFails(t *testing.T, s sections) error {
	t.Helper()
	cfg, sources := s.load(t)
	role, err := NewReceive(cfg, slog.New(slog.DiscardHandler))
	if err == nil {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err = role.Run(ctx)
	}
	return sources.Explain(err)
}

// A receiver that cannot start says which field is wrong, what it found, and what to do.
func TestReceiverThatCannotStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	used := filepath.Join(t.TempDir(), "used")
	_, stop := inUse(t, used)
	defer stop()
	for _, tt := range []struct {
		name string
		s    sections
		want string
	}{
		{"the port of another process", sections{"receiver.listen": address}, fmt.Sprintf("receiver.listen %q (from FILE): "+
			"another process uses this address; stop that process, or set another address", address)},
		{"the admin port of another process", sections{"admin.listen": address}, fmt.Sprintf("admin.listen %q (from FILE): "+
			"another process uses this address; stop that process, or set another address; each role on a machine needs a "+
			"separate one", address)},
		{"an address of another machine", sections{"receiver.otlp_grpc_listen": "192.0.2.1:4317"},
			`receiver.otlp_grpc_listen "192.0.2.1:4317" (from FILE): bind: cannot assign requested address; set another address`},
		{"the folder of another receiver", sections{"batcher.dir": used}, fmt.Sprintf("batcher.dir %q (from FILE): another "+
			"process uses this folder (pid %d); stop that process, or set another folder: each receiver needs a separate one",
			used, os.Getpid())},
		{"a file for a folder", sections{"batcher.dir": file},
			fmt.Sprintf("batcher.dir %q (from FILE): it is a file, not a folder; set a folder", file)},
		{"no projects file", sections{"receiver.projects": "/does/not/exist.yaml"}, "receiver.projects: open " +
			`/does/not/exist.yaml: no such file or directory; create it with "penstock keys add PROJECT"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := receiveFails(t, quiet(t).with(tt.s))
			if err == nil || err.Error() != tt.want {
				t.Errorf("got\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
}

// inUse runs a receiver in a folder.
func inUse(t *testing.T, dir string) (cfg config.Config, stop func()) {
	t.Helper()
	cfg, _ = quiet(t).with(sections{"batcher.dir": dir, "process.drain": "1s"}).load(t)
	role, err := NewReceive(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- role.Run(ctx) }()
	awaitAnswer(t, "http://"+cfg.Admin.Listen+"/livez", 200, "ok")
	return cfg, func() {
		cancel()
		<-done
	}
}

// Causes that a test cannot make as every user on every machine.
func TestExplainedCauses(t *testing.T) {
	const dir = "/var/lib/penstock"
	denied := &fs.PathError{Op: "mkdir", Path: dir, Err: fs.ErrPermission}
	full := &fs.PathError{Op: "open", Path: dir, Err: syscall.ENOSPC}
	ch, store := config.Default().ClickHouse, config.Default().Storage
	store.Endpoint, store.AccessKey = "https://store", "AKID"
	code := func(n int) error {
		return fmt.Errorf("ask: %w", retry.AsCode(retry.Outage, n, errors.New("its words")))
	}
	cfg := config.Default()
	for _, tt := range []struct {
		err  error
		want string
	}{
		{explainDir(dir, denied), `batcher.dir "/var/lib/penstock": mkdir /var/lib/penstock: permission denied; let the user ` +
			config.UserName() + " write to it, or set another folder"},
		{explainDir(dir, full), `batcher.dir "/var/lib/penstock": open /var/lib/penstock: no space left on device; free space on ` +
			"this disk, or set another folder"},
		{explainDir("/does/not/exist", batcher.ErrLocked), `batcher.dir "/does/not/exist": another process uses this folder; stop ` +
			"that process, or set another folder: each receiver needs a separate one"},
		{explainDir(dir, io.EOF), "EOF"},
		{explainListen("receiver.listen", ":80", &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)}),
			`receiver.listen ":80": bind: permission denied; set a port of 1024 or more, or let the user ` + config.UserName() +
				" open it"},
		{explainTable(ch, code(516)), `clickhouse.user "default": 127.0.0.1:9000 rejects user or password (code 516); correct ` +
			"clickhouse.user and clickhouse.password"},
		{explainTable(ch, code(81)), `clickhouse.database "penstock": the database does not exist at 127.0.0.1:9000; run ` +
			`"penstock setup"`},
		{explainTable(ch, code(60)), `clickhouse.database "penstock": ask: its words; run "penstock setup"`},
		{explainTable(ch, code(62)), "ask: its words"},
		{explainTable(ch, retry.As(retry.Outage, fmt.Errorf("ask: %w", io.EOF))), `clickhouse.addresses "127.0.0.1:9000": the server closes the ` +
			"connection; this looks like a port for TLS; set clickhouse.tls.enabled to true, or use the port without TLS (9000); " +
			"the ClickHouse of penstock dev also closes it if clickhouse.user, clickhouse.password or clickhouse.database is wrong"},
		{explainQueue(cfg, errors.New("nats: Authorization Violation")), `queue.url "nats://127.0.0.1:4222": nats: Authorization ` +
			"Violation; correct queue.user and queue.password, or queue.creds"},
		{explainStorage(store, errors.New("http: server gave HTTP response to HTTPS client")), `storage.endpoint "https://store": ` +
			"http: server gave HTTP response to HTTPS client; begin the URL with http://, or enable TLS in the store"},
		{explainStorage(store, awsclient.CredentialsError{Err: errors.New("static credentials are empty"),
			From: "storage"}), `storage.access_key "AKID": no credentials from storage: static credentials are empty; set both ` +
			"storage.access_key and storage.secret_key, or none for AWS's default chain"},
	} {
		if tt.err.Error() != tt.want {
			t.Errorf("got\n%v\nwant\n%s", tt.err, tt.want)
		}
	}
	if err := explainTable(ch, code(516)); retry.ClassOf(err) != retry.Outage {
		t.Errorf("an explained error has the class %v", retry.ClassOf(err))
	}
}

// Codes of stores that MinIO does not give.
func TestExplainedCodesOfStores(t *testing.T) {
	code := ""
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>its words</Message></Error>", code)
	}))
	defer store.Close()
	c := config.Default().Storage
	c.Endpoint, c.AccessKey, c.SecretKey = store.URL, "AKID", "S3cretPw"
	for given, want := range map[string]string{
		"SignatureDoesNotMatch": "storage.secret_key: STORE rejects the signature: the secret is wrong (SignatureDoesNotMatch); " +
			"correct storage.secret_key, or storage.access_key",
		"InvalidAccessKeyId": `storage.access_key "AKID": STORE does not know this key (InvalidAccessKeyId); correct ` +
			"storage.access_key and storage.secret_key",
		"AccessDenied": `storage.access_key "AKID": STORE denies access to the bucket "penstock" (AccessDenied); give the key the ` +
			"rights s3:ListBucket, s3:GetObject and s3:PutObject",
		"NoSuchBucket": `storage.bucket "penstock": the bucket does not exist at STORE; run "penstock setup", or create the bucket`,
		"InvalidBucketName": `storage.bucket "penstock": STORE does not accept the name; choose a name of 3 to 63 lowercase ` +
			"letters, digits and hyphens",
		"AuthorizationHeaderMalformed": `storage.region "us-east-1": list bucket penstock: AuthorizationHeaderMalformed (status ` +
			"403): its words; set the region of the bucket",
		"InvalidRegionName": `storage.region "us-east-1": list bucket penstock: InvalidRegionName (status 403): its words; ` +
			"set a region of this store; R2 has the region auto",
		"Strange": `storage.endpoint "STORE": list bucket penstock: Strange (status 403): its words; see the message of the store`,
	} {
		code = given
		err := explainStorage(c, OpenBucket(c).Ping(t.Context()))
		if got := strings.ReplaceAll(err.Error(), store.URL, "STORE"); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", given, got, want)
		}
	}
}

// lines collects a log.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *lines) await(t *testing.T, what string) string {
	t.Helper()
	within(t, 15*time.Second, "a log line with "+what, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return strings.Contains(l.all.String(), what)
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	for scan := bufio.NewScanner(bytes.NewReader(l.all.Bytes())); scan.Scan(); {
		if strings.Contains(scan.Text(), what) {
			return scan.Text()
		}
	}
	return ""
}

// What servers say to a wrong configuration, in setup and status. All use the same servers.
func TestMisconfiguredServers(t *testing.T) {
	t.Parallel()
	nats, minio, db := testservers.NATS(t), testservers.MinIO(t, devstack.MinIOOptions{}), testservers.ClickHouse(t)
	good := sections{"storage.endpoint": minio.Endpoint(), "storage.access_key": minio.AccessKey(),
		"storage.secret_key": minio.SecretKey(), "storage.notify": "self", "queue.url": nats.URL(),
		"clickhouse.addresses": "[" + db.Addr() + "]", "clickhouse.user": db.User(), "clickhouse.password": db.Password()}
	http := httpPort(t)
	setup := func(t *testing.T, s sections) error {
		cfg, sources := s.load(t)
		return sources.Explain(Setup(t.Context(), cfg, false, io.Discard))
	}
	for _, tt := range []struct {
		name string
		s    sections
		want string
	}{
		{"NATS on another port", sections{"queue.url": "nats://127.0.0.1:4"}, `queue.url "nats://127.0.0.1:4" (from FILE): no ` +
			"connection to the queue at nats://127.0.0.1:4: dial tcp 127.0.0.1:4: connect: connection refused; start NATS, or " +
			"correct the URL"},
		{"no store", sections{"storage.endpoint": "http://127.0.0.1:4"}, `storage.endpoint "http://127.0.0.1:4" (from FILE): list ` +
			"bucket penstock: dial tcp 127.0.0.1:4: connect: connection refused; start the store, or correct the URL"},
		{"a wrong secret", sections{"storage.secret_key": "wrong"}, "storage.secret_key (from FILE): " + minio.Endpoint() +
			" rejects the signature: the secret is wrong (SignatureDoesNotMatch); correct storage.secret_key, or storage.access_key"},
		{"an unknown key", sections{"storage.access_key": "nobody"}, `storage.access_key "nobody" (from FILE): ` +
			minio.Endpoint() + " does not know this key (InvalidAccessKeyId); correct storage.access_key and storage.secret_key"},
		{"https for http", sections{"storage.endpoint": strings.Replace(minio.Endpoint(), "http:", "https:", 1)},
			"begin the URL with http://, or enable TLS in the store"},
		{"ClickHouse on another port", sections{"clickhouse.addresses": "['127.0.0.1:4']"},
			`clickhouse.addresses "127.0.0.1:4" (from FILE): `},
		{"ClickHouse's HTTP port", sections{"clickhouse.addresses": "['" + http + "']"}, fmt.Sprintf("clickhouse.addresses %q "+
			"(from FILE): the answer is not of the native protocol; this looks like the HTTP port; use the native port: 9000, with "+
			"TLS 9440", http)},
		{"TLS against plain", sections{"clickhouse.tls": "true", "clickhouse.addresses": "['" + http + "']"},
			`clickhouse.tls.enabled "true" (from FILE): ` + http + " does not speak TLS on this port; use the TLS port (9440), or set " +
				"clickhouse.tls.enabled to false"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := setup(t, good.with(tt.s))
			if err == nil || err.Error() != tt.want && !(strings.HasSuffix(tt.want, ": ") || strings.HasPrefix(tt.want, "begin")) ||
				!strings.Contains(err.Error(), tt.want) || len(err.Error()) > 300 {
				t.Errorf("got\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
	t.Run("status", func(t *testing.T) {
		t.Parallel()
		cfg, _ := good.with(sections{"queue.url": "nats://127.0.0.1:4", "clickhouse.addresses": "['127.0.0.1:4']",
			"admin.listen": "127.0.0.1:4"}).load(t)
		o, closeOperator := NewOperator(cfg, loader.NewIsolation(nil), slog.New(slog.DiscardHandler))
		defer closeOperator()
		var out bytes.Buffer
		err := operate.Find("status").Show(t.Context(), operate.Local(o), &struct{}{}, operate.Output{Out: &out, Err: io.Discard})
		for _, want := range []string{`error: queue.url "nats://127.0.0.1:4": no connection`,
			`error: clickhouse.addresses "127.0.0.1:4": `, "start ClickHouse, or correct the address"} {
			if err == nil || !strings.Contains(out.String(), want) {
				t.Errorf("%v, want %s in\n%s", err, want, &out)
			}
		}
	})
	t.Run("the bucket of a receiver", func(t *testing.T) { wrongBuckets(t, good) })
	t.Run("the tables of a loader", func(t *testing.T) { noTables(t, good) })
}

// httpPort answers as ClickHouse's HTTP port does to what is no HTTP.
func httpPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.Read(make([]byte, 100))
				io.WriteString(c, "HTTP/1.0 400 Bad Request\r\n\r\n")
				io.Copy(io.Discard, c)
			}()
		}
	}()
	return l.Addr().String()
}

// wrongBuckets starts receivers with a wrong secret or a bucket that does not exist: each says so and takes events.
func wrongBuckets(t *testing.T, good sections) {
	for name, tt := range map[string]struct {
		s    sections
		want string
	}{
		"a wrong secret": {sections{"storage.secret_key": "wrong"}, "storage.secret_key (from FILE): "},
		"no such bucket": {sections{"storage.bucket": "nope"}, `storage.bucket "nope" (from FILE): the bucket does not exist at ` +
			good["storage.endpoint"] + `; run "penstock setup", or create the bucket`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, sources := quiet(t).with(good).with(sections{"storage.notify": "none", "process.drain": "1s",
				"receiver.keys": "[{project: a, sha256: " + hashOf("key") + "}]"}).with(tt.s).load(t)
			log := &lines{}
			logger, err := cfg.Process.Logger(log, sources)
			if err != nil {
				t.Fatal(err)
			}
			role, err := NewReceive(cfg, logger)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- role.Run(ctx) }()
			line := log.await(t, "bucket cannot be used; events wait on disk")
			if !strings.Contains(strings.ReplaceAll(line, `\"`, `"`), tt.want) || !strings.Contains(line, "level=WARN") {
				t.Errorf("logged %s, want %s", line, tt.want)
			}
			field, _, _ := strings.Cut(tt.want, " ")
			awaitAnswer(t, "http://"+cfg.Admin.Listen+"/readyz", 200, "ok\n"+field)
			awaitAnswer(t, "http://"+cfg.Admin.Listen+"/metrics", 200, "penstock_bucket_available 0")
			resp, err := http.Post("http://"+cfg.Receiver.Listen+"/v1/events?key=key", "application/json",
				strings.NewReader(`{"name":"a"}`))
			if err != nil || resp.StatusCode != http.StatusAccepted {
				t.Fatalf("got %v, %v", resp, err)
			}
			resp.Body.Close()
			o, closeOperator := NewOperator(cfg, loader.NewIsolation(nil), logger)
			defer closeOperator()
			var out bytes.Buffer
			err = operate.Find("status").Show(t.Context(), operate.Local(o), &struct{}{}, operate.Output{Out: &out, Err: io.Discard})
			if err == nil || !strings.Contains(out.String(), "error: receive http://"+cfg.Admin.Listen+": "+field) {
				t.Errorf("status: %v\n%s", err, &out)
			}
			cancel()
			<-done
		})
	}
}

// noTables starts a loader before setup: it says what to run.
func noTables(t *testing.T, good sections) {
	cfg, sources := quiet(t).with(good).with(sections{"clickhouse.database": "default"}).load(t)
	role, err := NewLoad(cfg, loader.NewIsolation(nil), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	want := "check table default.events: it does not exist; run `penstock setup`"
	if err := sources.Explain(role.Run(ctx)); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
