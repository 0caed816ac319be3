package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/penstock/penstock/internal/pipeline"
)

// Load reads the defaults, then the file (none if path is empty), then the environment.
func Load(path string, environ []string) (Config, error) {
	cfg, _, err := LoadSources(path, environ)
	return cfg, err
}

// LoadSources is Load, and also returns the source of each value.
func LoadSources(path string, environ []string) (Config, Sources, error) {
	cfg, sources, err := load(path, Environment(environ))
	if err == nil {
		return cfg, sources, nil
	}
	text := err.Error()
	if strings.Contains(text, "\n") { // one a line
		text = "\n  " + strings.ReplaceAll(text, "\n", "\n  ")
	} else {
		text = " " + text
	}
	return cfg, sources, loadError{text, err}
}

// loadError is why a configuration cannot be used.
type loadError struct {
	text string
	err  error
}

func (e loadError) Error() string { return "configuration:" + e.text }
func (e loadError) Unwrap() error { return e.err }

func load(path string, env map[string]string) (Config, Sources, error) {
	cfg, sources := Default(), Sources{}
	if path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return cfg, sources, unreadable(err)
		}
		if sources, err = parse(path, text, env, &cfg); err != nil {
			return cfg, sources, err
		}
	}
	if err := overrideConfig(env, &cfg, sources); err != nil {
		return cfg, sources, err
	}
	cfg.simplify()
	return cfg, sources, cfg.check(sources)
}

// simplify replaces other spellings of a value, which the tag "also" lists.
func (c *Config) simplify() {
	c.Process.LogLevel = strings.ToLower(c.Process.LogLevel)
	if c.Batcher.Format == string(pipeline.NDJSON) { // the extension of its objects
		c.Batcher.Format = "ndjson"
	}
}

// unreadable says what to do about a file that cannot be read.
func unreadable(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; name another with --config, or copy penstock.example.yaml", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; let the user %s read it", err, UserName())
	}
	return err
}

// UserName is the user of this process.
func UserName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprint(os.Getuid())
}

// DevFolder is the dev stack's folder below the current one.
const DevFolder = ".penstock"

// Find returns the file to read without --config: penstock.yaml here, or that of a dev stack here.
func Find() string {
	for _, path := range []string{"penstock.yaml", filepath.Join(DevFolder, "penstock.yaml")} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// Write writes the configuration of a stack. Only its owner may read it.
func Write(path string, c Config) error {
	text, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	head := "# Written by `penstock dev` at each start; changes are lost.\n"
	return WritePrivate(path, append([]byte(head), text...))
}

// WritePrivate writes a file that only its owner can read. It also restricts an existing file.
func WritePrivate(path string, text []byte) error {
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	return os.Chmod(path, 0o600)
}
