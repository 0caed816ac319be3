package config

import (
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/penstock/penstock/internal/show"
)

// checkAddresses rejects addresses in another form than their clients expect. These would show them as they are in
// errors, with a password that is part of them.
func (c *Config) checkAddresses() (errs []error) {
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if c.Storage.Endpoint != "" { // empty: the region's
		add(checkURL("storage.endpoint", c.Storage.Endpoint))
	}
	if c.ClickHouse.StorageEndpoint != "" {
		add(checkURL("clickhouse.storage_endpoint", c.ClickHouse.StorageEndpoint))
	}
	for i, a := range c.Status.Admins {
		add(checkURL(fmt.Sprintf("status.admins[%d]", i), a))
	}
	for i, a := range c.ClickHouse.Addresses {
		host, port, err := net.SplitHostPort(a)
		if err != nil || host == "" || port == "" || strings.ContainsAny(a, "@/?#") {
			add(fmt.Errorf("clickhouse.addresses[%d] %s: want host:port; user and password are clickhouse.user and "+
				"clickhouse.password", i, show.Address(a)))
		}
	}
	return errs
}

// checkURL accepts http and https URLs of a host without a query, where a secret would be shown.
func checkURL(name, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%s %s: want a URL like https://host:port without a query", name, show.Address(text))
	}
	return nil
}
