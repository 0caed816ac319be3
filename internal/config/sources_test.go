package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// loaded is the configuration of a text and variables, with FILE for its path.
func loaded(t *testing.T, text string, env ...string) (Config, Sources) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "penstock.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, sources, err := LoadSources(path, env)
	if err != nil {
		t.Fatal(err)
	}
	for field, place := range sources {
		sources[field] = strings.ReplaceAll(place, path, "FILE")
	}
	return cfg, sources
}

// The last source of a value counts: a variable over the file, a part over the whole.
func TestSources(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("S3cretPw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, sources := loaded(t, `receiver:
  listen: :1
  cors_origins:
    - https://a
    - https://b
  tls: {cert: a, key: b}
batcher: &b
  roll_age: ${AGE}
admin:
  tls: {cert: c, key: d}
clickhouse: {tls: true}
llm:
  prices:
    - {model: a, input: 1}
    - model: b
      cached_input: 0.5
`, "AGE=7s", "PENSTOCK_RECEIVER_TLS={cert: e, key: f}", "PENSTOCK_RECEIVER_TLS_KEY=g",
		"PENSTOCK_STORAGE_SECRET_KEY_FILE="+secret, "PENSTOCK_STATUS_ADMINS=http://u:S3cretPw@h:1")
	for field, want := range map[string]string{
		"receiver.listen":             "FILE:2",
		"receiver.cors_origins":       "FILE:4",
		"receiver.tls.cert":           "PENSTOCK_RECEIVER_TLS",
		"receiver.tls.key":            "PENSTOCK_RECEIVER_TLS_KEY",
		"receiver.name":               "",
		"batcher.roll_age":            "FILE:8",
		"admin.tls.key":               "FILE:10",
		"clickhouse.tls.enabled":      "FILE:11",
		"llm.prices[0].input":         "FILE:14",
		"llm.prices[1].cached_input":  "FILE:16",
		"storage.secret_key":          "PENSTOCK_STORAGE_SECRET_KEY_FILE",
		"status.admins":               "PENSTOCK_STATUS_ADMINS",
		"status.tls.ca":               "",
		"a.field.that.does.not.exist": "",
	} {
		if got := sources.Of(field); got != want {
			t.Errorf("%s: got %q, want %q", field, got, want)
		}
	}
	var got []string
	for _, v := range sources.Values(cfg) {
		if v.Source != "default" {
			got = append(got, strings.Join([]string{v.Field, v.Value, v.Source}, " "))
		}
	}
	want := []string{
		"admin.tls.cert c FILE:10",
		"admin.tls.key d FILE:10",
		"receiver.listen :1 FILE:2",
		"receiver.cors_origins [https://a, https://b] FILE:4",
		"receiver.tls.cert e PENSTOCK_RECEIVER_TLS",
		"receiver.tls.key g PENSTOCK_RECEIVER_TLS_KEY",
		`receiver.tls.client_ca "" PENSTOCK_RECEIVER_TLS`,
		"batcher.roll_age 7s FILE:8",
		"storage.secret_key [HIDDEN] PENSTOCK_STORAGE_SECRET_KEY_FILE",
		"clickhouse.tls.enabled true FILE:11",
		`clickhouse.tls.ca "" FILE:11`,
		`clickhouse.tls.cert "" FILE:11`,
		`clickhouse.tls.key "" FILE:11`,
		`clickhouse.tls.server_name "" FILE:11`,
		"llm.prices[0].model a FILE:14",
		"llm.prices[0].input 1 FILE:14",
		"llm.prices[1].model b FILE:15",
		"llm.prices[1].cached_input 0.5 FILE:16",
		"status.admins [http://u:[HIDDEN]@h:1] PENSTOCK_STATUS_ADMINS",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// Values are all fields, once, and no secret of a list is shown.
func TestValuesOfTheDefaults(t *testing.T) {
	cfg := Default()
	cfg.Receiver.Keys = []Key{{Project: "a", Secret: "S3cretPw"}}
	seen := map[string]string{}
	for _, v := range (Sources{}).Values(cfg) {
		if v.Source != "default" || seen[v.Field] != "" || v.Value == "" || strings.Contains(v.Value, "S3cretPw") {
			t.Errorf("got %+v", v)
		}
		seen[v.Field] = v.Value
	}
	for field, want := range map[string]string{"batcher.put_timeout": "2m", "sweep.span": "168h", "loader.dir": `""`,
		"imports": "[]", "receiver.keys[0].secret": "[HIDDEN]", "batcher.max_disk": "8GiB"} {
		if seen[field] != want {
			t.Errorf("%s: got %s, want %s", field, seen[field], want)
		}
	}
}

// An error about a field has the place of its value, also in a list of errors, and in a log line.
func TestExplain(t *testing.T) {
	sources := Sources{"storage.bucket": "FILE:3"}
	bucket := func() error {
		return &FieldError{Field: "storage.bucket", Value: "events", Err: io.EOF, Do: "create it"}
	}
	secret := &FieldError{Field: "storage.secret_key", Err: errors.New("wrong"), Do: "correct it"}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, "<nil>"},
		{io.EOF, "EOF"},
		{bucket(), `storage.bucket "events" (from FILE:3): EOF; create it`},
		{secret, "storage.secret_key (from the defaults): wrong; correct it"},
		{errors.Join(io.EOF, errors.Join(bucket(), nil)), "EOF\n" + `storage.bucket "events" (from FILE:3): EOF; create it`},
	} {
		if got := fmt.Sprint(sources.Explain(tt.err)); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
	if err := Sources(nil).Explain(bucket()); err.Error() != `storage.bucket "events": EOF; create it` || !errors.Is(err, io.EOF) {
		t.Errorf("without sources: %v", err)
	}
	var out bytes.Buffer
	log, err := Process{LogLevel: "info", LogFormat: "json"}.Logger(&out, sources)
	if err != nil {
		t.Fatal(err)
	}
	log.Warn("bucket away", "error", bucket(), "wait", 1500*time.Millisecond, slog.Group("in", "put", time.Minute), "n", 3)
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	delete(line, "time")
	want := map[string]any{"level": "WARN", "msg": "bucket away", "n": 3.0, "wait_seconds": 1.5,
		"in": map[string]any{"put_seconds": 60.0}, "error": `storage.bucket "events" (from FILE:3): EOF; create it`}
	if diff := cmp.Diff(want, line); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	out.Reset()
	if log, err = (Process{LogLevel: "info", LogFormat: "text"}).Logger(&out, nil); err != nil {
		t.Fatal(err)
	}
	if log.Info("a", "wait", time.Second); !strings.Contains(out.String(), "wait=1s") {
		t.Errorf("got %s", &out)
	}
}

// A configuration may be all by environment; what Kubernetes adds for services is none.
func TestInEnvironment(t *testing.T) {
	for env, want := range map[string]bool{"PENSTOCK_BATCHER_ROLL_AGE=5s": true, "PENSTOCK_STORAGE_SECRET_KEY_FILE=/x": true,
		"PENSTOCK_RECEIVER_SERVICE_HOST=10.0.0.1": false, "PENSTOCK_ADMIN_TOKEN=x": true, "PENSTOCK_CACHE=/x": false,
		"PATH=/bin": false} {
		if got := InEnvironment([]string{"HOME=/", env}); got != want {
			t.Errorf("%s: got %v, want %v", env, got, want)
		}
	}
}

// A suggestion is like what was written, or there is none.
func TestClosest(t *testing.T) {
	known := []string{"listen", "name", "tls", "max_body"}
	for name, want := range map[string]string{"listne": "listen", "nmae": "name", "maxbody": "max_body", "x": "", "ttls": "tls",
		"something": "", "": ""} {
		if got := closest(name, known); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := closest("a", nil); got != "" {
		t.Errorf("of nothing: got %q", got)
	}
}

func TestDurationText(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", time.Second: "1s", 90 * time.Second: "1m30s", 2 * time.Minute: "2m",
		time.Hour: "1h", 168 * time.Hour: "168h", 61 * time.Minute: "1h1m", time.Hour + time.Second: "1h0m1s",
		-5 * time.Minute: "-5m", 1500 * time.Millisecond: "1.5s", 10 * time.Minute: "10m", 20 * time.Hour: "20h"} {
		if got := Duration(d).String(); got != want {
			t.Errorf("%d: got %s, want %s", d, got, want)
		}
		if back, err := time.ParseDuration(Duration(d).String()); err != nil || back != d {
			t.Errorf("%s is read as %s, %v", Duration(d), back, err)
		}
	}
}

// An alias is what it stands for, and a section may be empty.
func TestAliases(t *testing.T) {
	cfg, sources := loaded(t, "storage: {tls: &files {ca: x}, endpoint: 'https://s'}\nqueue: {tls: *files}\nbatcher:\nloader:\n  dir:\n")
	if cfg.Queue.TLS.CA != "x" || sources.Of("queue.tls.ca") != "FILE:1" || cfg.Batcher.Format != "parquet" || cfg.Loader.Dir != "" {
		t.Errorf("got %+v, %v", cfg.Queue, sources)
	}
}

// No error shows a secret, however it is written wrong, nor does any value of the effective configuration.
func TestSecretsAreHidden(t *testing.T) {
	const secret = "S3cretPw"
	for _, text := range []string{
		"storage: {secret_key: [" + secret + "]}",
		"storage: {secret_key: {a: " + secret + "}}",
		"admin: {token: {" + secret + ": a}}",
		"clickhouse: {password: [{" + secret + ": a}]}",
		"receiver: {keys: [{project: a, secret: [" + secret + "]}]}",
		"storage: {endpoint: 'ftp://u:" + secret + "@h'}",
		"queue: {password: " + secret + "}\nbatcher: {format: csv}",
		"status: {admins: 'http://u:" + secret + "@h'}",
		"clickhouse: {addresses: 'clickhouse://u:" + secret + "@h:1'}",
	} {
		path := filepath.Join(t.TempDir(), "penstock.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path, nil); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: got %v", text, err)
		}
	}
	for _, env := range []string{"PENSTOCK_STORAGE_ENDPOINT=u:" + secret + "@h", "PENSTOCK_RECEIVER_KEYS=[{secret: [" + secret + "]}]",
		"PENSTOCK_STATUS_ADMINS=u:" + secret + "@h:1"} {
		if _, err := Load("", []string{env}); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: got %v", env, err)
		}
	}
	cfg, sources := loaded(t, "queue: {url: 'nats://u:"+secret+"@h:1', password: "+secret+"}\n",
		"PENSTOCK_CLICKHOUSE_PASSWORD="+secret, "PENSTOCK_ADMIN_TOKEN="+secret, "PENSTOCK_STORAGE_SECRET_KEY="+secret,
		"PENSTOCK_RECEIVER_KEYS=[{project: a, sha256: "+strings.Repeat("ab", 32)+", secret: "+secret+"}]")
	hidden := 0
	for _, v := range sources.Values(cfg) {
		if strings.Contains(v.Value, secret) {
			t.Errorf("shown: %+v", v)
		}
		if strings.Contains(v.Value, "[HIDDEN]") {
			hidden++
		}
	}
	if hidden != 6 {
		t.Errorf("%d values are hidden, want 6", hidden)
	}
}
