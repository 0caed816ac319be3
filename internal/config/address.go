package config

import (
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/penstock/penstock/internal/show"
)

// addresses rejects addresses in another form than their clients expect. These would show them as they are in
// errors, with a password that is part of them.
func (c *checker) addresses(cfg *Config) {
	if e := cfg.Storage.Endpoint; e != "" { // empty: the region's
		c.add("storage.endpoint", checkURL("storage.endpoint", e))
	}
	if e := cfg.ClickHouse.StorageEndpoint; e != "" {
		c.add("clickhouse.storage_endpoint", checkURL("clickhouse.storage_endpoint", e))
	}
	if e := cfg.Tracing.Endpoint; e != "" {
		c.add("tracing.endpoint", checkURL("tracing.endpoint", e))
	}
	for i, a := range cfg.Status.Admins {
		c.add("status.admins", checkURL(fmt.Sprintf("status.admins[%d]", i), a))
	}
	for i, a := range cfg.ClickHouse.Addresses {
		host, port, err := net.SplitHostPort(a)
		if err != nil || host == "" || port == "" || strings.ContainsAny(a, "@/?#") {
			c.add("clickhouse.addresses", fmt.Errorf("clickhouse.addresses[%d] %s: want host:port; user and password are "+
				"clickhouse.user and clickhouse.password", i, show.Address(a)))
		}
	}
}

// checkURL accepts http and https URLs of a host without a query, where a secret would be shown.
func checkURL(name, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%s %s: want a URL like https://host:port without a query", name, show.Address(text))
	}
	return nil
}
