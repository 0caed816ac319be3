package batcher

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/penstock/penstock/batcher/wal"
	"github.com/penstock/penstock/internal/pipeline"
)

// blobSuffix ends the name of a batch's blob file, behind its segment's.
const blobSuffix = ".blobs"

// blobFile holds the large values of a batch's events, as they will stand in an
// object of their own. They are written there before the record that refers to
// them, brought to disk before it, and put into the bucket before its object. A
// crash leaves at most bytes that nobody refers to.
type blobFile struct {
	fs   wal.FS
	path string

	writing sync.Mutex    // held by the one who writes a blob, however long that takes
	syncing chan struct{} // holds the one who brings them to disk
	putting chan struct{} // holds the one who puts them
	put     bool          // they are in the bucket
	unread  bool          // it could not be opened at the start; changed by the one who puts

	mu     sync.Mutex
	file   wal.File // nil: not open now
	size   int64    // of the blobs that are whole
	synced int64
	named  bool  // its entry in the folder is durable
	failed error // of an fsync: nothing more is written then
}

func newBlobFile(fs wal.FS, path string) *blobFile {
	return &blobFile{fs: fs, path: path, syncing: make(chan struct{}, 1), putting: make(chan struct{}, 1)}
}

// open is the file, and how much of it is blobs.
func (f *blobFile) open() (wal.File, int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.failed
	if f.file == nil && err == nil {
		if f.file, err = f.fs.OpenFile(f.path, os.O_RDWR|os.O_CREATE); err != nil {
			f.file = nil
			err = fmt.Errorf("open blobs: %w", err)
		}
	}
	return f.file, f.size, err
}

// write appends one blob, all of it or nothing.
func (f *blobFile) write(b *pipeline.Blob, object string) (ref pipeline.BlobRef, err error) {
	f.writing.Lock()
	defer f.writing.Unlock()
	file, from, err := f.open()
	if err != nil {
		return ref, err
	}
	to := &paced{blobs: f, file: file, at: from, synced: from, sum: sha256.New()}
	err = b.Write(to)
	n := to.at - from
	if err != nil {
		return ref, errors.Join(err, file.Truncate(from))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.size = from + n
	return pipeline.BlobRef{Object: object, Range: [2]int64{from, f.size - 1}, Bytes: n,
		SHA256: hex.EncodeToString(to.sum.Sum(nil)), ContentType: b.ContentType, Kind: b.Kind, Name: b.Name}, nil
}

// paceBytes is how much of a blob is brought to disk at once. One fsync of all of
// it would hold up those of the log: a file system's journal writes out the data
// of every file that it speaks of.
const paceBytes = 1 << 20

// partBytes is how much of a blob is written and summed up at once. The sum's
// loop is assembly, which the scheduler cannot interrupt: in one go it would keep
// a garbage collection waiting, and everybody with it.
const partBytes = 64 << 10

// paced writes to a file at its own pace, and lets others run in between.
type paced struct {
	blobs      *blobFile
	file       wal.File
	at, synced int64
	sum        hash.Hash
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
		if err == nil && w.at-w.synced >= paceBytes {
			w.synced, err = w.at, w.blobs.fsync(w.file)
		}
		runtime.Gosched()
	}
	return n, err
}

// reopen finds what an earlier process wrote.
func (f *blobFile) reopen() error {
	defer f.close()
	file, _, err := f.open()
	if err != nil {
		return err
	}
	f.size, err = file.Size()
	f.synced = f.size // what is missing then is missing
	return err
}

// sync makes what was written survive a power loss.
func (f *blobFile) sync() error {
	f.mu.Lock()
	file, size, named, done := f.file, f.size, f.named, f.synced == f.size
	f.mu.Unlock()
	if done {
		return nil
	}
	err := f.fsync(file)
	if err == nil && !named {
		err = f.fs.SyncDir(filepath.Dir(f.path))
	}
	if err != nil {
		return fmt.Errorf("sync blobs %s: %w", filepath.Base(f.path), err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.synced, f.named = max(f.synced, size), true
	return nil
}

// fsync brings all that was written to disk. After one that failed all others
// fail: a file tells it once, to one of those who ask at the same time, and takes
// what it did not bring for brought.
func (f *blobFile) fsync(file wal.File) error {
	f.syncing <- struct{}{}
	defer func() { <-f.syncing }()
	if err := f.broken(); err != nil {
		return err
	}
	err := file.Sync()
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.failed = err
	}
	return err
}

// broken is the error of the fsync that failed.
func (f *blobFile) broken() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

func (f *blobFile) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil {
		f.file.Close()
		f.file = nil
	}
}

func (f *blobFile) remove() error {
	f.close()
	if err := f.fs.Remove(f.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove blobs: %w", err)
	}
	return nil
}

// pin keeps the active batch from being sealed until unpin: its blobs are
// written before the record that refers to them.
func (b *Batcher) pin(blobs []pipeline.Blob) (*batch, error) {
	size := sizeOf(blobs)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.accepts(size); err != nil {
		return nil, err
	}
	bt, err := b.current()
	if err != nil {
		return nil, err
	}
	if bt.blobs == nil {
		bt.blobs = newBlobFile(b.fs, bt.segment.Path()+blobSuffix)
	}
	bt.pins++
	b.pins++
	b.disk += size // until it is known how much it is
	b.signal()     // to set the timer for the batch's age
	return bt, nil
}

// sizeOf is how many bytes blobs have at most.
func sizeOf(blobs []pipeline.Blob) (n int64) {
	for i := range blobs {
		n += blobs[i].Size
	}
	return n
}

// giveUp lets the next blobs go into another batch where this one's file is broken.
func (b *Batcher) giveUp(bt *batch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.active == bt && bt.blobs.broken() != nil {
		b.roll("error")
	}
}

func (b *Batcher) unpin(bt *batch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pins--
	if bt.pins--; bt.pins == 0 && bt.rolled {
		b.sealNext(bt)
	}
	b.signal()
}

// pinned tells whether there is a batch that is.
func (b *Batcher) pinned() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pins > 0
}

// keepBlobs writes the blobs to the batch's file, and the references to them
// into the events.
func (b *Batcher) keepBlobs(bt *batch, events []pipeline.Event, blobs []pipeline.Blob) error {
	object := pipeline.BlobKey(bt.key)
	var total int64
	foreseen := sizeOf(blobs)
	defer func() { // what was written before an error takes room all the same
		b.mu.Lock()
		defer b.mu.Unlock()
		bt.blobBytes += total
		b.disk += total - foreseen
		b.metrics.blobBytes.Add(float64(total))
	}()
	for len(blobs) > 0 {
		e := &events[blobs[0].Event]
		var whole []byte
		from := 0
		for i := blobs[0].Event; len(blobs) > 0 && blobs[0].Event == i; blobs = blobs[1:] {
			ref, err := bt.blobs.write(&blobs[0], object)
			if err != nil {
				return err
			}
			total += ref.Bytes
			whole = append(whole, e.Properties[from:blobs[0].At]...)
			whole = ref.Append(whole)
			from = blobs[0].At + len(pipeline.BlobHole)
		}
		e.Properties = append(whole, e.Properties[from:]...)
	}
	// Here, and not where all others wait for it.
	return bt.blobs.sync()
}

// errBlobs says that blobs could not be read from disk.
var errBlobs = errors.New("blobs cannot be read")

// sumOf reads the size bytes that are put.
func sumOf(file wal.File, size int64) (sha256sum string, err error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(file, 0, size)); err != nil {
		return "", fmt.Errorf("%w: %w", errBlobs, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// putBlobs brings a batch's blobs to the bucket, if there are any, once.
func (b *Batcher) putBlobs(ctx context.Context, bt *batch) error {
	f := bt.blobs
	if f == nil {
		return nil
	}
	f.putting <- struct{}{}
	defer func() { <-f.putting }()
	if f.unread { // it may have been made readable meanwhile
		if err := f.reopen(); err != nil {
			return fmt.Errorf("%w: %w", errBlobs, err)
		}
		f.unread = false
	}
	f.mu.Lock()
	size := f.size
	f.mu.Unlock()
	if f.put || size == 0 {
		return nil
	}
	// A file of its own: where a later batch puts them, for what it carries, this
	// one may still have it open, and is done with it at any time. What it gets
	// meanwhile nobody refers to: a batch whose records are carried takes no more.
	file, err := f.fs.OpenFile(f.path, os.O_RDONLY)
	if err != nil {
		return fmt.Errorf("%w: %w", errBlobs, err)
	}
	defer file.Close()
	sum, err := sumOf(file, size)
	if err != nil {
		return err
	}
	_, err = b.putObject(ctx, pipeline.BlobKey(bt.key), func() io.ReadSeeker { return io.NewSectionReader(file, 0, size) }, size, pipeline.Meta{Schema: pipeline.SchemaVersion, SHA256: sum})
	// Put before a power loss that took from the file: what is there is whole.
	if c, ok := errors.AsType[pipeline.ConflictError](err); ok && c.Found.Meta.SHA256 != "" {
		err = nil
	}
	f.put = err == nil
	return err
}
