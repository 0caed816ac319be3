// Package waltest is a file system in memory for tests of the log and of the
// batcher: it fails on demand, and dies like a process or like a machine.
package waltest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/penstock/penstock/batcher/wal"
)

// ErrFault is what FailAt injects.
var ErrFault = errors.New("injected fault")

// FS is a wal.FS. Its operations are open, write, sync, truncate, remove,
// rename, readdir and syncdir.
type FS struct {
	// SyncTime is how long an fsync of a file takes. It is set before use.
	SyncTime time.Duration

	mu      sync.Mutex
	entries map[string]*inode // as processes see them
	durable map[string]*inode // as a power loss leaves them
	locked  map[string]bool   // folders
	counts  map[string]int
	fail    func(op, path string) error
	short   int   // bytes that a failing write still brings
	room    int64 // bytes that may still be allocated; <0: no limit
	dead    bool
}

type inode struct {
	data   []byte
	synced []byte // data at the last Sync
}

// New makes an empty FS.
func New() *FS {
	return &FS{entries: map[string]*inode{}, durable: map[string]*inode{}, locked: map[string]bool{},
		counts: map[string]int{}, room: -1}
}

// Fail makes operations fail as f says; it is called under a lock. nil ends it.
func (f *FS) Fail(fail func(op, path string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

// FailAt makes the n-th operation of a kind fail, counted from 1 and from the FS's beginning.
func (f *FS) FailAt(op string, n, short int) {
	f.Fail(func(o, _ string) error {
		if o == op && f.counts[op] == n {
			return fmt.Errorf("%s %d: %w", op, n, ErrFault)
		}
		return nil
	})
	f.short = short
}

// SetRoom sets the free space, in bytes; below 0: unlimited.
func (f *FS) SetRoom(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.room = n
}

// Count is how many operations of a kind there were.
func (f *FS) Count(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[op]
}

// Put makes a durable file.
func (f *FS) Put(path string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := &inode{data: slices.Clone(data), synced: slices.Clone(data)}
	f.entries[path], f.durable[path] = n, n
}

// Get is a file's content.
func (f *FS) Get(path string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.entries[path]
	if !ok {
		return nil, false
	}
	return slices.Clone(n.data), true
}

// Kill returns what a new process finds after kill -9: everything written. The old FS fails from now on.
func (f *FS) Kill() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead = true
	return heir(f.entries, func(n *inode) []byte { return n.data })
}

// PowerLoss returns what a machine finds after a power loss: everything synced, and at random some of the rest.
func (f *FS) PowerLoss(r *rand.Rand) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead = true
	entries := f.durable
	if r.IntN(2) == 0 {
		entries = f.entries
	}
	return heir(entries, func(n *inode) []byte {
		if len(n.data) < len(n.synced) && r.IntN(2) == 0 {
			return n.data // cut
		}
		size := len(n.synced)
		if more := len(n.data) - size; more > 0 {
			size += r.IntN(more + 1)
		}
		out := make([]byte, size)
		copy(out, n.synced)
		for at := 0; at < size; at += 512 {
			if r.IntN(2) == 0 && at < len(n.data) {
				copy(out[at:min(at+512, size)], n.data[at:])
			}
		}
		return out
	})
}

func heir(entries map[string]*inode, content func(*inode) []byte) *FS {
	g := New()
	paths := make([]string, 0, len(entries))
	for path := range entries {
		paths = append(paths, path)
	}
	slices.Sort(paths) // chance must not depend on the map's order
	for _, path := range paths {
		data := slices.Clone(content(entries[path]))
		n := &inode{data: data, synced: slices.Clone(data)}
		g.entries[path], g.durable[path] = n, n
	}
	return g
}

// op counts an operation and says whether it fails. The lock is held.
func (f *FS) op(name, path string) error {
	f.counts[name]++
	if f.dead {
		return errors.New("the process is dead")
	}
	if f.fail != nil {
		return f.fail(name, path)
	}
	return nil
}

// MkdirAll does nothing: any folder is there.
func (f *FS) MkdirAll(string) error { return nil }

// OpenFile opens a file as os.OpenFile does.
func (f *FS) OpenFile(path string, flag int) (wal.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.op("open", path); err != nil {
		return nil, err
	}
	n, ok := f.entries[path]
	switch {
	case ok && flag&os.O_EXCL != 0:
		return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrExist}
	case !ok && flag&os.O_CREATE == 0:
		return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
	case !ok:
		n = &inode{}
		f.entries[path] = n
	case flag&os.O_TRUNC != 0:
		f.resize(n, 0)
	}
	return &file{fs: f, inode: n, path: path}, nil
}

// Remove removes a file.
func (f *FS) Remove(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.op("remove", path); err != nil {
		return err
	}
	n, ok := f.entries[path]
	if !ok {
		return &os.PathError{Op: "remove", Path: path, Err: os.ErrNotExist}
	}
	delete(f.entries, path)
	if f.room >= 0 {
		f.room += int64(len(n.data))
	}
	return nil
}

// Rename renames a file, in place of one that has the name.
func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.op("rename", from); err != nil {
		return err
	}
	n, ok := f.entries[from]
	if !ok {
		return &os.PathError{Op: "rename", Path: from, Err: os.ErrNotExist}
	}
	delete(f.entries, from)
	f.entries[to] = n
	return nil
}

// ReadDir lists the names in a folder.
func (f *FS) ReadDir(dir string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.op("readdir", dir); err != nil {
		return nil, err
	}
	var names []string
	for path := range f.entries {
		if filepath.Dir(path) == dir {
			names = append(names, filepath.Base(path))
		}
	}
	slices.Sort(names)
	return names, nil
}

// SyncDir brings the entries of a folder to disk.
func (f *FS) SyncDir(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.op("syncdir", dir); err != nil {
		return err
	}
	clear(f.durable)
	for path, n := range f.entries {
		f.durable[path] = n
	}
	return nil
}

// resize changes a file's length within the free space.
func (f *FS) resize(n *inode, size int64) error {
	more := size - int64(len(n.data))
	if f.room >= 0 {
		if more > f.room {
			return syscall.ENOSPC
		}
		f.room -= more
	}
	if more > 0 {
		n.data = append(n.data, make([]byte, more)...)
	}
	n.data = n.data[:size]
	return nil
}

type file struct {
	fs    *FS
	inode *inode
	path  string
}

func (h *file) ReadAt(p []byte, at int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.op("read", h.path); err != nil {
		return 0, err
	}
	if at >= int64(len(h.inode.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.inode.data[at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *file) WriteAt(p []byte, at int64) (int, error) {
	f := h.fs
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.op("write", h.path)
	if f.dead {
		return 0, err
	}
	if err != nil {
		p = p[:min(f.short, len(p))]
	}
	if more := at + int64(len(p)) - int64(len(h.inode.data)); f.room >= 0 && more > f.room {
		p = p[:max(int64(len(p))-more+f.room, 0)]
		err = errors.Join(err, &os.PathError{Op: "write", Path: h.path, Err: syscall.ENOSPC})
	}
	if end := at + int64(len(p)); end > int64(len(h.inode.data)) {
		f.resize(h.inode, end)
	}
	return copy(h.inode.data[min(at, int64(len(h.inode.data))):], p), err
}

func (h *file) Sync() error {
	if h.fs.SyncTime > 0 {
		time.Sleep(h.fs.SyncTime)
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.op("sync", h.path); err != nil {
		return err
	}
	h.inode.synced = append(h.inode.synced[:0], h.inode.data...)
	return nil
}

func (h *file) Truncate(size int64) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.op("truncate", h.path); err != nil {
		return err
	}
	return h.fs.resize(h.inode, size)
}

func (h *file) Size() (int64, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	return int64(len(h.inode.data)), nil
}

func (h *file) Close() error { return nil }

// Lock takes a folder as FS says.
func (f *FS) Lock(dir string) (io.Closer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.locked[dir] {
		return nil, syscall.EWOULDBLOCK
	}
	f.locked[dir] = true
	return unlock{f, dir}, nil
}

type unlock struct {
	fs  *FS
	dir string
}

func (u unlock) Close() error {
	u.fs.mu.Lock()
	defer u.fs.mu.Unlock()
	delete(u.fs.locked, u.dir)
	return nil
}
