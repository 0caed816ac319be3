package wal_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/penstock/penstock/batcher/wal"
	"github.com/penstock/penstock/batcher/wal/waltest"
)

// saltedImage is a segment's bytes as they are written now, with the end mark. at is where each record begins; the last
// entry is the mark.
func saltedImage(records []record, salt uint64) (b []byte, at []int) {
	b = header.Salted(salt).Append(nil)
	for _, r := range records {
		at = append(at, len(b))
		frame := r.frame()
		wal.AddSalt(frame, salt)
		b = append(b, frame...)
	}
	return wal.AppendEnd(b, int64(len(b)), salt), append(at, len(b))
}

// staleBytes are earlier contents of a file: another segment's records, records without a salt, which a client may have
// sent, and end marks.
func staleBytes(size int) []byte {
	var b []byte
	for i := 0; len(b) < size; i++ {
		old := record{uint64(1000 + i), strings.Repeat("stale", i%9)}.frame()
		if i%3 > 0 {
			wal.AddSalt(old, 7)
		}
		b = append(b, old...)
		if i%4 == 0 {
			b = wal.AppendEnd(b, int64(len(b)), 7)
		}
	}
	return b[:size]
}

// over is a file that was used before, with new bytes at its begin.
func over(old, b []byte) []byte { return append(slices.Clone(b), old[min(len(b), len(old)):]...) }

const salt = 0x1234567890abcdef

// A process that is killed leaves each write cut anywhere, over an older file that is longer, shorter or empty. Whole
// records stay, the torn one goes, nothing stale comes back, and no file is set aside.
func TestReusedFileCutAtEveryByte(t *testing.T) {
	whole, at := saltedImage(three, salt)
	for _, old := range [][]byte{nil, staleBytes(at[1] + 30), staleBytes(2 * len(whole))} {
		for i := range three {
			before, _ := saltedImage(three[:i], salt)
			upTo, _ := saltedImage(three[:i+1], salt) // one record a write
			file := over(old, before)
			for n := at[i]; n <= len(upTo); n++ {
				want := three[:i]
				if n >= at[i+1] {
					want = three[:i+1]
				}
				r, fs := recoverBytes(t, over(file, upTo[:n]))
				if !slices.Equal(r.got, want) {
					t.Fatalf("%d bytes before, cut at %d: got %v, want %v", len(old), n, r.got, want)
				}
				if left := append(files(fs, ".wal"), files(fs, ".corrupt")...); r.reported > 0 || len(left) > 0 {
					t.Fatalf("%d bytes before, cut at %d: reported %d, left %v; want none", len(old), n, r.reported, left)
				}
			}
		}
	}
}

// Several records in one write: as far as they are whole they stay.
func TestReusedFileCutWithinAWrite(t *testing.T) {
	whole, at := saltedImage(three, salt)
	old := staleBytes(2 * len(whole))
	before, _ := saltedImage(nil, salt)
	for n := at[0]; n <= len(whole); n++ {
		var want []record
		for i, r := range three {
			if at[i+1] <= n {
				want = append(want, r)
			}
		}
		r, _ := recoverBytes(t, over(over(old, before), whole[:n]))
		if !slices.Equal(r.got, want) || r.reported > 0 {
			t.Fatalf("cut at %d: got %v and %d reports, want %v", n, r.got, r.reported, want)
		}
	}
}

// Damage costs the damaged record and no other, and the file is kept: whether stale bytes are behind it or not.
func TestReusedFileFlipEveryBit(t *testing.T) {
	b, at := saltedImage(three, salt)
	for _, old := range [][]byte{nil, staleBytes(2 * len(b))} {
		for i := range b {
			for bit := range 8 {
				if i >= at[0] && bit != i%8 && !inHeader(i, at) {
					continue
				}
				bad := over(old, b)
				bad[i] ^= 1 << bit
				r, fs := recoverBytes(t, bad)
				var want []record
				for j, rec := range three {
					if i < at[j] || i >= at[j+1] {
						want = append(want, rec)
					}
				}
				if !slices.Equal(r.got, want) {
					t.Fatalf("bit %d of byte %d: got %v, want %v", bit, i, r.got, want)
				}
				kept := len(files(fs, ".corrupt"))
				if wantKept := min(1, len(three)-len(want)); kept != wantKept || r.reported != wantKept {
					t.Fatalf("bit %d of byte %d: %d files kept, %d reported, want %d", bit, i, kept, r.reported, wantKept)
				}
			}
		}
	}
}

// Without the salt, records of the file's last use would be read behind a damaged one.
func TestStaleRecordsStayDead(t *testing.T) {
	b, _ := saltedImage(three, salt)
	for _, other := range []uint64{salt ^ 1, salt ^ 1<<63, 1, 0} {
		old, _ := saltedImage([]record{{1, strings.Repeat("x", len(b))}, {2, "stale"}, {3, "stale"}}, other)
		if r, _ := recoverBytes(t, over(old, b)); !slices.Equal(r.got, three) || r.reported > 0 {
			t.Errorf("salt %x before: got %v and %d reports, want %v", other, r.got, r.reported, three)
		}
	}
}

// A released segment's file is the next one's, whose records are read back; nothing of the first one is.
func TestReleasedFileIsUsedAgain(t *testing.T) {
	dir := t.TempDir()
	l := open(t, wal.OS{}, dir)
	var before os.FileInfo
	for n := range 5 {
		s, err := l.Create(header)
		if err != nil {
			t.Fatal(err)
		}
		stat, err := os.Stat(s.Path())
		if err != nil {
			t.Fatal(err)
		}
		if before != nil && !os.SameFile(before, stat) {
			t.Errorf("segment %d has another file", n)
		}
		before = stat
		var want []record
		for i := range []int{20, 3, 40, 1, 7}[n] {
			r := record{uint64(100*n + i), fmt.Sprintf("segment %d, record %d", n, i)}
			want = append(want, r)
			if err := errors.Join(s.Write(r.frame()), s.Sync()); err != nil {
				t.Fatal(err)
			}
		}
		if got := readAll(t, s); !slices.Equal(got, want) {
			t.Errorf("segment %d: got %v, want %v", n, got, want)
		}
		b, err := os.ReadFile(s.Path())
		if err != nil {
			t.Fatal(err)
		}
		if r, _ := recoverBytes(t, b); !slices.Equal(r.got, want) || r.reported > 0 {
			t.Errorf("segment %d recovered: %v and %d reports, want %v", n, r.got, r.reported, want)
		}
		if _, err := s.Reader(); err != nil {
			t.Fatal(err)
		}
		if err := s.Finish(); err != nil {
			t.Fatal(err)
		}
		if stat, _ := os.Stat(s.Path()); stat.Size() != s.Size()+wal.EndSize {
			t.Errorf("segment %d: a file of %d bytes for %d when it is finished", n, stat.Size(), s.Size())
		}
		if err := s.Release(1000); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := filepath.Glob(dir + "/*.wal*"); len(got) != 1 || !strings.HasSuffix(got[0], ".wal.free") {
		t.Errorf("%v is in the folder, want one spare file", got)
	}
	l.Close()
	if got, _ := filepath.Glob(dir + "/*.wal*"); len(got) > 0 {
		t.Errorf("%v is in the folder after Close", got)
	}
}

// A released segment never comes back, wherever a process or a machine dies while its file is used again.
func TestReleasedSegmentIsGone(t *testing.T) {
	for _, op := range []string{"write", "sync", "truncate", "syncdir", "open", "remove", "rename"} {
		for at, last := 1, false; !last; at++ {
			for seed := range uint64(4) {
				fs := waltest.New()
				l := open(t, fs, dir)
				var died *waltest.FS
				die := func(power bool) {
					if power {
						died = fs.PowerLoss(rand.New(rand.NewPCG(uint64(at), seed)))
					} else {
						died = fs.Kill()
					}
				}
				released := false
				last = !reuse(t, fs, l, op, at, &released)
				die(seed > 0)
				r := recoverDir(t, open(t, died, dir))
				for _, rec := range r.got {
					if released && strings.HasPrefix(rec.payload, "first") {
						t.Errorf("%s %d, seed %d: %v is back", op, at, seed, rec)
					}
				}
				if r.reported > 0 {
					t.Errorf("%s %d, seed %d: %d files set aside", op, at, seed, r.reported)
				}
			}
		}
	}
}

// reuse writes a segment, releases it and begins the next one. It reports whether the n-th operation was reached.
func reuse(t *testing.T, fs *waltest.FS, l *wal.Log, op string, at int, released *bool) bool {
	t.Helper()
	fs.FailAt(op, at, 0)
	first, err := l.Create(header)
	if err != nil {
		return true
	}
	for i := range 3 {
		if err := first.Write(record{uint64(i), fmt.Sprint("first ", i)}.frame()); err != nil {
			return true
		}
	}
	if first.Finish() != nil || first.Release(100) != nil {
		return true
	}
	*released = true
	second, err := l.Create(header)
	if err != nil {
		return true
	}
	failed := second.Write(record{200, "second"}.frame()) != nil || second.Sync() != nil
	return failed || fs.Count(op) >= at
}

// Spare files are bounded, and are deleted if the disk is full.
func TestSparesAreBounded(t *testing.T) {
	fs := waltest.New()
	l := open(t, fs, dir)
	var all []*wal.Segment
	for range 5 {
		s, err := l.Create(header)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Write(three[0].frame()), s.Finish()); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	for _, s := range all {
		if err := s.Release(100); err != nil {
			t.Fatal(err)
		}
	}
	if got := files(fs, ".free"); len(got) != 2 {
		t.Errorf("%v are spare, want two", got)
	}
	fs.Fail(nil)
	s, err := l.Create(header)
	if err != nil {
		t.Fatal(err)
	}
	fs.SetRoom(10)
	if err := s.Write(bytes.Repeat(three[1].frame(), 5)); err == nil {
		t.Error("a write beyond the room succeeds")
	}
	if got := files(fs, ".free"); len(got) > 0 {
		t.Errorf("%v are spare on a full disk", got)
	}
	// An earlier process's spare files are not used, because their contents are unknown.
	fs.SetRoom(-1)
	fs.Put(dir+"/00000000000000ff.wal.free", []byte(wal.FreeMagic))
	l.Close()
	open(t, fs, dir)
	if got := files(fs, ".free"); len(got) > 0 {
		t.Errorf("%v are left after Open", got)
	}
}
