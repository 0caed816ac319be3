package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A module of one function and its test, and mutants of each kind.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module m\n\ngo 1.25\n")
	write("m.go", "package m\n\nfunc one() int {\n\treturn 1\n}\n\nfunc unused() int {\n\treturn 2\n}\n")
	write("m_test.go",
		"package m\n\nimport \"testing\"\n\nfunc TestOne(t *testing.T) {\n\tif one() != 1 {\n\t\tt.Fail()\n\t}\n}\n")
	header := "promise: it is one\ntest: .\n\n--- a/m.go\n+++ b/m.go\n"
	write("mutants/caught.patch", header+"@@ -3,3 +3,3 @@\n func one() int {\n-\treturn 1\n+\treturn 3\n }\n")
	write("mutants/missed.patch", header+"@@ -7,3 +7,3 @@\n func unused() int {\n-\treturn 2\n+\treturn 3\n }\n")
	write("mutants/stale.patch", header+"@@ -3,3 +3,3 @@\n func one() int {\n-\treturn 7\n+\treturn 3\n }\n")
	write("mutants/typo.patch", header+"@@ -3,3 +3,3 @@\n func one() int {\n-\treturn 1\n+\treturn x\n }\n")
	t.Chdir(dir)
	if said, err := command(t.Context(), dir, "env", "-u", "GIT_DIR", "git", "init", "-q"); err != nil {
		t.Fatal(said, err)
	}
	for part, want := range map[string]string{"caught": "killed", "missed": "SURVIVED", "stale": "BROKEN",
		"typo": "BROKEN", "none": ""} {
		var out strings.Builder
		err := run(t.Context(), &out, "mutants", part)
		if (err == nil) != (part == "caught") || want != "" && !strings.HasPrefix(out.String(), want+" ") {
			t.Errorf("%s: error %v, said %s; want %s", part, err, &out, want)
		}
	}
	if text, err := os.ReadFile("m.go"); err != nil || !strings.Contains(string(text), "return 1") {
		t.Errorf("the module itself was changed: %s, %v", text, err)
	}
	write("mutants/headless.patch", "--- a/m.go\n")
	if err := run(t.Context(), &strings.Builder{}, "mutants", "headless"); err == nil ||
		!strings.Contains(err.Error(), "promise") {
		t.Errorf("a patch without a promise: %v", err)
	}
}
