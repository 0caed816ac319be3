package batcher

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"os"

	"github.com/penstock/penstock/batcher/wal"
)

// spoolSuffix ends the name of a spool's file, after its segment's.
const spoolSuffix = ".object"

// spool is an encoded object that waits for its upload: an unlinked file next to the log, or memory if the disk is
// full.
type spool struct {
	file wal.File
	mem  bytes.Buffer
	hash hash.Hash
	size int64 // bytes
	err  error // of the file
}

func newSpool(fs wal.FS, path string) (*spool, error) {
	f, err := fs.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, err
	}
	fs.Remove(path) // the kernel frees it whenever we end
	return &spool{file: f, hash: sha256.New()}, nil
}

func memorySpool() *spool { return &spool{hash: sha256.New()} }

func (s *spool) Write(p []byte) (n int, err error) {
	if s.file != nil {
		if n, err = s.file.WriteAt(p, s.size); err != nil {
			s.err = err
		}
	} else {
		n, _ = s.mem.Write(p)
	}
	s.hash.Write(p[:n])
	s.size += int64(n)
	return n, err
}

func (s *spool) reader() io.ReadSeeker {
	if s.file != nil {
		return io.NewSectionReader(s.file, 0, s.size)
	}
	return bytes.NewReader(s.mem.Bytes())
}

func (s *spool) sum() string { return hex.EncodeToString(s.hash.Sum(nil)) }

func (s *spool) Close() {
	if s.file != nil {
		s.file.Close()
	}
}
