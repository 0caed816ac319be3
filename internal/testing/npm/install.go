// Package npm installs packages of npm for tests, in the cache outside of the repository.
package npm

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/penstock/penstock/tools/devstack"
)

// Install installs what a package.json lists, once on a machine, and returns the folder that holds node_modules.
func Install(t testing.TB, list string) string {
	t.Helper()
	cache, err := devstack.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, fmt.Sprintf("clients-%x", sha256.Sum256(text))[:20])
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	temp, err := os.MkdirTemp(cache, "clients-*.tmp")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(temp)
	if err := os.WriteFile(filepath.Join(temp, "package.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "npm", "install", "--no-fund", "--no-audit")
	cmd.Dir = temp
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm install: %v\n%s", err, out)
	}
	if err := os.Rename(temp, dir); err != nil {
		if _, there := os.Stat(dir); there != nil { // another test was first
			t.Fatal(err)
		}
	}
	return dir
}
