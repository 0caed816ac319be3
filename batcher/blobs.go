package batcher

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/penstock/penstock/batcher/wal"
	"github.com/penstock/penstock/internal/pace"
	"github.com/penstock/penstock/internal/pipeline"
)

// blobSuffix ends the file name of a blob segment, after its number in hex.
const blobSuffix = ".blobs"

// blobSegment is a file of the log of blobs: large values, one after the other. A blob is written and fsynced before
// the record that refers to it, and read again when the record's batch is encoded. A crash can leave only bytes without
// a record.
type blobSegment struct {
	fs     wal.FS
	path   string
	number uint64 // taken from the seqs, so that it is never used again

	// Guarded by Batcher.mu.
	holders int   // appends, writes and batches whose records may refer to it
	retired bool  // it takes no more blobs; without holders it is removed
	bytes   int64 // counted in Batcher.disk

	writing chan struct{} // holds the append that writes a blob, however long that takes
	syncing chan struct{} // holds the append that brings to disk

	mu     sync.Mutex
	size   int64 // bytes of whole blobs
	synced int64 // of these, bytes that are on disk
	named  bool  // its entry in the folder is on disk
	failed error // of an fsync: nothing more is written then
}

func newBlobSegment(fs wal.FS, dir string, number uint64) *blobSegment {
	return &blobSegment{fs: fs, path: blobPath(dir, number), number: number,
		writing: make(chan struct{}, 1), syncing: make(chan struct{}, 1)}
}

func blobPath(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x%s", number, blobSuffix))
}

// blobNumber parses the number in a blob segment's file name.
func blobNumber(name string) (uint64, bool) {
	hex, ok := strings.CutSuffix(name, blobSuffix)
	n, err := strconv.ParseUint(hex, 16, 64)
	return n, ok && len(hex) == 16 && err == nil
}

// append writes blobs and syncs them: all of them, or an error. kept is how many bytes it wrote. Each call opens the
// file itself, because the system reports a failed fsync once to each open file. Appends take turns after each blob, so
// that one with many blobs does not delay others.
func (s *blobSegment) append(blobs []pipeline.Blob) (stored []storedBlob, kept int64, err error) {
	file, err := s.fs.OpenFile(s.path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, 0, fmt.Errorf("open blobs: %w", err)
	}
	defer file.Close()
	stored = make([]storedBlob, len(blobs))
	for i := range blobs {
		if stored[i], err = s.write(file, &blobs[i]); err != nil {
			return nil, kept, err
		}
		kept += stored[i].Ref.Bytes
	}
	if err := s.sync(file, stored[len(stored)-1].Ref.Range[1]+1); err != nil {
		return nil, kept, fmt.Errorf("sync blobs %s: %w", filepath.Base(s.path), err)
	}
	return stored, kept, nil
}

// write appends one blob completely, or nothing.
func (s *blobSegment) write(file wal.File, b *pipeline.Blob) (storedBlob, error) {
	s.writing <- struct{}{}
	defer func() { <-s.writing }()
	at, err := s.end()
	if err != nil {
		return storedBlob{}, err
	}
	to := &paced{segment: s, file: file, at: at, synced: at, sum: sha256.New()}
	if err := b.Write(to); err != nil {
		return storedBlob{}, errors.Join(err, file.Truncate(at))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.size = to.at
	return storedBlob{b.Event, b.At, s.number, pipeline.BlobRef{
		Range: [2]int64{at, to.at - 1}, Bytes: to.at - at, SHA256: hex.EncodeToString(to.sum.Sum(nil)),
		ContentType: b.ContentType, Kind: b.Kind, Name: b.Name}}, nil
}

// end is where the next blob begins.
func (s *blobSegment) end() (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size, s.failed
}

// syncBytes is how much of a blob is synced at once. One large fsync would delay those of the log, because a file
// system's journal also writes the data of other files.
const syncBytes = 1 << 20

// partBytes is how much of a blob is written and summed at once. The sum's loop is assembly, which the scheduler cannot
// interrupt. A long run of it would delay garbage collection, and with it everything else.
const partBytes = 64 << 10

// paced writes to a segment in parts, with pauses.
type paced struct {
	segment    *blobSegment
	file       wal.File
	at, synced int64
	sum        hash.Hash
	pace       pace.Pace
}

func (w *paced) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		part := p[:min(len(p), partBytes)]
		var m int
		m, err = w.file.WriteAt(part, w.at)
		w.sum.Write(part[:m])
		w.at += int64(m)
		n += m
		p = p[len(part):]
		if err == nil && w.at-w.synced >= syncBytes {
			w.synced = w.at
			w.segment.syncing <- struct{}{}
			err = w.segment.fsync(w.file)
			<-w.segment.syncing
		}
		w.pace.Did(m)
	}
	return n, err
}

// sync makes the first size bytes survive a power loss. Appends that wait for the same fsync share the next one.
func (s *blobSegment) sync(file wal.File, size int64) error {
	s.syncing <- struct{}{}
	defer func() { <-s.syncing }()
	s.mu.Lock()
	whole, synced, named, failed := s.size, s.synced, s.named, s.failed
	s.mu.Unlock()
	err := failed
	if err == nil && synced < size {
		err = s.fsync(file)
	}
	if err == nil && !named {
		err = s.fs.SyncDir(filepath.Dir(s.path))
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.named = true
	if synced < size {
		s.synced = whole
	}
	return nil
}

// fsync syncs everything that was written. After a failed fsync the segment accepts no more, because the system may
// treat lost pages as written.
func (s *blobSegment) fsync(file wal.File) error {
	if err := s.broken(); err != nil {
		return err
	}
	err := file.Sync()
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failed = err
	}
	return err
}

// broken is the error of the fsync that failed.
func (s *blobSegment) broken() error {
	_, err := s.end()
	return err
}

// keepBlobs brings blobs to disk. The caller holds the segment until a write does.
func (b *Batcher) keepBlobs(blobs []pipeline.Blob) (*blobSegment, []storedBlob, error) {
	var size int64 // at most
	for i := range blobs {
		size += blobs[i].Size
	}
	s, err := b.holdBlobs(size)
	if err != nil {
		return nil, nil, err
	}
	stored, kept, err := s.append(blobs)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.disk += kept - size
	s.bytes += kept - size
	b.metrics.blobBytes.Add(float64(kept))
	if err != nil {
		if b.blobs == s && s.broken() != nil {
			b.retireBlobs()
		}
		b.drop(s)
		b.log.Error("blobs cannot be written", "path", s.path, "error", err)
		return nil, nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return s, stored, nil
}

// holdBlobs returns a segment with space for size bytes of blobs, and holds it.
func (b *Batcher) holdBlobs(size int64) (*blobSegment, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.accepts(size); err != nil {
		return nil, err
	}
	if b.blobs != nil && b.blobs.bytes >= b.opts.SegmentBytes {
		b.retireBlobs()
	}
	if b.blobs == nil {
		b.blobs = newBlobSegment(b.fs, b.opts.Dir, b.nextSeq)
		b.nextSeq++
	}
	b.blobs.holders++
	b.blobs.bytes += size // until it is known how much it is
	b.disk += size
	return b.blobs, nil
}

// retireBlobs makes the next blobs begin a new segment.
func (b *Batcher) retireBlobs() {
	s := b.blobs
	if s == nil {
		return
	}
	b.blobs = nil
	s.retired = true
	s.holders++
	b.drop(s)
}

// drop releases one hold on a segment.
func (b *Batcher) drop(s *blobSegment) {
	if s.holders--; s.holders == 0 && s.retired {
		b.discard(s.path, s.bytes)
	}
}

// hold passes holds of segments on to a holder's list, in which each segment is once.
func (b *Batcher) hold(list []*blobSegment, more ...*blobSegment) []*blobSegment {
	for _, s := range more {
		if slices.Contains(list, s) {
			b.drop(s)
		} else {
			list = append(list, s)
		}
	}
	return list
}
