package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// The example holds every field, and each at its default.
func TestExampleConfigIsTheDefault(t *testing.T) {
	text, err := os.ReadFile("../../penstock.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var cfg Config
	if err := ParseStrict("", text, nil, &cfg); err != nil {
		t.Fatal(err)
	}
	want := Default()
	got, _ := yaml.Marshal(cfg)
	def, _ := yaml.Marshal(want)
	if string(got) != string(def) {
		t.Errorf("the example says\n%s\nthe defaults are\n%s", got, def)
	}
	var doc map[string]any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	for section := range reflect.TypeFor[Config]().Fields() {
		for f := range sectionFields(section) {
			if _, ok := doc[section.Tag.Get("yaml")].(map[string]any)[f.Tag.Get("yaml")]; !ok {
				t.Errorf("the example has no %s.%s", section.Tag.Get("yaml"), f.Tag.Get("yaml"))
			}
		}
	}
}

func TestParseConfig(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"unknown section", "receiver:\n  listen: :1\nreciever:\n  name: x\n", "unknown field reciever (from c.yaml:3): did you mean receiver?"},
		{"unknown field", "receiver:\n  listen: :1\n  listne: :2\n", "unknown field receiver.listne (from c.yaml:3): did you mean listen?"},
		{"unknown field in a list", "receiver:\n  keys:\n    - {project: a, sha: b}\n",
			"unknown field receiver.keys[0].sha (from c.yaml:3): known are project, sha256"},
		{"bad duration", "batcher:\n  roll_age: 90\n", `batcher.roll_age "90" (from c.yaml:2): want a duration, as 200ms, 90s, 5m or 24h`},
		{"bad size", "batcher:\n  max_disk: 8GB\n", `batcher.max_disk "8GB" (from c.yaml:2): want a size, as 4096, 64KiB`},
		{"size too large", "batcher:\n  max_disk: 99999999999TiB\n", "want a size"},
		{"wrong type", "receiver:\n  max_events: many\n", `receiver.max_events "many" (from c.yaml:2): want a whole number`},
		{"missing variable", "storage:\n  secret_key: ${NOT_SET}\n", "storage.secret_key (from c.yaml:2): ${NOT_SET} is not set in the environment: set it"},
		{"not a map", "receiver: 5\n", "receiver (from c.yaml:1): want fields"},
		{"a second document", "receiver:\n  listen: :1\n---\nbatcher:\n  dir: x\n",
			"(from c.yaml:3): a second YAML document begins here"},
		{"a list", "- receiver\n", "the file (from c.yaml:1): want fields"},
		{"an empty second document", "receiver:\n  listen: :1\n---\n", "(from c.yaml:3): a second YAML document begins here"},
		{"a broken second document", "receiver:\n  listen: :1\n---\n[", "YAML syntax (from c.yaml:4): "},
		{"something behind the end", "receiver:\n  listen: :1\n...\nbatcher: {}\n", "did not find expected <document start>"},
		{"twice", "receiver:\n  listen: :1\n  listen: :2\n", "receiver.listen (from c.yaml:3): it is set in line 2 already: remove one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Default()
			err := ParseStrict("c.yaml", []byte(tt.text), nil, &cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	for _, text := range []string{"", "# nothing\n", "---\n", "---\nreceiver: {}\n...\n# end\n"} {
		if err := ParseStrict("c.yaml", []byte(text), nil, &Config{}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestConfigFromEnvironment(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "c.yaml")
	secret := filepath.Join(dir, "secret")
	os.WriteFile(secret, []byte("s3cret\n"), 0o600)
	os.WriteFile(file,
		[]byte("storage:\n  access_key: ${KEY_ID}\nreceiver:\n  max_events: ${N}\nbatcher:\n  roll_age: 5s\n"), 0o600)
	cfg, err := Load(file, []string{"KEY_ID=abc", "N=7", "PENSTOCK_BATCHER_ROLL_AGE=30s",
		"PENSTOCK_STORAGE_SECRET_KEY_FILE=" + secret,
		"PENSTOCK_CLICKHOUSE_ADDRESSES=a:1, b:2", "PENSTOCK_STATUS_ADMINS=[http://a]", "PENSTOCK_CACHE=x",
		"PENSTOCK_BATCHER_MAX_DISK=9GiB"})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Storage.AccessKey != "abc" || cfg.Receiver.MaxEvents != 7 ||
		time.Duration(cfg.Batcher.RollAge) != 30*time.Second ||
		cfg.Storage.SecretKey != "s3cret" || len(cfg.ClickHouse.Addresses) != 2 || cfg.Batcher.MaxDisk != 9<<30 {
		t.Errorf("got %+v", cfg)
	}
	if cfg, err := Load("", []string{"PENSTOCK_ERRORS_ANONYMOUS_RATE=0"}); err != nil || cfg.Errors.AnonymousRate != 0 {
		t.Errorf("none is kept of clients that nobody knows: %v", err)
	}
	cfg, err = Load("", []string{"PENSTOCK_RECEIVER_KEYS=[{project: a, sha256: " + strings.Repeat("ab", 32) +
		", secret: s3cret}]"})
	if err != nil {
		t.Fatal(err)
	}
	if keys := cfg.Receiver.Keys; len(keys) != 1 || keys[0].Secret != "s3cret" {
		t.Errorf("got %+v", keys)
	}
}

// Kubernetes adds variables for each service of the namespace. Those of a service penstock-receiver look like
// overrides.
func TestServiceLinksOfKubernetes(t *testing.T) {
	var links []string
	for _, service := range []string{"PENSTOCK_RECEIVER", "PENSTOCK_ADMIN", "PENSTOCK_QUEUE_NATS_0", "PENSTOCK_LOADER_2"} {
		links = append(links, service+"_SERVICE_HOST=10.0.171.239", service+"_SERVICE_PORT=8080",
			service+"_SERVICE_PORT_HTTP=8080", service+"_SERVICE_PORT_HTTP_ADMIN=8081", service+"_PORT=tcp://10.0.171.239:8080",
			service+"_PORT_8080_TCP=tcp://10.0.171.239:8080", service+"_PORT_8080_TCP_PROTO=tcp",
			service+"_PORT_8080_TCP_PORT=8080", service+"_PORT_8080_TCP_ADDR=10.0.171.239",
			service+"_PORT_53_UDP=udp://10.0.171.239:53", service+"_PORT_53_UDP_ADDR=fd00::12")
	}
	cfg, err := Load("", append(links, "PENSTOCK_RECEIVER_LISTEN=:1"))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Receiver.Listen = ":1"
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("the links changed the configuration: got %+v", cfg)
	}
	for _, typo := range []string{"PENSTOCK_RECEIVER_PORT=8080", "PENSTOCK_RECEIVER_HOST=0.0.0.0",
		"PENSTOCK_RECEIVER_SERVICE=x",
		"PENSTOCK_RECEIVER_PORT_8080=1", "PENSTOCK_RECEIVER_LISTEN_PORT=8080", "PENSTOCK_QUEUE_SERVICE_NAME=x"} {
		if _, err := Load("", append(links, typo)); err == nil || !strings.Contains(err.Error(), "sets no field") {
			t.Errorf("%s: got %v, want an error that it sets no field", typo, err)
		}
	}
}

func TestSizeAndDurationText(t *testing.T) {
	for text, want := range map[string]Size{"4096": 4096, "64KiB": 64 << 10, "1 MiB": 1 << 20, "8GiB": 8 << 30, "0": 0} {
		var s Size
		if err := yaml.Unmarshal([]byte(text), &s); err != nil || s != want {
			t.Errorf("%s: %d, %v", text, s, err)
		}
	}
	if got := Size(64 << 20).String(); got != "64MiB" {
		t.Errorf("got %s", got)
	}
}
