package config

import (
	"fmt"
	"log/slog"

	"github.com/penstock/penstock/internal/tlsfiles"
)

// Secret returns a function that returns the admin token. A token file is read again when it changes.
func (c Admin) Secret(log *slog.Logger) (func() string, error) {
	return secret("admin.token_file", c.TokenFile, c.Token, log)
}

// Secret does the same for the API token.
func (c Cloudflare) Secret(log *slog.Logger) (func() string, error) {
	return secret("queue.cloudflare.api_token_file", c.APITokenFile, c.APIToken, log)
}

// secret gives the text of a file, or text if there is none.
func secret(field, path, text string, log *slog.Logger) (func() string, error) {
	if path == "" {
		return func() string { return text }, nil
	}
	file, err := tlsfiles.OpenSecret(path, log)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return file.Text, nil
}
