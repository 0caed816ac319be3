package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// seqName is the file with the next free seq, in decimal. It speaks for segments that are gone.
const seqName = "SEQ"

// leap is how far seqs are moved on if the file cannot be read: nine years of a
// clock in microseconds. Seqs begin at such a clock, so the lost one is behind
// this, unless the clock has been set back by more. 2⁵³ stays 25 leaps away.
const leap = 1 << 48

// saveSeq keeps the next free seq for a start that finds no segment.
func (l *Log) saveSeq(next uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if next <= l.saved {
		return nil
	}
	path := filepath.Join(l.dir, seqName)
	f, err := l.fs.OpenFile(path+".tmp", os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(strconv.AppendUint(nil, next, 10), 0)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := l.fs.Rename(path+".tmp", path); err != nil {
		return err
	}
	// It must be there before the segment that it speaks for is gone.
	if err := l.fs.SyncDir(l.dir); err != nil {
		return err
	}
	l.saved = next
	return nil
}

// SavedSeq is the seq that the last Release left, 0 if there was none. A file
// that cannot be read is set aside and reported; see NextSeq.
func (l *Log) SavedSeq(report func(path string, why error)) (uint64, error) {
	path := filepath.Join(l.dir, seqName)
	n, ending, err := l.readSeq(path)
	switch {
	case err == nil:
		l.saved = n
		return n, nil
	case errors.Is(err, os.ErrNotExist):
		l.lost = l.exists(path+corrupt) || l.exists(path+unreadable)
		return 0, nil
	case isTransient(err):
		return 0, err
	}
	l.lost = true
	if e := errors.Join(l.fs.Rename(path, path+ending), l.fs.SyncDir(l.dir)); e != nil {
		return 0, fmt.Errorf("set aside %s: %w", seqName, errors.Join(err, e))
	}
	report(path+ending, err)
	return 0, nil
}

// readSeq reads the file, or returns the ending of its name when it is set aside.
func (l *Log) readSeq(path string) (n uint64, ending string, err error) {
	f, err := l.fs.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return 0, unreadable, fmt.Errorf("read wal seq: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	if err != nil {
		return 0, unreadable, fmt.Errorf("read wal seq: %w", err)
	}
	if n, err = strconv.ParseUint(string(b), 10, 64); err != nil {
		return 0, corrupt, fmt.Errorf("read wal seq: %q is not a number", b)
	}
	return n, "", nil
}

func (l *Log) exists(path string) bool {
	f, err := l.fs.OpenFile(path, os.O_RDONLY)
	if err == nil {
		f.Close()
	}
	return err == nil || !errors.Is(err, os.ErrNotExist)
}

// NextSeq is the first seq to give, where next is the first that the clock, the
// segments and SavedSeq leave free. If the saved one is lost it is far beyond all
// that can have been given. A save that fails is made up for: without a file the
// next start leaps again, from the segments that hold the seqs given until then.
func (l *Log) NextSeq(next uint64) uint64 {
	if !l.lost {
		return next
	}
	next += leap
	if l.saveSeq(next) == nil {
		l.lost = false
	}
	return next
}
