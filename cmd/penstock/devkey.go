package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/penstock/penstock/receiver"
)

// devKey reads a dev stack's key, or makes one and keeps it in the file.
func devKey(path string) (key, hash string, err error) {
	text, err := os.ReadFile(path)
	if key = strings.TrimSpace(string(text)); err != nil || key == "" {
		var random [18]byte
		rand.Read(random[:])
		key = "dev_" + base64.RawURLEncoding.EncodeToString(random[:])
		if err := os.WriteFile(path, []byte(key+"\n"), 0o600); err != nil {
			return "", "", fmt.Errorf("keep the key: %w", err)
		}
	}
	sum := receiver.HashKey(key)
	return key, hex.EncodeToString(sum[:]), nil
}

// writeConfig writes a configuration that only its owner may read.
func writeConfig(path string, c Config) error {
	text, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	head := "# Written by `penstock dev` at each start; changes are lost.\n"
	return os.WriteFile(path, append([]byte(head), text...), 0o600)
}
