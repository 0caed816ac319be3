package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Load reads the file (none where path is empty) over the defaults, and
// the environment over the file.
func Load(path string, environ []string) (Config, error) {
	cfg, err := load(path, Environment(environ))
	if err != nil && path != "" {
		return cfg, fmt.Errorf("config %s: %w", path, err)
	} else if err != nil {
		return cfg, fmt.Errorf("config: %w", err)
	}
	return cfg, nil
}

func load(path string, env map[string]string) (Config, error) {
	cfg := Default()
	if path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return cfg, err
		}
		if err := ParseStrict(text, env, &cfg); err != nil {
			return cfg, err
		}
	}
	from, err := overrideConfig(env, &cfg)
	if err != nil {
		return cfg, err
	}
	return cfg, cfg.check(from)
}

// ParseStrict reads a YAML file over what cfg, a pointer to a struct, holds.
func ParseStrict(text []byte, env map[string]string, cfg any) error {
	var doc yaml.Node
	if err := DecodeYAML(text, &doc); err != nil {
		return err
	}
	if len(doc.Content) == 0 {
		return nil // an empty file
	}
	root := doc.Content[0]
	if err := checkKeys(root, reflect.TypeOf(cfg).Elem(), ""); err != nil {
		return err
	}
	if err := expand(root, env); err != nil {
		return err
	}
	return root.Decode(cfg)
}

// DecodeYAML reads a text of one YAML document. It refuses a second one, which the YAML library would ignore.
func DecodeYAML(text []byte, into any) error {
	d := yaml.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(into); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return err
	}
	var second yaml.Node
	if err := d.Decode(&second); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return err
	}
	return fmt.Errorf(
		`line %d: a second YAML document begins here, and only one is read: remove the "---" or the document`,
		second.Line)
}

// checkKeys refuses a key that no field has, and one that stands twice.
func checkKeys(n *yaml.Node, t reflect.Type, path string) error {
	if t.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			if err := checkKeys(item, t.Elem(), path); err != nil {
				return err
			}
		}
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() == reflect.Map && n.Kind == yaml.MappingNode {
		for i := 0; i < len(n.Content); i += 2 {
			if err := checkKeys(n.Content[i+1], t.Elem(), path+n.Content[i].Value+"."); err != nil {
				return err
			}
		}
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	if n.Kind == yaml.ScalarNode && t == reflect.TypeFor[ClickHouseTLS]() {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		if n.Tag == "!!null" {
			return nil
		}
		if path == "" {
			return fmt.Errorf("line %d: want fields, as \"name: value\", and not a list or a single value", n.Line)
		}
		return fmt.Errorf("line %d: %s: want fields below it", n.Line, strings.TrimSuffix(path, "."))
	}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		field, ok := fieldOf(t, key.Value)
		if !ok {
			return fmt.Errorf("line %d: unknown field %s%s%s", key.Line, path, key.Value, didYouMean(t, key.Value))
		}
		if err := checkKeys(n.Content[i+1], field.Type, path+key.Value+"."); err != nil {
			return err
		}
	}
	return nil
}

func fieldOf(t reflect.Type, name string) (reflect.StructField, bool) {
	for f := range t.Fields() {
		if f.Tag.Get("yaml") == name {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

func didYouMean(t reflect.Type, name string) string {
	var known []string
	for f := range t.Fields() {
		known = append(known, f.Tag.Get("yaml"))
	}
	return " (known: " + strings.Join(known, ", ") + ")"
}

var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// ErrUnset is that of a variable which a file refers to.
var ErrUnset = errors.New("is not set in the environment")

// expand puts the environment's values in place of ${NAME}, in values only.
func expand(n *yaml.Node, env map[string]string) error {
	if n.Kind == yaml.ScalarNode {
		var missing string
		value := variable.ReplaceAllStringFunc(n.Value, func(s string) string {
			v, ok := env[s[2:len(s)-1]]
			if !ok {
				missing = s
			}
			return v
		})
		if missing != "" {
			return fmt.Errorf("line %d: %s %w", n.Line, missing, ErrUnset)
		}
		if value != n.Value {
			n.Value = value
			if n.Style == 0 {
				n.Tag = "" // a number from the environment is a number
			}
		}
	}
	for _, c := range n.Content {
		if err := expand(c, env); err != nil {
			return err
		}
	}
	return nil
}

// DevFolder is the dev stack's folder below the current one.
const DevFolder = ".penstock"

// Find is the file to read where no --config names one: penstock.yaml
// here, or that of a dev stack here.
func Find() string {
	for _, path := range []string{"penstock.yaml", filepath.Join(DevFolder, "penstock.yaml")} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// Write writes the configuration of a stack that was started here. Only its owner may read it.
func Write(path string, c Config) error {
	text, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	head := "# Written by `penstock dev` at each start; changes are lost.\n"
	return WritePrivate(path, append([]byte(head), text...))
}

// WritePrivate writes a file that only its owner can read, also in place of one that others can.
func WritePrivate(path string, text []byte) error {
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	return os.Chmod(path, 0o600)
}
