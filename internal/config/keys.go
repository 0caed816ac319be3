package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// Parse returns the key's hash and the least durability of its requests.
func (k Key) Parse() (hash [32]byte, least pipeline.Durability, err error) {
	if hash, err = ParseHash(k.SHA256); err == nil {
		least, err = ParseDurability(k.MinDurability)
	}
	return hash, least, err
}

// ParseHash reads the SHA-256 of a key.
func ParseHash(text string) (hash [32]byte, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(hash) {
		return hash, errors.New("sha256: want 64 hex digits, the SHA-256 of the key (printf %s KEY | sha256sum)")
	}
	copy(hash[:], b)
	return hash, nil
}

// ParseDurability reads a durability; 0 if the text is empty.
func ParseDurability(text string) (d pipeline.Durability, err error) {
	if text == "" {
		return 0, nil
	}
	d, ok := pipeline.ParseDurability(text)
	if !ok {
		return 0, fmt.Errorf("min_durability %q: memory, disk or object", text)
	}
	return d, nil
}

// ParseExpiry reads when a key expires; the zero time if the text is empty.
func ParseExpiry(text string) (t time.Time, err error) {
	if text == "" {
		return t, nil
	}
	if t, err = time.Parse(time.RFC3339, text); err != nil {
		if t, err = time.Parse(time.DateOnly, text); err != nil {
			return t, fmt.Errorf("expires %q: want a time, as 2026-12-31 or 2026-12-31T18:00:00Z", text)
		}
	}
	return t, nil
}
