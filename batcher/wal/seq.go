package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// seqName is the file with the next free seq, in decimal. It covers segments that no longer exist.
const seqName = "SEQ"

// leap is added to seqs if the file cannot be read. It is nine years of a clock in microseconds. Seqs begin at such a
// clock, so the result is beyond the lost seq, unless the clock was set back further. 2⁵³ is 25 leaps away.
const leap = 1 << 48

// saveSeq saves the next free seq, for a start that finds no segment.
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
	// The file must be durable before the segments that it covers are removed.
	if err := l.fs.SyncDir(l.dir); err != nil {
		return err
	}
	l.saved = next
	return nil
}

// SavedSeq is the seq that the last Release saved; 0: none. A file that cannot be read is set aside and reported; see
// NextSeq.
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

// readSeq reads the file. If the file is set aside, it returns the new ending of its name.
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

// NextSeq is the first seq to use. next is the first one that clock, segments and SavedSeq leave free. If the saved seq
// is lost, NextSeq is far beyond every seq that can have been used. If it cannot be saved, nothing is lost: without a
// file the next start leaps again, from the segments that hold the seqs used until then.
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
