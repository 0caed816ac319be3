package receiver

import (
	"net/netip"
	"slices"
	"testing"
)

func TestClientIP(t *testing.T) {
	const v4, v6, proxy = "203.0.113.9", "2001:db8::1", "10.0.0.1"
	for _, c := range []struct {
		option, remote string
		header         []string // names and values
		want           string
	}{
		{"", "127.0.0.1", []string{"X-Forwarded-For", "203.0.113.9:51234"}, v4},
		{"", "127.0.0.1", []string{"X-Forwarded-For", "203.0.113.9:51234, 10.0.0.5:80"}, v4},
		{"", "127.0.0.1", []string{"X-Forwarded-For", "[2001:db8::1]"}, v6},
		{"", "127.0.0.1", []string{"X-Forwarded-For", `"203.0.113.9"`}, v4},
		{"", "127.0.0.1", []string{"X-Forwarded-For", `"[2001:db8::1]:443"`}, v6},
		{"", "127.0.0.1", []string{"X-Forwarded-For", "2001:DB8:0::1"}, v6},
		{"", "127.0.0.1", []string{"X-Forwarded-For", "::ffff:203.0.113.9"}, v4},
		{"", "127.0.0.1", []string{"X-Forwarded-For", "fe80::1%eth0"}, "fe80::1"},
		{"", "127.0.0.1", []string{"X-Forwarded-For", ", 6.6.6.6, 203.0.113.9 ,, ,"}, v4},
		{"", "127.0.0.1", []string{"X-Forwarded-For", "6.6.6.6", "X-Forwarded-For", "203.0.113.9", "X-Forwarded-For", "10.0.0.2"}, v4},
		{"", "127.0.0.1", []string{"X-Forwarded-For", "10.0.0.2, 10.0.0.3"}, "10.0.0.2"},
		{"", proxy, []string{"X-Forwarded-For", "203.0.113.9, unknown"}, proxy},
		{"", proxy, []string{"X-Forwarded-For", "203.0.113.9, [::1"}, proxy},
		{"", proxy, []string{"X-Forwarded-For", "203.0.113.9, [::1]x"}, proxy},
		{"", proxy, []string{"X-Forwarded-For", "unknown, 203.0.113.9"}, v4},
		{"", proxy, []string{"X-Forwarded-For", ""}, proxy},
		{"", proxy, nil, proxy},
		{"", "2001:db8::99", []string{"X-Forwarded-For", "203.0.113.9"}, "2001:db8::99"},

		{"", proxy, []string{"Forwarded", "for=203.0.113.9"}, v4},
		{"", proxy, []string{"Forwarded", `For="[2001:db8::1]:4711";proto=https;by=10.0.0.1`}, v6},
		{"", proxy, []string{"Forwarded", `proto=https; FOR = "203.0.113.9:_port" , for=10.0.0.7;host="a,b;c\"d"`}, v4},
		{"", proxy, []string{"Forwarded", "for=6.6.6.6", "Forwarded", "for=203.0.113.9, , for=10.0.0.7,"}, v4},
		{"", proxy, []string{"Forwarded", "for=203.0.113.9, proto=https"}, proxy}, // the last proxy does not say from whom
		{"", proxy, []string{"Forwarded", "for=203.0.113.9, for=_hidden"}, proxy},
		{"", proxy, []string{"Forwarded", `for="6.6.6.6, for=203.0.113.9`}, proxy}, // a quote that the client left open
		{"", proxy, []string{"Forwarded", `for="6.6.6.6, for="203.0.113.9"`}, proxy},
		{"", proxy, []string{"Forwarded", `for=6"6.6.6, for=203.0.113.9`}, proxy},
		{"", proxy, []string{"Forwarded", "203.0.113.9"}, proxy},
		{"", proxy, []string{"Forwarded", "for=6.6.6.6", "X-Forwarded-For", "203.0.113.9"}, v4},
		{"", "192.0.2.1", []string{"Forwarded", "for=203.0.113.9"}, "192.0.2.1"},

		{"forwarded", proxy, []string{"Forwarded", "for=203.0.113.9", "X-Forwarded-For", "6.6.6.6"}, v4},
		{"forwarded", proxy, []string{"X-Forwarded-For", "6.6.6.6"}, proxy},
		{"x-forwarded-for", proxy, []string{"Forwarded", "for=6.6.6.6"}, proxy},
		{"cf-connecting-ip", proxy, []string{"CF-Connecting-IP", v6, "X-Forwarded-For", "6.6.6.6"}, v6},
		{"cf-connecting-ip", proxy, []string{"X-Forwarded-For", "6.6.6.6"}, proxy},
		{"cf-connecting-ip", "192.0.2.1", []string{"CF-Connecting-IP", "6.6.6.6"}, "192.0.2.1"},
		{"cf-connecting-ip", proxy, []string{"CF-Connecting-IP", "6.6.6.6", "CF-Connecting-IP", v4}, proxy},
		{"True-Client-IP", proxy, []string{"True-Client-IP", " 203.0.113.9:80 "}, v4},
		{"True-Client-IP", proxy, []string{"True-Client-IP", "6.6.6.6, 203.0.113.9"}, proxy},
	} {
		r, s := newTest(func(o *Options) {
			o.ClientIPHeader = c.option
			o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}
		})
		req := withKey(post("/v1/events", one))
		for pair := range slices.Chunk(c.header, 2) {
			req.Header.Add(pair[0], pair[1])
		}
		req.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(c.remote), 1234).String()
		serve(t, r, req)
		if got, want := string(s.Events[0].Context), `{"ip":"`+c.want+`"}`; got != want {
			t.Errorf("%s from %s with %q: got %s, want %s", c.option, c.remote, c.header, got, want)
		}
	}
}

// Whatever a client writes before the proxy's addition, the proxy's address counts, or none.
func FuzzForwarded(f *testing.F) {
	for _, header := range []string{"", "for=1.2.3.4", `for="1.2.3.4`, `a="\`, `for="[::1]:5";by=x`, `,;="`} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		nodes := forwardedNodes(header + ", for=203.0.113.9")
		if n := len(nodes); n > 0 && nodes[n-1] != "203.0.113.9" {
			t.Fatalf("got %q", nodes)
		}
	})
}
