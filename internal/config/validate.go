package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/show"
)

// checker collects wrong values. Each error names the field, its value, its source, and the remedy.
type checker struct {
	from Sources
	errs []error
}

// wrong adds an error of a field. do is the remedy.
func (c *checker) wrong(field string, value any, do string, args ...any) {
	text := fmt.Sprint(value)
	if s, ok := value.(string); ok {
		text = fmt.Sprintf("%q", s)
	}
	c.errs = append(c.errs, fmt.Errorf("%s %s%s: %s", field, text, c.source(field), fmt.Sprintf(do, args...)))
}

// add adds an error that already names the field and the value.
func (c *checker) add(field string, err error) {
	if err != nil {
		c.errs = append(c.errs, fmt.Errorf("%w%s", err, c.source(field)))
	}
}

func (c *checker) source(field string) string {
	if place := c.from.Of(field); place != "" {
		return fmt.Sprintf(" (from %s)", place)
	}
	return ""
}

// check rejects values that no role could work with.
func (cfg *Config) check(from Sources) error {
	c := &checker{from: from}
	c.tags(cfg)
	c.receiver(cfg.Receiver)
	c.admin(cfg.Admin)
	c.batcher(cfg.Batcher)
	if cfg.Schemas.Mode != "off" && cfg.Schemas.Dir == "" {
		c.wrong("schemas.dir", "", "name the folder of the schemas, or set schemas.mode (%q) to off", cfg.Schemas.Mode)
	}
	if !bucketName.MatchString(cfg.Storage.Bucket) {
		c.wrong("storage.bucket", cfg.Storage.Bucket, "set 3 to 63 lowercase letters, digits, '.' and '-'")
	}
	c.queue(cfg)
	if len(cfg.ClickHouse.Addresses) == 0 {
		c.wrong("clickhouse.addresses", cfg.ClickHouse.Addresses, "name at least one server, as 127.0.0.1:9000")
	}
	_, err := cfg.TableColumns()
	c.add("clickhouse.columns", err)
	_, err = cfg.TableRollups()
	c.add("clickhouse.rollups", err)
	_, err = cfg.Mappings()
	c.add("imports", err)
	_, err = cfg.TablePrices()
	c.add("llm.prices", err)
	c.tracing(cfg.Tracing)
	c.addresses(cfg)
	c.servers(cfg)
	c.clients(cfg)
	return errors.Join(c.errs...)
}

func (c *checker) tracing(t Tracing) {
	share := func(field string, value float64) {
		if !(value >= 0 && value <= 1) { // NaN is neither
			c.wrong(field, value, "set a share from 0 to 1")
		}
	}
	share("tracing.requests", t.Requests)
	share("tracing.client_requests", t.ClientRequests)
}

// queue refuses a queue that nobody would write to.
func (c *checker) queue(cfg *Config) {
	switch {
	case cfg.Storage.Notify == NoQueue && cfg.Queue.Type != NoQueue && cfg.Queue.Type != Default().Queue.Type:
		c.wrong("storage.notify", cfg.Storage.Notify, "queue.type is %q: set storage.notify to storage or self, or "+
			"queue.type to none", cfg.Queue.Type)
	case cfg.QueueType() == "sqs" && !strings.Contains(cfg.Queue.SQS.Queue, "{PIPELINE}"):
		c.wrong("queue.sqs.queue", cfg.Queue.SQS.Queue, "put {PIPELINE} into it: each pipeline needs a separate queue")
	case cfg.QueueType() == "cloudflare":
		c.cloudflare(cfg.Queue.Cloudflare)
	}
}

// maxLease is the longest lease that Cloudflare gives.
const maxLease = Duration(12 * time.Hour)

func (c *checker) cloudflare(q Cloudflare) {
	if q.Account == "" {
		c.wrong("queue.cloudflare.account", q.Account, "set the account ID")
	}
	switch {
	case q.APIToken == "" && q.APITokenFile == "":
		c.wrong("queue.cloudflare.api_token", q.APIToken, "set an API token, or queue.cloudflare.api_token_file")
	case q.APIToken != "" && q.APITokenFile != "":
		c.wrong("queue.cloudflare.api_token_file", q.APITokenFile, "queue.cloudflare.api_token is set as well: set "+
			"one of both")
	}
	if !strings.Contains(q.Queue, "{PIPELINE}") {
		c.wrong("queue.cloudflare.queue", q.Queue, "put {PIPELINE} into it: each pipeline needs a separate queue")
	}
	if q.Lease > maxLease {
		c.wrong("queue.cloudflare.lease", q.Lease, "set 12h or less")
	}
}

// bucketName matches what S3 allows.
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// tags rejects a number below its minimum, and a text that is not one of the known ones.
func (c *checker) tags(cfg *Config) {
	eachField(reflect.ValueOf(*cfg), "", func(field string, v reflect.Value, f reflect.StructField) {
		switch known := strings.Fields(f.Tag.Get("enum")); {
		case v.CanInt() && f.Tag.Get("min") == "0" && v.Int() < 0:
			c.wrong(field, v.Interface(), "set 0 or more")
		case v.CanInt() && f.Tag.Get("min") == "" && v.Int() <= 0:
			c.wrong(field, v.Interface(), "set more than 0")
		case len(known) > 0 && !slices.Contains(known, v.String()):
			last := len(known) - 1
			c.wrong(field, v.Interface(), "set %s or %s", strings.Join(known[:last], ", "), known[last])
		}
	})
}

func (c *checker) admin(a Admin) {
	names := map[string]bool{"admin": true}
	for i, t := range a.Tokens {
		field := fmt.Sprintf("admin.tokens[%d]", i)
		if _, err := ParseHash(t.SHA256); err != nil {
			c.add("admin.tokens", fmt.Errorf("%s.sha256: want 64 hex digits, the SHA-256 of the token (printf %%s TOKEN | "+
				"sha256sum)", field))
		}
		if t.Role != "operator" && t.Role != "viewer" {
			c.add("admin.tokens", fmt.Errorf("%s.role %q: set operator or viewer", field, t.Role))
		}
		if t.Name == "" || names[t.Name] {
			c.add("admin.tokens", fmt.Errorf("%s.name %q: set a name that no other token has; admin is that of admin.token",
				field, t.Name))
		}
		names[t.Name] = true
	}
}

func (c *checker) receiver(r Receiver) {
	if r.Name != "" {
		if err := pipeline.ValidReceiver(r.Name); err != nil {
			c.add("receiver.name", fmt.Errorf("receiver.name: %w", err))
		}
	}
	if r.MaxEvent > codec.MaxEvent {
		c.wrong("receiver.max_event", r.MaxEvent, "set %s or less, the largest event that loaders read", Size(codec.MaxEvent))
	}
	if t := r.BlobThreshold; t > 0 && t < minBlob {
		c.wrong("receiver.blob_threshold", t, "set %s or more, or 0 for none: the reference that stays in the row has "+
			"some 300 bytes", Size(minBlob))
	}
	for i, k := range r.Keys {
		field := fmt.Sprintf("receiver.keys[%d]", i)
		if _, _, err := k.Parse(); err != nil {
			c.add("receiver.keys", fmt.Errorf("%s.%w", field, err))
		}
		if k.Project == "" {
			c.add("receiver.keys", fmt.Errorf("%s.project is empty: name the project that the key is for", field))
		}
	}
	_, err := r.Proxies()
	c.add("receiver.trusted_proxies", err)
	c.header("receiver.client_ip_header", r.ClientIPHeader, r)
	c.header("receiver.country_header", r.CountryHeader, r)
}

// minBlob is the smallest value that may become a blob.
const minBlob = 4 << 10

// header rejects a header without trusted proxies, because any client could set it.
func (c *checker) header(field, name string, r Receiver) {
	switch {
	case name == "":
	case strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "":
		c.wrong(field, name, "want the name of a header, as CF-Connecting-IP")
	case len(r.TrustedProxies) == 0:
		c.wrong(field, name, "receiver.trusted_proxies is empty: name the networks of the proxies that set this header")
	}
}

// Proxies are the networks of receiver.trusted_proxies.
func (r *Receiver) Proxies() ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, s := range r.TrustedProxies {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("receiver.trusted_proxies %q: want a network, as 10.0.0.0/8", s)
		}
		all = append(all, p)
	}
	return all, nil
}

func (c *checker) batcher(b Batcher) {
	if b.MaxSegment > b.MaxDisk {
		c.wrong("batcher.max_segment", b.MaxSegment, "set batcher.max_disk (%s) or less", b.MaxDisk)
	}
}

// servers checks the certificates of listeners, and the admin token.
func (c *checker) servers(cfg *Config) {
	for _, s := range []struct {
		section string
		tls     ServerTLS
	}{{"admin", cfg.Admin.TLS}, {"receiver", cfg.Receiver.TLS}} {
		if (s.tls.Cert == "") != (s.tls.Key == "") || s.tls.Cert == "" && s.tls.ClientCA != "" {
			given := cmp.Or(s.tls.Cert, s.tls.Key, s.tls.ClientCA)
			c.wrong(s.section+".tls", given, "it needs cert and key: set both, or none of cert, key and client_ca")
		}
	}
	if cfg.Admin.Token != "" && cfg.Admin.TokenFile != "" {
		c.wrong("admin.token_file", cfg.Admin.TokenFile, "admin.token is set as well: set one of both")
	}
}

// clients rejects a certificate without its key, and files that would have no effect.
func (c *checker) clients(cfg *Config) {
	for _, s := range []struct {
		section string
		tls     ClientTLS
	}{{"storage", cfg.Storage.TLS}, {"queue", cfg.Queue.TLS}, {"clickhouse", cfg.ClickHouse.TLS.Client()},
		{"status", cfg.Status.TLS}} {
		if (s.tls.Cert == "") != (s.tls.Key == "") {
			c.wrong(s.section+".tls", cmp.Or(s.tls.Cert, s.tls.Key), "it is cert or key alone: set both or none")
		}
	}
	if t := cfg.ClickHouse.TLS; !t.Enabled && t.Client() != (ClientTLS{}) {
		c.wrong("clickhouse.tls.enabled", t.Enabled, "clickhouse.tls has files: set it to true, or remove them")
	}
	if cfg.Storage.TLS != (ClientTLS{}) && strings.HasPrefix(cfg.Storage.Endpoint, "http:") {
		c.wrong("storage.endpoint", show.URL(cfg.Storage.Endpoint),
			"storage.tls is set: begin it with https://, or remove storage.tls")
	}
}
