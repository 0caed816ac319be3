package app

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/show"
)

// NewLogger makes the log of a process.
func NewLogger(w io.Writer, c config.Process) (*slog.Logger, error) {
	w = show.Plain(w)
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return nil, fmt.Errorf("process.log_level %q: debug, info, warn or error", c.LogLevel)
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return slog.New(slog.NewTextHandler(w, opts)), nil
}
