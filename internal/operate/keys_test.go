package operate

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/projects"
	"github.com/penstock/penstock/receiver/tenant"
)

// keysOf runs `penstock keys` on a projects file, with another key in the configuration.
func keysOf(path string) func(t *testing.T, args ...string) (string, error) {
	return func(t *testing.T, args ...string) (string, error) {
		t.Helper()
		o := newWorld().operator()
		o.Config.Receiver.Projects = path
		o.Config.Receiver.Keys = []config.Key{{Project: "fixed", SHA256: somehash}}
		return command(t, o, "keys "+args[0], args[1:]...)
	}
}

// command runs an operation from flags and arguments, and returns its output.
func command(t *testing.T, o *Operator, name string, args ...string) (string, error) {
	t.Helper()
	op := Find(name)
	params := op.NewParams()
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "")
	var free []Field
	for _, f := range Fields(params) {
		switch {
		case f.Arg != "":
			free = append(free, f)
		case f.Value.Kind() == reflect.Bool:
			fs.BoolFunc(f.Name, "", f.Set)
		default:
			fs.Func(f.Name, "", f.Set)
		}
	}
	for len(args) > 0 {
		if err := fs.Parse(args); err != nil {
			t.Fatal(err)
		}
		if args = fs.Args(); len(args) > 0 {
			if err := free[0].Set(args[0]); err != nil {
				t.Fatal(err)
			}
			free, args = free[1:], args[1:]
		}
	}
	var out strings.Builder
	err := op.Show(t.Context(), Local(o), params, Output{Out: &out, Err: io.Discard, JSON: *asJSON})
	return out.String(), err
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
		out, err := keysOf(path)(t, "add", "game", "--min-durability", "disk", "--large", "--expires", "48h")
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

// The YAML library reads only the first document. Writing the file would delete the keys in the others.
func TestKeysOfASecondDocument(t *testing.T) {
	path := filepath.Join(t.TempDir(), "projects.yaml")
	before := "projects:\n  game:\n    keys:\n      - {name: old, sha256: " + somehash +
		"}\n---\nprojects:\n  shop:\n    keys:\n      - {name: till, sha256: " + somehash + "}\n"
	if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"add", "game"}, {"revoke", "game", "old"}, {"rotate", "game", "old"}, {"list"}} {
		out, err := keysOf(path)(t, args...)
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "line 5") ||
			!strings.Contains(err.Error(), "a second YAML document begins here") {
			t.Errorf("%v: got %q, %v", args, out, err)
		}
	}
	if after := read(t, path); after != before {
		t.Errorf("the file became\n%s", after)
	}
}

func TestKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "projects.yaml")
	out, err := keysOf(path)(t, "add", "game", "--name", "ci", "--large")
	if err != nil {
		t.Fatal(err)
	}
	first := made(t, out)
	if out, err = keysOf(path)(t, "rotate", "game", "ci"); err != nil {
		t.Fatal(err)
	}
	second := made(t, out)
	if _, err = keysOf(path)(t, "rotate", "game", "ci", "--overlap", "0s"); err != nil {
		t.Fatal(err)
	}
	if out, err = keysOf(path)(t, "list", "--json"); err != nil {
		t.Fatal(err)
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
	if out, err = keysOf(path)(t, "list", "game"); err != nil || !strings.Contains(out, "3 keys") ||
		strings.Contains(out, "fixed") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err = keysOf(path)(t, "revoke", "game", "ci.old"); err != nil ||
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
		{"add game --expires soon", "a duration from now, such as 720h"},
		{"add game --expires 2001-01-01", "is in the past"},
		{"revoke game", "penstock keys revoke PROJECT NAME"},
		{"revoke game none", "penstock keys list game"},
		{"revoke none ci", `project "none" has no keys`},
		{"revoke fixed x", "those in receiver.keys are the configuration's"},
		{"rotate game none", `project "game" has no key "none"`},
		{"rotate game ci --overlap -1h", "0 or more"},
		{"rotate game ci --overlap x", "such as 5m"},
	} {
		if _, err := keysOf(path)(t, strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("keys %s: %v, want %q", c.args, err, c.want)
		}
	}
	if read(t, path) != before {
		t.Error("what failed has changed the file")
	}
	if err := os.WriteFile(path, []byte("projects: {game: {kyes: []}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = keysOf(path)(t, "add", "game")
	wantError(t, err, "unknown field projects.game.kyes", "a file that is wrong")
	wantError(t, err, "fix that first", "a file that is wrong")
	_, err = keysOf("")(t, "add", "game")
	wantError(t, err, "receiver.projects is empty: name a file there", "no file")
}

// Concurrent changes lose no key. A symbolic link stays one.
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
	if _, err := keysOf(path)(t, "add", "game"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := keysOf(path)(t, "add", "game"); err != nil {
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
