package config

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/penstock/penstock/internal/show"
)

// Logger makes the log of a process. Text from clients is quoted for terminals. Errors about a field name its source.
// JSON has durations as seconds, in fields whose names say so.
func (c Process) Logger(w io.Writer, sources Sources) (*slog.Logger, error) {
	w = show.Plain(w)
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return nil, fmt.Errorf("process.log_level %q: debug, info, warn or error", c.LogLevel)
	}
	asJSON := c.LogFormat == "json"
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if err, ok := a.Value.Any().(error); ok {
			return slog.Any(a.Key, sources.Explain(err))
		}
		if asJSON && a.Value.Kind() == slog.KindDuration {
			return slog.Float64(a.Key+"_seconds", a.Value.Duration().Seconds())
		}
		return a
	}}
	if asJSON {
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return slog.New(slog.NewTextHandler(w, opts)), nil
}
