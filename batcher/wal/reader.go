package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// Reader reads a segment's records in order. Its memory is limited by the largest record.
type Reader struct {
	file    File
	name    string
	salt    uint64 // of the checksums
	at      int64  // offset of the next byte not in buf
	size    int64  // bytes of the segment
	buf     []byte
	have    []byte // part of buf not yet consumed
	end     int64  // end of the last good record
	damaged int64  // bytes skipped before a good record, and at the end
}

// Reader reads all records that were written before the call. It opens the file again if Close has closed it.
func (s *Segment) Reader() (*Reader, error) {
	if s.file == nil {
		f, err := s.log.fs.OpenFile(s.path, os.O_RDWR)
		if err != nil {
			return nil, fmt.Errorf("open segment: %w", err)
		}
		s.file = f
		if s.tolerant {
			s.file = &tolerant{File: f}
		}
	}
	return s.reader(s.start), nil
}

func (s *Segment) reader(from int64) *Reader {
	return &Reader{file: s.file, name: filepath.Base(s.path), salt: s.salt, at: from, size: s.size, end: from}
}

// Next returns the next good record; its payload is valid until the next call. Damaged bytes before it are skipped and
// counted by Damaged. io.EOF means that no good record follows.
func (r *Reader) Next() (seq uint64, payload []byte, err error) {
	for {
		head, err := r.fill(recordHeader)
		if err != nil {
			return 0, nil, err
		}
		n, sum, ok := parseRecordHeader(head, r.salt)
		if ok && int64(n) <= r.size-r.pos()-recordHeader {
			rec, err := r.fill(recordHeader + n)
			if err != nil {
				return 0, nil, err
			}
			if len(rec) == recordHeader+n && sumOf(rec[recordHeader:]) == sum {
				r.damaged += r.pos() - r.end
				r.take(recordHeader + n)
				r.end = r.pos()
				return binary.LittleEndian.Uint64(rec[16:]), rec[recordHeader:], nil
			}
		}
		switch {
		case ok:
			// The header is valid, so the length is right. Bytes in the payload that look like a record came from a client, and
			// must not become one.
			r.skip(recordHeader + int64(n))
		case len(head) > 0:
			r.take(1) // the next record can begin at the next byte at the earliest
		}
		if found, err := r.seek(); err != nil {
			return 0, nil, err
		} else if !found {
			r.damaged += r.size - r.end
			return 0, nil, io.EOF
		}
	}
}

func sumOf(payload []byte) uint32 { return crc32.Checksum(payload, castagnoli) }

// Damaged is the number of bytes skipped so far between good records. At the end it includes those after the last one.
func (r *Reader) Damaged() int64 { return r.damaged }

// skip moves n bytes forward, at most to the end.
func (r *Reader) skip(n int64) {
	if held := int64(len(r.have)); n > held {
		r.at, r.have = min(r.at+n-held, r.size), nil
		return
	}
	r.take(int(n))
}

// tail describes the bytes after the last good record.
type tail int

const (
	damage tail = iota
	torn        // what a crash leaves of a write
	stale       // the end mark, and what the file had before
)

// tail examines the bytes after the last good record.
func (r *Reader) tail() (tail, error) {
	if r.salt != 0 {
		mark, err := r.mark()
		switch {
		case err != nil || mark > r.end:
			return damage, err
		case mark == r.end:
			return stale, nil
		}
		return torn, nil
	}
	end, err := r.content()
	if err != nil {
		return damage, err
	}
	if end-r.end < recordHeader {
		return torn, nil
	}
	var head [recordHeader]byte
	if _, err := r.file.ReadAt(head[:], r.end); err != nil && !errors.Is(err, io.EOF) {
		return damage, fmt.Errorf("read segment %s: %w", r.name, err)
	}
	if n, _, ok := parseRecordHeader(head[:], 0); ok && end-r.end < recordHeader+int64(n) {
		return torn, nil
	}
	return damage, nil
}

// mark is the position of the first end mark after the last good record, or -1.
func (r *Reader) mark() (int64, error) {
	marks := &Reader{file: r.file, name: r.name, at: r.end, size: r.size}
	for {
		b, err := marks.fill(endSize)
		if err != nil || len(b) < endSize {
			return -1, err
		}
		i := bytes.Index(marks.have, []byte(endMagic))
		if i < 0 {
			marks.take(len(marks.have) - len(endMagic) + 1)
			continue
		}
		marks.take(i)
		if b, err = marks.fill(endSize); err != nil {
			return -1, err
		}
		if bytes.Equal(b, appendEnd(nil, marks.pos(), r.salt)) {
			return marks.pos(), nil
		}
		marks.take(1)
	}
}

// content is where the file ends without its trailing zeros, but not before the end of the last good record.
func (r *Reader) content() (int64, error) {
	end := r.size
	buf := make([]byte, min(scanWindow, max(end-r.end, 0)))
	for end > r.end {
		part := buf[:min(int64(len(buf)), end-r.end)]
		if _, err := r.file.ReadAt(part, end-int64(len(part))); err != nil && !errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("read segment %s: %w", r.name, err)
		}
		n := len(bytes.TrimRight(part, "\x00"))
		end -= int64(len(part) - n)
		if n > 0 {
			break
		}
	}
	return end, nil
}

func (r *Reader) pos() int64 { return r.at - int64(len(r.have)) }

func (r *Reader) take(n int) { r.have = r.have[n:] }

// parseRecordHeader returns the payload's length and its checksum.
func parseRecordHeader(b []byte, salt uint64) (n int, sum uint32, ok bool) {
	if len(b) < recordHeader || string(b[:4]) != recordMagic {
		return 0, 0, false
	}
	var h [recordHeader]byte
	copy(h[:], b)
	saltRecord(h[:], salt)
	if crc32.Checksum(h[8:], castagnoli) != binary.LittleEndian.Uint32(h[4:]) {
		return 0, 0, false
	}
	size := binary.LittleEndian.Uint32(h[8:])
	return int(size), binary.LittleEndian.Uint32(h[12:]), size <= MaxRecord
}

// seek moves to the next valid record header, and reports whether it found one.
func (r *Reader) seek() (bool, error) {
	for {
		b, err := r.fill(recordHeader)
		if err != nil || len(b) < recordHeader {
			return false, err
		}
		i := bytes.Index(r.have, []byte(recordMagic))
		if i < 0 {
			r.take(len(r.have) - len(recordMagic) + 1) // the magic may begin at the end
			continue
		}
		r.take(i)
		if b, err = r.fill(recordHeader); err != nil || len(b) < recordHeader {
			return false, err
		}
		if _, _, ok := parseRecordHeader(b, r.salt); ok {
			return true, nil
		}
		r.take(1)
	}
}

// fill returns the next n bytes without consuming them; fewer at the end.
func (r *Reader) fill(n int) ([]byte, error) {
	if len(r.have) < n && r.at < r.size {
		want := max(n, scanWindow)
		if cap(r.buf) < want {
			// The old buffer may be part of have, so copy it.
			buf := make([]byte, want)
			copy(buf, r.have)
			r.buf = buf
		} else {
			r.buf = r.buf[:cap(r.buf)]
			copy(r.buf, r.have)
		}
		kept := len(r.have)
		m := int(min(int64(len(r.buf)-kept), r.size-r.at))
		got, err := r.file.ReadAt(r.buf[kept:kept+m], r.at)
		if got < m && err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read segment %s: %w", r.name, err)
		}
		r.at += int64(got)
		r.have = r.buf[:kept+got]
		if got < m { // shorter than it was: nothing more will come
			r.size = r.at
		}
	}
	return r.have[:min(n, len(r.have))], nil
}
