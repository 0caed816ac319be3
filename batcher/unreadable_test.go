package batcher

import (
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock/penstock/batcher/wal/waltest"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/bubble"
)

// A file of blobs that cannot be opened keeps no other event from its object. The events that refer to it wait in their
// segment, since their rows would name blobs that do not exist, and are stored once the file can be read.
func TestUnreadableBlobs(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		fs, store := waltest.New(), newStore()
		store.setFail(func(string) (error, error) { return syscall.ECONNREFUSED, syscall.ECONNREFUSED })
		r := start(t, options(), fs, store)
		events := r.events(2, 10)
		if _, err := r.Append(t.Context(), events, withBlobs(&events[1], 1, 2), pipeline.Disk); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute) // its batch is sealed
		r.must(pipeline.Disk, 1)
		after := fs.Kill()
		r.stop()
		store.setFail(nil)
		after.Fail(func(op, path string) error {
			if op == "open" && strings.HasSuffix(path, blobSuffix) {
				return syscall.EIO
			}
			return nil
		})
		again := start(t, options(), after, store)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := store.ids(t); len(got) != 1 || got[0] != 3 {
			t.Errorf("stored events %v while the blobs cannot be read, want 3 alone", got)
		}
		if !again.logs.has("blobs cannot be read") {
			t.Error("nothing is logged of the blobs")
		}
		after.Fail(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		store.want(t, 3)
		if len(store.broken) > 0 {
			t.Errorf("broken references: %v", store.broken)
		}
		again.mustStop()
	})
}

// A segment that cannot be opened keeps no other from being replayed. It stays, and is counted at every start.
func TestUnreadableSegment(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		fs, store := waltest.New(), newStore()
		store.setFail(func(string) (error, error) { return syscall.ECONNREFUSED, syscall.ECONNREFUSED })
		r := start(t, options(), fs, store)
		r.must(pipeline.Disk, 1)
		time.Sleep(2 * time.Minute)
		r.must(pipeline.Disk, 1)
		after := fs.Kill()
		r.stop()
		store.setFail(nil)
		bad := "/wal/0000000000000001.wal"
		after.Fail(func(op, path string) error {
			if op == "open" && path == bad {
				return syscall.EACCES
			}
			return nil
		})
		opts, reported := options(), ""
		opts.Failed = func(f pipeline.Failure) { reported += f.Code }
		for range 2 {
			again := start(t, opts, after, store)
			synctest.Wait()
			if got := store.ids(t); len(got) != 1 || got[0] != 2 {
				t.Errorf("stored events %v, want 2 alone", got)
			}
			if s := again.Stats(); s.SetAside != 1 {
				t.Errorf("stats %+v, want one segment set aside", s)
			}
			if err := again.Ready(); err != nil {
				t.Errorf("not ready: %v", err)
			}
			again.mustStop()
		}
		if reported != "damaged_segment" {
			t.Errorf("reported %q", reported)
		}
		if _, ok := after.Get(bad + ".unreadable"); !ok {
			t.Error("the segment is not kept")
		}
	})
}
