package wal

import (
	"io"
	"os"
	"syscall"
)

// FS is the interface to the file system, so that tests can inject faults.
type FS interface {
	MkdirAll(dir string) error
	OpenFile(path string, flag int) (File, error)
	Remove(path string) error
	Rename(from, to string) error
	ReadDir(dir string) ([]string, error)
	SyncDir(dir string) error
	// Lock locks a folder for this process until Close. If another process has it, it fails at once with
	// syscall.EWOULDBLOCK. It locks the folder itself, because another process could remove and create a lock file.
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

// OS is the real file system. Only their owner can read the files, because they contain users' data.
type OS struct{}

// MkdirAll makes a folder and its parents.
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

// Rename renames a file, and replaces one with that name.
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

// SyncDir syncs the entries of a folder.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Lock implements FS.
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

func (f osFile) Sync() error { return datasync(f.File) }

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}
