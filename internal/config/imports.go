package config

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/penstock/penstock/internal/codec/foreign"
	"github.com/penstock/penstock/internal/pipeline"
)

// Import maps files below a prefix, which Penstock did not write, to events.
type Import struct {
	Prefix     string `yaml:"prefix" doc:"Prefix of the keys, below events/."`
	Profile    string `yaml:"profile" doc:"Ready-made layout: amplitude, mixpanel, posthog, segment, ga4, litellm or langfuse. Empty: none."`
	Project    string `yaml:"project" doc:"Project of the events. Empty: none."`
	Rows       string `yaml:"rows" doc:"Path of the list of rows in a JSON document. Empty: each document is a row."`
	Keep       bool   `yaml:"keep" doc:"Keep the members that other fields use in properties as well."`
	Name       Paths  `yaml:"name" doc:"Path of the event's name, or =TEXT. The first path of a list that a row has counts."`
	Timestamp  Paths  `yaml:"timestamp" doc:"Path of the time."`
	EventID    Paths  `yaml:"event_id" doc:"Path of the event's id."`
	UserID     Paths  `yaml:"user_id" doc:"Path of the user's id."`
	SessionID  Paths  `yaml:"session_id" doc:"Path of the session's id."`
	Properties Paths  `yaml:"properties" doc:"Path of the properties. Empty: the whole row."`
}

// Paths are the places of a value in a row: one text, or a list of which the first existing value counts.
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
		return errors.New("want a path or a list of paths")
	}
	*p = all
	return nil
}

// Mappings converts imports for the loader.
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
