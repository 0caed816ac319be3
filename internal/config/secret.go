package config

import (
	"fmt"
	"log/slog"

	"github.com/penstock/penstock/internal/tlsfiles"
)

// Secret returns a function that gives the admin token. A token in a file is read again when the file changes.
func (c Admin) Secret(log *slog.Logger) (func() string, error) {
	if c.TokenFile == "" {
		return func() string { return c.Token }, nil
	}
	file, err := tlsfiles.OpenSecret(c.TokenFile, log)
	if err != nil {
		return nil, fmt.Errorf("admin.token_file: %w", err)
	}
	return file.Text, nil
}
