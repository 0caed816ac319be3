package operate

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/loader/audit"
)

// parseSpan reads --since and --until.
func parseSpan(since, until string) (audit.Span, error) {
	return parseSpanAt(since, until, time.Now().UTC())
}

// parseSpanAt is parseSpan at a given time.
func parseSpanAt(since, until string, now time.Time) (audit.Span, error) {
	from, err := parseWhen(since, now)
	if err != nil {
		return audit.Span{}, Usagef("--since %w", err)
	}
	// "now" includes objects stored by receivers whose clock is ahead.
	to := now.Add(time.Hour)
	if until != "now" {
		if to, err = parseWhen(until, now); err != nil {
			return audit.Span{}, Usagef("--until %w", err)
		}
	}
	if !from.Before(to) {
		return audit.Span{}, Usagef("--since %s is not before --until %s", since, until)
	}
	return audit.Span{From: from, To: to}, nil
}

func parseWhen(text string, now time.Time) (time.Time, error) {
	if d, err := parseAge(text); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q: want 2026-11-22, 2026-11-22T03:00:00Z, or a duration ago, such as 24h or 7d", text)
}

// parseAge reads a duration as Go writes it, or a number of days, such as 7d.
func parseAge(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	return time.ParseDuration(text)
}

// parseDuration reads a flag's duration.
func parseDuration(flag, text string) (time.Duration, error) {
	d, err := parseAge(text)
	if err != nil || d < 0 {
		return 0, Usagef("%s %q: set a duration of 0 or more, such as 5m", flag, text)
	}
	return d, nil
}
