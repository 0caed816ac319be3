package projects

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// edited is what edit makes of a file's text.
func edited(t *testing.T, text string, edit func(*Doc) error) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "projects.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	err := Edit(path, edit)
	after, readErr := os.ReadFile(path)
	if readErr != nil {
		t.Fatal(readErr)
	}
	if left, _ := filepath.Glob(path + "*.tmp"); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
	return string(after), err
}

// game is a project with a key.
const game = "projects:\n  game: # ours\n    names: [a] # known\n    keys:\n      - name: ci # of the build\n       " +
	" sha256: " +
	"abababababababababababababababababababababababababababababababab\n        large: true\n        expires: 2099-01-01\n"

// An edit changes its lines alone.
func TestEdit(t *testing.T) {
	fresh := strings.Repeat("cd", 32)
	until := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		name string
		edit func(*Doc) error
		want string // all of the file
	}{
		{"add", func(d *Doc) error {
			name, err := d.Add("game", Key{SHA256: fresh, MinDurability: "disk"})
			if name != "key-1" {
				t.Errorf("the key is called %s", name)
			}
			return err
		}, game + "      - name: key-1\n        sha256: " + fresh + "\n        min_durability: disk\n"},
		{"add a project", func(d *Doc) error {
			_, err := d.Add("shop", Key{Name: "till", SHA256: fresh, Large: true, Expires: "2031-01-01T00:00:00Z"})
			return err
		}, game + "  shop:\n    keys:\n      - name: till\n        sha256: " + fresh +
			"\n        large: true\n        expires: \"2031-01-01T00:00:00Z\"\n"},
		{"rotate", func(d *Doc) error {
			old, ends, err := d.Rotate("game", "ci", fresh, until)
			if old != "ci.old" || !ends.Equal(until) {
				t.Errorf("the old key is %s until %s", old, ends)
			}
			return err
		}, strings.Replace(strings.Replace(game, "name: ci #", "name: ci.old #", 1), "2099-01-01", "\"2030-01-02T03:04:05Z\"",
			1) +
			"      - name: ci\n        sha256: " + fresh + "\n        large: true\n"},
		{"remove", func(d *Doc) error {
			left, err := d.Remove("game", "ci")
			if left != 0 {
				t.Errorf("%d are left", left)
			}
			return err
		}, "projects:\n  game: # ours\n    names: [a] # known\n    keys: []\n"},
	} {
		got, err := edited(t, game, tt.edit)
		if err != nil || got != tt.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", tt.name, err, got, tt.want)
		}
	}
}

// A key that expires earlier does not live longer by a rotation.
func TestRotateKeepsAnEarlierExpiry(t *testing.T) {
	_, err := edited(t, game, func(d *Doc) error {
		_, ends, err := d.Rotate("game", "ci", strings.Repeat("cd", 32), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC))
		if want := time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC); !ends.Equal(want) {
			t.Errorf("the old key is good until %s, want %s", ends, want)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// What is refused leaves the file as it was.
func TestEditIsRefused(t *testing.T) {
	own := errors.New("own")
	add := func(d *Doc) error {
		_, err := d.Add("game", Key{Name: "new", SHA256: strings.Repeat("cd", 32)})
		return err
	}
	for _, tt := range []struct {
		name, text string
		edit       func(*Doc) error
		want       string
	}{
		{"the edit's own error", game, func(*Doc) error { return own }, "own"},
		{"a name that is taken", game, func(d *Doc) error { _, err := d.Add("game", Key{Name: "ci"}); return err },
			`project game has a key "ci": choose another --name`},
		{"a hash that is none", game, func(d *Doc) error { _, err := d.Add("game", Key{SHA256: "x"}); return err },
			"want 64 hex digits"},
		{"an unknown key", game, func(d *Doc) error { _, err := d.Remove("game", "x"); return err },
			`project "game" has no key "x" in `},
		{"an unknown project", game, func(d *Doc) error { _, _, err := d.Rotate("x", "ci", "", time.Now()); return err },
			`project "x" has no keys in `},
		{"a file that is wrong", "projects: {game: {kes: []}}\n", add,
			"fix that first: receivers ignore the file as it is"},
		{"a file that only its owner can change", "projects:\n  game: {keys: &k []}\n  shop: {keys: *k}\n",
			func(d *Doc) error {
				_, err := d.Add("shop", Key{Name: "new", SHA256: strings.Repeat("cd", 32)})
				return err
			}, "keys is written in a way that only you can change: do it by hand"},
	} {
		got, err := edited(t, tt.text, tt.edit)
		if err == nil || !strings.Contains(err.Error(), tt.want) || got != tt.text {
			t.Errorf("%s: got %v, want %q; the file is\n%s", tt.name, err, tt.want, got)
		}
	}
	_, err := edited(t, game, func(d *Doc) error { _, err := d.Remove("game", "x"); return err })
	if _, ok := errors.AsType[*NotFoundError](err); !ok {
		t.Errorf("got %T, want *NotFoundError", err)
	}
	if err := Edit(filepath.Join(t.TempDir(), "no", "such", "folder.yaml"), add); err == nil {
		t.Error("a folder that does not exist is written to")
	}
}

// A list of keys needs nothing that only a receiver's environment has.
func TestReadKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "projects.yaml")
	if got, err := ReadKeys(path); err != nil || len(got) != 0 {
		t.Errorf("without a file: %v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte(game+"    salt: ${NOT_SET}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadKeys(path)
	if err != nil || len(got["game"]) != 1 || got["game"][0].Name != "ci" || !got["game"][0].Large {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("projects: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKeys(path); err == nil || !strings.HasPrefix(err.Error(), path+": ") {
		t.Errorf("got %v", err)
	}
}

// A receiver of another user can read the file after an edit.
func TestEditKeepsOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "projects.yaml")
	if err := os.WriteFile(path, []byte(game), 0o600); err != nil {
		t.Fatal(err)
	}
	want := anotherOwner()
	if err := errors.Join(os.Chown(path, want[0], want[1]), os.Chmod(path, 0o640)); err != nil {
		t.Fatal(err)
	}
	if err := Edit(path, func(d *Doc) error { _, err := d.Remove("game", "ci"); return err }); err != nil {
		t.Fatal(err)
	}
	if got, mode := ownerOf(t, path); got != want || mode != 0o640 {
		t.Errorf("user and group %v, mode %v; want %v, 0640", got, mode, want)
	}
}

// A new file that root makes belongs to the owner of its folder, who runs the receivers.
func TestNewFileOfRoot(t *testing.T) {
	dir := t.TempDir()
	want := [2]int{os.Getuid(), os.Getgid()}
	if os.Getuid() == 0 {
		want = anotherOwner()
	}
	if err := os.Chown(dir, want[0], want[1]); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "projects.yaml")
	add := func(d *Doc) error { _, err := d.Add("game", Key{SHA256: strings.Repeat("ab", 32)}); return err }
	if err := Edit(path, add); err != nil {
		t.Fatal(err)
	}
	if got, mode := ownerOf(t, path); got != want || mode != 0o600 {
		t.Errorf("user and group %v, mode %v; want %v, 0600", got, mode, want)
	}
}

// anotherOwner is a user and group to give a file to: root may choose anybody, another user one of its groups.
func anotherOwner() [2]int {
	if os.Getuid() == 0 {
		return [2]int{65534, 65533}
	}
	own := [2]int{os.Getuid(), os.Getgid()}
	if groups, err := os.Getgroups(); err == nil && len(groups) > 0 {
		own[1] = groups[len(groups)-1]
	}
	return own
}

func ownerOf(t *testing.T, path string) (owner [2]int, mode os.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	return [2]int{int(stat.Uid), int(stat.Gid)}, info.Mode().Perm()
}

// forbidden is a file that the process may not give away.
type forbidden struct{}

func (forbidden) Chown(int, int) error { return syscall.EPERM }

// An edit that would take the file away from its readers is refused.
func TestEditRefusesToTakeAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "projects.yaml")
	for mode, refused := range map[os.FileMode]bool{0o600: true, 0o640: true, 0o644: false} {
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		err = keepOwner(forbidden{}, path, info)
		if refused != errors.Is(err, syscall.EPERM) {
			t.Errorf("mode %v: %v", mode, err)
		}
		if refused && !strings.Contains(err.Error(), "run the command as root or as user") {
			t.Errorf("mode %v: %v does not say what to do", mode, err)
		}
	}
}
