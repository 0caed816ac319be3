package foreign

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/s2"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/pipeline"
)

// The mapping with the longest prefix counts.
func TestMappingOfAKey(t *testing.T) {
	all := Mappings{{Prefix: "events/a/", Project: "a"}, {Prefix: "events/a/b/", Project: "b"}, {Prefix: "events/c"}}
	for key, want := range map[string]*Mapping{"events/a/x": &all[0], "events/a/b/x": &all[1], "events/a/bx": &all[0],
		"events/cx": &all[2], "events/x": nil, "": nil} {
		if got := all.Of(key); got != want {
			t.Errorf("%s: got %+v, want %+v", key, got, want)
		}
	}
}

func TestProfile(t *testing.T) {
	m, err := Profile("mixpanel", Mapping{Prefix: "events/m/", Name: []string{"own"}, Rows: "rows"})
	if err != nil {
		t.Fatal(err)
	}
	want := profiles["mixpanel"]
	want.Prefix, want.Name, want.Rows = "events/m/", []string{"own"}, "rows"
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := Profile("heap", Mapping{}); err == nil || !strings.Contains(err.Error(), `no profile "heap"`) {
		t.Errorf("got %v", err)
	}
	if m, err := Profile("litellm", Mapping{}); err != nil || !m.Keep {
		t.Errorf("litellm keeps members: %v, %v", m.Keep, err)
	}
}

// A path goes through objects, documents in texts, and arrays of keys and values.
func TestPaths(t *testing.T) {
	for _, tt := range []struct{ row, path, want string }{
		{`{"a":{"b":{"c":"x"}}}`, "a.b.c", "x"},
		{`{"a.b.c":"whole","a":{"b":{"c":"x"}}}`, "a.b.c", "whole"},
		{`{"a":"{\"b\":{\"c\":\"in a text\"}}"}`, "a.b.c", "in a text"},
		{`{"a":" {\"b\":7}"}`, "a.b", "7"},
		{`{"a":"{\"b\":"}`, "a.b", ""},
		{`{"a":"text"}`, "a.b", ""},
		{`{"a":""}`, "a.b", ""},
		{`{"a":5}`, "a.b", ""},
		{`{"a":[{"key":"b","value":{"string_value":"x"}}]}`, "a.b", "x"},
		{`{"a":[{"key":"b","value":{"int_value":"17"}}]}`, "a.b", "17"},
		{`{"a":[{"key":"b","value":{"string_value":null,"int_value":null,"double_value":1.5}}]}`, "a.b", "1.5"},
		{`{"a":[{"key":"b","value":{"string_value":null}}]}`, "a.b", ""},
		{`{"a":[{"key":"b","value":{"own":"x"}}]}`, "a.b.own", "x"},
		{`{"a":[{"key":"other","value":"x"}]}`, "a.b", ""},
		{`{"a":[{"key":5,"value":"x"}]}`, "a.b", ""},
		{`{"a":[{"key":"b"}]}`, "a.b", ""},
		{`{"a":["b"]}`, "a.b", ""},
		{`{"a":{"$date":"2026"}}`, "a", "2026"},
		{`{"a":{"$numberLong":"5"}}`, "a", "5"},
		{`{"a":{"date":"2026"}}`, "a", ""},
		{`{}`, "=constant", "constant"},
		{`{"a":"x","b":"y"}`, "a + b", "1 x1 y"},
		{`{"a":"x"}`, "a + b", ""},
		{`{"b":"y"}`, "a + b", "0 1 y"},
	} {
		m := &Mapping{Prefix: "events/", UserID: []string{tt.path}, Name: []string{"=n"}}
		got, rejected, err := read([]byte(tt.row), "events/x.json", "", m)
		if err != nil || len(rejected) > 0 || len(got) != 1 || string(got[0].UserID) != tt.want {
			t.Errorf("%s of %s: %+v, %v, %v; want %q", tt.path, tt.row, got, rejected, err, tt.want)
		}
	}
}

const oneRow = `{"name":"a","user_id":"u"}` + "\n"

// packed compresses a text with a writer.
func packed(t *testing.T, text string, w func(io.Writer) io.WriteCloser) []byte {
	t.Helper()
	var b bytes.Buffer
	z := w(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Compression is found by the bytes. Without a magic number, the Content-Encoding or the name decides.
func TestCompressions(t *testing.T) {
	zip := func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }
	deflate := func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }
	br := func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) }
	snappy := func(w io.Writer) io.WriteCloser { return s2.NewWriter(w, s2.WriterSnappyCompat()) }
	gz := packed(t, oneRow, zip)
	for _, tt := range []struct {
		name, key, encoding string
		data                []byte
		code                string // of the error; empty: expect one event
		says                string
	}{
		{"plain", "a.json", "", []byte(oneRow), "", ""},
		{"gzip", "a.json", "", gz, "", ""},
		{"gzip within gzip", "a.json", "gzip", packed(t, string(gz), zip), "", ""},
		{"gzip, padded by zeros", "a.json", "", append(bytes.Clone(gz), make([]byte, 512)...), "", ""},
		{"two members of gzip", "a.json", "", append(bytes.Clone(gz), packed(t, "\n", zip)...), "", ""},
		{"gzip and more", "a.json", "", append(bytes.Clone(gz), "more"...), "?", "something that is no gzip"},
		{"gzip that is cut off", "a.json", "", gz[:len(gz)-6], "?", "unexpected EOF"},
		{"gzip's mark alone", "a.json", "", gz[:3], "?", "decompress gzip"},
		{"snappy", "a.json", "", packed(t, oneRow, snappy), "", ""},
		{"deflate", "a.json", "Deflate", packed(t, oneRow, deflate), "", ""},
		{"text that was decompressed on the way", "a.json", "deflate", []byte(oneRow), "", ""},
		{"deflate of another making", "a.json", "deflate", []byte("\x00\x01\x02\x03"), "?", "decompress deflate"},
		{"brotli by its head", "a.json", "br", packed(t, oneRow, br), "", ""},
		{"brotli by its name", "a.json.br", "", packed(t, oneRow, br), "", ""},
		{"xz", "a.json", "", []byte("\xfd7zXZ\x00rest"), "unsupported_compression", "compressed by xz"},
		{"lz4", "a.json", "", []byte("\x04\x22\x4d\x18rest"), "unsupported_compression", "compressed by lz4"},
		{"zip", "a.json", "", []byte("PK\x03\x04rest"), "unsupported_compression", "compressed by zip"},
		{"parquet within gzip", "a.parquet.gz", "", packed(t, "PAR1\x00\x01rest", zip), "unsupported_compression",
			"Parquet within gzip"},
		{"binary", "a.bin", "", []byte("\x00\x01\x02"), "unknown_format", "it is binary"},
		{"a text of no kind", "a.txt", "", []byte("hello"), "unknown_format", `it begins with "hello"`},
		{"UTF-16", "a.json", "", []byte("\xff\xfe{\x00\"\x00n\x00a\x00m\x00e\x00\"\x00:\x00\"\x00a\x00\"\x00}\x00"), "", ""},
	} {
		f := File{Data: bytes.NewReader(tt.data), Size: int64(len(tt.data)), Key: "events/" + tt.key, Encoding: tt.encoding}
		var events []pipeline.Event
		format, err := Detect(f)
		if err == nil {
			var d codec.Decoder
			if d, err = NewDecoder(f, format, Options{Key: f.Key}); err == nil {
				for err == nil {
					events, err = d.Decode(events, codec.Limit{Rows: 10, Bytes: 1 << 20})
				}
				if errors.Is(err, io.EOF) {
					err = nil
				}
				d.Close()
			}
		}
		if tt.code == "" {
			if err != nil || len(events) != 1 || string(events[0].Name) != "a" {
				t.Errorf("%s: %+v, %v", tt.name, events, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.says)
		}
		if e, ok := errors.AsType[*pipeline.FileError](err); tt.code != "?" && (!ok || e.Code != tt.code || !e.Final) {
			t.Errorf("%s: %+v, want a final error with code %s", tt.name, err, tt.code)
		}
	}
}

func TestTSVEscapes(t *testing.T) {
	for text, want := range map[string]string{`a\tb`: "a\tb", `a\nb\r`: "a\nb\r", `\\N`: `\N`, `a\`: `a\`, `\x`: `\x`,
		`\\\\`: `\\`, `\`: `\`} {
		if got := string(unescape([]byte(text))); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// A row corrected by an operator becomes the same event that a decoder would make.
func TestEventOfARow(t *testing.T) {
	opts := Options{Key: "events/x.json", Modified: 1795319100000}
	got, err := Event([]byte("\n "+oneRow), 7, opts)
	if err != nil || got.Row != 7 || string(got.UserID) != "u" {
		t.Errorf("got %+v, %v", got, err)
	}
	if want := pipeline.UUIDv5(nil, []byte("events/x.json#7")); got.ID != want {
		t.Errorf("id %s, want %s: it follows from the row's place", got.ID, want)
	}
	for _, bad := range []string{"", "x", `{"name":"a"} x`, `{"timestamp":"soon"}`} {
		if e, err := Event([]byte(bad), 0, opts); err == nil {
			t.Errorf("%q becomes %+v", bad, e)
		}
	}
}
