package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What an operator writes wrong is named with field, value, place and remedy: the whole text is what they read.
func TestMisconfigured(t *testing.T) {
	const head = "configuration: "
	for _, tt := range []struct{ name, text, env, want string }{
		{"a typo in a section", "reciever:\n  listen: :1\n", "", "unknown field reciever (from FILE:1): did you mean receiver?"},
		{"a typo in a field", "batcher:\n  rollage: 5s\n", "",
			"unknown field batcher.rollage (from FILE:2): did you mean roll_age?"},
		{"a field of another section", "sweep:\n  database: x\n", "",
			"unknown field sweep.database (from FILE:2): known are every, span, grace, poll, full_every, full_rate"},
		{"a duration without a unit", "batcher:\n  roll_age: 5\n", "",
			`batcher.roll_age "5" (from FILE:2): want a duration, as 200ms, 90s, 5m or 24h`},
		{"a duration below 0", "batcher:\n\n  roll_age: -5s\n", "", "batcher.roll_age -5s (from FILE:3): set more than 0"},
		{"a size with another unit", "batcher: {max_disk: 8G}", "",
			`batcher.max_disk "8G" (from FILE:1): want a size, as 4096, 64KiB, 32MiB or 8GiB`},
		{"an unknown durability", "receiver: {durability: disc}", "",
			`receiver.durability "disc" (from FILE:1): set memory, disk or object`},
		{"an unknown format", "batcher: {format: orc}", "", `batcher.format "orc" (from FILE:1): set parquet or ndjson`},
		{"an unknown notifier", "storage: {notify: sqs}", "", `storage.notify "sqs" (from FILE:1): set storage, self or none`},
		{"an unknown level", "process: {log_level: verbose}", "",
			`process.log_level "verbose" (from FILE:1): set debug, info, warn or error`},
		{"a text for a list", `clickhouse: {addresses: "127.0.0.1:9000"}`, "",
			`clickhouse.addresses "127.0.0.1:9000" (from FILE:1): want a list, as [a, b]`},
		{"half a number", "batcher: {uploads: 1.5}", "", `batcher.uploads "1.5" (from FILE:1): want a whole number`},
		{"a number for a list", "receiver: {cors_origins: 5}", "",
			`receiver.cors_origins "5" (from FILE:1): want a list, as [a, b]`},
		{"a text for a price", "llm: {prices: [{model: a, input: free}]}", "",
			`llm.prices[0].input "free" (from FILE:1): want a number`},
		{"a value for a section", "batcher: 5", "",
			`batcher (from FILE:1): want fields, as "name: value", and not a list or a single value`},
		{"a list for a text", "storage: {bucket: [a, b]}", "", "storage.bucket (from FILE:1): want a text"},
		{"a text for a switch", "storage: {path_style: perhaps}", "",
			`storage.path_style "perhaps" (from FILE:1): want true or false`},
		{"a secret of another kind", "storage: {secret_key: [S3cretPw]}", "", "storage.secret_key (from FILE:1): want a text"},
		{"a tab", "receiver:\n\tlisten: :1\n", "", "YAML syntax (from FILE:2): found character that cannot start any token; " +
			"indent with blanks, not with tabs"},
		{"a quote that is not closed", "receiver: {listen: \":1}\n", "", "YAML syntax (from FILE:2): found unexpected end of stream"},
		{"a field set twice", "queue:\n  user: a\n  user: b\n", "",
			"queue.user (from FILE:3): it is set in line 2 already: remove one"},
		{"a typo in a variable", "", "PENSTOCK_BATCHER_ROLLAGE=5s",
			"environment variable PENSTOCK_BATCHER_ROLLAGE sets no field of the configuration; did you mean PENSTOCK_BATCHER_ROLL_AGE?"},
		{"a variable of no field", "", "PENSTOCK_RECEIVER_HOSTNAME_OF_THE_MACHINE=x",
			"environment variable PENSTOCK_RECEIVER_HOSTNAME_OF_THE_MACHINE sets no field of the configuration; correct or unset it"},
		{"a bad value in a variable", "batcher: {uploads: 3}", "PENSTOCK_BATCHER_UPLOADS=two",
			`batcher.uploads "two" (from PENSTOCK_BATCHER_UPLOADS): want a whole number`},
		{"bad YAML in a variable", "", "PENSTOCK_RECEIVER_KEYS=[{project: a", "YAML syntax (from PENSTOCK_RECEIVER_KEYS): " +
			"did not find expected ',' or '}'"},
		{"a missing file of a variable", "", "PENSTOCK_CLICKHOUSE_PASSWORD_FILE=/does/not/exist",
			"clickhouse.password (from PENSTOCK_CLICKHOUSE_PASSWORD_FILE): open /does/not/exist: no such file or directory; " +
				"create the file, or unset the variable"},
		{"a variable that is not set", "admin:\n  listen: :1\n  token: ${ADMIN_TOKEN}\n", "",
			"admin.token (from FILE:3): ${ADMIN_TOKEN} is not set in the environment: set it, or remove it from the file"},
		{"an endpoint without a scheme", "storage: {endpoint: '127.0.0.1:42202'}", "",
			`storage.endpoint "127.0.0.1:42202": want a URL like https://host:port without a query (from FILE:1)`},
		{"a URL for host and port", "clickhouse: {addresses: ['http://127.0.0.1:9000']}", "",
			`clickhouse.addresses[0] "http://127.0.0.1:9000": want host:port; user and password are clickhouse.user and ` +
				"clickhouse.password (from FILE:1)"},
		{"a bucket name that S3 does not allow", "storage: {bucket: My_Bucket}", "",
			`storage.bucket "My_Bucket" (from FILE:1): set 3 to 63 lowercase letters, digits, '.' and '-'`},
		{"a short hash", "receiver: {keys: [{project: a, sha256: abc}]}", "",
			"receiver.keys[0].sha256: want 64 hex digits, the SHA-256 of the key (printf %s KEY | sha256sum) (from FILE:1)"},
		{"several at once", "batcher:\n  rollage: 5s\n  max_disk: 8G\n", "", "\n  unknown field batcher.rollage (from FILE:2): " +
			"did you mean roll_age?\n  batcher.max_disk \"8G\" (from FILE:3): want a size, as 4096, 64KiB, 32MiB or 8GiB"},
		{"a single value", "receiver\n", "", `the file (from FILE:1): want fields, as "name: value", and not a list or a single value`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "penstock.yaml")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			var env []string
			if tt.env != "" {
				env = append(env, tt.env)
			}
			_, err := Load(path, env)
			if err == nil {
				t.Fatal("it is accepted")
			}
			want := head + tt.want
			if strings.HasPrefix(tt.want, "\n") {
				want = strings.TrimSpace(head) + tt.want
			}
			if got := strings.ReplaceAll(err.Error(), path, "FILE"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// A file that cannot be read: who has to be allowed, or what to do instead.
func TestUnreadableFile(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.yaml")
	_, err := Load(missing, nil)
	if want := "configuration: open " + missing + ": no such file or directory; name another with --config, or copy " +
		"penstock.example.yaml"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	denied := unreadable(&fs.PathError{Op: "open", Path: "c.yaml", Err: fs.ErrPermission})
	if want := "open c.yaml: permission denied; let the user " + UserName() + " read it"; denied.Error() != want {
		t.Errorf("got %v, want %s", denied, want)
	}
	if _, err := Load(t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a folder: %v", err)
	}
}
