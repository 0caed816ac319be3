package batcher

// All sleeps here are in bubbles (internal/testing/bubble), fake time that takes none: a
// batch that comes of age, the pause between attempts.

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock/penstock/batcher/wal"
	"github.com/penstock/penstock/batcher/wal/waltest"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/bubble"
)

// blobData is the n-th blob of an event.
func blobData(id uint64, n int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%d/%d ", id, n), 10+int(id*7+uint64(n))%200)
}

// withBlobs gives event i, appended among others, n blobs.
func withBlobs(e *pipeline.Event, i, n int) (blobs []pipeline.Blob) {
	props := []byte(`{"x":"`)
	props = append(props, bytes.Repeat([]byte("x"), int(idOf(*e))%50)...)
	props = append(props, '"')
	for k := range n {
		props = fmt.Appendf(props, `,"b%d":`, k)
		data := blobData(idOf(*e), k)
		blobs = append(blobs, pipeline.Blob{Event: i, At: len(props), Kind: pipeline.BlobText,
			ContentType: "text/plain", Size: int64(len(data)),
			Write: func(w io.Writer) error { _, err := w.Write(data); return err }})
		props = append(props, pipeline.BlobHole...)
	}
	e.Properties = append(props, '}')
	return blobs
}

// broken checks the references in an event's row. objects are those stored before the event's object.
func broken(e pipeline.Event, objects map[string][]byte) error {
	var props map[string]json.RawMessage
	if err := json.Unmarshal(e.Properties, &props); err != nil {
		return err
	}
	for name, value := range props {
		if !strings.HasPrefix(name, "b") {
			continue
		}
		var n int
		fmt.Sscanf(name, "b%d", &n)
		var v struct {
			Ref *pipeline.BlobRef `json:"$blob"`
		}
		if err := json.Unmarshal(value, &v); err != nil || v.Ref == nil {
			return fmt.Errorf("%s is %s", name, value)
		}
		object, there := objects[v.Ref.Object]
		if !there {
			return fmt.Errorf("there is no object %s", v.Ref.Object)
		}
		from, to := v.Ref.Range[0], v.Ref.Range[1]+1
		if to > int64(len(object)) || to-from != v.Ref.Bytes {
			return fmt.Errorf("bytes %v of %d", v.Ref.Range, len(object))
		}
		sum := sha256.Sum256(object[from:to])
		if !bytes.Equal(object[from:to], blobData(idOf(e), n)) || hex.EncodeToString(sum[:]) != v.Ref.SHA256 {
			return fmt.Errorf("%s of event %d is something else", name, idOf(e))
		}
	}
	return nil
}

func TestBlobs(t *testing.T) {
	for _, d := range []pipeline.Durability{pipeline.Memory, pipeline.Disk, pipeline.Bucket} {
		bubble.Test(t, func(t *testing.T) {
			r := start(t, options(), waltest.New(), newStore())
			for range 3 {
				events := r.events(4, 10)
				blobs := append(withBlobs(&events[1], 1, 2), withBlobs(&events[3], 3, 1)...)
				if _, err := r.Append(t.Context(), events, blobs, d); err != nil {
					t.Fatal(err)
				}
			}
			r.mustStop()
			r.store.want(t, 12)
			if len(r.store.broken) > 0 {
				t.Errorf("broken references: %v", r.store.broken)
			}
			keys := r.store.keys()
			if !pipeline.IsBlobKey(keys[0]) {
				t.Errorf("%v: the blobs do not come first", keys)
			}
			if meta := r.store.meta[keys[1]]; meta.BlobBytes != int64(len(r.store.objects[keys[0]])) {
				t.Errorf("metadata %+v, the blobs have %d bytes", meta, len(r.store.objects[keys[0]]))
			}
			names, _ := r.fs.ReadDir("/wal")
			for _, name := range names {
				if strings.HasSuffix(name, blobSuffix) {
					t.Errorf("%s is left", name)
				}
			}
			if s := r.Stats(); s.Disk != 0 {
				t.Errorf("stats %+v at the end", s)
			}
		})
	}
}

// failingSync is a disk whose first fsync of blobs fails for all bytes written until it ends. As on Linux, later fsyncs
// do not report it: the bytes count as written.
type failingSync struct {
	*waltest.FS
	arrived, release chan struct{}
}

type failingFile struct {
	wal.File
	fs *failingSync
}

func (s *failingSync) OpenFile(path string, flag int) (wal.File, error) {
	f, err := s.FS.OpenFile(path, flag)
	if err != nil || !strings.HasSuffix(path, blobSuffix) {
		return f, err
	}
	return &failingFile{f, s}, nil
}

func (f *failingFile) Sync() error {
	if s := f.fs; s != nil && s.arrived != nil {
		close(s.arrived)
		s.arrived = nil
		<-s.release
		f.fs = nil
		return errors.New("input/output error")
	}
	if f.fs == nil {
		return nil
	}
	return f.File.Sync()
}

// After a failed fsync, nothing in the same file is acknowledged, and later blobs go to another file.
func TestBlobsAfterFailedFsync(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		disk := &failingSync{waltest.New(), make(chan struct{}), make(chan struct{})}
		opts, arrived := options(), disk.arrived
		opts.FS = disk
		r := start(t, opts, disk.FS, newStore())
		send := func(written func()) error {
			events := r.events(1, 10)
			blobs := withBlobs(&events[0], 0, 1)
			write := blobs[0].Write
			blobs[0].Write = func(w io.Writer) error {
				err := write(w)
				written()
				return err
			}
			_, err := r.Append(t.Context(), events, blobs, pipeline.Disk)
			return err
		}
		first := make(chan error)
		go func() { first <- send(func() {}) }()
		<-arrived
		if err := send(func() { close(disk.release) }); err == nil {
			t.Error("blobs written while an fsync failed are acknowledged")
		}
		if err := <-first; err == nil {
			t.Error("blobs are acknowledged whose fsync failed")
		}
		time.Sleep(2 * probeWait)
		if err := send(func() {}); err != nil {
			t.Fatal(err)
		}
		after := start(t, options(), disk.FS.PowerLoss(rand.New(rand.NewPCG(1, 1))), newStore())
		after.mustStop()
		if ids := after.store.ids(t); !slices.Equal(ids, []uint64{3}) || len(after.store.broken) > 0 {
			t.Errorf("events %v after the power loss, want 3; broken: %v", ids, after.store.broken)
		}
	})
}

// A blob that takes long to be written holds up no other event. Its own event is
// in the batch that is gathered when it is written.
func TestRollWhileBlobIsWritten(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := start(t, options(), waltest.New(), newStore())
		events := r.events(1, 10)
		blobs := withBlobs(&events[0], 0, 1)
		write, release := blobs[0].Write, make(chan struct{})
		blobs[0].Write = func(w io.Writer) error { <-release; return write(w) }
		done := make(chan error)
		go func() {
			_, err := r.Append(t.Context(), events, blobs, pipeline.Disk)
			done <- err
		}()
		time.Sleep(100 * time.Second) // the batch has its age
		r.must(pipeline.Bucket, 1)
		if n := len(r.store.keys()); n != 1 {
			t.Errorf("%d objects, want that of the next batch", n)
		}
		close(release)
		if err := <-done; err != nil {
			t.Error(err)
		}
		time.Sleep(options().RollAge)
		synctest.Wait()
		if n := len(r.store.keys()); n != 3 {
			t.Errorf("%d objects, want both and the blobs", n)
		}
		r.mustStop()
		r.store.want(t, 2)
		if len(r.store.broken) > 0 {
			t.Errorf("broken references: %v", r.store.broken)
		}
	})
}

func TestBlobThatFails(t *testing.T) {
	for _, op := range []string{"open", "write", "sync"} {
		bubble.Test(t, func(t *testing.T) {
			r := start(t, options(), waltest.New(), newStore())
			r.fs.Fail(func(o, path string) error {
				if o == op && strings.HasSuffix(path, blobSuffix) {
					return waltest.ErrFault
				}
				return nil
			})
			send := func() error {
				events := r.events(1, 10)
				_, err := r.Append(t.Context(), events, withBlobs(&events[0], 0, 1), pipeline.Disk)
				return err
			}
			if err := send(); !errors.Is(err, ErrUnavailable) {
				t.Errorf("%s: got %v", op, err)
			}
			r.next--
			if op != "sync" { // only that tells of the disk as a whole
				r.must(pipeline.Disk, 1)
			}
			r.fs.Fail(nil)
			time.Sleep(2 * probeWait)
			if err := send(); err != nil {
				t.Errorf("%s: %v", op, err)
			}
			r.mustStop()
			want := 2
			if op == "sync" {
				want = 1
			}
			r.store.want(t, want)
			if len(r.store.broken) > 0 {
				t.Errorf("%s: broken references: %v", op, r.store.broken)
			}
			if s := r.Stats(); s.Disk != 0 {
				t.Errorf("%s: stats %+v at the end", op, s)
			}
		})
	}
	bubble.Test(t, func(t *testing.T) { // what writes it fails
		r := start(t, options(), waltest.New(), newStore())
		events := r.events(1, 10)
		blobs := withBlobs(&events[0], 0, 2)
		blobs[1].Write = func(w io.Writer) error { w.Write([]byte("half")); return io.ErrUnexpectedEOF }
		if _, err := r.Append(t.Context(), events, blobs, pipeline.Disk); !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		r.next--
		r.must(pipeline.Disk, 1)
		r.mustStop()
		r.store.want(t, 1)
	})
}

// Blobs count as disk space, and remains of a crash between two removals are deleted.
func TestBlobsAndDisk(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		opts := options()
		opts.MaxDisk = 4 << 10
		fs := waltest.New()
		fs.Put("/wal/0.wal"+blobSuffix, []byte("nobody's"))
		r := start(t, opts, fs, newStore())
		if _, there := fs.Get("/wal/0.wal" + blobSuffix); there {
			t.Error("the file of no segment stays")
		}
		events := r.events(1, 10)
		blobs := withBlobs(&events[0], 0, 1)
		blobs[0].Size = 5 << 10
		if _, err := r.Append(context.Background(), events, blobs, pipeline.Disk); !errors.Is(err, ErrFull) {
			t.Errorf("got %v", err)
		}
		// Two at once share the room, also before a byte of them is written.
		release, done := make(chan struct{}), make(chan error)
		blobs[0].Size = 3 << 10
		write := blobs[0].Write
		blobs[0].Write = func(w io.Writer) error { <-release; return write(w) }
		go func() {
			_, err := r.Append(context.Background(), events, blobs, pipeline.Disk)
			done <- err
		}()
		synctest.Wait()
		others := r.events(1, 10)
		second := withBlobs(&others[0], 0, 1)
		second[0].Size = 3 << 10
		if _, err := r.Append(context.Background(), others, second, pipeline.Disk); !errors.Is(err, ErrFull) {
			t.Errorf("the second got %v", err)
		}
		close(release)
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.mustStop()
		if s := r.Stats(); s.Disk != 0 {
			t.Errorf("stats %+v at the end", s)
		}
	})
}

// The same if the next batch has a separate write that is not due yet. Later writes do not wait for it, and a stop
// includes both.
func TestWriteBehindAnotherBatch(t *testing.T) {
	for _, d := range []pipeline.Durability{pipeline.Disk, pipeline.Memory} {
		bubble.Test(t, func(t *testing.T) {
			r := start(t, options(), waltest.New(), newStore())
			events := r.events(1, 10)
			blobs := withBlobs(&events[0], 0, 1)
			write, release := blobs[0].Write, make(chan struct{})
			blobs[0].Write = func(w io.Writer) error { <-release; return write(w) }
			done := make(chan error)
			go func() {
				_, err := r.Append(t.Context(), events, blobs, d)
				done <- err
			}()
			time.Sleep(100 * time.Second) // the batch has its age
			r.must(pipeline.Memory, 1)    // into the next
			began := time.Now()
			close(release)
			if err := <-done; err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > flushWait {
				t.Errorf("the Append (%v) took %s", d, took)
			}
			r.mustStop()
			r.store.want(t, 2)
			if len(r.store.broken) > 0 {
				t.Errorf("broken references: %v", r.store.broken)
			}
		})
	}
}

// A batcher that is stopped while a blob is written stores what else the batch has.
func TestStopWhileBlobIsWritten(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := start(t, options(), waltest.New(), newStore())
		r.must(pipeline.Disk, 1)
		events := r.events(1, 10)
		blobs := withBlobs(&events[0], 0, 1)
		write, release := blobs[0].Write, make(chan struct{})
		blobs[0].Write = func(w io.Writer) error { <-release; return write(w) }
		appended, stopped := make(chan error), make(chan error)
		go func() {
			_, err := r.Append(t.Context(), events, blobs, pipeline.Disk)
			appended <- err
		}()
		synctest.Wait()
		go func() { stopped <- r.stop() }()
		synctest.Wait()
		close(release)
		if err := <-appended; !errors.Is(err, ErrClosed) {
			t.Errorf("Append: %v", err)
		}
		if err := <-stopped; err != nil {
			t.Errorf("Run: %v", err)
		}
		r.store.want(t, 1)
	})
}

// If a segment fails, events acknowledged from memory go into the next one, and their blobs reach the bucket: also
// after a kill.
func TestBlobsOfRetriedWrite(t *testing.T) {
	for _, kill := range []bool{false, true} {
		bubble.Test(t, func(t *testing.T) {
			store := newStore()
			r := start(t, options(), waltest.New(), store)
			events := r.events(2, 10)
			blobs := append(withBlobs(&events[0], 0, 2), withBlobs(&events[1], 1, 1)...)
			write := blobs[0].Write
			blobs[0].Write = func(w io.Writer) error { // the segment has its header by now
				r.fs.Fail(func(op, path string) error {
					if op == "write" && !strings.HasSuffix(path, blobSuffix) {
						return waltest.ErrFault
					}
					return nil
				})
				return write(w)
			}
			if _, err := r.Append(t.Context(), events, blobs, pipeline.Memory); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second / 2) // the write fails
			store.mu.Lock()
			store.rate = 1 // and nothing gets into the bucket
			store.mu.Unlock()
			r.fs.Fail(nil)
			time.Sleep(2 * probeWait)
			if kill {
				fs := r.fs.Kill()
				r.stop()
				store.mu.Lock()
				store.rate = 0
				store.mu.Unlock()
				r = start(t, options(), fs, store)
			}
			store.mu.Lock()
			store.rate = 0
			store.mu.Unlock()
			r.mustStop()
			store.want(t, 2)
			if len(store.broken) > 0 {
				t.Errorf("kill %v: broken references: %v", kill, store.broken)
			}
			r.wantSegments(0)
			if s := r.Stats(); s.Disk != 0 {
				t.Errorf("kill %v: stats %+v at the end", kill, s)
			}
		})
	}
}

// The same if the failed segment also has its own record, and blobs reach the bucket later than objects.
func TestBlobsOfWriteRetriedInPart(t *testing.T) {
	for _, kill := range []bool{false, true} {
		bubble.Test(t, func(t *testing.T) {
			store := newStore()
			r := start(t, options(), waltest.New(), store)
			store.setFail(func(string) (error, error) { return nil, errStore })
			first := r.events(1, 10)
			if _, err := r.Append(t.Context(), first, withBlobs(&first[0], 0, 1), pipeline.Disk); err != nil {
				t.Fatal(err)
			}
			events := r.events(2, 10)
			blobs := append(withBlobs(&events[0], 0, 2), withBlobs(&events[1], 1, 1)...)
			write := blobs[0].Write
			blobs[0].Write = func(w io.Writer) error {
				r.fs.Fail(func(op, path string) error {
					if op == "write" && !strings.HasSuffix(path, blobSuffix) {
						return waltest.ErrFault
					}
					return nil
				})
				return write(w)
			}
			if _, err := r.Append(t.Context(), events, blobs, pipeline.Memory); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second / 2)
			store.setFail(func(string) (error, error) { return nil, errStore })
			r.fs.Fail(nil)
			time.Sleep(2 * probeWait)
			slow := func(key string) (error, error) {
				if pipeline.IsBlobKey(key) {
					return nil, errStore
				}
				return nil, nil
			}
			if kill {
				fs := r.fs.Kill()
				r.stop()
				store.setFail(slow)
				r = start(t, options(), fs, store)
			} else {
				store.setFail(slow)
			}
			time.Sleep(10 * time.Second)
			early := store.keys()
			store.setFail(nil)
			r.mustStop()
			store.want(t, 3)
			if len(store.broken) > 0 || len(early) > 0 {
				t.Errorf("kill %v: stored before the blobs: %v; broken references: %v", kill, early, store.broken)
			}
		})
	}
}

// Blobs whose segment was set aside wait for it: an operator may make it readable.
func TestBlobsOfUnreadableSegment(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		fs, store := waltest.New(), newStore()
		r := start(t, options(), fs, store)
		events := r.events(2, 10)
		if _, err := r.Append(t.Context(), events, withBlobs(&events[1], 1, 2), pipeline.Disk); err != nil {
			t.Fatal(err)
		}
		after := fs.Kill()
		r.stop()
		after.Fail(func(op, path string) error {
			if op == "open" && strings.HasSuffix(path, ".wal") {
				return errors.New("input/output error")
			}
			return nil
		})
		start(t, options(), after, store).stop()
		after.Fail(nil)
		names, _ := after.ReadDir("/wal")
		for _, name := range names {
			if readable, ok := strings.CutSuffix(name, ".unreadable"); ok {
				after.Rename("/wal/"+name, "/wal/"+readable)
			}
		}
		start(t, options(), after, store).mustStop()
		store.want(t, 2)
		if len(store.broken) > 0 {
			t.Errorf("broken references: %v", store.broken)
		}
	})
}

// An event whose blob is lost on disk is stored all the same, and that is reported.
func TestBlobsAreLost(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		opts, reported := options(), ""
		opts.Failed = func(f pipeline.Failure) { reported += f.Code }
		r := start(t, opts, waltest.New(), newStore())
		for range 2 {
			events := r.events(1, 10)
			if _, err := r.Append(t.Context(), events, withBlobs(&events[0], 0, 1), pipeline.Disk); err != nil {
				t.Fatal(err)
			}
		}
		names, _ := r.fs.ReadDir("/wal")
		for _, name := range names {
			if data, _ := r.fs.Get("/wal/" + name); strings.HasSuffix(name, blobSuffix) {
				r.fs.Put("/wal/"+name, data[:len(data)-1]) // of the second
			}
		}
		r.mustStop()
		r.store.want(t, 2)
		if len(r.store.broken) != 1 || r.store.broken[2] == nil || reported != "damaged_blobs" {
			t.Errorf("broken references: %v, reported %q; want the second's", r.store.broken, reported)
		}
	})
}

// Where the key of a batch's blobs has other bytes, they go under another key.
func TestBlobsConflict(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := start(t, options(), waltest.New(), newStore())
		events := r.events(2, 10)
		blobs := append(withBlobs(&events[0], 0, 2), withBlobs(&events[1], 1, 1)...)
		if _, err := r.Append(t.Context(), events, blobs, pipeline.Disk); err != nil {
			t.Fatal(err)
		}
		key, err := pipeline.ParseKey(r.object())
		if err != nil {
			t.Fatal(err)
		}
		r.store.put(pipeline.BlobKey(key), pipeline.Meta{SHA256: strings.Repeat("0", 64)})
		r.mustStop()
		r.store.want(t, 2)
		if len(r.store.broken) > 0 {
			t.Errorf("broken references: %v", r.store.broken)
		}
		if keys := r.store.keys(); len(keys) != 2 || !pipeline.IsBlobKey(keys[0]) {
			t.Errorf("stored %v", keys)
		}
	})
}
