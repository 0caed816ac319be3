package wal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/penstock/penstock/batcher/wal"
	"github.com/penstock/penstock/batcher/wal/waltest"
)

const dir = "/wal"

var header = wal.Header{Key: "events/dt=2026-11-22/hr=03/20261122T034512.345Z-game1-17.parquet",
	FirstSeq: 17, Time: 1795319112345}

type record struct {
	seq     uint64
	payload string
}

func (r record) frame() []byte { return wal.AppendRecord(nil, r.seq, []byte(r.payload)) }

func open(t testing.TB, fs wal.FS, dir string) *wal.Log {
	t.Helper()
	l, err := wal.Open(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// image is a segment's bytes, and where each record begins; the last entry is the end.
func image(records []record) (b []byte, at []int) {
	b = header.Append(nil)
	for _, r := range records {
		at = append(at, len(b))
		b = append(b, r.frame()...)
	}
	return b, append(at, len(b))
}

// recovery is the result of recovering a folder.
type recovery struct {
	got      []record
	segments []wal.Recovered
	reported int
}

func recoverDir(t testing.TB, l *wal.Log) recovery {
	t.Helper()
	var r recovery
	each := func(_ *wal.Segment, seq uint64, p []byte) error {
		r.got = append(r.got, record{seq, string(p)})
		return nil
	}
	segs, err := l.Recover(wal.Recovery{Each: each, Report: func(string, error) { r.reported++ }})
	if err != nil {
		t.Fatal(err)
	}
	r.segments = segs
	return r
}

// recoverBytes recovers a segment with the given content in a separate folder.
func recoverBytes(t testing.TB, b []byte) (recovery, *waltest.FS) {
	t.Helper()
	fs := waltest.New()
	fs.Put(dir+"/0000000000000001.wal", b)
	l := open(t, fs, dir)
	r := recoverDir(t, l)
	// The encoder must later read the same as the recovery.
	var read []record
	for _, s := range r.segments {
		read = append(read, readAll(t, s.Segment)...)
	}
	if !slices.Equal(read, r.got) {
		t.Errorf("read %v after recovering %v", read, r.got)
	}
	for _, s := range r.segments {
		if err := s.Release(100); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	return r, fs
}

// files are those of the folder with a suffix, sorted.
func files(fs wal.FS, suffix string) []string {
	names, _ := fs.ReadDir(dir)
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, suffix) })
}

func readAll(t testing.TB, s *wal.Segment) (all []record) {
	t.Helper()
	r, err := s.Reader()
	if err != nil {
		t.Fatal(err)
	}
	for {
		seq, p, err := r.Next()
		if errors.Is(err, io.EOF) {
			s.Close()
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, record{seq, string(p)})
	}
}

var three = []record{{17, "first payload"}, {20, strings.Repeat("second ", 30)}, {21, "th\x00\x00ird"}}

func TestWriteReadRelease(t *testing.T) {
	dir := t.TempDir()
	l := open(t, wal.OS{}, dir)
	s, err := l.Create(header)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Empty() {
		t.Error("a new segment is not empty")
	}
	for _, r := range three {
		if err := errors.Join(s.Write(r.frame()), s.Sync()); err != nil {
			t.Fatal(err)
		}
	}
	if got := readAll(t, s); !slices.Equal(got, three) {
		t.Errorf("got %v, want %v", got, three)
	}
	if err := s.Release(22); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(dir + "/*.wal"); len(left) > 0 {
		t.Errorf("%v is left after Release", left)
	}
	if l.Close(); len(recoverDir(t, open(t, wal.OS{}, dir)).segments) != 0 {
		t.Error("something is recovered after Release")
	}
}

// savedSeq is the seq that a folder whose files can be read has saved.
func savedSeq(t *testing.T, l *wal.Log) uint64 {
	t.Helper()
	seq, err := l.SavedSeq(func(path string, why error) { t.Errorf("%s: %v", path, why) })
	if err != nil {
		t.Error(err)
	}
	return seq
}

func TestSeqSurvives(t *testing.T) {
	fs := waltest.New()
	for i, c := range []struct{ release, want uint64 }{{0, 0}, {100, 100}, {50, 100}, {1 << 60, 1 << 60}} {
		l := open(t, fs, dir)
		if i > 0 {
			savedSeq(t, l)
		}
		s, err := l.Create(header)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Release(c.release); err != nil {
			t.Fatal(err)
		}
		l.Close()
		l = open(t, fs, dir)
		if got := savedSeq(t, l); got != c.want {
			t.Errorf("after Release(%d): got %d, want %d", c.release, got, c.want)
		}
		l.Close()
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir() // the real lock
	l := open(t, wal.OS{}, dir)
	if _, err := wal.Open(wal.OS{}, dir); !errors.Is(err, wal.ErrLocked) {
		t.Errorf("second Open: got %v, want ErrLocked", err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files { // a hand that tidies up must not let a second process in
		os.Remove(f)
	}
	if _, err := wal.Open(wal.OS{}, dir); !errors.Is(err, wal.ErrLocked) {
		t.Errorf("Open of the emptied folder: got %v, want ErrLocked", err)
	}
	l.Close()
	open(t, wal.OS{}, dir)
}

func TestNumbersGoOn(t *testing.T) {
	fs := waltest.New()
	fs.Put(dir+"/00000000000000ff.wal.corrupt", nil)
	s, err := open(t, fs, dir).Create(header)
	if err != nil || filepath.Base(s.Path()) != "0000000000000100.wal" {
		t.Errorf("got %v %v, want number 100 (hex)", s.Path(), err)
	}
}

// A crash cuts a segment anywhere: whole records stay, the torn one goes, and the file is no damaged one.
func TestCutAtEveryByte(t *testing.T) {
	b, at := image(three)
	for n := range len(b) + 1 {
		for _, zeros := range []int{0, 9, 5000} { // a file's length may get to the disk before its bytes
			cut := append(slices.Clone(b[:n]), make([]byte, zeros)...)
			var want []record
			for i, r := range three {
				if at[i+1] <= n {
					want = append(want, r)
				}
			}
			r, fs := recoverBytes(t, cut)
			if !slices.Equal(r.got, want) {
				t.Fatalf("cut at %d and %d zeros: got %v, want %v", n, zeros, r.got, want)
			}
			if left := append(files(fs, ".wal"), files(fs, ".corrupt")...); r.reported > 0 || len(left) > 0 {
				t.Fatalf("cut at %d and %d zeros: reported %d, left %v; want none", n, zeros, r.reported, left)
			}
			if len(r.segments) > 0 && r.segments[0].Header != header {
				t.Fatalf("cut at %d: header %v", n, r.segments[0].Header)
			}
		}
	}
}

// Damage costs the damaged record and no other, brings nothing that was not there, and the file is kept.
func TestFlipEveryBit(t *testing.T) {
	b, at := image(three)
	for i := range b {
		for bit := range 8 {
			if i >= at[0] && bit != i%8 && !inHeader(i, at) {
				continue
			}
			b[i] ^= 1 << bit
			r, fs := recoverBytes(t, b)
			b[i] ^= 1 << bit
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
			if len(r.segments) != 1 || r.segments[0].Header != header {
				t.Fatalf("bit %d of byte %d: %v", bit, i, r.segments)
			}
		}
	}
}

func inHeader(i int, at []int) bool {
	for _, a := range at {
		if i >= a && i < a+wal.RecordHeader {
			return true
		}
	}
	return false
}

func TestBothHeadersDamaged(t *testing.T) {
	b, at := image(three)
	size := at[0] / 2
	for i := range size {
		for _, j := range []int{0, 9, 13, 20, 40, size - 1} {
			bad := slices.Clone(b)
			bad[i] ^= 0x40
			bad[size+j] ^= 0x40
			r, fs := recoverBytes(t, bad)
			if len(r.segments) != 0 || len(r.got) != 0 || r.reported != 1 || len(files(fs, ".corrupt")) != 1 {
				t.Fatalf("bytes %d and %d: %+v, kept %v; want the file set aside", i, size+j, r, files(fs, ".corrupt"))
			}
			if kept, _ := fs.Get(dir + "/" + files(fs, ".corrupt")[0]); !bytes.Equal(kept, bad) {
				t.Fatal("the file set aside was changed")
			}
		}
	}
}

// A client may send what looks like a record. It must not become one when the record around it is damaged or torn.
func TestRecordWithinPayload(t *testing.T) {
	evil := record{99, "evil"}
	outer := record{17, "x" + string(evil.frame()) + strings.Repeat("y", 100)}
	b, at := image([]record{outer, three[1]})
	b[at[1]-1] ^= 1
	if r, _ := recoverBytes(t, b); !slices.Equal(r.got, three[1:2]) {
		t.Errorf("damaged: got %v, want the second record", r.got)
	}
	if r, _ := recoverBytes(t, b[:at[1]-5]); len(r.got) != 0 {
		t.Errorf("torn: got %v, want nothing", r.got)
	}
}

// Records larger than the scanner's window.
func TestLargeRecords(t *testing.T) {
	big := []record{{1, strings.Repeat("a", wal.ScanWindow-10)}, {2, strings.Repeat("PSr\n", wal.ScanWindow)}, {3, "end"}}
	b, at := image(big)
	if r, _ := recoverBytes(t, b); !slices.Equal(r.got, big) {
		t.Error("large records are not read back")
	}
	b[at[1]+wal.RecordHeader+5] ^= 1
	if r, _ := recoverBytes(t, b); !slices.Equal(r.got, []record{big[0], big[2]}) {
		t.Error("payload damaged: want the first and the third")
	}
	b[at[1]+9] ^= 1
	if r, _ := recoverBytes(t, b); !slices.Equal(r.got, []record{big[0], big[2]}) {
		t.Error("header damaged: want the first and the third")
	}
}

// Each fault happens once. Afterwards synced records are replayed, and rejected ones are not.
func TestFaults(t *testing.T) {
	for _, op := range []string{"write", "sync", "truncate", "syncdir", "open", "remove", "rename", "read"} {
		for at, last := 1, false; !last; at++ {
			for _, short := range []int{0, 1, 30, 60} {
				fs := waltest.New()
				fs.FailAt(op, at, short)
				synced, refused := session(t, fs)
				last = fs.Count(op) < at
				power := fs.PowerLoss(rand.New(rand.NewPCG(uint64(at), 1)))
				for name, after := range map[string]*waltest.FS{"kill": fs.Kill(), "power loss": power} {
					l := open(t, after, dir)
					r := recoverDir(t, l)
					l.Close()
					for _, s := range synced {
						if !slices.Contains(r.got, s) {
							t.Errorf("%s %d, %s: %v was synced and is gone", op, at, name, s)
						}
					}
					for _, s := range refused {
						// Power may fail between a failed fsync and the cut that follows it.
						if slices.Contains(r.got, s) && name == "kill" {
							t.Errorf("%s %d, %s: %v was refused and is back", op, at, name, s)
						}
					}
				}
			}
		}
	}
}

// session writes like the batcher. It returns the records that are durable and not released, and those that were
// rejected.
func session(t *testing.T, fs *waltest.FS) (synced, refused []record) {
	t.Helper()
	l, err := wal.Open(fs, dir)
	if err != nil {
		return nil, nil
	}
	defer l.Close()
	seq := uint64(1)
	for n := range 3 {
		s, err := l.Create(header)
		if err != nil {
			continue
		}
		var mine []record
		for i := range 4 {
			r := record{seq, fmt.Sprintf("payload %d of seq %d, long enough", i, seq)}
			seq++
			start := s.Size()
			err := s.Write(r.frame())
			if err == nil {
				if err = s.Sync(); err != nil {
					err = errors.Join(err, s.Truncate(start))
				}
			}
			if err != nil {
				refused = append(refused, r)
				break
			}
			mine = append(mine, r)
		}
		s.Close()
		if _, err := s.Reader(); err == nil && fs.Count("read") > 0 {
			if got := readAll(t, s); !slices.Equal(got, mine) {
				t.Errorf("read %v, want %v", got, mine)
			}
		}
		if n%2 == 0 {
			synced = append(synced, mine...)
		} else if s.Release(seq) != nil {
			if err := s.Release(seq); err != nil {
				t.Errorf("second Release: %v", err)
			}
		}
	}
	return synced, refused
}

// ENOSPC after each number of bytes: synced records stay, and a release still works and frees space.
func TestNoSpace(t *testing.T) {
	b, at := saltedImage(three, 1)
	for room := range int64(len(b) + 40) {
		fs := waltest.New()
		fs.SetRoom(room)
		l := open(t, fs, dir)
		s, err := l.Create(header)
		if err != nil {
			if left := files(fs, ".wal"); len(left) > 0 || room >= int64(at[0]+wal.EndSize) {
				t.Fatalf("room %d: %v, %v is left", room, err, left)
			}
			continue
		}
		var want []record
		for _, r := range three {
			if s.Write(r.frame()) != nil {
				break
			}
			if err := s.Sync(); err != nil {
				t.Fatal(err)
			}
			want = append(want, r)
		}
		if got := readAll(t, s); !slices.Equal(got, want) {
			t.Fatalf("room %d: got %v, want %v", room, got, want)
		}
		fs.SetRoom(0) // others fill the disk
		if err := s.Release(1000); len(want) > 0 && (err != nil || len(files(fs, ".wal")) > 0) {
			t.Errorf("room %d: %v, %v is left", room, err, files(fs, ".wal"))
		}
		if seq := savedSeq(t, l); len(want) > 0 && seq != 1000 {
			t.Errorf("room %d: saved %d, want 1000", room, seq)
		}
	}
}

// FuzzReader: no panic, memory bounded by the file, and no record that is not in the bytes.
func FuzzReader(f *testing.F) {
	b, at := image(three)
	f.Add(b, true)
	f.Add(b[at[0]:], false)
	f.Add(append(slices.Clone(b[:at[2]]), b[at[1]:]...), true)
	f.Add([]byte(wal.RecordMagic), false)
	f.Fuzz(func(t *testing.T, b []byte, whole bool) {
		if !whole {
			b = append(header.Append(nil), b...)
		}
		fs := waltest.New()
		fs.Put(dir+"/0000000000000001.wal", b)
		l := open(t, fs, dir)
		defer l.Close()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := recoverDir(t, l)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20+20*uint64(len(b)) {
			t.Errorf("%d bytes allocated for %d", used, len(b))
		}
		rest := b
		for _, rec := range r.got {
			i := bytes.Index(rest, rec.frame())
			if i < 0 {
				t.Fatalf("record %q is not in the bytes, or not in this order", rec.payload)
			}
			rest = rest[i+1:]
		}
		for _, s := range r.segments {
			if got := readAll(t, s.Segment); !slices.Equal(got, r.got) {
				t.Errorf("read %v after recovering %v", got, r.got)
			}
		}
		// A second recovery finds the same: a cut tail stays cut.
		if again := recoverDir(t, l); !slices.Equal(again.got, r.got) {
			t.Errorf("recovered %v, then %v", r.got, again.got)
		}
	})
}

// BenchmarkAppendRecord frames the events of a request with 100 events.
func BenchmarkAppendRecord(b *testing.B) {
	payload := make([]byte, 36<<10)
	dst := wal.AppendRecord(nil, 1, payload)
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		dst = wal.AppendRecord(dst[:0], 1, payload)
	}
}

// The least cost of a request that waits for the disk, at 580 a second (a billion events a day, 20 at a time), with
// idle time in between. It is this process's CPU, not wall time. The sleep sets the rate.
func BenchmarkPacedSync(b *testing.B) {
	l := open(b, wal.OS{}, b.TempDir())
	s, err := l.Create(header)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	rec := wal.AppendRecord(nil, 1, make([]byte, 9000))
	for _, sync := range []bool{false, true} {
		b.Run(fmt.Sprintf("sync=%t", sync), func(b *testing.B) {
			begun, start := cpuTime(b), time.Now()
			for i := range b.N {
				time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / 580)))
				if err := s.Write(rec); err != nil {
					b.Fatal(err)
				}
				if sync {
					if err := s.Sync(); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64((cpuTime(b)-begun).Microseconds())/float64(b.N), "cpu-us/op")
		})
	}
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
