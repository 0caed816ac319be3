package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each error names the field, its value, where it came from, and what to do.
func TestWrongValues(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	for _, tt := range []struct{ env, want string }{
		{"ERRORS_BLOB_THRESHOLD=0", "errors.blob_threshold 0 (from PENSTOCK_ERRORS_BLOB_THRESHOLD): set more than 0"},
		{"BATCHER_ROLL_ROWS=-5", "batcher.roll_rows -5 (from PENSTOCK_BATCHER_ROLL_ROWS): set more than 0"},
		{"BATCHER_ROLL_AGE=-1s", "batcher.roll_age -1s (from PENSTOCK_BATCHER_ROLL_AGE): set more than 0"},
		{"PROCESS_DRAIN=0s", "process.drain 0s (from PENSTOCK_PROCESS_DRAIN): set more than 0"},
		{"QUEUE_REPLICAS=0", "queue.replicas 0 (from PENSTOCK_QUEUE_REPLICAS): set more than 0"},
		{"LOADER_WORKERS=0", "loader.workers 0 (from PENSTOCK_LOADER_WORKERS): set more than 0"},
		{"SWEEP_FULL_RATE=0", "sweep.full_rate 0 (from PENSTOCK_SWEEP_FULL_RATE): set more than 0"},
		{"SWEEP_FULL_EVERY=-1h", "sweep.full_every -1h (from PENSTOCK_SWEEP_FULL_EVERY): set 0 or more"},
		{"BATCHER_FORMAT=csv", `batcher.format "csv" (from PENSTOCK_BATCHER_FORMAT): set parquet or ndjson`},
		{"BATCHER_MAX_SEGMENT=9GiB",
			"batcher.max_segment 9GiB (from PENSTOCK_BATCHER_MAX_SEGMENT): set batcher.max_disk (8GiB) or less"},
		{"PROCESS_LOG_FORMAT=xml", `process.log_format "xml" (from PENSTOCK_PROCESS_LOG_FORMAT): set text or json`},
		{"STORAGE_NOTIFY=mail", `storage.notify "mail" (from PENSTOCK_STORAGE_NOTIFY): set storage, self or none`},
		{"STORAGE_BUCKET=", `storage.bucket "" (from PENSTOCK_STORAGE_BUCKET): set 3 to 63 lowercase letters`},
		{"CLICKHOUSE_ADDRESSES=[]", "clickhouse.addresses [] (from PENSTOCK_CLICKHOUSE_ADDRESSES): name at least one server"},
		{"SCHEMAS_MODE=on", `schemas.mode "on" (from PENSTOCK_SCHEMAS_MODE): set off, report or enforce`},
		{"SCHEMAS_MODE=report", `schemas.dir "": name the folder of the schemas, or set schemas.mode ("report") to off`},

		{"RECEIVER_DURABILITY=none",
			`receiver.durability "none" (from PENSTOCK_RECEIVER_DURABILITY): set memory, disk or object`},
		{"RECEIVER_NAME=a/b", `receiver.name: receiver name "a/b": character`},
		{"RECEIVER_MAX_EVENT=1GiB", "receiver.max_event 1GiB (from PENSTOCK_RECEIVER_MAX_EVENT): set "},
		{"RECEIVER_BLOB_THRESHOLD=1KiB",
			"receiver.blob_threshold 1KiB (from PENSTOCK_RECEIVER_BLOB_THRESHOLD): set 4KiB or more, or 0 for none"},
		{"RECEIVER_TRUSTED_PROXIES=10.0.0.0",
			`receiver.trusted_proxies "10.0.0.0": want a network, as 10.0.0.0/8 (from PENSTOCK_RECEIVER_TRUSTED_PROXIES)`},
		{"RECEIVER_CLIENT_IP_HEADER=a b", `receiver.client_ip_header "a b" (from PENSTOCK_RECEIVER_CLIENT_IP_HEADER): ` +
			"want the name of a header"},
		{"RECEIVER_CLIENT_IP_HEADER=cf-connecting-ip", `receiver.client_ip_header "cf-connecting-ip" ` +
			"(from PENSTOCK_RECEIVER_CLIENT_IP_HEADER): receiver.trusted_proxies is empty: name the networks"},
		{"RECEIVER_COUNTRY_HEADER=CF-IPCountry", `receiver.country_header "CF-IPCountry" ` +
			"(from PENSTOCK_RECEIVER_COUNTRY_HEADER): receiver.trusted_proxies is empty: name the networks"},
		{"ADMIN_TOKENS=[{name: a, role: viewer, sha256: abc}]", "admin.tokens[0].sha256: want 64 hex digits"},
		{"ADMIN_TOKENS=[{name: a, role: root, sha256: " + hash + "}]",
			`admin.tokens[0].role "root": set operator or viewer (from PENSTOCK_ADMIN_TOKENS)`},
		{"ADMIN_TOKENS=[{name: admin, role: viewer, sha256: " + hash + "}]", `admin.tokens[0].name "admin": set a name`},
		{"RECEIVER_KEYS=[{project: a, sha256: abc}]", "receiver.keys[0].sha256: want 64 hex digits"},
		{"RECEIVER_KEYS=[{sha256: " + hash + "}]", "receiver.keys[0].project is empty: name the project"},
		{"RECEIVER_KEYS=[{project: a, sha256: " + hash + ", min_durability: tape}]",
			`receiver.keys[0].min_durability "tape": memory, disk or object (from PENSTOCK_RECEIVER_KEYS)`},

		{"CLICKHOUSE_COLUMNS=[{name: user_id, type: String}]",
			`clickhouse.columns[0]: name "user_id": the table has that column`},
		{"CLICKHOUSE_COLUMNS=[{name: 'a b', type: String}]", "clickhouse.columns[0]: name"},
		{"CLICKHOUSE_COLUMNS=[{name: a, path: b..c, type: String}]", "clickhouse.columns[0]: path"},
		{"CLICKHOUSE_COLUMNS=[{name: a, type: Int8}]", "clickhouse.columns[0]: type"},
		{"CLICKHOUSE_COLUMNS=[{name: a, type: UUID}, {name: a, type: UUID}]",
			"clickhouse.columns[1]: the name \"a\" is used twice (from PENSTOCK_CLICKHOUSE_COLUMNS)"},
		{"LLM_PRICES=[{input: 1}]", "llm.prices[0]"},
		{"LLM_PRICES=[{model: a, input: -1}]", "llm.prices[0], of a"},
		{"LLM_PRICES=[{model: a}, {model: a}]", "llm.prices[1]: a of provider"},

		{"ADMIN_TLS_CERT=c.pem", `admin.tls "c.pem": it needs cert and key: set both`},
		{"RECEIVER_TLS_CLIENT_CA=ca.pem", `receiver.tls "ca.pem": it needs cert and key: set both`},
		{"QUEUE_TLS_KEY=k.pem", `queue.tls "k.pem": it is cert or key alone: set both or none`},
		{"CLICKHOUSE_TLS_CA=ca.pem", "clickhouse.tls.enabled false: clickhouse.tls has files: set it to true"},

		{"TRACING_REQUESTS=1.5", "tracing.requests 1.5 (from PENSTOCK_TRACING_REQUESTS): set a share from 0 to 1"},
		{"TRACING_CLIENT_REQUESTS=.nan", "tracing.client_requests NaN (from PENSTOCK_TRACING_CLIENT_REQUESTS): set a share"},
		{"TRACING_ENDPOINT=localhost:4318", `tracing.endpoint "localhost:4318": want a URL like https://host:port`},

		{"BATCHER_ROLL_AGE=soon", `batcher.roll_age "soon" (from PENSTOCK_BATCHER_ROLL_AGE): want a duration, as 200ms, 90s, 5m or 24h`},
		{"BATCHER_MAX_DISK=8GB", `batcher.max_disk "8GB" (from PENSTOCK_BATCHER_MAX_DISK): want a size, as 4096, 64KiB, 32MiB or 8GiB`},
		{"BATCHER_ROLL_AGEE=30s", "environment variable PENSTOCK_BATCHER_ROLL_AGEE sets no field of the configuration; " +
			"did you mean PENSTOCK_BATCHER_ROLL_AGE?"},
		{"STORAGE_SECRET_KEY_FILE=/does/not/exist",
			"storage.secret_key (from PENSTOCK_STORAGE_SECRET_KEY_FILE): open"},
	} {
		_, err := Load("", []string{"PENSTOCK_" + tt.env})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.env, err, tt.want)
		}
	}
}

// What two fields say together is refused with the names of both.
func TestWrongPairs(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"storage: {endpoint: 'http://a:b@s', tls: {ca: x}}",
			`storage.endpoint "http://a:[HIDDEN]@s" (from FILE:1): storage.tls is set: begin it with https://`},
		{"admin: {token: a, token_file: b}", `admin.token_file "b" (from FILE:1): admin.token is set as well: set one of both`},
		{"queue: {type: cloudflare}", "configuration:\n" +
			`  queue.cloudflare.account "": set the account ID` + "\n" +
			`  queue.cloudflare.api_token "": set an API token, or queue.cloudflare.api_token_file`},
		{"queue: {type: cloudflare, cloudflare: {account: a, api_token: t, api_token_file: f, queue: q, lease: 13h}}",
			"configuration:\n" +
				`  queue.cloudflare.api_token_file "f" (from FILE:1): queue.cloudflare.api_token is set as well: set one of both` + "\n" +
				`  queue.cloudflare.queue "q" (from FILE:1): put {PIPELINE} into it: each pipeline needs a separate queue` + "\n" +
				`  queue.cloudflare.lease 13h (from FILE:1): set 12h or less`},
		{"queue: {type: cloudflare, cloudflare: {account: a, api_token_file: f}}", ""},
		{"clickhouse: {tls: true}", ""},
		{"clickhouse: {tls: {enabled: true, ca: x}}", ""},
		{"receiver: {blob_threshold: 0}", ""},
		{"errors: {anonymous_rate: 0}", ""},
		{"sweep: {full_every: 0s}", ""},
		{"receiver: {trusted_proxies: [10.0.0.0/8], client_ip_header: X-Real-IP}", ""},
		{"batcher: {roll_rows: 0}\nreceiver: {durability: x}", "configuration:\n" +
			`  receiver.durability "x" (from FILE:2): set memory, disk or object` + "\n" +
			"  batcher.roll_rows 0 (from FILE:1): set more than 0"},
	} {
		path := filepath.Join(t.TempDir(), "penstock.yaml")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path, nil)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.text, err)
			}
			continue
		}
		if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), path, "FILE"), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.text, err, tt.want)
		}
	}
}

// A section of imports says where a file has what an event needs.
func TestImports(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"{prefix: crm/}", `imports[0].prefix "crm/": want one that begins with "events/"`},
		{"{prefix: events/a/}, {prefix: events/a/}", `imports[1].prefix "events/a/" has an entry already`},
		{"{prefix: events/a/, name: 'a + + b'}", `imports[0]: path "a + + b": want keys joined by dots`},
		{"{prefix: events/a/, user_id: [a, =]}", `imports[0]: path "="`},
		{"{prefix: events/a/, profile: none}", "imports[0].profile: "},
		{"{prefix: events/a/, name: {a: b}}", "want a path or a list of paths"},
		{"{prefix: events/a/, nme: b}", "unknown field imports[0].nme"},
	} {
		cfg := Default()
		err := ParseStrict("c.yaml", []byte("imports: ["+tt.text+"]\n"), nil, &cfg)
		if err == nil {
			err = cfg.check(nil)
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.text, err, tt.want)
		}
	}
	cfg := Default()
	text := "imports: [{prefix: events/a/, project: p, name: [a, b], timestamp: t, keep: true}]\n"
	if err := ParseStrict("c.yaml", []byte(text), nil, &cfg); err != nil {
		t.Fatal(err)
	}
	got, err := cfg.Mappings()
	if err != nil || len(got) != 1 || got[0].Prefix != "events/a/" || got[0].Project != "p" || !got[0].Keep ||
		strings.Join(got[0].Name, " ") != "a b" || strings.Join(got[0].Timestamp, " ") != "t" {
		t.Errorf("got %+v, %v", got, err)
	}
}
