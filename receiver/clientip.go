package receiver

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Headers that list every hop of a request. Any other Options.ClientIPHeader has only the client's address.
const (
	forwardedFor = "X-Forwarded-For"
	forwarded    = "Forwarded" // RFC 7239
)

// client returns the client's address: the peer's, or the one that trusted proxies report. proxied reports whether the
// peer is a trusted proxy, so that its other headers count too.
func (r *Receiver) client(req *http.Request) (ip string, proxied bool) {
	host, _, err := net.SplitHostPort(req.RemoteAddr)
	if err != nil {
		host = req.RemoteAddr
	}
	if len(r.opts.TrustedProxies) == 0 {
		return host, false
	}
	peer, err := netip.ParseAddr(host)
	if err != nil || !r.trusted(peer) {
		return host, false
	}
	client := peer
	switch name := r.opts.ClientIPHeader; {
	case name == forwardedFor || name == "" && len(req.Header[forwardedFor]) > 0:
		client = r.nearest(peer, strings.Split(strings.Join(req.Header[forwardedFor], ","), ","))
	case name == forwarded || name == "":
		client = r.nearest(peer, forwardedNodes(strings.Join(req.Header[forwarded], ",")))
	default:
		if values := req.Header[name]; len(values) == 1 { // of several, one may be the client's own
			if addr, ok := hop(values[0]); ok {
				client = addr
			}
		}
	}
	if client == peer {
		return host, true
	}
	return client.String(), true
}

// nearest walks the hops from the last one, which the peer added, as long as the host that reports a hop is trusted. It
// stops at a hop that is not an address.
func (r *Receiver) nearest(peer netip.Addr, hops []string) netip.Addr {
	for i := len(hops) - 1; i >= 0 && r.trusted(peer); i-- {
		if strings.TrimSpace(hops[i]) == "" {
			continue
		}
		addr, ok := hop(hops[i])
		if !ok {
			break
		}
		peer = addr
	}
	return peer
}

func (r *Receiver) trusted(addr netip.Addr) bool {
	return slices.ContainsFunc(r.opts.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) })
}

// hop parses an address as proxies write it: with a port, in quotes, or IPv6 in brackets.
func hop(s string) (addr netip.Addr, ok bool) {
	s = strings.TrimSpace(s)
	if n := len(s); n >= 2 && s[0] == '"' && s[n-1] == '"' {
		s = strings.TrimSpace(s[1 : n-1])
	}
	if inner, bracket := strings.CutPrefix(s, "["); bracket {
		var port string
		if s, port, ok = strings.Cut(inner, "]"); !ok || port != "" && port[0] != ':' {
			return addr, false
		}
	} else if strings.Count(s, ":") == 1 {
		s, _, _ = strings.Cut(s, ":")
	}
	addr, err := netip.ParseAddr(s)
	return addr.Unmap().WithZone(""), err == nil
}

// notAnAddress stands for a hop that does not name its client.
const notAnAddress = "unknown"

// forwardedNodes returns the "for" of each element of a Forwarded header. A header with broken grammar has none.
// Otherwise an unclosed quote from a client could make its own address look like the proxy's.
func forwardedNodes(header string) (nodes []string) {
	node, some := notAnAddress, false
	for rest := header; ; {
		name, value, end, next, ok := forwardedPair(rest)
		if !ok {
			return nil
		}
		if name != "" {
			some = true
			if strings.EqualFold(name, "for") {
				node = value
			}
		}
		if end != ';' {
			if some {
				nodes = append(nodes, node)
			}
			node, some = notAnAddress, false
		}
		if end == 0 {
			return nodes
		}
		rest = next
	}
}

// forwardedPair parses name=value up to the next semicolon or comma. end is 0 at the end of the header. An empty name
// means that there was no pair.
func forwardedPair(s string) (name, value string, end byte, rest string, ok bool) {
	at := strings.IndexAny(s, `=;,"`)
	if at < 0 || s[at] != '=' {
		if at < 0 {
			at = len(s)
		}
		if strings.TrimSpace(s[:at]) != "" || at < len(s) && s[at] == '"' {
			return "", "", 0, "", false
		}
	} else {
		name = strings.TrimSpace(s[:at])
		at = skipBlanks(s, at+1)
		if at < len(s) && s[at] == '"' {
			if value, at, ok = quotedString(s, at+1); !ok {
				return "", "", 0, "", false
			}
		} else {
			n := strings.IndexAny(s[at:]+",", `;,"`)
			value, at = strings.TrimSpace(s[at:at+n]), at+n
		}
		at = skipBlanks(s, at)
	}
	switch {
	case at == len(s):
		return name, value, 0, "", true
	case s[at] == ';' || s[at] == ',':
		return name, value, s[at], s[at+1:], true
	}
	return "", "", 0, "", false
}

func skipBlanks(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t') {
		i++
	}
	return i
}

// quotedString parses the quoted string that begins at s[i], and returns the text after it.
func quotedString(s string, i int) (content string, next int, ok bool) {
	var b strings.Builder
	for ; i < len(s) && s[i] != '"'; i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), i + 1, i < len(s)
}
