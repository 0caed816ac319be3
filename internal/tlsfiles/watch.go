// Package tlsfiles reads certificates, keys and secrets from files, and reads them again when the files change.
package tlsfiles

import (
	"log/slog"
	"os"
	"sync"
	"time"
)

// lookEvery is how often a file is looked at, at most: a connection costs no system call more than that.
const lookEvery = time.Second

// stamp is what shows that a file has changed. Kubernetes swaps a link, so the file's own identity counts as well.
type stamp struct {
	size     int64
	modified time.Time
	info     os.FileInfo
}

func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{info.Size(), info.ModTime(), info}, nil
}

func (s stamp) same(other stamp) bool {
	return s.info != nil && s.size == other.size && s.modified.Equal(other.modified) && os.SameFile(s.info, other.info)
}

// watched is a value that is made of files. Files that cannot be used replace nothing: the value stays as it was.
type watched[T any] struct {
	paths []string
	load  func() (T, error)
	log   *slog.Logger
	what  string // for the log

	mu     sync.Mutex
	value  T
	stamps []stamp
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
	w.stamps, _ = w.look()
	w.looked = time.Now()
	w.value, err = load()
	return w, err
}

func (w *watched[T]) look() ([]stamp, error) {
	stamps := make([]stamp, len(w.paths))
	for i, p := range w.paths {
		var err error
		if stamps[i], err = stampOf(p); err != nil {
			return nil, err
		}
	}
	return stamps, nil
}

// get returns the value that the files hold now.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.looked) < lookEvery {
		return w.value
	}
	w.looked = time.Now()
	stamps, err := w.look()
	if err == nil && w.unchanged(stamps) {
		return w.value
	}
	var value T
	if err == nil {
		value, err = w.load()
	}
	if err != nil {
		w.log.Error("changed files cannot be used; the ones read before stay in use", "what", w.what, "error", err)
		return w.value
	}
	w.log.Info("changed files are in use", "what", w.what)
	w.value, w.stamps = value, stamps
	return value
}

func (w *watched[T]) unchanged(stamps []stamp) bool {
	if len(w.stamps) != len(stamps) {
		return false
	}
	for i, s := range stamps {
		if !w.stamps[i].same(s) {
			return false
		}
	}
	return true
}
