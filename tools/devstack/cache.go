// Package devstack gets MinIO, NATS and ClickHouse onto a machine that has no Docker, and runs them as child processes:
// for `penstock dev`, and for tests that want the real thing (see internal/testing/servers).
//
// A [Fetcher] fills a cache folder, once, with programs of pinned versions, by way of the clients that the machine has
// already: go, npm and a C compiler. StartNATS, StartMinIO and StartClickHouse run what it found. Every server listens
// on 127.0.0.1 only, keeps all that it writes in one folder, and survives kill -9 there: the same folder
// started again holds the same data.
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

// lockPoll is how often a fetcher asks whether another process is done with what it wants too. A blocking flock could
// not be given up when the context ends.
const lockPoll = 100 * time.Millisecond

// tmpMark is in the names of folders that are being filled.
const tmpMark = ".tmp-"

// CacheDir is where programs are kept between runs: $PENSTOCK_CACHE, or penstock in the user's cache folder
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

// Fetcher gets the programs that are missing into Cache. A program that is there costs a stat. Any number of fetchers,
// in one process or in many, may want the same program at once: one fetches, the others wait for it.
type Fetcher struct {
	Cache    string    // the folder to fill, made when missing; see CacheDir
	Progress io.Writer // told what is fetched and how far it is, and nothing when all is there; nil: silent

	digest string // of the engine's package instead of the one in engineDigests; for tests
}

// fetch returns the cache's folder of that name, and has fill make its content first when there is none. The folder's
// existence says that it is whole: fill works in a temporary one, which is synced and renamed when fill is done. So the
// name must change with the content: it holds the version.
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
		return dir, nil // somebody else's, while we waited
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
	if err := os.Chmod(tmp, 0o755); err != nil { // MkdirTemp's are private; a shared cache is read by other users
		return "", err
	}
	return dir, os.Rename(tmp, dir)
}

// lock takes the lock file for this process and this call alone, and holds it until the file is closed, which the end
// of the process does as well. The file stays: to remove it would let two hold it at once.
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

// syncTree puts the folder's files on the disk, so that a power cut after the rename cannot leave a name without bytes.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		file, err := os.Open(path) // #nosec G122 -- a folder of ours that nobody else can write
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
