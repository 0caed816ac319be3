package app

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/pipeline"
)

// receiverName is the configured name. Otherwise it is made once and kept in the log's folder, because two receivers
// must never use the same name.
func receiverName(cfg config.Config) (string, error) {
	if cfg.Receiver.Name != "" {
		return cfg.Receiver.Name, nil
	}
	path := filepath.Join(cfg.Batcher.Dir, "receiver-name")
	if text, err := os.ReadFile(path); err == nil {
		name := strings.TrimSpace(string(text))
		if err := pipeline.ValidReceiver(name); err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
		return name, nil
	}
	host, _ := os.Hostname()
	var random [3]byte
	rand.Read(random[:])
	name := strings.Trim(strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' {
			return c
		}
		return '-'
	}, host[:min(len(host), 40)]), "-") + "-" + hex.EncodeToString(random[:])
	name = strings.TrimPrefix(name, "-")
	if err := os.MkdirAll(cfg.Batcher.Dir, 0o700); err != nil {
		return "", err
	}
	return name, os.WriteFile(path, []byte(name+"\n"), 0o600)
}

// LoaderName is the configured name, or one for this process.
func LoaderName(cfg config.Config) string {
	if cfg.Loader.Name != "" {
		return cfg.Loader.Name
	}
	host, _ := os.Hostname()
	return fmt.Sprintf("%s-%d", host, os.Getpid())
}
