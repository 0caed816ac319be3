package wal

import (
	"errors"
	"io"
	"strings"
	"syscall"
)

// unreadable ends the name of a segment that could not be opened, or whose headers could not be read. After an operator
// has made it readable and removed this ending, the next start replays it.
const unreadable = ".unreadable"

// step is how many bytes are skipped if the disk refuses a read: a page.
const step = 4 << 10

// tolerant reads zeros where the disk refuses to read. The records around are then found as around any other damage. It
// counts the missing bytes.
type tolerant struct {
	File
	missing int64
	why     error // the first refusal
}

func (t *tolerant) ReadAt(p []byte, off int64) (int, error) {
	n, err := t.File.ReadAt(p, off)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	for n < len(p) {
		part := p[n:min(len(p), n+step-int((off+int64(n))%step))]
		got, err := t.File.ReadAt(part, off+int64(n))
		if errors.Is(err, io.EOF) {
			return n + got, err
		}
		if err != nil {
			if t.why == nil {
				t.why = err
			}
			clear(part[got:])
			t.missing += int64(len(part) - got)
		}
		n += len(part)
	}
	return n, nil
}

// isTransient reports whether an open may succeed a moment later. No segment is set aside for such an error.
func isTransient(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM) ||
		errors.Is(err, syscall.EINTR)
}

// setUnreadable renames a file that could not be opened. If that fails, the next start tries again.
func (l *Log) setUnreadable(path string, why error, report func(string, error)) {
	if err := l.fs.Rename(path, path+unreadable); err != nil {
		report(path, errors.Join(why, err))
		return
	}
	report(path+unreadable, errors.Join(why, l.fs.SyncDir(l.dir)))
}

// IsSetAside reports whether recovery has set aside a file of the log's folder.
func IsSetAside(name string) bool {
	for _, end := range []string{corrupt, unreadable} {
		if base, ok := strings.CutSuffix(name, end); ok && (base == seqName || strings.HasSuffix(base, suffix)) {
			return true
		}
	}
	return false
}
