package main

import (
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/projects"
	"github.com/penstock/penstock/internal/testing/docs"
)

// pages are the documents that name commands and fields.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	add := func(path string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(path, "../../")] = string(text)
	}
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "DESIGN.md", "SECURITY.md"} {
		add(filepath.Join("../..", name))
	}
	err := filepath.WalkDir("../../docs", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			add(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Every command line in the documents has a command that exists, and flags that it has.
func TestDocumentedCommands(t *testing.T) {
	root := newRoot(streams{io.Discard, io.Discard})
	line := regexp.MustCompile("(?m)(?:^|[`$ (/])penstock((?: +[^`\n|;)]+)+)")
	used := map[string]bool{}
	for page, text := range pages(t) {
		for _, found := range line.FindAllStringSubmatch(text, -1) {
			words := strings.Fields(found[1])
			cmd := commandOf(root, words)
			if cmd == nil {
				continue // prose: "penstock is …"
			}
			used[cmd.CommandPath()] = true
			for _, w := range words {
				if w == "#" || w == "--" {
					break
				}
				name, isFlag := strings.CutPrefix(w, "--")
				name, _, _ = strings.Cut(strings.TrimRight(name, "].,:'\""), "=")
				if isFlag && cmd.Flag(name) == nil && cmd.InheritedFlags().Lookup(name) == nil && name != "help" {
					t.Errorf("%s: penstock%s: %q has no flag --%s", page, found[1], cmd.CommandPath(), name)
				}
			}
		}
	}
	for _, c := range runnable(root) {
		if !used[c] {
			t.Errorf("no document shows %q", c)
		}
	}
}

// commandOf is the command that words begin with; nil if they name none.
func commandOf(root *cobra.Command, words []string) *cobra.Command {
	cmd := root
	for _, w := range words {
		i := slices.IndexFunc(cmd.Commands(), func(c *cobra.Command) bool { return c.Name() == w || c.HasAlias(w) })
		if i < 0 {
			break
		}
		cmd = cmd.Commands()[i]
	}
	if cmd == root {
		return nil
	}
	return cmd
}

// runnable are the commands that people run.
func runnable(cmd *cobra.Command) []string {
	var all []string
	for _, c := range cmd.Commands() {
		switch {
		case c.Hidden || c.Name() == "help" || c.Name() == "completion":
		case c.HasSubCommands():
			all = append(all, runnable(c)...)
		default:
			all = append(all, c.CommandPath())
		}
	}
	return all
}

// Every field of the configuration that the documents name exists.
func TestDocumentedFields(t *testing.T) {
	fields := map[string]bool{}
	sections := map[string]bool{}
	properties := config.Schema()["properties"].(map[string]any)
	var walk func(prefix string, schema any)
	walk = func(prefix string, schema any) {
		fields[prefix] = true
		s, ok := schema.(map[string]any)
		if !ok {
			return
		}
		if members, ok := s["properties"].(map[string]any); ok {
			for name, member := range members {
				walk(prefix+"."+name, member)
			}
		}
		for _, either := range []string{"anyOf", "oneOf"} {
			if all, ok := s[either].([]any); ok {
				for _, one := range all {
					walk(prefix, one)
				}
			}
		}
	}
	for name, schema := range properties {
		sections[name] = true
		walk(name, schema)
	}
	span := regexp.MustCompile("`([a-z]+)((?:\\.[a-z_0-9]+)+)[:`= ]")
	for page, text := range pages(t) {
		for _, found := range span.FindAllStringSubmatch(text, -1) {
			name := found[1] + found[2]
			attribute := found[1] == "llm" && page == "docs/guides/llm.md" // of OpenTelemetry
			file := slices.Contains([]string{".go", ".json"}, filepath.Ext(name))
			if sections[found[1]] && !fields[name] && !file && !attribute {
				t.Errorf("%s: the configuration has no field %s", page, name)
			}
		}
	}
}

// Every configuration and projects file in the documents is accepted.
func TestDocumentedConfigurations(t *testing.T) {
	sections := config.Schema()["properties"].(map[string]any)
	variable := regexp.MustCompile(`\$\{([A-Z0-9_]+)\}`)
	checked := 0
	err := filepath.WalkDir("../../docs", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".md" {
			return err
		}
		for _, b := range docs.Blocks(t, path) {
			var top map[string]any
			if b.Language != "yaml" || yaml.Unmarshal([]byte(b.Text), &top) != nil {
				continue
			}
			env := map[string]string{}
			for _, found := range variable.FindAllStringSubmatch(b.Text, -1) {
				env[found[1]] = "0123456789abcdef"
			}
			var err error
			switch {
			case top["projects"] != nil:
				_, err = projects.Parse([]byte(b.Text), env)
			case slices.ContainsFunc(slices.Collect(maps.Keys(top)), func(k string) bool { return sections[k] != nil }):
				cfg := config.Default()
				err = config.ParseStrict("block", []byte(b.Text), env, &cfg)
			default:
				continue // of another program
			}
			if checked++; err != nil {
				t.Errorf("%s:%d: %v", path, b.Line, err)
			}
		}
		return nil
	})
	if err != nil || checked < 15 {
		t.Errorf("%d files were checked; error %v", checked, err)
	}
}
