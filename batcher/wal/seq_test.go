package wal_test

import (
	"errors"
	"syscall"
	"testing"

	"github.com/penstock/penstock/batcher/wal"
	"github.com/penstock/penstock/batcher/wal/waltest"
)

// A seq file that cannot be read is set aside, and seqs go on far beyond all that were given.
func TestSeqIsLost(t *testing.T) {
	const next = 1_800_000_000_000_000 // by the clock
	for _, c := range []struct {
		name, text string
		open       error
		aside      string
	}{
		{"damaged", "12x", nil, ".corrupt"},
		{"empty", "", nil, ".corrupt"},
		{"not opened", "1700000000000000", syscall.EACCES, ".unreadable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := waltest.New()
			fs.Put(dir+"/"+wal.SeqName, []byte(c.text))
			fs.Fail(func(op, path string) error {
				if op == "open" && path == dir+"/"+wal.SeqName {
					return c.open
				}
				return nil
			})
			l := open(t, fs, dir)
			reported := ""
			saved, err := l.SavedSeq(func(path string, _ error) { reported += path })
			if saved != 0 || err != nil || reported != dir+"/"+wal.SeqName+c.aside {
				t.Errorf("got %d, %v, reported %q", saved, err, reported)
			}
			first := l.NextSeq(next)
			if first < next+1<<48 || first >= 1<<53 {
				t.Errorf("got %d, want one far beyond %d and below 2⁵³", first, uint64(next))
			}
			l.Close()
			fs.Fail(nil)
			l = open(t, fs, dir)
			if got := savedSeq(t, l); got != first || l.NextSeq(got) != first {
				t.Errorf("the next start has %d, want %d", got, first)
			}
			if kept, _ := fs.Get(dir + "/" + wal.SeqName + c.aside); string(kept) != c.text {
				t.Errorf("the file that was set aside has %q, want %q", kept, c.text)
			}
		})
	}
}

// A leap that could not be saved is made again by the next start.
func TestSeqIsLostOnAFullDisk(t *testing.T) {
	fs := waltest.New()
	fs.Put(dir+"/"+wal.SeqName, []byte("12x"))
	fs.SetRoom(0)
	for range 2 {
		l := open(t, fs, dir)
		if _, err := l.SavedSeq(func(string, error) {}); err != nil {
			t.Fatal(err)
		}
		if got := l.NextSeq(1000); got != 1000+1<<48 {
			t.Errorf("got %d", got)
		}
		l.Close()
	}
}

// Only a file that may be read a moment later keeps the log from its start.
func TestSeqIsBusy(t *testing.T) {
	fs := waltest.New()
	fs.Put(dir+"/"+wal.SeqName, []byte("1000"))
	fs.Fail(func(op, path string) error {
		if op == "open" {
			return syscall.EMFILE
		}
		return nil
	})
	if _, err := open(t, fs, dir).SavedSeq(func(string, error) {}); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("got %v", err)
	}
	if _, ok := fs.Get(dir + "/" + wal.SeqName); !ok {
		t.Error("the file is set aside")
	}
}
