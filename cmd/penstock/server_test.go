package main

import (
	"crypto/tls"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/testing/tlstest"
)

// Commands with --server trust the CA of --ca, or of the configuration.
func TestServerFlagByTLS(t *testing.T) {
	ca := tlstest.NewCA(t)
	pair, err := tls.LoadX509KeyPair(ca.Issue(t, t.TempDir(), "127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	api := operate.API{Operator: &operate.Operator{}, Access: operate.NewAccess(func() string { return "secret" }, nil),
		Metrics: prometheus.NewRegistry()}
	admin := httptest.NewUnstartedServer(api.Handler())
	admin.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	admin.StartTLS()
	t.Cleanup(admin.Close)
	t.Chdir(t.TempDir())
	list := func(args ...string) string {
		_, errs, err := said(t, append([]string{"errors", "list", "--since", "nowhere", "--server", admin.URL,
			"--token", "secret"}, args...)...)
		if err == nil {
			t.Fatal("no error for a time that is none")
		}
		return errs + err.Error()
	}
	if got := list(); !strings.Contains(got, "x509") {
		t.Errorf("without the CA: %s", got)
	}
	const answer = "nowhere" // the server's own words
	if got := list("--ca", ca.File); strings.Contains(got, "x509") || !strings.Contains(got, answer) {
		t.Errorf("with --ca: %s", got)
	}
	if err := os.WriteFile("penstock.yaml", []byte("status: {tls: {ca: "+ca.File+"}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := list(); strings.Contains(got, "x509") || !strings.Contains(got, answer) {
		t.Errorf("with status.tls: %s", got)
	}
}
