package foreign

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/pipeline"
)

// peakHeap returns how much the heap grows while f runs, in bytes.
func peakHeap(f func()) uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before := m.HeapAlloc
	var peak atomic.Uint64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak.Store(max(peak.Load(), m.HeapAlloc))
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	f()
	close(done)
	<-ended
	return peak.Load() - min(before, peak.Load())
}

// zipped compresses the parts one after the other.
func zipped(t *testing.T, compress func(io.Writer) io.WriteCloser, parts ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := compress(&b)
	for _, p := range parts {
		if _, err := io.WriteString(z, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asGzip(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }

// A few KB that expand to a row of 48 MB need only a few times the memory of the largest allowed row.
func TestBombsAreBounded(t *testing.T) {
	const maxRow = 1 << 20
	block := strings.Repeat("x", 1<<20)
	fill := func(head, tail string) []string {
		parts := []string{head}
		for range 48 {
			parts = append(parts, block)
		}
		return append(parts, tail)
	}
	commas := strings.Repeat(",", 2<<20)
	for name, c := range map[string]struct {
		key  string
		data []byte
		want string
	}{
		"json value":   {"events/a.ndjson.gz", zipped(t, asGzip, fill(`{"name":"`, `"}`)...), "longer than"},
		"json word":    {"events/a.ndjson.gz", zipped(t, asGzip, fill("{}\n", "\n")...), "longer than"},
		"csv quote":    {"events/a.csv.gz", zipped(t, asGzip, fill("name,a\nx,\"", "\"\n")...), "longer than"},
		"csv header":   {"events/a.csv.gz", zipped(t, asGzip, fill("name,", "\nx\n")...), "longer than"},
		"tsv line":     {"events/a.tsv.gz", zipped(t, asGzip, fill("name\ta\nx\t", "\n")...), "longer than"},
		"csv columns":  {"events/a.csv.gz", zipped(t, asGzip, commas, "\n", commas, "\n"), "columns"},
		"zstd in gzip": {"events/a.ndjson.gz", zipped(t, asGzip, string(zipped(t, wideZstd, `{"name":`, `"a"}`))), ""},
	} {
		t.Run(name, func(t *testing.T) {
			var events int
			var failed error
			grown := peakHeap(func() { events, failed = readAll(c.key, c.data, maxRow) })
			if c.want != "" && (failed == nil || !strings.Contains(failed.Error(), c.want)) {
				t.Errorf("%d events, error %v; want %q", events, failed, c.want)
			}
			if c.want == "" && (failed != nil || events != 1) {
				t.Errorf("%d events, error %v; want one", events, failed)
			}
			most := uint64(16 * maxRow)
			if name == "csv columns" {
				most = 128 * maxColumns
			}
			if grown > most {
				t.Errorf("the heap grew by %d bytes for a file of %d, want at most %d", grown, len(c.data), most)
			}
		})
	}
}

func wideZstd(w io.Writer) io.WriteCloser {
	z, err := zstd.NewWriter(w, zstd.WithWindowSize(innerWindow))
	if err != nil {
		panic(err)
	}
	return z
}

// A nested stream may not request the window of the outermost one.
func TestInnerWindowIsBounded(t *testing.T) {
	wide := func(w io.Writer) io.WriteCloser {
		z, err := zstd.NewWriter(w, zstd.WithWindowSize(4*innerWindow))
		if err != nil {
			t.Fatal(err)
		}
		return z
	}
	big := strings.Repeat("{}\n", 1<<20) // more than the encoder's buffer, so that the header has the window
	inner := zipped(t, wide, big, big, big, big, big, big, big, big, big, big, big, big)
	outer := zipped(t, func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z }, string(inner))
	if _, err := readAll("events/a.ndjson.zst", outer, 1<<20); err == nil || !strings.Contains(err.Error(), "window") {
		t.Errorf("error %v, want one that names the window", err)
	}
}

func readAll(key string, data []byte, maxRow int) (events int, err error) {
	f := File{Data: bytes.NewReader(data), Size: int64(len(data)), Key: key}
	format, err := Detect(f)
	if err != nil {
		return 0, err
	}
	d, err := NewDecoder(f, format, Options{Key: key, MaxRow: maxRow})
	if err != nil {
		return 0, err
	}
	defer d.Close()
	var got []pipeline.Event
	for {
		if got, err = d.Decode(got[:0], codec.Limit{Rows: 1000, Bytes: 1 << 20}); errors.Is(err, io.EOF) {
			return events, nil
		} else if err != nil {
			return events, err
		}
		events += len(got)
	}
}

// 346 bytes of zstd within zstd are 100 GiB of line ends. The decompressed size is bounded relative to the file's size
// and absolutely.
func TestDecompressionBombs(t *testing.T) {
	for _, tt := range []struct {
		file File
		want int64
	}{
		{File{Size: 346}, 1 << 30},
		{File{Size: 1 << 20}, 10_000 << 20},
		{File{Size: 1 << 40}, MaxText},
		{File{Size: 346, Text: 5 << 30}, 5 << 30},
	} {
		if got := tt.file.limit(); got != tt.want {
			t.Errorf("%d bytes: up to %d, want %d", tt.file.Size, got, tt.want)
		}
	}
	row := `{"name":"bomb"}` + "\n"
	text := row + strings.Repeat("\n", 4<<20)
	for _, bomb := range [][]byte{gz([]byte(text)), zst([]byte(text)), zst(zst([]byte(text))), gz(zst([]byte(text)))} {
		for _, limit := range []int64{int64(len(text)), int64(len(text)) - 1, 100} {
			events, err := decodeAll(t, File{Data: bytes.NewReader(bomb), Size: int64(len(bomb)), Key: "a.ndjson", Text: limit})
			file, _ := errors.AsType[*pipeline.FileError](err)
			if limit == int64(len(text)) {
				if err != nil || events != 1 {
					t.Errorf("up to %d bytes: %d events, %v", limit, events, err)
				}
			} else if file == nil || file.Code != "decompression_bomb" || !file.Final {
				t.Errorf("up to %d bytes: %v, want a decompression_bomb", limit, err)
			}
		}
	}
}

func decodeAll(t *testing.T, f File) (events int, err error) {
	t.Helper()
	dec, err := NewDecoder(f, JSON, Options{Key: f.Key})
	if err != nil {
		return 0, err
	}
	defer dec.Close()
	var got []pipeline.Event
	for {
		got, err = dec.Decode(got[:0], codec.Limit{Rows: 1000, Bytes: 1 << 20})
		events += len(got)
		if errors.Is(err, io.EOF) {
			return events, nil
		} else if err != nil {
			return events, err
		}
	}
}
