package devstack_test

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/servers"
	"github.com/penstock/penstock/tools/devstack"
)

// query posts a query to ClickHouse and returns the answer.
func query(t *testing.T, c *devstack.ClickHouse, sql string) string {
	t.Helper()
	response, err := http.Post(c.HTTPWithPassword(), "text/plain", strings.NewReader(sql))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s", sql, response.Status, body)
	}
	return strings.TrimSuffix(string(body), "\n")
}

// wantGone checks that the process has ended and its ports are free.
func wantGone(t *testing.T, p *devstack.Process, addrs ...string) {
	t.Helper()
	if syscall.Kill(p.Pid, 0) == nil {
		t.Errorf("%s (pid %d) still runs", p.Name, p.Pid)
	}
	if err := p.Err(); err != nil {
		t.Errorf("%s: %v", p.Name, err)
	}
	for _, addr := range addrs {
		addr = strings.TrimPrefix(addr, "http://")
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			t.Errorf("%s: somebody listens on %s", p.Name, addr)
		}
	}
}

func TestClickHouseKeepsRowsThroughAKill(t *testing.T) {
	c := servers.ClickHouse(t)
	query(t, c, "CREATE DATABASE shop")
	query(t, c, "CREATE TABLE shop.orders (id UInt64, at DateTime64(3), what JSON) ENGINE = MergeTree ORDER BY id")
	query(t, c, `INSERT INTO shop.orders FORMAT JSONEachRow {"id":7,"at":"2026-11-22 03:45:12.345","what":{"kind":"tea"}}`)
	for range 2 {
		http, addr, pid := c.HTTP(), c.Addr(), c.Pid
		c.Kill()
		wantGone(t, c.Process, http, addr)
		if err := c.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if c.HTTP() != http || c.Addr() != addr || c.Pid == pid {
			t.Errorf("it came back on %s and %s (pid %d), was on %s and %s (pid %d)", c.HTTP(), c.Addr(), c.Pid, http, addr, pid)
		}
		if got, want := query(t, c, "SELECT id, toUnixTimestamp64Milli(at), what.kind FROM shop.orders"),
			"7\t1795319112345\ttea"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	c.Stop(t.Context())
	wantGone(t, c.Process, c.HTTP(), c.Addr())
}

func TestClickHouseIsLikeAServer(t *testing.T) {
	c := servers.ClickHouse(t)
	for sql, want := range map[string]string{
		"SELECT timezone()": "UTC",
		"SELECT value FROM system.server_settings WHERE name = 'background_pool_size'": "16",
		"SELECT value FROM system.settings WHERE name = 'implicit_select'":             "0",
		"SELECT currentUser()": "penstock",
		"SELECT count() FROM system.tables WHERE database = 'system' AND name = 'query_log'": "0",
	} {
		if got := query(t, c, sql); got != want {
			t.Errorf("%s: got %q, want %q", sql, got, want)
		}
	}
	query(t, c, "CREATE DATABASE shop")
	query(t, c, "CREATE TABLE shop.orders ENGINE = MergeTree ORDER BY id AS SELECT number AS id FROM numbers(10)")
	query(t, c, "ALTER TABLE shop.orders DELETE WHERE id < 7 SETTINGS mutations_sync = 2")
	if got := query(t, c, "SELECT count() FROM shop.orders"); got != "3" {
		t.Errorf("%s rows after a mutation, want 3", got)
	}
	// Prometheus can scrape it, with the password.
	resp, err := http.Get(c.HTTPWithPassword() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if want := "\nClickHouseMetrics_PartsActive "; err != nil || !strings.Contains(string(text), want) {
		t.Errorf("/metrics: %s, %v, and no %q in %.200q", resp.Status, err, want, text)
	}
}

// A web page can send requests like these to any port of this machine without asking first.
func TestClickHouseRefusesAWebPage(t *testing.T) {
	c := servers.ClickHouse(t)
	written := filepath.Join(t.TempDir(), "written")
	insert := "INSERT INTO FUNCTION file('" + written + "','LineAsString','line String') VALUES ('by a web page')"
	for _, path := range []string{"/", "/?user=default", "/?user=default&add_http_cors_header=1", "/?user=penstock",
		"/?user=penstock&password=penstock-secret", "/play", "/?query=SELECT+1", "/metrics"} {
		for _, sql := range []string{insert, "SELECT 1", "SELECT file('/etc/passwd')", "SYSTEM STOP LISTEN TCP"} {
			request, err := http.NewRequest(http.MethodPost, c.HTTP()+path, strings.NewReader(sql))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Origin", "http://evil.example")
			request.Header.Set("Content-Type", "text/plain")
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			if response.StatusCode != http.StatusNotFound || err != nil {
				t.Errorf("%s at %s: %s, %v: %q", sql, path, response.Status, err, body)
			}
		}
	}
	if _, err := os.Stat(written); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a web page wrote the file %s: %v", written, err)
	}
	if got := query(t, c, "SELECT 1"); got != "1" {
		t.Errorf("with the password: got %q", got)
	}
}

// Even with the password, the server reaches no file, no program and no host but the store.
func TestClickHouseReachesNoFiles(t *testing.T) {
	c := servers.ClickHouse(t)
	query(t, c, "CREATE DATABASE shop")
	private, outside := filepath.Join(t.TempDir(), "private"), t.TempDir()
	if err := os.WriteFile(private, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"SELECT file('" + private + "')",
		"SELECT file('/etc/passwd')",
		"SELECT * FROM file('/etc/passwd', 'LineAsString')",
		"CREATE TABLE shop.f (k UInt64) ENGINE = EmbeddedRocksDB(0, '" + outside + "/rocks') PRIMARY KEY k",
		"CREATE DATABASE g ENGINE = SQLite('" + outside + "/x.sqlite')",
		"CREATE TABLE shop.h (k UInt64) ENGINE = MergeTree ORDER BY k " +
			"SETTINGS disk = disk(type = local, path = '" + outside + "/disk/')",
		"CREATE TABLE shop.i (k UInt64) ENGINE = MySQL('127.0.0.1:1', 'a', 'b', 'c', 'd')",
		"CREATE TABLE shop.j (k UInt64) ENGINE = Kafka('127.0.0.1:1', 'a', 'b', 'TSV')",
		"SYSTEM SHUTDOWN",
		"GRANT ALL ON *.* TO penstock",
		"INSERT INTO FUNCTION file('" + filepath.Join(t.TempDir(), "x") + "','LineAsString','line String') VALUES ('x')",
		"SELECT * FROM url('" + c.HTTP() + "/ping', 'LineAsString', 'l String')",
		"SELECT * FROM remote('" + c.Addr() + "', system.one)",
		"CREATE TABLE shop.a (a String) ENGINE = File(TSV)",
		"CREATE TABLE shop.b (a String) ENGINE = URL('" + c.HTTP() + "/ping', TSV)",
		"CREATE TABLE shop.c (a String) ENGINE = Executable('x.sh', TSV)",
		"CREATE TABLE shop.d (a String) ENGINE = ExecutablePool('x.sh', TSV)",
		"CREATE DICTIONARY shop.e (a String) PRIMARY KEY a SOURCE(EXECUTABLE(COMMAND 'id' FORMAT 'TSV')) " +
			"LAYOUT(COMPLEX_KEY_HASHED()) LIFETIME(0)",
	} {
		response, err := http.Post(c.HTTPWithPassword(), "text/plain", strings.NewReader(sql))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode == http.StatusOK || strings.Contains(string(body), "secret") || err != nil {
			t.Errorf("%s: %s, %v: %q", sql, response.Status, err, body)
		}
	}
	if made, err := os.ReadDir(outside); len(made) > 0 || err != nil {
		t.Errorf("the server wrote %v outside its folder, %v", made, err)
	}
	response, err := http.Post(c.HTTPWithPassword(), "text/plain",
		strings.NewReader("SELECT * FROM s3('"+c.HTTP()+"/bucket/x', 'key', 'secret', 'LineAsString') SETTINGS s3_retry_attempts = 1"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); strings.Contains(string(body), "ACCESS_DENIED") {
		t.Errorf("s3(), which imports need, is refused: %s", body)
	}
}

func TestNATSWantsThePassword(t *testing.T) {
	n := servers.NATS(t)
	conn, err := net.Dial("tcp", n.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "CONNECT {\"verbose\":false}\r\nPING\r\n")
	answer, err := io.ReadAll(conn) // until the server closes the connection
	if err != nil || !strings.Contains(string(answer), "Authorization Violation") {
		t.Errorf("a client without a password got %q, %v", answer, err)
	}
}

// No ordinary clickhouse is installed here, so a script with the same command line replaces it.
func TestClickHouseFromAProgram(t *testing.T) {
	library := engine(t)
	program := filepath.Join(t.TempDir(), "clickhouse")
	script := fmt.Sprintf(`#!/bin/sh
[ "$1 $2" = "server --config-file" ] && [ "$CLICKHOUSE_WATCHDOG_ENABLE" = 0 ] || exit 9
sed -i 's#<users>#<users><default><password></password><networks><ip>127.0.0.1</ip></networks>\
<profile>default</profile><quota>default</quota></default>#' users.xml
exec %s %s --config-file "$3" --log-level warning --query "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; SELECT sleepEachRow(3) FROM numbers(100) SETTINGS max_block_size=1, function_sleep_max_microseconds_per_block=0"
`, library.Launcher, library.Library)
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := devstack.StartClickHouse(t.Context(), devstack.ClickHouseOptions{
		Engine: devstack.ClickHouseEngine{Binary: program}, Data: filepath.Join(t.TempDir(), "a & b"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Kill()
	if got := query(t, c, "SELECT 6 * 7"); got != "42" {
		t.Errorf("got %q", got)
	}
}

// engine returns the library, whatever is on PATH.
func engine(t *testing.T) devstack.ClickHouseEngine {
	t.Helper()
	servers.Needed(t)
	cache, err := devstack.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	e, err := (&devstack.Fetcher{Cache: cache, Progress: t.Output()}).ClickHouse(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if e.Binary != "" {
		t.Skip("an ordinary clickhouse is here, and every other test uses it")
	}
	return e
}

func TestClickHouseReportsWhyItCannotStart(t *testing.T) {
	c := servers.ClickHouse(t)
	data := filepath.Dir(c.LogPath)
	_, err := devstack.StartClickHouse(t.Context(), devstack.ClickHouseOptions{Engine: engine(t), Data: data})
	if text := fmt.Sprint(err); !strings.Contains(text, "start ClickHouse: ") ||
		!strings.Contains(text, "already running") {
		t.Errorf("a second server on the same data: %v", err)
	}
}

func TestPortTaken(t *testing.T) {
	n, m, c := servers.NATS(t), servers.MinIO(t, devstack.MinIOOptions{}), servers.ClickHouse(t)
	port := func(addr string) (number int) {
		if _, err := fmt.Sscan(addr[strings.LastIndexByte(addr, ':')+1:], &number); err != nil {
			t.Fatal(err)
		}
		return number
	}
	for _, test := range []struct {
		use  string
		port int
		err  func(port int) error
	}{
		{"NATS", port(n.Addr()), func(port int) error {
			_, err := devstack.StartNATS(t.Context(), devstack.NATSOptions{Data: t.TempDir(), Port: port})
			return err
		}},
		{"MinIO", port(m.Endpoint()), func(port int) error {
			_, err := devstack.StartMinIO(t.Context(), devstack.MinIOOptions{Data: t.TempDir(), Port: port})
			return err
		}},
		{"MinIO console", port(m.Console()), func(port int) error {
			_, err := devstack.StartMinIO(t.Context(), devstack.MinIOOptions{Data: t.TempDir(), ConsolePort: port})
			return err
		}},
		{"ClickHouse", port(c.Addr()), func(port int) error {
			_, err := devstack.StartClickHouse(t.Context(), devstack.ClickHouseOptions{Data: t.TempDir(), TCPPort: port})
			return err
		}},
		{"ClickHouse HTTP", port(c.HTTP()), func(port int) error {
			_, err := devstack.StartClickHouse(t.Context(), devstack.ClickHouseOptions{Data: t.TempDir(), HTTPPort: port})
			return err
		}},
	} {
		err := test.err(test.port)
		var taken *devstack.PortTakenError
		if !errors.As(err, &taken) || *taken != (devstack.PortTakenError{Port: test.port, For: test.use}) {
			t.Errorf("%s on %d: %v", test.use, test.port, err)
		}
	}
}

func TestMinIOKeepsObjectsThroughAKill(t *testing.T) {
	m := servers.MinIO(t, devstack.MinIOOptions{})
	s3(t, m, http.MethodPut, "/bucket", "")
	s3(t, m, http.MethodPut, "/bucket/key", "hello")
	m.Kill()
	wantGone(t, m.Process, m.Endpoint(), m.Console())
	if err := m.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s3(t, m, http.MethodGet, "/bucket/key", ""); got != "hello" {
		t.Errorf("got %q", got)
	}
	if response, err := http.Get(m.Console()); err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("console: %v, %v", response, err)
	} else {
		response.Body.Close()
	}
	m.Stop(t.Context())
	wantGone(t, m.Process, m.Endpoint(), m.Console())
}

func TestMinIONotifiesNATS(t *testing.T) {
	n := servers.NATS(t)
	conn := dial(t, n)
	fmt.Fprintf(conn, "SUB penstock.created 1\r\nSUB reply 2\r\n")
	stream := `{"name":"EVENTS","subjects":["penstock.*"],"storage":"file"}`
	fmt.Fprintf(conn, "PUB $JS.API.STREAM.CREATE.EVENTS reply %d\r\n%s\r\n", len(stream), stream)
	if got := message(t, conn, "reply"); !strings.Contains(got, `"did_create":true`) {
		t.Fatalf("create the stream: %s", got)
	}
	m := notifying(t, n, "")
	s3(t, m, http.MethodPut, "/bucket/events/one", "hello")
	if got := message(t, conn, target.Subject); !strings.Contains(got, `"Key":"bucket/events/one"`) {
		t.Errorf("got %s", got)
	}

	queue := t.TempDir()
	m = notifying(t, n, queue)
	n.Kill()
	s3(t, m, http.MethodPut, "/bucket/events/two", "hello")
	if err := n.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn = dial(t, n)
	fmt.Fprintf(conn, "SUB penstock.created 1\r\n")
	if got := message(t, conn, target.Subject); !strings.Contains(got, `"Key":"bucket/events/two"`) {
		t.Errorf("after an outage: got %s", got)
	}
}

var target = devstack.NotifyTarget{ID: "EVENTS", Subject: "penstock.created"}

// notifying starts a MinIO with a bucket that notifies a queue.
func notifying(t *testing.T, n *devstack.NATS, queue string) *devstack.MinIO {
	t.Helper()
	m := servers.MinIO(t, devstack.MinIOOptions{
		Targets: []devstack.NotifyTarget{target}, NATSAddress: n.Addr(), QueueDir: queue,
	})
	s3(t, m, http.MethodPut, "/bucket", "")
	s3(t, m, http.MethodPut, "/bucket?notification=", "<NotificationConfiguration><QueueConfiguration><Id>a</Id>"+
		"<Queue>"+target.ARN()+"</Queue><Event>s3:ObjectCreated:*</Event></QueueConfiguration></NotificationConfiguration>")
	return m
}

func TestNATSKeepsStreamsThroughAKill(t *testing.T) {
	n := servers.NATS(t)
	call := func(subject, body string) string {
		conn := dial(t, n)
		defer conn.Close()
		fmt.Fprintf(conn, "SUB reply 1\r\nPUB %s reply %d\r\n%s\r\n", subject, len(body), body)
		return message(t, conn, "reply")
	}
	if got := call("$JS.API.STREAM.CREATE.S", `{"name":"S","subjects":["s"],"storage":"file"}`); !strings.Contains(got,
		`"did_create":true`) {
		t.Fatal(got)
	}
	if got := call("s", "hello"); !strings.Contains(got, `"seq":1`) {
		t.Fatal(got)
	}
	n.Kill()
	wantGone(t, n.Process, n.Addr())
	if err := n.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := call("$JS.API.STREAM.INFO.S", ""); !strings.Contains(got, `"messages":1`) {
		t.Error(got)
	}
	n.Stop(t.Context())
	wantGone(t, n.Process, n.Addr())
}

func TestServerCanHangAndWake(t *testing.T) {
	n := servers.NATS(t)
	if err := n.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	conn := dial(t, n) // the kernel accepts it for the server
	for range 50 {     // on a busy machine the signal is slow, and the server may have greeted before
		if line := greeting(t, conn, 200*time.Millisecond); line == "" {
			break
		}
		conn = dial(t, n)
	}
	if line := greeting(t, conn, 200*time.Millisecond); line != "" {
		t.Fatalf("a halted server says %q", line)
	}
	if err := n.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if line := greeting(t, conn, 10*time.Second); !strings.HasPrefix(line, "INFO ") {
		t.Errorf("a woken server says %q", line)
	}
}

// greeting returns the server's first line; "": none in time.
func greeting(t *testing.T, c client, within time.Duration) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	line, err := c.lines.ReadString('\n')
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return line
}

// client is a NATS connection that uses the text protocol.
type client struct {
	net.Conn
	lines *bufio.Reader
}

func dial(t *testing.T, n *devstack.NATS) client {
	t.Helper()
	conn, err := net.Dial("tcp", n.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "CONNECT {\"verbose\":false,\"user\":%q,\"pass\":%q}\r\n", n.User(), n.Password())
	return client{conn, bufio.NewReader(conn)}
}

// message returns the next message on the subject.
func message(t *testing.T, c client, subject string) string {
	t.Helper()
	for {
		line, err := c.lines.ReadString('\n')
		if err != nil {
			t.Fatalf("wait for a message on %s: %v", subject, err)
		}
		if strings.HasPrefix(line, "PING") {
			fmt.Fprintf(c, "PONG\r\n")
		}
		if !strings.HasPrefix(line, "MSG "+subject+" ") {
			continue
		}
		body, err := c.lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
}

// s3 sends one request with AWS signature version 4, and returns the answer's body. Query parameters must be sorted.
func s3(t *testing.T, m *devstack.MinIO, method, path, body string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, m.Endpoint()+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	stamp, scope := now.Format("20060102T150405Z"), now.Format("20060102")+"/us-east-1/s3/aws4_request"
	digest := hexOf(sha256.Sum256([]byte(body)))
	request.Header.Set("X-Amz-Date", stamp)
	request.Header.Set("X-Amz-Content-Sha256", digest)
	const signed = "host;x-amz-content-sha256;x-amz-date"
	canonical := strings.Join([]string{
		method, request.URL.EscapedPath(), request.URL.RawQuery,
		"host:" + request.URL.Host, "x-amz-content-sha256:" + digest, "x-amz-date:" + stamp, "", signed, digest,
	}, "\n")
	key := []byte("AWS4" + m.SecretKey())
	for _, part := range append(strings.Split(scope, "/"),
		strings.Join([]string{"AWS4-HMAC-SHA256", stamp, scope, hexOf(sha256.Sum256([]byte(canonical)))}, "\n")) {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	request.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%x",
		m.AccessKey(), scope, signed, key))

	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	return string(answer)
}

func hexOf(sum [sha256.Size]byte) string { return hex.EncodeToString(sum[:]) }
