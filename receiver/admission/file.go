package admission

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// File is a body on disk, mapped into memory. It has no name.
type File struct {
	of       *Control
	file     *os.File
	data     []byte
	size     int64
	stranger bool // it counts towards the strangers' share, too

	Changed []byte // the data after the request's changes, with the same length; nil: unchanged
}

// Spool makes a file for a body of the request.
func (l *Lease) Spool() (*File, error) {
	file, err := os.CreateTemp(l.of.limits.SpoolDir, "body-*")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSpool, err)
	}
	os.Remove(file.Name())
	f := &File{of: l.of, file: file, stranger: !l.known}
	l.files = append(l.files, f)
	return f, nil
}

// Size is what was written, in bytes.
func (f *File) Size() int64 { return f.size }

// Write adds to the file, if the spool has place for it.
func (f *File) Write(p []byte) (int, error) {
	n := int64(len(p))
	f.size += n
	limit := f.of.limits.Spool
	full := f.of.spooled.Add(n) > limit
	if f.stranger && f.of.strange.Add(n) > limit/4 || full { // count both, because close returns both
		return 0, ErrSpool
	}
	if _, err := f.file.Write(p); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrSpool, err)
	}
	return len(p), nil
}

// ReadAt reads what was written.
func (f *File) ReadAt(p []byte, at int64) (int, error) { return f.file.ReadAt(p, at) }

// Map returns what was written.
func (f *File) Map() ([]byte, error) {
	data, err := syscall.Mmap(int(f.file.Fd()), 0, int(f.size), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("%w: map: %w", ErrSpool, err)
	}
	f.data = data
	return data, nil
}

// acknowledge counts a stranger's body as a customer's from now on.
func (f *File) acknowledge() {
	if f.stranger {
		f.stranger = false
		f.of.strange.Add(-f.size)
	}
}

func (f *File) close() {
	if f.data != nil {
		syscall.Munmap(f.data)
	}
	f.file.Close()
	f.acknowledge()
	f.of.spooled.Add(-f.size)
}

// Spooled reports whether the request has bodies on disk.
func (l *Lease) Spooled() bool { return len(l.files) > 0 }

// FileOf is the file in which a part of a body is, and where in it; nil: the part is in memory.
func (l *Lease) FileOf(part []byte) (f *File, at int) {
	for _, f := range l.files {
		if len(part) == 0 || len(part) > len(f.data) {
			continue
		}
		begin, from := uintptr(unsafe.Pointer(&f.data[0])), uintptr(unsafe.Pointer(&part[0])) // #nosec G103 -- compared only
		if from >= begin && from-begin <= uintptr(len(f.data)-len(part)) {
			return f, int(from - begin)
		}
	}
	return nil, 0
}

// InMemory returns the memory of a body's bytes.
func (l *Lease) InMemory(body []byte) int64 {
	if f, _ := l.FileOf(body); f != nil {
		return 0
	}
	return int64(cap(body))
}

// Unload frees the memory pages of bodies on disk. Later reads mostly hit the file system's cache.
func (l *Lease) Unload() {
	for _, f := range l.files {
		if f.data != nil {
			unix.Madvise(f.data, unix.MADV_DONTNEED)
		}
	}
}

// Remove returns the request's disk space. Views into it become invalid.
func (l *Lease) Remove() {
	for _, f := range l.files {
		f.close()
	}
	l.files = nil
}
