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

// Key reads a dev stack's key from a file. If there is none, it makes one and writes it there.
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

// readSecrets reads the passwords of a dev stack's servers. They are made at the first start. A folder of an earlier
// version has none, because its servers had no passwords or well-known ones.
func readSecrets(data string) (s secrets, err error) {
	for name, into := range map[string]*string{"clickhouse": &s.clickhouse, "minio": &s.minio, "nats": &s.nats} {
		if *into, _, err = Key(filepath.Join(data, name+"-password")); err != nil {
			return s, err
		}
	}
	return s, nil
}
