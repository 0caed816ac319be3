package config

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// A configuration that was written is read as what it was.
func TestWrittenConfigIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "penstock.yaml")
	want := Default()
	want.Receiver.Keys = []Key{{Project: "demo", SHA256: strings.Repeat("ab", 32)}}
	want.Batcher.RollAge, want.Batcher.MaxDisk = Duration(1500*time.Millisecond), 1<<30+1
	want.ClickHouse.TLS = ClickHouseTLS{Enabled: true, ServerName: "db"}
	want.Storage.SecretKey = "a: # b"
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	// An empty list is written as one, and read as such.
	got.Imports, got.LLM.Prices, got.Receiver.TrustedProxies = nil, nil, nil
	got.Admin.Hosts, got.Status.Admins, got.ClickHouse.Columns = nil, nil, nil
	got.ClickHouse.Rollups, got.Admin.Tokens = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others can read the file: %v, %v", info.Mode(), err)
	}
}

// penstock.yaml here goes before that of a dev stack here.
func TestFind(t *testing.T) {
	t.Chdir(t.TempDir())
	if got := Find(); got != "" {
		t.Errorf("found %q where there is none", got)
	}
	dev := filepath.Join(DevFolder, "penstock.yaml")
	for _, path := range []string{dev, "penstock.yaml"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := Find(); got != path {
			t.Errorf("found %q, want %q", got, path)
		}
	}
}

func TestMissingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.yaml")
	if _, err := Load(path, nil); err == nil || !strings.Contains(err.Error(), "configuration: open "+path) {
		t.Errorf("got %v", err)
	}
}

// A secret comes from the configuration, or from a file without its last line break.
func TestAdminSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	for _, tt := range []struct {
		admin Admin
		want  string
	}{{Admin{}, ""}, {Admin{Token: "given"}, "given"}, {Admin{TokenFile: path}, "from-file"}} {
		secret, err := tt.admin.Secret(log)
		if err != nil || secret() != tt.want {
			t.Errorf("%+v: %v, want %q", tt.admin, err, tt.want)
		}
	}
	if _, err := (Admin{TokenFile: path + "x"}).Secret(log); err == nil ||
		!strings.Contains(err.Error(), "admin.token_file") {
		t.Errorf("got %v", err)
	}
}

func TestTLS(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	if got := (ServerTLS{}).URL("h:1"); got != "http://h:1" {
		t.Errorf("got %s", got)
	}
	if got := (ServerTLS{Cert: "c"}).URL("h:1"); got != "https://h:1" {
		t.Errorf("got %s", got)
	}
	if (ClientTLS{}).Config(log) != nil || (ClickHouseTLS{}).Config(log) != nil {
		t.Error("without files there is a configuration of TLS")
	}
	if c := (ClickHouseTLS{Enabled: true}).Config(log); c == nil || c.InsecureSkipVerify {
		t.Errorf("got %+v, want one that trusts the system's CAs", c)
	}
	// Files that have gone: each connection fails with their error.
	gone := ClientTLS{CA: "/does/not/exist.pem"}.Config(log)
	if gone == nil || gone.VerifyConnection == nil {
		t.Fatal("a missing CA is ignored")
	}
}

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	log, err := Process{LogLevel: "warn", LogFormat: "json"}.Logger(&out, nil)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("quiet")
	log.Warn("loud")
	if got := out.String(); strings.Contains(got, "quiet") || !strings.HasPrefix(got, "{") ||
		!strings.Contains(got, "loud") {
		t.Errorf("got %s", got)
	}
	for level, lines := range map[string]int{"debug": 4, "info": 3, "warn": 2, "error": 1} {
		out.Reset()
		if log, err = (Process{LogLevel: level}).Logger(&out, nil); err != nil {
			t.Fatal(err)
		}
		log.Debug("a")
		log.Info("b")
		log.Warn("c")
		log.Error("d")
		if got := strings.Count(out.String(), "\n"); got != lines {
			t.Errorf("level %s: got %d lines, want %d:\n%s", level, got, lines, &out)
		}
	}
	if _, err := (Process{LogLevel: "noisy"}).Logger(&out, nil); err == nil ||
		err.Error() != `process.log_level "noisy": debug, info, warn or error` {
		t.Errorf("got %v", err)
	}
}

// All ways to write a number of bytes or a time.
func TestValues(t *testing.T) {
	for text, want := range map[string]Size{"0B": 0, "1KiB": 1 << 10, "3 MiB": 3 << 20, "2TiB": 2 << 40, "7": 7} {
		var cfg struct {
			V Size `yaml:"v"`
		}
		if err := ParseStrict("c.yaml", []byte("v: "+text), nil, &cfg); err != nil || cfg.V != want {
			t.Errorf("%s: got %d, %v; want %d", text, cfg.V, err, want)
		}
	}
	for _, text := range []string{"-1", "1.5MiB", "1mib", "MiB", "9999999999999TiB", "[]"} {
		var cfg struct {
			V Size `yaml:"v"`
		}
		if err := ParseStrict("c.yaml", []byte("v: "+text), nil, &cfg); err == nil {
			t.Errorf("%s is read as %d bytes", text, cfg.V)
		}
	}
	for size, want := range map[Size]string{0: "0", 1: "1B", 1536: "1536B", 4 << 10: "4KiB", 8 << 30: "8GiB",
		1 << 41: "2TiB"} {
		if got := size.String(); got != want {
			t.Errorf("%d: got %s, want %s", int64(size), got, want)
		}
	}
	for text, ok := range map[string]bool{"2026-12-31": true, "2026-12-31T18:00:00Z": true, "": true, "soon": false,
		"24h": false} {
		if _, err := ParseExpiry(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}
