package main

import (
	"errors"
	"os"
	"strings"
	"testing"
)

var somehash = strings.Repeat("ab", 32)

func keysSaid(t *testing.T, args ...string) (string, string, error) {
	t.Helper()
	return said(t, append([]string{"keys"}, args...)...)
}

// Flags and arguments may come in any order; one too many is refused.
func TestKeysByFlags(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("PENSTOCK_RECEIVER_PROJECTS", "projects.yaml")
	for _, args := range []string{"add --large game --name ci", "add game --name=till", "rotate game --overlap 1h ci"} {
		if out, said, err := keysSaid(t, strings.Fields(args)...); err != nil || !strings.Contains(out, "key      ps_") {
			t.Errorf("%s: %v %s%s", args, err, out, said)
		}
	}
	if out, _, err := keysSaid(t, "list", "--json", "game"); err != nil || strings.Count(out, "\n") != 3 {
		t.Errorf("%v\n%s", err, out)
	}
	if _, said, err := keysSaid(t, "revoke", "game", "ci", "more"); !errors.Is(err, errUsage) ||
		!strings.Contains(said, `penstock keys revoke: unexpected argument "more"`) {
		t.Errorf("an argument too many: %v %s", err, said)
	}
}

// Where no file is named, that is said, and in which configuration.
func TestKeysListWithoutAFile(t *testing.T) {
	t.Chdir(t.TempDir())
	if out, said, err := keysSaid(t, "list"); err == nil || out != "" ||
		!strings.Contains(err.Error(), "no configuration: ") {
		t.Errorf("%v %s %s", err, out, said)
	}
	const none = "receiver.projects is empty (there is no configuration here; name one with --config)"
	t.Setenv("PENSTOCK_RECEIVER_KEYS", "[{project: fixed, sha256: "+somehash+"}]")
	if out, said, err := keysSaid(t, "list", "--json"); err != nil || !strings.Contains(said, none) ||
		!strings.Contains(out, `"where":"receiver.keys"`) || strings.Count(out, "\n") != 1 {
		t.Errorf("%v %s %s", err, out, said)
	}
	if err := os.WriteFile("penstock.yaml", []byte("receiver: {keys: []}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, said, err := keysSaid(t, "list"); err != nil ||
		!strings.Contains(said, "receiver.projects is empty in penstock.yaml: name a file") ||
		!strings.Contains(out, "1 key") {
		t.Errorf("%v %s %s", err, out, said)
	}
	t.Setenv("PENSTOCK_RECEIVER_PROJECTS", "projects.yaml") // that is not there yet
	if out, said, err := keysSaid(t, "list"); err != nil || said != "" || !strings.Contains(out, "1 key") {
		t.Errorf("%v %s %s", err, out, said)
	}
}
