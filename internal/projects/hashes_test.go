package projects

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A hash in the documents may be pasted into a configuration. It must not be that of a key that somebody could guess.
func TestSampleHashesAreNoWords(t *testing.T) {
	words := map[string]string{}
	for _, w := range strings.Fields(
		"password secret key test demo dev admin penstock changeme example game api apikey api_key mykey token " +
			"foo bar foobar hello world 123456 12345678 123 abc letmein qwerty root user guest default my-key my_key write " +
			"read public private") {
		for _, form := range []string{w, strings.ToUpper(w), w + "\n", w + "1", w + "123"} {
			sum := sha256.Sum256([]byte(form))
			words[hex.EncodeToString(sum[:])] = form
		}
	}
	paths, err := filepath.Glob("../../docs/*/*.md")
	if err != nil || len(paths) < 15 {
		t.Fatalf("%d documents, %v", len(paths), err)
	}
	for _, path := range append(paths, "../../README.md", "../../penstock.example.yaml") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, hash := range regexp.MustCompile(`\b[0-9a-fA-F]{64}\b`).FindAllString(string(text), -1) {
			if word, ok := words[strings.ToLower(hash)]; ok {
				t.Errorf("%s: %s is the hash of %q", path, hash, word)
			}
		}
	}
}
