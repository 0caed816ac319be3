package app

import (
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/testing/cloudflaretest"
)

// An error of Cloudflare Queues names the field, and what to do. The token is in none of them.
func TestExplainCloudflare(t *testing.T) {
	t.Parallel()
	const token = "the-secret-token"
	api := cloudflaretest.New("acc", token)
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	cfg := config.Default()
	cfg.Queue.Type = "cloudflare"
	c := &cfg.Queue.Cloudflare
	c.Endpoint, c.Account, c.APIToken = server.URL, "acc", token
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("an-expired-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*config.Cloudflare)
		want   string
	}{
		{"a wrong token", func(c *config.Cloudflare) { c.APIToken = "another-secret-token" },
			"queue.cloudflare.api_token: "},
		{"another account", func(c *config.Cloudflare) { c.Account = "other" },
			`set an API token of the account "other" with the permission Account, Queues, Edit`},
		{"an expired token in a file", func(c *config.Cloudflare) { c.APIToken, c.APITokenFile = "", file },
			"queue.cloudflare.api_token_file \"" + file + "\": reach Cloudflare Queues at " + server.URL +
				": Cloudflare rejects the API token: it is wrong or expired"},
		{"nobody listens", func(c *config.Cloudflare) { c.Endpoint = "http://127.0.0.1:1" },
			`queue.cloudflare.endpoint "http://127.0.0.1:1": `},
	} {
		cfg := cfg
		tt.change(&cfg.Queue.Cloudflare)
		q, err := OpenQueue(cfg, "test", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(q.Close)
		got := explainQueue(cfg, q.Ping(t.Context())).Error()
		if !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %s\nwant %s", tt.name, got, tt.want)
		}
		if strings.Contains(got, "-token") && !strings.Contains(got, file) {
			t.Errorf("%s: a token is in %s", tt.name, got)
		}
	}
	if got := queueText(cfg); got != "Cloudflare penstock-{PIPELINE}" {
		t.Errorf("the queue is called %q", got)
	}
}
