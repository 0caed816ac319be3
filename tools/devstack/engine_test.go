package devstack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestClickHouseVersion(t *testing.T) {
	for _, test := range []struct {
		line, version string
		major         int
	}{
		{"ClickHouse local version 25.8.2.29 (official build).", "25.8.2.29", 25},
		{"ClickHouse client version 18.16.1.", "18.16.1", 18},
		{"ClickHouse server version 26.7.3-stable", "26.7.3", 26},
		{"command not found", "", 0},
	} {
		version, major, err := clickhouseVersion(test.line)
		if version != test.version || major != test.major || (err == nil) != (test.major > 0) {
			t.Errorf("%s: got %q, %d, %v", test.line, version, major, err)
		}
	}
}

func TestClickHouseOnPath(t *testing.T) {
	for _, test := range []struct {
		name, script, version, said string
	}{
		{"new", `echo "ClickHouse local version 25.8.2.29 (official build)."`, "25.8.2.29", ""},
		{"old", `echo "ClickHouse client version 18.16.1."`, "", "is version 18.16.1, older than 25"},
		{"broken", `echo "illegal instruction"; exit 132`, "", "illegal instruction"},
	} {
		t.Run(test.name, func(t *testing.T) {
			fakeTools(t, true, map[string]string{"clickhouse": test.script})
			var progress bytes.Buffer
			engine, err := (&Fetcher{Cache: t.TempDir(), Progress: &progress}).ClickHouse(t.Context())
			if engine.Version != test.version || (engine.Binary != "") != (test.version != "") {
				t.Errorf("got %+v, %v", engine, err)
			}
			if err != nil && !strings.Contains(err.Error(), "npm is missing") {
				t.Errorf("went on to %v, not to npm", err)
			}
			if !strings.Contains(progress.String(), test.said) {
				t.Errorf("said %q, want %q", &progress, test.said)
			}
		})
	}
}

// archive is a package as npm returns it, with one file besides the library.
func archive(t *testing.T, name string, library []byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	zipped, err := gzip.NewWriterLevel(&packed, gzip.NoCompression) // compressing is slow under the race detector
	if err != nil {
		t.Fatal(err)
	}
	files := tar.NewWriter(zipped)
	for _, file := range []struct {
		name string
		body []byte
	}{{"package/package.json", []byte("{}")}, {name, library}} {
		header := &tar.Header{Name: file.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(file.body))}
		if err := files.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Write(file.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

// The code has a valid digest for this machine's package.
func TestEngineIsPinned(t *testing.T) {
	for platform, digest := range engineDigests {
		if sum, err := hex.DecodeString(digest); err != nil || len(sum) != sha512.Size {
			t.Errorf("%s: %q is no SHA-512", platform, digest)
		}
	}
	if platform, err := enginePlatform("linux", "amd64"); err != nil || engineDigests[platform] == "" {
		t.Errorf("the package for linux/amd64 is not pinned: %v", err)
	}
}

func TestLibraryFromNPM(t *testing.T) {
	library := make([]byte, 9<<20) // more than one block of the copy
	rand.NewChaCha8([32]byte{}).Read(library)
	whole := archive(t, "package/libchdb.so", library)
	for _, test := range []struct {
		name   string
		packed []byte
		err    string // "": fetched
	}{
		{"whole", whole, ""},
		{"in a mac's package", archive(t, "package/lib/libchdb.dylib", library), ""},
		{"cut short", whole[:len(whole)-1], "unexpected EOF"},
		{"half", whole[:len(whole)/2], "unexpected EOF"},
		{"no library", archive(t, "package/other.so", library[:100]), "no library in it"},
		{"no archive", []byte("<html>sign in to the proxy</html>"), "invalid header"},
		{"nothing", nil, "npm brought 0 files"},
		{"another package", whole, "the registry delivered another package"},
	} {
		t.Run(test.name, func(t *testing.T) {
			packed := filepath.Join(t.TempDir(), "packed")
			if err := os.WriteFile(packed, test.packed, 0o600); err != nil {
				t.Fatal(err)
			}
			fakeTools(t, false, map[string]string{
				"npm": fmt.Sprintf(
					`[ "$1 $3" = "pack --pack-destination" ] || exit 9; mkdir -p "$6"; [ ! -s %[1]s ] || cp %[1]s "$4/lib.tgz"`,
					packed),
			})
			cache := t.TempDir()
			sum := sha512.Sum512(test.packed)
			if test.err == "the registry delivered another package" {
				sum[0]++
			}
			path, err := (&Fetcher{Cache: cache, digest: hex.EncodeToString(sum[:])}).clickhouseLibrary(t.Context())
			if test.err != "" {
				if !strings.Contains(fmt.Sprint(err), test.err) {
					t.Errorf("got %v, want %s", err, test.err)
				}
				wantEmpty(t, cache)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, library) {
				t.Errorf("the library has %d bytes, %v", len(got), err)
			}
			if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
				t.Errorf("beside it: %v", entries)
			}
		})
	}
}
