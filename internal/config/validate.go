package config

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/show"
)

// check refuses values that no role could work with, by the field's name.
func (c *Config) check() error {
	var errs []error
	positive := func(name string, v int64) {
		if v <= 0 {
			errs = append(errs, fmt.Errorf("%s must be more than 0", name))
		}
	}
	for section, value := range map[string]any{"process": c.Process, "receiver": c.Receiver, "batcher": c.Batcher,
		"errors": c.Errors, "queue": c.Queue, "sweep": c.Sweep, "clickhouse": c.ClickHouse, "loader": c.Loader} {
		v := reflect.ValueOf(value)
		for f := range v.Type().Fields() {
			if f.Name == "AnonymousRate" || f.Name == "FullEvery" || section == "receiver" && f.Name == "BlobThreshold" {
				continue // 0: none
			}
			if f.Type.Kind() == reflect.Int || f.Type.Kind() == reflect.Int64 {
				positive(section+"."+f.Tag.Get("yaml"), v.FieldByIndex(f.Index).Int())
			}
		}
	}
	if _, err := pipeline.ParseFormat(c.Batcher.Format); err != nil {
		errs = append(errs, fmt.Errorf("batcher.format: %w", err))
	}
	if _, ok := pipeline.ParseDurability(c.Receiver.Durability); !ok {
		errs = append(errs, fmt.Errorf("receiver.durability %q: memory, disk or object", c.Receiver.Durability))
	}
	if c.Sweep.FullEvery < 0 {
		errs = append(errs, fmt.Errorf("sweep.full_every %s: 0 (never) or more", c.Sweep.FullEvery))
	}
	if c.Receiver.Name != "" {
		if err := pipeline.ValidReceiver(c.Receiver.Name); err != nil {
			errs = append(errs, fmt.Errorf("receiver.name: %w", err))
		}
	}
	errs = append(errs, c.checkProxies()...)
	if c.Receiver.MaxEvent > codec.MaxEvent {
		errs = append(errs, fmt.Errorf("receiver.max_event %s: at most %s, for that is the largest event that loaders read",
			c.Receiver.MaxEvent, Size(codec.MaxEvent)))
	}
	if t := c.Receiver.BlobThreshold; t > 0 && t < 4<<10 {
		errs = append(errs, fmt.Errorf("receiver.blob_threshold %s: at least 4KiB (the reference that stays in the row has some 300 bytes), or 0 for none", t))
	}
	if c.Batcher.MaxSegment > c.Batcher.MaxDisk {
		errs = append(errs, errors.New("batcher.max_segment is larger than batcher.max_disk"))
	}
	if n := c.Storage.Notify; n != "storage" && n != "self" && n != "none" {
		errs = append(errs, fmt.Errorf("storage.notify %q: storage, self or none", n))
	}
	switch m := c.Schemas.Mode; {
	case m != "off" && m != "report" && m != "enforce":
		errs = append(errs, fmt.Errorf("schemas.mode %q: off, report or enforce", m))
	case m != "off" && c.Schemas.Dir == "":
		errs = append(errs, fmt.Errorf("schemas.dir is empty, and schemas.mode is %s: name the folder", m))
	}
	if c.Storage.Bucket == "" {
		errs = append(errs, errors.New("storage.bucket is empty"))
	}
	if len(c.ClickHouse.Addresses) == 0 {
		errs = append(errs, errors.New("clickhouse.addresses is empty"))
	}
	if c.Process.LogFormat != "text" && c.Process.LogFormat != "json" {
		errs = append(errs, fmt.Errorf("process.log_format %q: text or json", c.Process.LogFormat))
	}
	if _, err := c.TableColumns(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.Mappings(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.TablePrices(); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, c.checkKeys()...)
	if _, err := c.Receiver.Proxies(); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, c.checkTLS()...)
	errs = append(errs, c.checkAddresses()...)
	return errors.Join(errs...)
}

func (c *Config) checkKeys() (errs []error) {
	for i, k := range c.Receiver.Keys {
		if _, _, err := k.Parse(); err != nil {
			errs = append(errs, fmt.Errorf("receiver.keys[%d].%w", i, err))
		}
		if k.Project == "" {
			errs = append(errs, fmt.Errorf("receiver.keys[%d].project is empty", i))
		}
	}
	return errs
}

// checkTLS refuses a certificate without its key, and what would have no effect.
func (c *Config) checkTLS() (errs []error) {
	for name, s := range map[string]ServerTLS{"admin": c.Admin.TLS, "receiver": c.Receiver.TLS} {
		if (s.Cert == "") != (s.Key == "") || s.Cert == "" && s.ClientCA != "" {
			errs = append(errs, fmt.Errorf("%s.tls needs cert and key: set both, or none of cert, key and client_ca", name))
		}
	}
	for name, s := range map[string]ClientTLS{"storage": c.Storage.TLS, "queue": c.Queue.TLS,
		"clickhouse": c.ClickHouse.TLS.Client(), "status": c.Status.TLS} {
		if (s.Cert == "") != (s.Key == "") {
			errs = append(errs, fmt.Errorf("%s.tls has cert or key alone: set both or none", name))
		}
	}
	if t := c.ClickHouse.TLS; !t.Enabled && t.Client() != (ClientTLS{}) {
		errs = append(errs, errors.New("clickhouse.tls has files and is not enabled: set clickhouse.tls.enabled"))
	}
	if c.Storage.TLS != (ClientTLS{}) && strings.HasPrefix(c.Storage.Endpoint, "http:") {
		errs = append(errs, fmt.Errorf("storage.tls is set, and storage.endpoint %s is not https", show.URL(c.Storage.Endpoint)))
	}
	if c.Admin.Token != "" && c.Admin.TokenFile != "" {
		errs = append(errs, errors.New("admin.token and admin.token_file are both set: set one"))
	}
	return errs
}

// checkProxies refuses headers that no proxy is trusted to send: anybody could set them.
func (c *Config) checkProxies() (errs []error) {
	for _, h := range []struct{ name, value string }{
		{"client_ip_header", c.Receiver.ClientIPHeader}, {"country_header", c.Receiver.CountryHeader},
	} {
		switch {
		case h.value == "":
		case strings.Trim(strings.ToLower(h.value), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "":
			errs = append(errs, fmt.Errorf("receiver.%s %q: want the name of a header, as CF-Connecting-IP", h.name, h.value))
		case len(c.Receiver.TrustedProxies) == 0:
			errs = append(errs, fmt.Errorf("receiver.%s is %q, but receiver.trusted_proxies is empty: "+
				"name the networks of the proxies that set it", h.name, h.value))
		}
	}
	return errs
}

// Proxies are the networks of receiver.trusted_proxies.
func (c *Receiver) Proxies() ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, s := range c.TrustedProxies {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("receiver.trusted_proxies %q: want a network, as 10.0.0.0/8", s)
		}
		all = append(all, p)
	}
	return all, nil
}
