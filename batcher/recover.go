package batcher

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/penstock/penstock/batcher/wal"
	"github.com/penstock/penstock/internal/pipeline"
)

// Open locks the log and recovers what an earlier process left. Each of its segments becomes a sealed batch again,
// under the same key. Recovery streams; its memory is limited by the largest record.
func (b *Batcher) Open() error {
	log, err := wal.Open(b.fs, b.opts.Dir)
	if err != nil {
		return fmt.Errorf("%s: %w", b.spec.Name, err)
	}
	b.wal, b.opened = log, time.Now()
	if err := b.replay(); err != nil {
		log.Close()
		return fmt.Errorf("%s: %w", b.spec.Name, err)
	}
	return nil
}

// folder is what Open finds.
type folder struct {
	blobs   map[uint64]*blobSegment
	earlier map[string]bool // paths of files of blobs of the first version
	rows    map[*wal.Segment]int64
	refers  map[*wal.Segment][]*blobSegment
}

func (b *Batcher) replay() error {
	found, err := b.scan()
	if err != nil {
		return err
	}
	saved, err := b.wal.SavedSeq(b.noteAside)
	if err != nil {
		return err
	}
	// In a new log, the clock keeps seqs from starting again. In microseconds they stay below 2⁵³, so that JavaScript
	// reads them exactly.
	b.nextSeq = max(b.nextSeq, saved, uint64(time.Now().UnixMicro()))
	var events []pipeline.Event
	each := func(s *wal.Segment, seq uint64, payload []byte) error {
		blobs, rest, err := parseBlobs(payload)
		if err == nil {
			events, err = parseRecord(events[:0], seq, rest)
		}
		if err != nil {
			return nil // encode meets it again; it must not keep the others from their start
		}
		for i := range blobs {
			if segment := found.blobs[blobs[i].Segment]; segment != nil {
				segment.holders++
				found.refers[s] = b.hold(found.refers[s], segment)
			}
		}
		found.rows[s] += int64(len(events))
		b.nextSeq = max(b.nextSeq, seq+uint64(len(events)))
		return nil
	}
	keep := func(path string) bool { return found.earlier[path+blobSuffix] } // later records may refer to it
	segments, err := b.wal.Recover(wal.Recovery{Each: each, Report: b.noteAside, Keep: keep})
	if err != nil {
		return err
	}
	b.nextSeq = b.wal.NextSeq(b.nextSeq)
	for _, r := range segments {
		if err := b.takeOver(r, found); err != nil {
			return err
		}
	}
	b.sortOut(found)
	return nil
}

// noteAside notes a file of the log that recovery has set aside.
func (b *Batcher) noteAside(path string, why error) {
	b.metrics.corrupt.Inc()
	b.setAside++
	b.log.Error("file is damaged or unreadable; it is kept as *.corrupt or *.unreadable", "path", path, "error", why)
	b.report("", "damaged_segment", nil, "the file %s is kept as *.corrupt or *.unreadable: %s", path, why)
}

// scan lists the folder, and removes incomplete objects: their segments still exist.
func (b *Batcher) scan() (*folder, error) {
	names, err := b.fs.ReadDir(b.opts.Dir)
	if err != nil {
		return nil, err
	}
	found := &folder{blobs: map[uint64]*blobSegment{}, earlier: map[string]bool{},
		rows: map[*wal.Segment]int64{}, refers: map[*wal.Segment][]*blobSegment{}}
	for _, name := range names {
		path := filepath.Join(b.opts.Dir, name)
		number, isBlobs := blobNumber(name)
		switch {
		case wal.IsSetAside(name):
			b.setAside++
		case strings.HasSuffix(name, spoolSuffix):
			b.fs.Remove(path)
		case strings.HasSuffix(name, earlierSuffix):
			found.earlier[path] = true
		case isBlobs:
			s := newBlobSegment(b.fs, b.opts.Dir, number)
			s.retired = true
			found.blobs[number] = s
			b.nextSeq = max(b.nextSeq, number+1)
		}
	}
	return found, nil
}

// takeOver makes a recovered segment a sealed batch.
func (b *Batcher) takeOver(r wal.Recovered, found *folder) error {
	key, err := pipeline.ParseKey(r.Key)
	if err != nil {
		b.metrics.corrupt.Inc()
		b.setAside++
		b.log.Error("segment's key is not ours; it is kept as *.corrupt", "path", r.Path(), "error", err)
		return r.SetAside()
	}
	bt := newBatch(key, r.Segment)
	bt.size, bt.blobs = r.Size(), found.refers[r.Segment]
	if n := len(b.sealed); n > 0 {
		bt.earlier = b.sealed[n-1].earlier
	}
	if path := r.Path() + blobSuffix; found.earlier[path] {
		delete(found.earlier, path)
		if bt.own, err = openEarlier(b.fs, path, r, key); err != nil {
			b.blobsUnread(path, err)
		}
		bt.earlier = append(bt.earlier[:len(bt.earlier):len(bt.earlier)], bt.own)
		b.disk += bt.own.size
	}
	if key.Time.After(b.replayed) {
		b.replayed = key.Time
	}
	b.sealed = append(b.sealed, bt)
	b.waiting = append(b.waiting, bt)
	b.disk += bt.size
	b.metrics.replayed.Add(float64(found.rows[r.Segment]))
	b.log.Info("replay", "key", r.Key, "rows", found.rows[r.Segment], "bytes", bt.size, "cut_bytes", r.Cut)
	return nil
}

// blobsUnread means that blobs cannot be read now. The records that refer to them wait in their segments.
func (b *Batcher) blobsUnread(path string, err error) {
	b.metrics.corrupt.Inc()
	b.log.Error("blobs cannot be read; the batches that refer to them wait until they can", "path", path, "error", err)
}

// sortOut removes blobs without a record. If a segment was set aside they stay, because an operator may make it
// readable for a later start.
func (b *Batcher) sortOut(found *folder) {
	for path := range found.earlier {
		if b.setAside == 0 {
			b.fs.Remove(path)
		}
	}
	for _, s := range found.blobs {
		if s.holders == 0 && b.setAside == 0 {
			b.fs.Remove(s.path)
			continue
		}
		size, err := fileSize(b.fs, s.path)
		if err != nil {
			b.blobsUnread(s.path, err)
		}
		s.bytes = size
		b.disk += size
	}
}

func fileSize(fs wal.FS, path string) (int64, error) {
	file, err := fs.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	return file.Size()
}
