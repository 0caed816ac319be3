package config

import (
	"strings"
	"testing"
)

// Clients show addresses in their errors, so a password must not be a part of one.
func TestAddresses(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"storage: {endpoint: 'http://127.0.0.1:9000'}", ""},
		{"storage: {endpoint: 'https://account.r2.example/'}", ""},
		{"storage: {endpoint: 'user:s3cret99@127.0.0.1:1'}", `storage.endpoint "user:[HIDDEN]@127.0.0.1:1": want a URL`},
		{"storage: {endpoint: 'http://k:s3cr et99%zz@127.0.0.1'}",
			`storage.endpoint "http://k:[HIDDEN]@127.0.0.1": want a URL`},
		{"storage: {endpoint: 'http://h/?token=s3cret99'}", `storage.endpoint "http://h/?[HIDDEN]": want a URL`},
		{"clickhouse: {storage_endpoint: 'minio:9000'}", `clickhouse.storage_endpoint "minio:9000": want a URL`},
		{"clickhouse: {addresses: ['[::1]:9000', 'ch:9000']}", ""},
		{"clickhouse: {addresses: ['ch:9000', 'clickhouse://usr:s3cret99@ch:9000']}",
			`clickhouse.addresses[1] "clickhouse://usr:[HIDDEN]@ch:9000": want host:port`},
		{"clickhouse: {addresses: ['usr:s3cret99@ch:9000']}",
			`clickhouse.addresses[0] "usr:[HIDDEN]@ch:9000": want host:port`},
		{"clickhouse: {addresses: ['ch:9000?password=s3cret99']}",
			`clickhouse.addresses[0] "ch:9000?[HIDDEN]": want host:port`},
		{"clickhouse: {addresses: [ch]}", `clickhouse.addresses[0] "ch": want host:port`},
		{"status: {admins: ['http://a:8081', 'http://a:8081?token=s3cret99']}",
			`status.admins[1] "http://a:8081?[HIDDEN]": want a URL`},
	} {
		cfg := Default()
		if err := ParseStrict("c.yaml", []byte(tt.in), nil, &cfg); err != nil {
			t.Fatal(err)
		}
		err := cfg.check(nil)
		if tt.want == "" && err != nil {
			t.Errorf("%s: %v", tt.in, err)
		}
		if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "s3cr")) {
			t.Errorf("%s: got %v, want %s", tt.in, err, tt.want)
		}
	}
}
