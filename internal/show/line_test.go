package show

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/bubble"
)

// Elsewhere than on a terminal, progress is a line every ten seconds.
func TestLineInAFile(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := NewLine(&out)
		for i := range 25 {
			l.Show("%d of 25", i)
			time.Sleep(time.Second)
		}
		l.End()
		if got, want := out.String(), "10 of 25\n20 of 25\n"; got != want {
			t.Errorf("wrote %q, want %q", got, want)
		}
	})
}

func TestLineOnATerminal(t *testing.T) {
	var out bytes.Buffer
	l := &Line{to: &out, terminal: true}
	l.End()
	l.Show("%d", 1)
	l.Show("%d", 2)
	l.End()
	l.End()
	if got, want := out.String(), "\r\x1b[K1\r\x1b[K2\n"; got != want {
		t.Errorf("wrote %q, want %q", got, want)
	}
}

// A file is no terminal: what a program reads stays as it is.
func TestPlain(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, w := range []io.Writer{f, &bytes.Buffer{}} {
		if got := Plain(w); got != w {
			t.Errorf("%T becomes %T", w, got)
		}
	}
}

func TestAddress(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"http://host:9000", `"http://host:9000"`},
		{"https://k:S3cretPw@host/path", `"https://k:[HIDDEN]@host/path"`},
		{"https://host/hook?token=S3cretPw&a=b", `"https://host/hook?[HIDDEN]"`},
		{"https://host/#S3cretPw", `"https://host/"`},
		{"", `""`},
		{"a\x1b[31m", `"a\x1b[31m"`},
	} {
		if got := Address(tt.in); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestHideIn(t *testing.T) {
	if err := HideIn(nil, "hunter2"); err != nil {
		t.Errorf("no error becomes %v", err)
	}
	clean := errors.New("nothing in it")
	if got := HideIn(clean, "hunter2"); got != clean { //nolint:errorlint // it is the very error
		t.Errorf("got %v, want the error itself", got)
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int]string{0: "0 objects", 1: "1 object", 2: "2 objects", -1: "-1 objects"} {
		if got := Plural(n, "object"); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
	for thing, want := range map[string]string{"batch": "2 batches", "property": "2 properties", "entry": "2 entries", "key": "2 keys"} {
		if got := Plural(2, thing); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for _, tt := range []struct {
		n    int64
		want string
	}{
		{0, "0 B"}, {1, "1 B"}, {999, "999 B"}, {1000, "0.977 KiB"}, {1024, "1 KiB"}, {1536, "1.5 KiB"},
		{1 << 20, "1 MiB"}, {64 << 20, "64 MiB"}, {1 << 30, "1 GiB"}, {3 << 40, "3 TiB"}, {5000 << 40, "5e+03 TiB"},
	} {
		if got := Bytes(tt.n); got != tt.want {
			t.Errorf("%d: got %s, want %s", tt.n, got, tt.want)
		}
	}
}

// What cannot be written is an error.
func TestWriteError(t *testing.T) {
	full := errors.New("disk full")
	if n, err := (&Writer{To: failing{full}}).Write([]byte("x")); n != 0 || !errors.Is(err, full) {
		t.Errorf("got %d, %v, want 0, %v", n, err, full)
	}
}
