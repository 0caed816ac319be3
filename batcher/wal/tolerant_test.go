package wal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/penstock/penstock/batcher/wal"
)

// badDisk is a real folder with a sector that cannot be read, in files whose names contain a word.
type badDisk struct {
	wal.OS
	word     string
	from, to int64
}

func (d badDisk) OpenFile(path string, flag int) (wal.File, error) {
	f, err := d.OS.OpenFile(path, flag)
	if err != nil || !strings.Contains(path, d.word) {
		return f, err
	}
	return badFile{f, d}, nil
}

type badFile struct {
	wal.File
	disk badDisk
}

func (f badFile) ReadAt(p []byte, off int64) (int, error) {
	if off < f.disk.to && off+int64(len(p)) > f.disk.from {
		n := 0
		if off < f.disk.from {
			n, _ = f.File.ReadAt(p[:f.disk.from-off], off)
		}
		return n, syscall.EIO
	}
	return f.File.ReadAt(p, off)
}

// segments fills a folder with three segments of 60 records of 300 bytes.
func segments(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	l := open(t, wal.OS{}, dir)
	defer l.Close()
	seq := uint64(1)
	for range 3 {
		h := header
		h.FirstSeq = seq
		s, err := l.Create(h)
		if err != nil {
			t.Fatal(err)
		}
		for range 60 {
			if err := s.Write(record{seq, fmt.Sprintf("%0300d", seq)}.frame()); err != nil {
				t.Fatal(err)
			}
			seq++
		}
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	return dir
}

// One bad sector costs the records in it. All others of its segment and of the other segments are recovered.
func TestBadSector(t *testing.T) {
	for _, from := range []int64{0, 4096, 8192, 16384} {
		t.Run(fmt.Sprint(from), func(t *testing.T) {
			dir := segments(t)
			disk := badDisk{word: "0000000000000002", from: from, to: from + 4096}
			l := open(t, disk, dir)
			seen := map[uint64]bool{}
			reported := ""
			each := func(_ *wal.Segment, seq uint64, payload []byte) error {
				if string(payload) != fmt.Sprintf("%0300d", seq) {
					t.Errorf("record %d is %q", seq, payload)
				}
				seen[seq] = true
				return nil
			}
			all, err := l.Recover(wal.Recovery{Each: each,
				Report: func(path string, why error) { reported += filepath.Base(path) + ": " + why.Error() }})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(reported, "0000000000000002.wal") || !strings.Contains(reported, "input/output error") {
				t.Errorf("reported %q", reported)
			}
			lost := 0
			for seq := uint64(1); seq <= 180; seq++ {
				if inside := seq > 60 && seq <= 120; !seen[seq] && !inside {
					t.Errorf("record %d of a sound segment is lost", seq)
				} else if !seen[seq] {
					lost++
				}
			}
			if from == 0 { // no header, so no key: nothing of it can be replayed
				if _, err := os.Stat(filepath.Join(dir, "0000000000000002.wal.unreadable")); err != nil || len(all) != 2 {
					t.Errorf("%d segments recovered, want 2; %v", len(all), err)
				}
				return
			}
			if lost < 1 || lost > 15 {
				t.Errorf("%d records lost, 4 KiB hold about 13", lost)
			}
			if len(all) != 3 || !all[1].Corrupt {
				t.Fatalf("%d segments recovered, want 3, the second as corrupt", len(all))
			}
			// The batcher reads it once more for the object: the same records.
			r, err := all[1].Reader()
			if err != nil {
				t.Fatal(err)
			}
			again := 0
			for {
				if _, _, err := r.Next(); err != nil {
					break
				}
				again++
			}
			if again != 60-lost || r.Damaged() == 0 {
				t.Errorf("a second reading found %d records, the first %d", again, 60-lost)
			}
			if err := all[1].Release(500); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(dir, "0000000000000002.wal.corrupt")); err != nil {
				t.Error(err)
			}
		})
	}
}

// A folder in a segment's place, as the finding had it, and a file that may not be opened.
func TestSegmentThatCannotBeOpened(t *testing.T) {
	dir := segments(t)
	bad := filepath.Join(dir, "0000000000000002.wal")
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(bad, 0o700); err != nil {
		t.Fatal(err)
	}
	l := open(t, wal.OS{}, dir)
	got := recoverDir(t, l)
	if len(got.segments) != 2 || len(got.got) != 120 || got.reported != 1 {
		t.Errorf("%d segments, %d records, %d reports; want 2, 120, 1", len(got.segments), len(got.got), got.reported)
	}
	if info, err := os.Stat(bad + ".unreadable"); err != nil || !info.IsDir() {
		t.Errorf("set aside: %v, %v", info, err)
	}
	if !wal.IsSetAside("0000000000000002.wal.unreadable") || !wal.IsSetAside("1.wal.corrupt") ||
		!wal.IsSetAside("SEQ.corrupt") || wal.IsSetAside("SEQ") || wal.IsSetAside("1.wal") || wal.IsSetAside("x.corrupt") {
		t.Error("IsSetAside")
	}
}

type noFiles struct{ wal.OS }

func (noFiles) OpenFile(path string, flag int) (wal.File, error) {
	if strings.HasSuffix(path, ".wal") {
		return nil, &os.PathError{Op: "open", Path: path, Err: syscall.EMFILE}
	}
	return wal.OS{}.OpenFile(path, flag)
}

// A process that has no file descriptor left must not set its whole log aside.
func TestNoFileDescriptors(t *testing.T) {
	dir := segments(t)
	l := open(t, noFiles{}, dir)
	report := func(path string, why error) { t.Errorf("set aside: %s, %v", path, why) }
	if _, err := l.Recover(wal.Recovery{Report: report}); err == nil {
		t.Error("recovered without opening a file")
	}
}
