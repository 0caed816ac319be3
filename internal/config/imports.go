package config

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/penstock/penstock/internal/codec/foreign"
	"github.com/penstock/penstock/internal/pipeline"
)

// Import says where files below a prefix, which Penstock did not write,
// have what an event needs.
type Import struct {
	Prefix     string `yaml:"prefix"`
	Profile    string `yaml:"profile"`
	Project    string `yaml:"project"`
	Rows       string `yaml:"rows"`
	Keep       bool   `yaml:"keep"`
	Name       Paths  `yaml:"name"`
	Timestamp  Paths  `yaml:"timestamp"`
	EventID    Paths  `yaml:"event_id"`
	UserID     Paths  `yaml:"user_id"`
	SessionID  Paths  `yaml:"session_id"`
	Properties Paths  `yaml:"properties"`
}

// Paths are where a row may have a value: a text for one, or a list, of which
// the first that the row has counts.
type Paths []string

// UnmarshalYAML accepts a text in place of a list of one.
func (p *Paths) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*p = nil
		if n.Value != "" {
			*p = Paths{n.Value}
		}
		return nil
	}
	var all []string
	if err := n.Decode(&all); err != nil {
		return fmt.Errorf("line %d: want a path or a list of paths", n.Line)
	}
	*p = all
	return nil
}

// Mappings are those of imports as the loader wants them.
func (c *Config) Mappings() (foreign.Mappings, error) {
	var all foreign.Mappings
	seen := map[string]bool{}
	for i, m := range c.Imports {
		bad := func(format string, args ...any) (foreign.Mappings, error) {
			return nil, fmt.Errorf("imports[%d]%w", i, fmt.Errorf(format, args...))
		}
		switch {
		case !strings.HasPrefix(m.Prefix, pipeline.Events.Prefix):
			return bad(".prefix %q: want one that begins with %q, as %simports/crm/", m.Prefix, pipeline.Events.Prefix,
				pipeline.Events.Prefix)
		case seen[m.Prefix]:
			return bad(".prefix %q has an entry already", m.Prefix)
		}
		seen[m.Prefix] = true
		for _, field := range []Paths{m.Name, m.Timestamp, m.EventID, m.UserID, m.SessionID, m.Properties} {
			for _, way := range field {
				for part := range strings.SplitSeq(way, "+") {
					if part = strings.TrimSpace(part); part == "" || part == "=" {
						return bad(": path %q: want keys joined by dots, several paths joined by \" + \", or =TEXT", way)
					}
				}
			}
		}
		made := foreign.Mapping{Prefix: m.Prefix, Project: m.Project, Rows: m.Rows, Keep: m.Keep, Name: m.Name,
			Timestamp: m.Timestamp,
			EventID:   m.EventID, UserID: m.UserID, SessionID: m.SessionID, Properties: m.Properties}
		if m.Profile != "" {
			var err error
			if made, err = foreign.Profile(m.Profile, made); err != nil {
				return bad(".profile: %w", err)
			}
		}
		all = append(all, made)
	}
	return all, nil
}
