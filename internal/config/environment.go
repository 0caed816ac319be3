package config

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// overrideConfig applies PENSTOCK_SECTION_FIELD, in YAML (lists also as a, b). PENSTOCK_SECTION_FIELD_FILE names a file
// with the value, for text fields. It notes the variables in sources.
func overrideConfig(env map[string]string, cfg *Config, sources Sources) error {
	known := overrides(cfg)
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if IsOverride(name) && !isKnown(known, name) && !serviceLink.MatchString(name+"="+env[name]) {
			errs = append(errs, unknownVariable(known, name))
		}
	}
	// A whole before its parts: PENSTOCK_RECEIVER_TLS before PENSTOCK_RECEIVER_TLS_CERT.
	for _, name := range slices.Sorted(maps.Keys(known)) {
		target := known[name]
		if file, ok := env[name+"_FILE"]; ok && target.hasFile {
			text, err := os.ReadFile(file)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s (from %s_FILE): %w; create the file, or unset the variable", target.field, name,
					err))
			}
			target.SetString(string(bytes.TrimRight(text, "\r\n")))
			sources.set(target.field, name+"_FILE")
		}
		text, ok := env[name]
		if !ok {
			continue
		}
		sources.set(target.field, name)
		if target.Kind() == reflect.String {
			target.SetString(text)
			continue
		}
		if err := target.parse(name, text); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func unknownVariable(known map[string]override, name string) error {
	hint := "correct or unset it"
	if best := closest(name, slices.Sorted(maps.Keys(known))); best != "" {
		hint = fmt.Sprintf("did you mean %s?", best)
	}
	return fmt.Errorf("environment variable %s sets no field of the configuration; %s", name, hint)
}

// parse reads a variable that is no text.
func (o override) parse(name, text string) error {
	if o.Type() == reflect.TypeFor[[]string]() && !strings.HasPrefix(strings.TrimSpace(text), "[") {
		text = "[" + text + "]" // a, b
	}
	s := strict{sources: Sources{}, place: func(int) string { return name }}
	var doc yaml.Node
	if err := DecodeYAML([]byte(text), &doc); err != nil {
		return s.syntax(err)
	}
	if len(doc.Content) == 0 {
		return nil
	}
	if s.node(doc.Content[0], o.Type(), o.field); s.err() != nil {
		return s.err()
	}
	return doc.Content[0].Decode(o.Addr().Interface())
}

// override is a field that a variable can set.
type override struct {
	reflect.Value
	field   string // as batcher.format
	hasFile bool   // by PENSTOCK_SECTION_FIELD_FILE too
}

// overrides are all fields by their variables' names. Fields of a section within a section count themselves as well.
func overrides(cfg *Config) map[string]override {
	all := map[string]override{}
	root := reflect.ValueOf(cfg).Elem()
	for section := range root.Type().Fields() {
		for f := range sectionFields(section) {
			name := "PENSTOCK_" + strings.ToUpper(section.Tag.Get("yaml")+"_"+f.Tag.Get("yaml"))
			v := root.FieldByIndex(section.Index).FieldByIndex(f.Index)
			field := section.Tag.Get("yaml") + "." + f.Tag.Get("yaml")
			all[name] = override{v, field, f.Type.Kind() == reflect.String}
			for inner := range sectionFields(f) {
				key := inner.Tag.Get("yaml")
				all[name+"_"+strings.ToUpper(key)] = override{v.FieldByIndex(inner.Index), field + "." + key, false}
			}
		}
	}
	for name, o := range all {
		if _, taken := all[name+"_FILE"]; taken { // admin.token_file is a field itself
			o.hasFile = false
			all[name] = o
		}
	}
	return all
}

func isKnown(known map[string]override, name string) bool {
	if _, ok := known[name]; ok {
		return true
	}
	text, ok := strings.CutSuffix(name, "_FILE")
	return ok && known[text].hasFile
}

// sectionFields are a section's fields; a section that is a list has none that a
// variable could override.
func sectionFields(section reflect.StructField) iter.Seq[reflect.StructField] {
	if section.Type.Kind() != reflect.Struct {
		return func(func(reflect.StructField) bool) {}
	}
	return section.Type.Fields()
}

// IsOverride reports whether a variable is meant for a field: it begins with PENSTOCK_ and a section's name.
func IsOverride(name string) bool {
	for section := range reflect.TypeFor[Config]().Fields() {
		if strings.HasPrefix(name, "PENSTOCK_"+strings.ToUpper(section.Tag.Get("yaml"))+"_") {
			return true
		}
	}
	return false
}

// InEnvironment reports whether a variable sets a field.
func InEnvironment(environ []string) bool {
	known := overrides(&Config{})
	return slices.ContainsFunc(environ, func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return isKnown(known, name)
	})
}

// serviceLink matches NAME=VALUE of the variables that Kubernetes adds to each container for a service. Those of a
// service named penstock-receiver begin as overrides of the section receiver do. PORT alone, which a person could set
// as well, is a link only if it is a URL.
var serviceLink = regexp.MustCompile(`^[A-Z0-9_]+_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|` +
	`PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=|_PORT=(tcp|udp|sctp)://`)

// Environment is the process's, by name.
func Environment(environ []string) map[string]string {
	env := map[string]string{}
	for _, e := range environ {
		k, v, _ := strings.Cut(e, "=")
		env[k] = v
	}
	return env
}
