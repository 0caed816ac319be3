package projects

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// FuzzProjects reads projects files that anybody may have written: no panic, a
// bounded use of memory, and a file that is good is one after a key was added.
func FuzzProjects(f *testing.F) {
	key := "{name: a, sha256: " + somehash + "}"
	for _, text := range []string{
		"projects:\n  p: {keys: [" + key + "]}\n", "projects: {}\n", "", "---\n", "# only a comment\n",
		"projects:\n  p:\n    rate: {events: 10/s, bytes: 1MiB/m, burst: 1s}\n    quota: {events: 5}\n    sample: {keep: " +
			"0.5}\n    keys: []\n",
		"projects: {p: {drop: [properties.a], hash: [user_id], salt: ${SALT}}}\n",
		"a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nprojects: {p: {drop: *c}}\n",
		"projects: &p {p: *p}\n", "projects: {p: &x {<<: *x}}\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		cfg, err := Parse(text, map[string]string{"SALT": "0123456789abcdef"})
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20+2000*uint64(len(text)) {
			t.Errorf("%d bytes of memory for %d", used, len(text))
		}
		if err != nil || strings.Contains(string(text), "${") {
			return
		}
		path := filepath.Join(t.TempDir(), "projects.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Edit(path, func(doc *Doc) error {
			_, err := doc.Add("fuzzed", Key{Name: "added", SHA256: strings.Repeat("ef", 32)})
			return err
		}); err != nil {
			if _, taken := cfg.Projects["fuzzed"]; taken || strings.Contains(err.Error(), "nothing was changed") {
				return // an alias or a merge, say: it is refused as a whole
			}
			t.Fatalf("%q: %v", text, err)
		}
		edited, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		now, err := Parse(edited, nil)
		if err != nil || len(now.Projects["fuzzed"].Keys) == 0 || len(now.Projects) < len(cfg.Projects) {
			t.Fatalf("%q became %q: %v", text, edited, err)
		}
	})
}
