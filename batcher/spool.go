package batcher

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"os"
)

const spoolPattern = "object-*.tmp"

// spool is an encoded object on its way to the bucket: a file beside the log,
// already unlinked, or memory where the disk is full.
type spool struct {
	file *os.File
	mem  bytes.Buffer
	hash hash.Hash
	size int64 // bytes
}

func newSpool(dir string) (*spool, error) {
	f, err := os.CreateTemp(dir, spoolPattern)
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name()) // the kernel frees it whenever we end
	return &spool{file: f, hash: sha256.New()}, nil
}

func memorySpool() *spool { return &spool{hash: sha256.New()} }

func (s *spool) Write(p []byte) (n int, err error) {
	if s.file != nil {
		n, err = s.file.Write(p)
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
