// Package wal is the batcher's write-ahead log: a folder of segment files, each
// of which becomes one object under the key in its header.
//
// # A segment, byte by byte
//
// All numbers are little-endian; crc is CRC-32C (Castagnoli).
//
//	file    = header header record* end stale?   the header twice, because all else depends on it
//
//	header  ┌────────────┬──────────┬─────────┬──────────────┬───────────┬──────────┬─────────┐
//	        │ magic (8)  │ crc (4)  │ len (4) │ firstSeq (8) │ time (8)  │ salt (8) │ key     │
//	        │ PSWALv2\n  │ of rest  │ of key  │              │ ms, 1970  │          │ len     │
//	        └────────────┴──────────┴─────────┴──────────────┴───────────┴──────────┴─────────┘
//	record  ┌────────────┬──────────┬─────────┬──────────────┬───────────┬─────────┐
//	        │ magic (4)  │ crc (4)  │ len (4) │ crc (4)      │ seq (8)   │ payload │
//	        │ PSr\n      │ of the   │ of pay- │ of payload,  │ of first  │ len     │
//	        │            │ next 16, │ load    │ xor the high │ event     │         │
//	        │            │ xor the  │         │ half of the  │           │         │
//	        │            │ low half │         │ salt         │           │         │
//	        └────────────┴──────────┴─────────┴──────────────┴───────────┴─────────┘
//	end     ┌────────────┬──────────┬─────────────────────────┬────────────────────┐
//	        │ magic (4)  │ crc (4)  │ offset (8)              │ salt (8)           │
//	        │ PSe\n      │ of rest  │ of this in the file     │                    │
//	        └────────────┴──────────┴─────────────────────────┴────────────────────┘
//
// The crc of a record's header is computed before the payload's crc is combined with the salt. A header of the first
// version is PSWALv1 and has no salt: the salt counts as 0.
//
// # Reuse of files
//
// A file system allocates blocks for appended bytes, and an fsync records the allocation. Both cost more than the
// write. So a new segment overwrites the file of a released one, and the bytes after its records are stale. The salt is
// random: neither stale records nor clients' bytes that look like records are ever read as records. Each write ends
// with an end mark, and overwrites the mark of the previous write. When a segment gets no more records, it is cut after
// its mark. A file waiting for reuse is named *.wal.free and has no header.
//
// # Recovery
//
// A segment is read from its first record. After an invalid record, the reader looks for the next valid one. At the
// end of the valid records there are these cases:
//
//   - An end mark directly follows the last valid record: all bytes after it are stale.
//   - No valid record and no end mark follows: this is the torn tail of a crash. It is cut off, because nothing in it
//     was acknowledged as on disk. A file of the first version has no marks. There, a torn tail is the beginning of a
//     record at the end of the file, perhaps followed by zeros: the file's length reached the disk before its bytes.
//   - Anything else is damage. Valid records are still replayed. When they are stored, the file is set aside, renamed
//     to *.corrupt. It is never deleted.
//
// If both headers of a file are damaged, it is set aside at once. If the file is empty, or has only zeros or the
// beginning of the first header, the process died while it created the file, and the file is removed.
//
// Bytes that the disk cannot read count as damage. A file that cannot be opened, or whose headers cannot be read, is
// set aside at once as *.unreadable. So one bad file never keeps the others from being replayed.
package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const (
	headerMagic1 = "PSWALv1\n" // of the first version
	headerMagic  = "PSWALv2\n"
	recordMagic  = "PSr\n"
	endMagic     = "PSe\n"
	freeMagic    = "PSfree\n\n" // replaces the headers in a file that waits for reuse
	saltSize     = 8
	headerFixed  = 32 // without the salt
	recordHeader = 24
	endSize      = 24

	// MaxRecord is the largest payload, in bytes. It limits what a reader allocates for a length found in a file.
	MaxRecord = 1 << 30
	maxKey    = 1024 // bytes; S3's own limit for a key

	suffix     = ".wal"
	corrupt    = ".corrupt"
	scanWindow = 256 << 10 // bytes read at a time while looking for a good record
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrLocked is returned by Open if another process uses the folder.
var ErrLocked = errors.New("in use by another process")

// Log is a folder of segments, used by one process at a time. Several goroutines may release segments; everything else
// is for one at a time.
type Log struct {
	fs   FS
	dir  string
	lock io.Closer
	next uint64 // number of the next segment file

	mu     sync.Mutex // guards what several Releases at once share
	saved  uint64     // the seq in the SEQ file
	lost   bool       // a SEQ file could not be read, and none was written since
	spares []spare    // of released segments
	making int        // spares that are being made
}

// Open locks the folder. It creates a missing one.
func Open(fs FS, dir string) (*Log, error) {
	if err := fs.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("open wal: %w", err)
	}
	lock, err := fs.Lock(dir)
	if err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("open wal %s: %w", dir, err)
	}
	l := &Log{fs: fs, dir: dir, lock: lock, next: 1}
	names, err := fs.ReadDir(dir)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("open wal: %w", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, suffix+free) {
			fs.Remove(filepath.Join(dir, name)) // of another process; if this fails, the next start tries again
		}
		base, _, ours := strings.Cut(name, suffix)
		if n, err := strconv.ParseUint(base, 16, 64); ours && err == nil && n >= l.next {
			l.next = n + 1
		}
	}
	return l, nil
}

// Close unlocks the folder. Open segments stay as they are.
func (l *Log) Close() error {
	l.dropSpares()
	return l.lock.Close()
}

// Header describes a segment; it never changes.
type Header struct {
	Key      string // of the object to be, at most 1024 bytes
	FirstSeq uint64
	Time     int64 // ms since 1970

	salt uint64 // of the records' checksums; 0: the header is of the first version
}

func (h Header) append(dst []byte) []byte {
	magic := headerMagic
	if h.salt == 0 {
		magic = headerMagic1
	}
	for range 2 {
		at := len(dst)
		dst = append(dst, magic...)
		dst = append(dst, 0, 0, 0, 0)
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(h.Key)))
		dst = binary.LittleEndian.AppendUint64(dst, h.FirstSeq)
		dst = binary.LittleEndian.AppendUint64(dst, uint64(h.Time))
		if h.salt != 0 {
			dst = binary.LittleEndian.AppendUint64(dst, h.salt)
		}
		dst = append(dst, h.Key...)
		binary.LittleEndian.PutUint32(dst[at+8:], crc32.Checksum(dst[at+12:], castagnoli))
	}
	return dst
}

// parseHeader parses one header at the start of b; size is its length in bytes.
func parseHeader(b []byte) (h Header, size int, ok bool) {
	fixed, ok := fixedOf(b)
	if !ok || len(b) < fixed {
		return h, 0, false
	}
	n := int(binary.LittleEndian.Uint32(b[12:]))
	if n > maxKey || len(b) < fixed+n ||
		crc32.Checksum(b[12:fixed+n], castagnoli) != binary.LittleEndian.Uint32(b[8:]) {
		return h, 0, false
	}
	h.FirstSeq = binary.LittleEndian.Uint64(b[16:])
	h.Time = int64(binary.LittleEndian.Uint64(b[24:]))
	if fixed > headerFixed {
		h.salt = binary.LittleEndian.Uint64(b[headerFixed:])
	}
	h.Key = string(b[fixed : fixed+n])
	return h, fixed + n, true
}

// fixedOf is the length of a header without its key, by its magic number.
func fixedOf(b []byte) (n int, ok bool) {
	switch string(b[:min(len(b), len(headerMagic))]) {
	case headerMagic1:
		return headerFixed, true
	case headerMagic:
		return headerFixed + saltSize, true
	}
	return 0, false
}

// AppendRecord appends a framed payload to dst.
func AppendRecord(dst []byte, seq uint64, payload []byte) []byte {
	at := len(dst)
	dst = append(AppendHeader(dst), payload...)
	Frame(dst[at:])
	SetSeq(dst[at:], seq)
	return dst
}

// AppendHeader reserves space for a record's header. A payload appended after it need not be copied; Frame and SetSeq
// complete the record.
func AppendHeader(dst []byte) []byte { return append(dst, make([]byte, recordHeader)...) }

// Frame writes the header of a record for the payload, which is everything after it.
func Frame(record []byte) {
	payload := record[recordHeader:]
	copy(record, recordMagic)
	binary.LittleEndian.PutUint32(record[8:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(record[12:], crc32.Checksum(payload, castagnoli))
}

// SetSeq completes a framed record.
func SetSeq(record []byte, seq uint64) {
	binary.LittleEndian.PutUint64(record[16:], seq)
	binary.LittleEndian.PutUint32(record[4:], crc32.Checksum(record[8:recordHeader], castagnoli))
}

// RecordSize is the length on disk of a record with a payload of n bytes.
func RecordSize(n int) int { return recordHeader + n }

// Segment is one file of the log.
type Segment struct {
	Header
	log     *Log
	path    string
	file    File
	start   int64 // offset of the first record
	size    int64 // bytes that hold
	length  int64 // of the file: what is behind size and the end mark is stale
	synced  int64 // bytes that the last Sync made durable
	dirSync bool  // the folder's entry is still to be made durable
	Corrupt bool  // damaged: set aside, not removed, by Release

	tolerant bool // the disk refuses to read parts of it
}

// Create begins a segment. Its header is written, but nothing is durable before Sync.
func (l *Log) Create(h Header) (*Segment, error) {
	if len(h.Key) > maxKey {
		return nil, fmt.Errorf("create segment: key of %d bytes, limit %d", len(h.Key), maxKey)
	}
	path := filepath.Join(l.dir, fmt.Sprintf("%016x%s", l.next, suffix))
	l.next++ // in any case: something may be left under the name
	f, length, err := l.openNew(path)
	if err != nil {
		return nil, fmt.Errorf("create segment: %w", err)
	}
	h.salt = max(rand.Uint64(), 1) // #nosec G404 -- the runtime's generator is seeded by the system
	s := &Segment{Header: h, log: l, path: path, file: f, length: length, dirSync: true}
	if err := s.write(h.append(nil)); err != nil {
		f.Close()
		l.fs.Remove(path)
		return nil, fmt.Errorf("create segment: %w", err)
	}
	s.start = s.size
	return s, nil
}

// Path is the segment's file.
func (s *Segment) Path() string { return s.path }

// Size is the segment's length in bytes.
func (s *Segment) Size() int64 { return s.size }

// Empty reports whether the segment has no record.
func (s *Segment) Empty() bool { return s.size <= s.start }

// Write appends framed records. If it fails, it cuts off what it wrote of p. If cutting fails too, a torn tail remains,
// which recovery cuts. It may use the capacity of p beyond its length.
func (s *Segment) Write(p []byte) error {
	addSalt(p, s.salt)
	defer addSalt(p, s.salt) // takes it out again: p may go into another segment
	return s.write(p)
}

func (s *Segment) write(p []byte) error {
	size := s.size + int64(len(p))
	p = appendEnd(p, size, s.salt)
	if _, err := s.file.WriteAt(p, s.size); err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			s.log.dropSpares()
		}
		err = fmt.Errorf("write segment %s: %w", filepath.Base(s.path), err)
		return errors.Join(err, s.Truncate(s.size))
	}
	s.length = max(s.length, s.size+int64(len(p)))
	s.size = size
	return nil
}

// addSalt changes the checksums of framed records by the salt. A second call changes them back.
func addSalt(records []byte, salt uint64) {
	for salt != 0 && len(records) > 0 {
		n := binary.LittleEndian.Uint32(records[8:])
		saltRecord(records, salt)
		records = records[recordHeader+n:]
	}
}

func saltRecord(header []byte, salt uint64) {
	binary.LittleEndian.PutUint32(header[4:], binary.LittleEndian.Uint32(header[4:])^uint32(salt))
	binary.LittleEndian.PutUint32(header[12:], binary.LittleEndian.Uint32(header[12:])^uint32(salt>>32))
}

// appendEnd appends the mark that the segment has nothing at an offset or after it.
func appendEnd(dst []byte, offset int64, salt uint64) []byte {
	at := len(dst)
	dst = append(dst, endMagic...)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(offset))
	dst = binary.LittleEndian.AppendUint64(dst, salt)
	binary.LittleEndian.PutUint32(dst[at+4:], crc32.Checksum(dst[at+8:], castagnoli))
	return dst
}

// Sync makes everything that was written survive a power loss: the file's data and, the first time, its entry in the
// folder.
func (s *Segment) Sync() error {
	if s.synced < s.size {
		if err := s.file.Sync(); err != nil {
			return fmt.Errorf("sync segment %s: %w", filepath.Base(s.path), err)
		}
		s.synced = s.size
	}
	if s.dirSync {
		if err := s.log.fs.SyncDir(s.log.dir); err != nil {
			return fmt.Errorf("sync wal folder: %w", err)
		}
		s.dirSync = false
	}
	return nil
}

// Finish is Sync for a segment that gets no more records. It also cuts off stale bytes.
func (s *Segment) Finish() error {
	if end := s.size + endSize; s.length > end {
		if err := s.file.Truncate(end); err != nil {
			return fmt.Errorf("truncate segment %s: %w", filepath.Base(s.path), err)
		}
		s.length, s.synced = end, 0 // the length is to be synced
	}
	return s.Sync()
}

// Truncate cuts the segment back to size bytes after a Write or a Sync that failed, and makes that durable if possible.
// The removed records were rejected, or go into another segment. Even if Truncate fails, this process does not read
// beyond size.
func (s *Segment) Truncate(size int64) error {
	s.size, s.synced = size, min(s.synced, size)
	if err := s.file.Truncate(size); err != nil {
		return fmt.Errorf("truncate segment %s: %w", filepath.Base(s.path), err)
	}
	s.length = size
	if s.salt != 0 && size >= s.start && s.start > 0 {
		s.file.WriteAt(appendEnd(nil, size, s.salt), size) // without it, damage to the last record would look like a crash
	}
	if s.file.Sync() == nil { // if not, then Write or Sync said so before
		s.synced = size
	}
	return nil
}

// Close closes the file of a segment that waits for its upload; Reader opens it again. The segment stays in the log.
func (s *Segment) Close() error {
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	return f.Close()
}

// Release ends a segment whose events are stored. The file becomes a spare one or is removed. A damaged one is set
// aside. The log remembers that seqs below next are used. If it fails it may be called again.
func (s *Segment) Release(next uint64) error {
	err := s.log.saveSeq(next)
	if errors.Is(err, syscall.ENOSPC) && !s.Corrupt {
		// On a full disk these bytes make room; otherwise a full disk would stay full.
		if _, err = s.Reader(); err == nil {
			if err = s.Truncate(s.start); err == nil {
				err = s.log.saveSeq(next)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("release segment: %w", err)
	}
	if s.Corrupt {
		return s.SetAside()
	}
	if s.recycle() {
		return nil
	}
	return s.Discard()
}

// Discard removes a segment without data to keep.
func (s *Segment) Discard() error {
	s.Close()
	if err := s.log.fs.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove segment: %w", err)
	}
	return nil
}

// SetAside renames the file to *.corrupt, which recovery ignores.
func (s *Segment) SetAside() error {
	s.Close()
	if err := s.log.fs.Rename(s.path, s.path+corrupt); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("set segment aside: %w", err)
	}
	if err := s.log.fs.SyncDir(s.log.dir); err != nil {
		return fmt.Errorf("set segment aside: %w", err)
	}
	return nil
}

// Recovered is a segment that an earlier process left.
type Recovered struct {
	*Segment
	Cut     int64 // bytes of torn tail cut off
	Damaged int64 // bytes that could not be read
}

// Recovery is implemented by the caller of Recover.
type Recovery struct {
	Each   func(s *Segment, seq uint64, payload []byte) error // gets each record; nil: nobody does
	Report func(path string, why error)                       // gets each file that was set aside
	Keep   func(path string) bool                             // whether a segment without records stays; nil: none does
}

// Recover opens the segments of an earlier process, oldest first. It passes every record of a segment on before it
// reads the next segment.
func (l *Log) Recover(c Recovery) ([]Recovered, error) {
	names, err := l.fs.ReadDir(l.dir)
	if err != nil {
		return nil, fmt.Errorf("recover wal: %w", err)
	}
	slices.Sort(names)
	var all []Recovered
	for _, name := range names {
		if !strings.HasSuffix(name, suffix) {
			continue
		}
		r, err := l.recover(filepath.Join(l.dir, name), c)
		if err != nil {
			return all, fmt.Errorf("recover segment %s: %w", name, err)
		}
		if r.Segment != nil {
			all = append(all, r)
		}
	}
	return all, nil
}

func (l *Log) recover(path string, c Recovery) (Recovered, error) {
	opened, err := l.fs.OpenFile(path, os.O_RDWR)
	var size int64
	if err == nil {
		if size, err = opened.Size(); err != nil {
			opened.Close()
		}
	}
	if err != nil {
		if isTransient(err) {
			return Recovered{}, err
		}
		l.setUnreadable(path, err, c.Report)
		return Recovered{}, nil
	}
	f := &tolerant{File: opened}
	rec := Recovered{Segment: &Segment{log: l, path: path, file: f, size: size}}
	found, err := rec.readHead(f, c)
	if found && err == nil {
		err = rec.readRecords(f, c)
	}
	if err != nil || !found {
		f.Close()
		return Recovered{}, err
	}
	if rec.Empty() && (c.Keep == nil || !c.Keep(path)) {
		return Recovered{}, rec.Discard()
	}
	return rec, rec.Close()
}

// readHead finds the header, or handles a file without one.
func (r *Recovered) readHead(f *tolerant, c Recovery) (found bool, err error) {
	head := make([]byte, min(r.size, 2*(headerFixed+saltSize+maxKey)))
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if r.Header, r.start, found = findHeader(head); found {
		return true, nil
	}
	if f.missing > 0 {
		r.log.setUnreadable(r.path, f.why, c.Report)
		return false, nil
	}
	if string(head[:min(len(head), len(freeMagic))]) == freeMagic { // it was not taken yet, or not given its header
		return false, r.Discard()
	}
	end, err := r.reader(0).content()
	if err != nil {
		return false, err
	}
	if end <= int64(len(head)) && unborn(head[:end]) {
		return false, r.Discard()
	}
	c.Report(r.path, errors.New("both headers are damaged"))
	return false, r.SetAside()
}

// readRecords reads all records, and cuts off a torn tail.
func (r *Recovered) readRecords(f *tolerant, c Recovery) error {
	records := r.reader(r.start)
	for {
		seq, payload, err := records.Next()
		if err == nil && c.Each != nil {
			err = c.Each(r.Segment, seq, payload)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	r.Damaged = max(records.damaged, 0)
	if f.missing > 0 { // what looks like zeros at the end may be an acknowledged record
		r.Damaged = max(r.Damaged, f.missing)
		r.tolerant = true
	} else if behind := r.size - records.end; behind > 0 {
		tail, err := records.tail()
		switch {
		case err != nil:
			return err
		case tail == stale:
			r.Damaged -= behind
			r.size, r.length = records.end, r.size
		case tail == torn:
			r.Cut = behind
			r.Damaged -= behind
			if err := r.Truncate(records.end); err != nil {
				return err
			}
		}
	}
	if r.Damaged > 0 {
		r.Corrupt = true
		c.Report(r.path, errors.Join(fmt.Errorf("%d bytes are damaged", r.Damaged), f.why))
	}
	return nil
}

// unborn reports whether a crash interrupted the creation of the segment: b, the whole file without trailing zeros, is
// the beginning of the first header.
func unborn(b []byte) bool {
	if n := min(len(b), len(headerMagic)); string(b[:n]) != headerMagic[:n] && string(b[:n]) != headerMagic1[:n] {
		return false
	}
	fixed, ok := fixedOf(b)
	if !ok || len(b) < fixed {
		return true
	}
	n := binary.LittleEndian.Uint32(b[12:])
	return n <= maxKey && len(b) < fixed+int(n)
}

// findHeader returns the first valid one of the two headers. start is where the records begin.
func findHeader(b []byte) (h Header, start int64, ok bool) {
	if h, n, ok := parseHeader(b); ok {
		return h, int64(2 * n), true
	}
	// The first header is damaged, perhaps including its length. The second one begins at its magic number.
	for at := 1; at+headerFixed <= len(b); at++ {
		if h, n, ok := parseHeader(b[at:]); ok && at == n {
			return h, int64(2 * n), true
		}
	}
	return Header{}, 0, false
}
