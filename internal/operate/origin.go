package operate

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/penstock/penstock/internal/config"
)

// checkOrigin keeps web pages away from the admin listener. A page can make a browser on this machine send requests.
// With a host name that points here (DNS rebinding), it could also read the answers. A request whose host is an address
// cannot come from such a page.
func checkOrigin(h http.Handler, hosts []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !knownHost(r.Host, hosts) {
			WriteError(w, http.StatusForbidden, fmt.Sprintf("host %q is not known here: add its name to admin.hosts", r.Host))
			return
		}
		scheme := "http://"
		if r.TLS != nil {
			scheme = "https://"
		}
		if origin := r.Header["Origin"]; len(origin) > 1 || len(origin) == 1 && !strings.EqualFold(origin[0], scheme+r.Host) {
			WriteError(w, http.StatusForbidden,
				fmt.Sprintf("the admin listener answers no page of another site: origin %q", origin))
			return
		}
		h.ServeHTTP(w, r)
	})
}

func knownHost(hostport string, hosts []string) bool {
	name := hostName(hostport)
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	return slices.ContainsFunc(hosts, func(h string) bool { return h == "*" || strings.EqualFold(h, name) })
}

// hostName returns a host without port, IPv6 brackets, and final dot.
func hostName(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	return strings.TrimSuffix(host, ".")
}

// AdminHosts are the names of the admin listener.
func AdminHosts(c config.Admin) []string {
	hosts := append([]string{"localhost"}, c.Hosts...)
	if name := hostName(c.Listen); name != "" {
		hosts = append(hosts, name)
	}
	return hosts
}
