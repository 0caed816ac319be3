package main

import (
	"fmt"
	"maps"
	"reflect"

	"go.yaml.in/yaml/v3"

	"github.com/penstock/penstock/internal/config"
)

// writeConfig writes only settings that differ from the default, because an older binary (--before) may not know all
// settings.
func writeConfig(path string, c config.Config) error {
	set, err := settings(c)
	if err != nil {
		return err
	}
	defaults, err := settings(config.Default())
	if err != nil {
		return err
	}
	for section, values := range set {
		maps.DeleteFunc(values, func(name string, value any) bool {
			return reflect.DeepEqual(value, defaults[section][name])
		})
		if len(values) == 0 {
			delete(set, section)
		}
	}
	text, err := yaml.Marshal(set)
	if err != nil {
		return err
	}
	return config.WritePrivate(path, text)
}

// settings returns a configuration by section and name. It leaves out sections that are lists.
func settings(c config.Config) (map[string]map[string]any, error) {
	text, err := yaml.Marshal(c)
	if err != nil {
		return nil, err
	}
	var sections map[string]any
	if err := yaml.Unmarshal(text, &sections); err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	all := map[string]map[string]any{}
	for name, section := range sections {
		if values, ok := section.(map[string]any); ok {
			all[name] = values
		}
	}
	return all, nil
}
