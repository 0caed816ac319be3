package config

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Duration is a time.Duration that a config writes as 90s or 1m30s.
type Duration time.Duration

// String is without units of zero: 24h, not 24h0m0s.
func (d Duration) String() string {
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// MarshalYAML writes a duration as UnmarshalYAML reads it.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// UnmarshalYAML reads 200ms, 90s, 5m or 24h.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil {
		return errors.New("want a duration, as 200ms, 90s, 5m or 24h")
	}
	*d = Duration(v)
	return nil
}

// Size is a number of bytes that a config writes as 64MiB.
type Size int64

var units = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

func (s Size) String() string {
	for _, u := range units {
		if int64(s)%u.bytes == 0 && int64(s) >= u.bytes {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalYAML writes a size as UnmarshalYAML reads it.
func (s Size) MarshalYAML() (any, error) { return s.String(), nil }

// UnmarshalYAML reads 4096, 64KiB, 32MiB or 8GiB.
func (s *Size) UnmarshalYAML(n *yaml.Node) error {
	text, unit := n.Value, int64(1)
	for _, u := range units {
		if t, ok := strings.CutSuffix(text, u.name); ok {
			text, unit = strings.TrimSpace(t), u.bytes
			break
		}
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < 0 || v > (1<<62)/unit {
		return errors.New("want a size, as 4096, 64KiB, 32MiB or 8GiB")
	}
	*s = Size(v * unit)
	return nil
}
