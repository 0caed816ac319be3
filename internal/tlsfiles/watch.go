// Package tlsfiles reads certificates, keys and secrets from files, and reads them again when the files change.
package tlsfiles

import (
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// lookEvery is how often a file is looked at, at most: a connection costs no system call more than that.
const lookEvery = time.Second

// unchanged reports whether a file is the same at two looks. Kubernetes replaces a link, so the file's identity counts
// too.
func unchanged(before, now os.FileInfo) bool {
	return os.SameFile(before, now) && before.Size() == now.Size() && before.ModTime().Equal(now.ModTime())
}

// watched is a value that is made of files. Files that cannot be used replace nothing: the value stays as it was.
type watched[T any] struct {
	paths []string
	load  func() (T, error)
	log   *slog.Logger
	what  string // for the log

	mu     sync.Mutex
	value  T
	seen   []os.FileInfo // at the last reading; nil: not all files were there
	looked time.Time
}

// watch loads the value for the first time. Empty paths are left out.
func watch[T any](what string, log *slog.Logger, load func() (T, error), paths ...string) (*watched[T], error) {
	w := &watched[T]{load: load, log: log, what: what}
	for _, p := range paths {
		if p != "" {
			w.paths = append(w.paths, p)
		}
	}
	var err error
	w.seen, _ = w.look()
	w.looked = time.Now()
	w.value, err = load()
	return w, err
}

func (w *watched[T]) look() (files []os.FileInfo, err error) {
	for _, p := range w.paths {
		info, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		files = append(files, info)
	}
	return files, nil
}

// get returns the value that the files hold now.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.looked) < lookEvery {
		return w.value
	}
	w.looked = time.Now()
	seen, err := w.look()
	if err == nil && slices.EqualFunc(w.seen, seen, unchanged) {
		return w.value
	}
	var value T
	if err == nil {
		value, err = w.load()
	}
	if err != nil {
		w.log.Error("changed files cannot be used; the previous ones stay in use", "what", w.what, "error", err)
		return w.value
	}
	w.log.Info("changed files are in use", "what", w.what)
	w.value, w.seen = value, seen
	return value
}
