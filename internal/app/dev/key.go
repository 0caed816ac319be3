package dev

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/receiver/tenant"
)

// Key reads a dev stack's key, or makes one and keeps it in the file.
func Key(path string) (key, hash string, err error) {
	text, err := os.ReadFile(path)
	if key = strings.TrimSpace(string(text)); err != nil || key == "" {
		var random [18]byte
		rand.Read(random[:])
		key = "dev_" + base64.RawURLEncoding.EncodeToString(random[:])
		if err := config.WritePrivate(path, []byte(key+"\n")); err != nil {
			return "", "", fmt.Errorf("keep a secret: %w", err)
		}
	}
	sum := tenant.HashKey(key)
	return key, hex.EncodeToString(sum[:]), nil
}

// readSecrets reads the passwords of a dev stack's servers. They are made at the first start, also of a folder that an
// earlier version left, whose servers had none or a well-known one.
func readSecrets(data string) (s secrets, err error) {
	for name, into := range map[string]*string{"clickhouse": &s.clickhouse, "minio": &s.minio, "nats": &s.nats} {
		if *into, _, err = Key(filepath.Join(data, name+"-password")); err != nil {
			return s, err
		}
	}
	return s, nil
}
