package show

import (
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestURL(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"nats://127.0.0.1:4222", "nats://127.0.0.1:4222"},
		{"", ""},
		{"nats://svc:S3cretPw@127.0.0.1:4", "nats://svc:[HIDDEN]@127.0.0.1:4"},
		{"nats://a:S3cretPw@h1:1,tls://b:S3cretPw@h2:2", "nats://a:[HIDDEN]@h1:1,tls://b:[HIDDEN]@h2:2"},
		{"nats://S3cretPw@h", "nats://[HIDDEN]@h"},
		{"https://k:S3cretPw@host/bucket?x=a@b", "https://k:[HIDDEN]@host/bucket?x=a@b"},
		{"https://host/p@th?x=a@b", "https://host/p@th?x=a@b"},
		{"nats://svc:S3cr/etPw@host:4", "nats://svc:[HIDDEN]@host:4"},
		{"nats://svc:S3%zzcretPw@host", "nats://svc:[HIDDEN]@host"},
		{"svc:S3cretPw@host:4222", "svc:[HIDDEN]@host:4222"},
	} {
		if got := URL(tt.in); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestHide(t *testing.T) {
	secret := `p'w/+&\x`
	for _, text := range []string{secret, `s3('u', 'k', 'p\'w/+&\\x')`, "password=p%27w%2F%2B%26%5Cx&a=1"} {
		if got := Hide("<"+text+">", secret, ""); strings.Contains(got, "w/") || strings.Contains(got, "w%2F") ||
			!strings.Contains(got, "[HIDDEN]") {
			t.Errorf("%s: got %s", text, got)
		}
	}
	if got := Hide("table a", "a"); got != "table a" {
		t.Errorf("a short secret: got %q", got)
	}
	err := HideIn(errors.Join(io.EOF, errors.New("with hunter2")), "hunter2")
	if !errors.Is(err, io.EOF) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestTerminal(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"plain, Grüße, 日本語 🙂\n\tx", "plain, Grüße, 日本語 🙂\n\tx"},
		{"a\x1b]0;PWNED\x07b", `a\x1b]0;PWNED\x07b`},
		{"a\u009b31m", `a\u009b31m`},
		{"a\u202eb\u2066c", `a\u202eb\u2066c`},
		{"a\rb\x7f\x00", `a\x0db\x7f\x00`},
		{"a\xffb\x9b", `a\xffb\x9b`},
		{"tag\U000e0041", `tag\U000e0041`},
		{"\u2028\u2029\ufeff", `\u2028\u2029\ufeff`},
	} {
		if got := Terminal(tt.in); got != tt.want {
			t.Errorf("%q: got %s, want %s", tt.in, got, tt.want)
		}
	}
}

// Quoted, however it is cut into writes, a text is the same.
func TestWriter(t *testing.T) {
	text := "é\u202e日🙂\x1b\xff\xe2\x82"
	for size := 1; size <= len(text); size++ {
		var out strings.Builder
		w := &Writer{To: &out}
		for at := 0; at < len(text); at += size {
			if n, err := w.Write([]byte(text[at:min(at+size, len(text))])); err != nil || n == 0 {
				t.Fatal(n, err)
			}
		}
		w.Close()
		if got := out.String(); got != Terminal(text) {
			t.Errorf("in pieces of %d: got %s, want %s", size, got, Terminal(text))
		}
	}
}

func FuzzTerminal(f *testing.F) {
	f.Add("a\x1b[31m\u009b\u202e\xc2")
	f.Fuzz(func(t *testing.T, text string) {
		got := Terminal(text)
		if !utf8.ValidString(got) || strings.ContainsAny(got, "\x1b\x07\r\x7f\u009b\u202e") || Terminal(got) != got {
			t.Errorf("%q: got %q", text, got)
		}
	})
}
