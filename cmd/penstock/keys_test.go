package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/projects"
	"github.com/penstock/penstock/receiver/tenant"
)

// keysCommand runs `penstock keys` on a projects file.
func keysCommand(t *testing.T, path string, args ...string) (out string, err error) {
	t.Helper()
	t.Setenv("PENSTOCK_RECEIVER_PROJECTS", path)
	t.Setenv("PENSTOCK_RECEIVER_KEYS", "[{project: fixed, sha256: "+somehash+"}]")
	t.Chdir(filepath.Dir(path)) // where no configuration is
	return keysRun(t, args...)
}

func keysRun(t *testing.T, args ...string) (string, error) {
	out, _, err := keysSaid(t, args...)
	return out, err
}

func keysSaid(t *testing.T, args ...string) (string, string, error) {
	var out, said strings.Builder
	err := run(t.Context(), streams{&out, &said}, append([]string{"keys"}, args...))
	return out.String(), said.String(), err
}

func made(t *testing.T, out string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^key +(ps_[A-Za-z0-9_-]{32})$`).FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("no key in %q", out)
	}
	return found[1]
}

var somehash = strings.Repeat("ab", 32)

func hashOf(key string) string {
	sum := tenant.HashKey(key)
	return hex.EncodeToString(sum[:])
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestKeysAdd(t *testing.T) {
	for _, before := range []string{"-", "", "# all of ours\n", "---\n", "---\n# all of ours\n", "# all of ours\n---\n",
		"--- \n...", "null\n", "~", "projects:\n", "projects: {}\n", "projects:\n  game:\n", "projects:\n  game: {}\n",
		"projects:\n  game: {keys: []}\n",
		"projects: # head\n  # of another\n  shop: {names: [a]} # line\n",
		"projects:\n  game:\n    salt: ${NOT_HERE}\n    keys:\n      - {name: old, sha256: " + somehash + "} # mine\n"} {
		path := filepath.Join(t.TempDir(), "projects.yaml")
		if before != "-" {
			if err := os.WriteFile(path, []byte(before), 0o640); err != nil {
				t.Fatal(err)
			}
		}
		out, err := keysCommand(t, path, "add", "game", "--min-durability", "disk", "--large", "--expires", "48h")
		if err != nil {
			t.Fatalf("%q: %v", before, err)
		}
		key, after := made(t, out), read(t, path)
		if strings.Contains(after, key) {
			t.Errorf("the key is in the file:\n%s", after)
		}
		cfg, err := projects.Parse([]byte(after), map[string]string{"NOT_HERE": "x"})
		if err != nil {
			t.Fatalf("%q became\n%s\n%v", before, after, err)
		}
		keys := cfg.Projects["game"].Keys
		k := keys[len(keys)-1]
		if k.Name != "key-1" || k.SHA256 != hashOf(key) || k.MinDurability != "disk" || !k.Large ||
			!strings.HasPrefix(k.Expires, time.Now().Add(48*time.Hour).UTC().Format(time.DateOnly)) {
			t.Errorf("%q became\n%s", before, after)
		}
		for _, comment := range regexp.MustCompile(`# \w[^\n]*`).FindAllString(before, -1) {
			if !strings.Contains(after, comment) {
				t.Errorf("the comment %q is gone:\n%s", comment, after)
			}
		}
		if info, err := os.Stat(path); err != nil || before != "-" && info.Mode().Perm() != 0o640 || before == "-" &&
			info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info.Mode(), err)
		}
	}
}

// The YAML library reads the first document alone, and writing the file again would delete the keys of the others.
func TestKeysOfASecondDocument(t *testing.T) {
	path := filepath.Join(t.TempDir(), "projects.yaml")
	before := "projects:\n  game:\n    keys:\n      - {name: old, sha256: " + somehash +
		"}\n---\nprojects:\n  shop:\n    keys:\n      - {name: till, sha256: " + somehash + "}\n"
	if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"add", "game"}, {"revoke", "game", "old"}, {"rotate", "game", "old"}, {"list"}} {
		out, err := keysCommand(t, path, args...)
		if err == nil || !strings.Contains(err.Error(), path+": line 5: a second YAML document begins here") {
			t.Errorf("%v: got %q, %v", args, out, err)
		}
	}
	if after := read(t, path); after != before {
		t.Errorf("the file became\n%s", after)
	}
}

func TestKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "projects.yaml")
	out, err := keysCommand(t, path, "add", "game", "--name", "ci", "--large")
	if err != nil {
		t.Fatal(err)
	}
	first := made(t, out)
	if out, err = keysRun(t, "rotate", "game", "ci"); err != nil {
		t.Fatal(err)
	}
	second := made(t, out)
	if _, err = keysRun(t, "rotate", "game", "ci", "--overlap", "0s"); err != nil {
		t.Fatal(err)
	}
	if out, err = keysRun(t, "list", "--json"); err != nil {
		t.Fatal(err)
	}
	type keyInfo struct {
		Project string `json:"project"`
		Name    string `json:"name"`
		State   string `json:"state"`
		SHA256  string `json:"sha256_begins"`
		Large   bool   `json:"large"`
		Expires string `json:"expires"`
		Where   string `json:"where"`
	}
	got := map[string]keyInfo{}
	for line := range strings.Lines(out) {
		var k keyInfo
		if err := json.Unmarshal([]byte(line), &k); err != nil {
			t.Fatal(err)
		}
		got[k.Project+"/"+k.Name] = k
	}
	if strings.Contains(out, hashOf(first)) || strings.Contains(out, first) || len(got) != 4 {
		t.Errorf("%s", out)
	}
	old, old2, now := got["game/ci.old"], got["game/ci.old2"], got["game/ci"]
	if old.SHA256 != hashOf(first)[:12] || old.State != "valid" || old.Expires == "" || !old.Large {
		t.Errorf("%+v", old)
	}
	if old2.SHA256 != hashOf(second)[:12] || old2.State != "expired" || now.State != "valid" || now.Expires != "" ||
		!now.Large || got["fixed/"].Where != "receiver.keys" {
		t.Errorf("%+v %+v", old2, now)
	}
	if out, err = keysRun(t, "list", "game"); err != nil || !strings.Contains(out, "3 keys") ||
		strings.Contains(out, "fixed") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err = keysRun(t, "revoke", "game", "ci.old"); err != nil ||
		!strings.Contains(out, "revoked  ci.old of game; 2 keys left") {
		t.Errorf("%v\n%s", err, out)
	}
	if text := read(t, path); strings.Contains(text, hashOf(first)) || !strings.Contains(text, hashOf(second)) ||
		!strings.Contains(text, "# Projects and their keys") {
		t.Errorf("%s", text)
	}
	before := read(t, path)
	for _, c := range []struct{ args, want string }{
		{"add", "penstock keys add PROJECT"},
		{"add game --name ci", "penstock keys rotate game ci"},
		{"add game --min-durability tape", "memory, disk or object"},
		{"add game --expires soon", "a duration from now, as 720h"},
		{"add game --expires 2001-01-01", "is over"},
		{"revoke game", "penstock keys revoke PROJECT NAME"},
		{"revoke game none", "penstock keys list game"},
		{"revoke none ci", `project "none" has no keys`},
		{"revoke fixed x", "those in receiver.keys are the configuration's"},
		{"rotate game none", `project "game" has no key "none"`},
		{"rotate game ci --overlap -1h", "0 or more"},
		{"rotate game ci --overlap x", "as 24h"},
	} {
		if _, err := keysRun(t, strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("keys %s: %v, want %q", c.args, err, c.want)
		}
	}
	if _, err := keysRun(t, "revoke", "game", "ci", "more"); !errors.Is(err, errUsage) {
		t.Errorf("an argument too many: %v", err)
	}
	if read(t, path) != before {
		t.Error("what failed has changed the file")
	}
	if err := os.WriteFile(path, []byte("projects: {game: {kyes: []}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keysRun(t, "add", "game"); err == nil ||
		!strings.Contains(err.Error(), "unknown field projects.game.kyes") ||
		!strings.Contains(err.Error(), "mend that first") {
		t.Errorf("%v", err)
	}
	t.Setenv("PENSTOCK_RECEIVER_PROJECTS", "")
	if _, err := keysRun(t, "add", "game"); err == nil || !strings.Contains(err.Error(), "receiver.projects is empty") {
		t.Errorf("%v", err)
	}
}

// Where no file is named, that is said, and in which configuration.
func TestKeysListWithoutAFile(t *testing.T) {
	t.Chdir(t.TempDir())
	const none = "receiver.projects is empty (no configuration was found here, --config names one)"
	if out, said, err := keysSaid(t, "list"); err == nil || !strings.Contains(err.Error(), none) || out != "" {
		t.Errorf("%v %s %s", err, out, said)
	}
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

// Many at once: none is lost. A link stays a link.
func TestKeysAtOnce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "projects.yaml")
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "real", "p.yaml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real/p.yaml", path); err != nil {
		t.Fatal(err)
	}
	if _, err := keysCommand(t, path, "add", "game"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := keysRun(t, "add", "game"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	cfg, err := projects.Parse([]byte(read(t, path)), nil)
	if err != nil || len(cfg.Projects["game"].Keys) != 21 {
		t.Errorf("%v, %d keys", err, len(cfg.Projects["game"].Keys))
	}
	if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*", "*.tmp")); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}
