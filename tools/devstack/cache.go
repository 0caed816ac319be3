// Package devstack fetches MinIO, NATS and ClickHouse onto a machine without Docker, and runs them as child processes.
// `penstock dev` uses it, and so do tests with real servers (see internal/testing/servers).
//
// A [Fetcher] fills a cache folder once with programs of pinned versions. It uses the machine's own tools: go, npm and
// a C compiler. StartNATS, StartMinIO and StartClickHouse run these programs. Every server listens only on 127.0.0.1,
// and writes only into one folder. It survives kill -9: started again on the same folder, it has the same data.
package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// lockPoll is how often a fetcher checks whether another process has finished. A blocking flock could not be cancelled
// by the context.
const lockPoll = 100 * time.Millisecond

// tmpMark is in the names of folders that are being filled.
const tmpMark = ".tmp-"

// CacheDir is the folder for programs between runs: $PENSTOCK_CACHE, or penstock in the user's cache folder
// (~/.cache/penstock on Linux). It may be deleted at any time; the next fetch fills it again.
func CacheDir() (string, error) {
	if dir := os.Getenv("PENSTOCK_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w: set PENSTOCK_CACHE to one", err)
	}
	return filepath.Join(dir, "penstock"), nil
}

// Fetcher fetches missing programs into Cache. For a program that exists it costs one stat. Any number of fetchers, in
// one process or several, may want the same program: one fetches it, the others wait.
type Fetcher struct {
	Cache    string    // folder to fill; created if missing; see CacheDir
	Progress io.Writer // receives progress while something is fetched; nil: silent

	digest string // for tests: replaces engineDigests
}

// fetch returns the cache's folder of that name. If it is missing, fill makes its content. A folder that exists is
// complete: fill works in a temporary folder, which is synced and renamed at the end. So the name must change with the
// content: it includes the version.
func (f *Fetcher) fetch(ctx context.Context, name string,
	fill func(ctx context.Context, dir string) error) (string, error) {
	cache, err := filepath.Abs(f.Cache)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, name)
	if isDir(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	lock, err := f.lock(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if isDir(dir) {
		return dir, nil // another process made it while this one waited
	}

	if err := removeAbandoned(dir); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(cache, name+tmpMark)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := fill(ctx, tmp); err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := syncTree(tmp); err != nil {
		return "", err
	}
	if err := os.Chmod(tmp, 0o755); err != nil { // MkdirTemp's are private, but a cache may be shared by users
		return "", err
	}
	return dir, os.Rename(tmp, dir)
}

// lock locks the lock file for this call, and holds it until the file is closed, at the latest by the end of the
// process. The file stays: if it were removed, two processes could hold it.
func (f *Fetcher) lock(ctx context.Context, path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for told := false; ; {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !told {
			told = true
			f.say("waiting for another process that fetches %s", strings.TrimSuffix(filepath.Base(path), ".lock"))
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("wait for %s: %w", path, context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
}

// say writes one line to Progress.
func (f *Fetcher) say(format string, args ...any) {
	if f.Progress != nil {
		fmt.Fprintf(f.Progress, format+"\n", args...)
	}
}

// removeAbandoned removes what a killed fetcher left. The caller holds dir's lock, so no other fetcher uses it.
func removeAbandoned(dir string) error {
	cache, name := filepath.Split(dir)
	entries, err := os.ReadDir(cache)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), name+tmpMark) {
			if err := os.RemoveAll(filepath.Join(cache, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// syncTree syncs the folder's files, so that a power cut after the rename leaves no empty file.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		file, err := os.Open(path) // #nosec G122 -- only this user can write to the folder
		if err != nil {
			return err
		}
		return errors.Join(file.Sync(), file.Close())
	})
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
