package batcher

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"

	"github.com/penstock/penstock/batcher/wal"
	"github.com/penstock/penstock/internal/pace"
	"github.com/penstock/penstock/internal/pipeline"
)

// piece is the part of a blob segment that goes into one object.
type piece struct {
	segment      uint64
	offset, size int64 // bytes, in the segment
	at           int64 // in the object
}

// blobObject is the object with the blobs of one batch, in the order of the records.
type blobObject struct {
	key    string
	size   int64
	pieces []piece
	files  map[uint64]wal.File // nil: the file is gone
	lost   int64               // bytes read that are not there
}

// add returns the blob's range in the object.
func (o *blobObject) add(s *storedBlob) (at int64) {
	at = o.size
	o.size += s.Ref.Bytes
	if last := len(o.pieces) - 1; last >= 0 {
		p := &o.pieces[last]
		if p.segment == s.Segment && p.offset+p.size == s.Ref.Range[0] {
			p.size += s.Ref.Bytes
			return at
		}
	}
	o.pieces = append(o.pieces, piece{s.Segment, s.Ref.Range[0], s.Ref.Bytes, at})
	return at
}

// resolve writes the references to a record's blobs into its events.
func (o *blobObject) resolve(events []pipeline.Event, blobs []storedBlob) error {
	for len(blobs) > 0 {
		i, from := blobs[0].Event, 0
		if i < 0 || i >= len(events) {
			return errRecord
		}
		props := events[i].Properties
		var whole []byte
		for ; len(blobs) > 0 && blobs[0].Event == i; blobs = blobs[1:] {
			s := &blobs[0]
			if s.At < from || s.At > len(props) || !bytes.HasPrefix(props[s.At:], []byte(pipeline.BlobHole)) ||
				s.Ref.Bytes < 0 || s.Ref.Range[0] < 0 {
				return errRecord
			}
			at, ref := o.add(s), s.Ref
			ref.Object, ref.Range = o.key, [2]int64{at, at + ref.Bytes - 1}
			whole = ref.Append(append(whole, props[from:s.At]...))
			from = s.At + len(pipeline.BlobHole)
		}
		events[i].Properties = append(whole, props[from:]...)
	}
	return nil
}

// open opens the segments of the object.
func (o *blobObject) open(fs wal.FS, dir string) error {
	o.files, o.lost = map[uint64]wal.File{}, 0
	for _, p := range o.pieces {
		if _, ok := o.files[p.segment]; ok {
			continue
		}
		file, err := fs.OpenFile(blobPath(dir, p.segment), os.O_RDONLY)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			o.close()
			return fmt.Errorf("%w: %w", errBlobs, err)
		}
		if err != nil {
			file = nil
		}
		o.files[p.segment] = file
	}
	return nil
}

func (o *blobObject) close() {
	for _, file := range o.files {
		if file != nil {
			file.Close()
		}
	}
}

// ReadAt reads zeros in place of missing bytes, so that other blobs keep their range. The sums of the damaged blobs
// then differ.
func (o *blobObject) ReadAt(p []byte, off int64) (n int, err error) {
	i := sort.Search(len(o.pieces), func(i int) bool { return o.pieces[i].at+o.pieces[i].size > off })
	for ; n < len(p) && i < len(o.pieces); i++ {
		from := &o.pieces[i]
		skip := off + int64(n) - from.at
		part := p[n:min(len(p), n+int(from.size-skip))]
		got := 0
		if file := o.files[from.segment]; file != nil {
			if got, err = file.ReadAt(part, from.offset+skip); err != nil && !errors.Is(err, io.EOF) {
				return n + got, fmt.Errorf("%w: %w", errBlobs, err)
			}
		}
		clear(part[got:])
		o.lost += int64(len(part) - got)
		n += len(part)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// errTaken means that another object has the key of the batch's blobs. The batch was encoded before, and one of its
// records cannot be read any more. The blobs then get another key.
var errTaken = errors.New("another object has the key of the blobs")

// errBlobs means that blobs could not be read from disk.
var errBlobs = errors.New("blobs cannot be read")

// sumOf computes the checksum of the object.
func sumOf(from io.ReaderAt, size int64) (sha256sum string, err error) {
	sum := sha256.New()
	if _, err := io.CopyN(sum, pace.NewReader(from, size), size); err != nil {
		if !errors.Is(err, errBlobs) {
			err = fmt.Errorf("%w: %w", errBlobs, err)
		}
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// putBlobs uploads the object with a batch's blobs.
func (b *Batcher) putBlobs(ctx context.Context, bt *batch, o *blobObject) error {
	if o.size == 0 {
		return nil
	}
	if err := o.open(b.fs, b.opts.Dir); err != nil {
		return err
	}
	defer o.close()
	sum, err := sumOf(o, o.size)
	if err != nil {
		return err
	}
	if o.lost > 0 && !bt.lost {
		bt.lost = true
		b.metrics.corrupt.Inc()
		b.log.Error("bytes of blobs are lost", "key", bt.text, "bytes", o.lost)
		b.report(bt.text, "damaged_blobs", nil,
			"%d bytes of the batch's blobs are not in %s any more; the sums in its rows do not match", o.lost, b.opts.Dir)
	}
	err = b.putBytes(ctx, o.key, o, o.size, sum)
	if c, ok := errors.AsType[pipeline.ConflictError](err); ok {
		bt.blobKeys++
		err = fmt.Errorf("%w: %w", errTaken, c)
	}
	return err
}
