package wal

import (
	"os"
	"strings"
)

// free ends the name of a spare file, after a segment's name.
const free = ".free"

// Limits of spare files. They are not part of the batcher's disk usage.
const (
	maxSpares    = 2
	maxSpareSize = 64 << 20 // bytes
)

// spare is a file for a future segment.
type spare struct {
	path string
	size int64
}

// openNew opens the file of a new segment: a spare one of length bytes, or an empty one.
func (l *Log) openNew(path string) (f File, length int64, err error) {
	l.mu.Lock()
	var s spare
	if n := len(l.spares); n > 0 {
		s, l.spares = l.spares[n-1], l.spares[:n-1]
	}
	l.mu.Unlock()
	if s.path != "" {
		if err = l.fs.Rename(s.path, path); err == nil {
			if f, err = l.fs.OpenFile(path, os.O_RDWR); err == nil {
				return f, s.size, nil
			}
			l.fs.Remove(path)
		}
		l.fs.Remove(s.path)
	}
	f, err = l.fs.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	return f, 0, err
}

// recycle makes a released segment's file a spare one, and reports whether it did. The segment's headers are
// overwritten durably before the file is renamed. Otherwise a crash that loses its next use could bring the old segment
// back.
func (s *Segment) recycle() bool {
	l := s.log
	l.mu.Lock()
	full := len(l.spares)+l.making >= maxSpares
	if !full {
		l.making++
	}
	l.mu.Unlock()
	if full {
		return false
	}
	made, ok := s.makeSpare()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.making--
	if ok {
		l.spares = append(l.spares, made)
	}
	return ok
}

func (s *Segment) makeSpare() (spare, bool) {
	if s.Empty() {
		return spare{}, false
	}
	if _, err := s.Reader(); err != nil { // it opens the file
		return spare{}, false
	}
	size := max(s.size, s.length)
	mark := strings.Repeat(freeMagic, int(s.start)/len(freeMagic)+1)
	_, err := s.file.WriteAt([]byte(mark), 0)
	if err == nil && size > maxSpareSize {
		size = maxSpareSize
		err = s.file.Truncate(size)
	}
	if err == nil {
		err = s.file.Sync()
	}
	s.Close()
	made := spare{s.path + free, size}
	return made, err == nil && s.log.fs.Rename(s.path, made.path) == nil
}

// dropSpares removes the spare files, because the log is closed or the disk is full.
func (l *Log) dropSpares() {
	l.mu.Lock()
	spares := l.spares
	l.spares = nil
	l.mu.Unlock()
	for _, s := range spares {
		l.fs.Remove(s.path) // if this fails, the next start tries again
	}
}
