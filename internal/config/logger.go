package config

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/penstock/penstock/internal/show"
)

// Logger makes the log of a process. What clients sent reaches a terminal quoted.
func (c Process) Logger(w io.Writer) (*slog.Logger, error) {
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
