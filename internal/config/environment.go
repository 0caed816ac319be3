package config

import (
	"bytes"
	"fmt"
	"iter"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// overrideConfig takes PENSTOCK_SECTION_FIELD, in YAML (lists also as a, b), and for a section's own texts
// PENSTOCK_SECTION_FIELD_FILE, the name of a file that holds the value.
//
// It returns the variables by the fields that they set.
func overrideConfig(env map[string]string, cfg *Config) (from map[string]string, err error) {
	from = map[string]string{}
	known := overrides(cfg)
	for name, value := range env {
		if IsOverride(name) && !isKnown(known, name) && !serviceLink.MatchString(name+"="+value) {
			return nil, fmt.Errorf("environment variable %s sets no field of the configuration; correct or unset it", name)
		}
	}
	for name, target := range known {
		if file, ok := env[name+"_FILE"]; ok && target.hasFile {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("%s_FILE (the file of %s): %w", name, target.field, err)
			}
			target.SetString(string(bytes.TrimRight(text, "\r\n")))
			from[target.field] = name + "_FILE"
		}
	}
	// A whole before its parts: PENSTOCK_RECEIVER_TLS before PENSTOCK_RECEIVER_TLS_CERT.
	for _, name := range slices.Sorted(maps.Keys(known)) {
		target := known[name]
		text, ok := env[name]
		if !ok {
			continue
		}
		from[target.field] = name
		if target.Kind() == reflect.String {
			target.SetString(text)
			continue
		}
		if target.Type() == reflect.TypeFor[[]string]() && !strings.HasPrefix(strings.TrimSpace(text), "[") {
			text = "[" + text + "]" // a, b
		}
		if err := DecodeYAML([]byte(text), target.Addr().Interface()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return from, nil
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

// IsOverride tells whether a variable of the environment is meant for a field:
// it begins with PENSTOCK_ and a section's name.
func IsOverride(name string) bool {
	for section := range reflect.TypeFor[Config]().Fields() {
		if strings.HasPrefix(name, "PENSTOCK_"+strings.ToUpper(section.Tag.Get("yaml"))+"_") {
			return true
		}
	}
	return false
}

// serviceLink matches NAME=VALUE of what Kubernetes adds to each container for a service of its namespace. A service
// named penstock-receiver makes variables that begin as overrides of the section receiver do. PORT alone, which a
// person could write as well, is a link only with a URL.
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
