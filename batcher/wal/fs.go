package wal

import (
	"io"
	"os"
	"syscall"
)

// FS is the seam under the log at which tests inject faults.
type FS interface {
	MkdirAll(dir string) error
	OpenFile(path string, flag int) (File, error)
	Remove(path string) error
	Rename(from, to string) error
	ReadDir(dir string) ([]string, error)
	SyncDir(dir string) error
	// Lock takes a folder for this process alone, at once or with
	// syscall.EWOULDBLOCK, until Close. It holds the folder itself: a file in it
	// could be removed and made anew by a second process.
	Lock(dir string) (io.Closer, error)
}

// File is an open file of an FS.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error // data and length, not the folder's entry
	Truncate(size int64) error
	Size() (int64, error)
}

// OS is the real file system. Files are readable by their owner only, for they
// hold what users sent.
type OS struct{}

// MkdirAll makes a folder and those above it.
func (OS) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o700) }

// OpenFile opens a file as os.OpenFile does.
func (OS) OpenFile(path string, flag int) (File, error) {
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Remove removes a file.
func (OS) Remove(path string) error { return os.Remove(path) }

// Rename renames a file, in place of one that has the name.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// ReadDir lists the names in a folder.
func (OS) ReadDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// SyncDir brings the entries of a folder to disk.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Lock takes a folder as FS says.
func (OS) Lock(dir string) (io.Closer, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}
