package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

var somehash = strings.Repeat("ab", 32)

// The file that the documentation shows is one that works.
func TestProjectsOfTheDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/projects.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(text)
	cfg, err := parseProjects(example[1], map[string]string{"GAME_SECRET": "s3cret", "PENSTOCK_SALT": "0123456789abcdef"})
	if err != nil {
		t.Fatal(err)
	}
	projects, keys, err := cfg.tenants()
	if err != nil || len(projects) != 1 || len(keys) != 1 || keys[0].Secret != "s3cret" || keys[0].Small || keys[0].ReadOnly {
		t.Errorf("%+v %+v %v", projects, keys, err)
	}
}

func TestParseProjects(t *testing.T) {
	for _, tt := range []struct{ project, want string }{
		{"{kes: []}", "line 2: unknown field projects.p.kes (known: "},
		{"{keys: [{name: a, sha: x}]}", "line 2: unknown field projects.p.keys.sha (known: name, sha256"},
		{"{keys: [{sha256: " + somehash + "}]}", "projects.p.keys[0].name is empty"},
		{"{keys: [{name: a, sha256: abc}]}", "projects.p.keys[0].sha256: want 64 hex digits"},
		{"{keys: [{name: a, sha256: " + somehash + "}, {name: a, sha256: " + strings.Repeat("cd", 32) + "}]}", `projects.p.keys[1].name "a" is that of another key`},
		{"{keys: [{name: a, sha256: " + somehash + ", scopes: [read]}]}", `scopes: "read" is none (known: write)`},
		{"{keys: [{name: a, sha256: " + somehash + ", min_durability: tape}]}", `min_durability "tape": memory, disk or object`},
		{"{keys: [{name: a, sha256: " + somehash + ", expires: soon}]}", `expires "soon": want a time`},
		{"{keys: [{name: a, sha256: " + somehash + ", secret: \"${NONE}\"}]}", "line 2: ${NONE} is not set in the environment"},
		{"5", "line 2: projects.p: want fields below it"},
	} {
		_, err := parseProjects([]byte("projects:\n  p: "+tt.project+"\n"), nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.project, err, tt.want)
		}
	}
	for _, text := range []string{"", "projects:\n", "projects: {}\n", "# nothing yet\n"} {
		if _, err := parseProjects([]byte(text), nil); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}
