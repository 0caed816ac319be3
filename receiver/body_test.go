package receiver

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/penstock/penstock/internal/testing/intake"
)

func compressed(w io.WriteCloser, to *bytes.Buffer, data []byte) []byte {
	w.Write(data)
	w.Close()
	return to.Bytes()
}

func gzipped(data []byte) []byte {
	var b bytes.Buffer
	return compressed(gzip.NewWriter(&b), &b, data)
}

func zlibbed(data []byte) []byte {
	var b bytes.Buffer
	return compressed(zlib.NewWriter(&b), &b, data)
}

func deflated(data []byte) []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, 6)
	return compressed(w, &b, data)
}

func zstded(data []byte) []byte {
	w, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	return w.EncodeAll(data, nil)
}

var encoders = []struct {
	name, encoding string
	encode         func([]byte) []byte
}{
	{"gzip", "gzip", gzipped}, {"x-gzip", "X-GZIP", gzipped}, {"zstd", "zstd", zstded},
	{"zlib", "deflate", zlibbed}, {"bare deflate", "deflate", deflated}, {"identity", "identity", bytes.Clone},
}

func TestEncodings(t *testing.T) {
	body := []byte(strings.Repeat(`{"name":"a","x":"`+strings.Repeat("y", 1000)+`"}`+"\n", 300))
	for _, c := range encoders {
		t.Run(c.name, func(t *testing.T) {
			r, s := newTest(nil)
			for i := range 3 { // decompressors are used again
				a := serve(t, r, withKey(intake.PostReader("/v1/events", bytes.NewReader(c.encode(body)), "Content-Encoding", c.encoding)))
				if a.Status != 202 || a.Accepted != 300 || len(s.Events) != 300*(i+1) {
					t.Fatalf("got %+v", a)
				}
			}
			if c.name == "identity" {
				return
			}
			whole := c.encode(body)
			corrupt := bytes.Clone(whole)
			for i := range 8 {
				corrupt[len(corrupt)/2+i] ^= 0x5a
			}
			for _, bad := range []struct {
				name string
				body []byte
			}{
				{"truncated", whole[:len(whole)/2]},
				{"truncated at its end", whole[:len(whole)-1]},
				{"truncated head", whole[:1]},
				{"corrupt", corrupt},
				{"not at all", []byte(one)},
				{"trailing", append(bytes.Clone(whole), "x"...)},
			} {
				before := len(s.Events)
				s.Failures = nil
				a := serve(t, r, withKey(intake.PostReader("/v1/events", bytes.NewReader(bad.body), "Content-Encoding", c.encoding)))
				if a.Status != 400 || a.Error.Code != "invalid_encoding" || len(s.Events) != before {
					t.Errorf("%s: got %d %s %s", bad.name, a.Status, a.Error.Code, a.Error.Message)
				}
				if len(s.Failures) != 1 || !bytes.Equal(s.Failures[0].Raw, bad.body) ||
					s.Failures[0].ContentEncoding != c.encoding {
					t.Errorf("%s: it is not kept as it was sent", bad.name)
				}
			}
			// The reader that failed is good for the next.
			if a := serve(t, r, withKey(intake.PostReader("/v1/events", bytes.NewReader(whole), "Content-Encoding",
				c.encoding))); a.Status != 202 {
				t.Errorf("afterwards: got %+v", a)
			}
			if a := serve(t, r, withKey(post("/v1/events", "", "Content-Encoding", c.encoding))); a.Status != 400 {
				t.Errorf("empty: got %+v", a)
			}
			if r.admission.Memory() != 0 {
				t.Errorf("%d bytes still charged", r.admission.Memory())
			}
		})
	}
}

func TestConcatenatedMembers(t *testing.T) {
	for _, c := range encoders[:3] {
		r, s := newTest(nil)
		body := append(c.encode([]byte(one)), c.encode([]byte(one))...)
		if a := serve(t, r, withKey(intake.PostReader("/v1/events", bytes.NewReader(body), "Content-Encoding",
			c.encoding))); a.Accepted != 2 || len(s.Events) != 2 {
			t.Errorf("%s: got %+v", c.name, a)
		}
	}
}

// 1 GB of zeros is rejected at the limit, and uses no more memory than that.
func TestDecompressionBomb(t *testing.T) {
	for _, c := range encoders[:5] {
		t.Run(c.name, func(t *testing.T) {
			bomb := bombs(c.encoding, c.name)
			r, s := newTest(nil)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			a := serve(t, r, withKey(intake.PostReader("/v1/events", bytes.NewReader(bomb), "Content-Encoding", c.encoding)))
			runtime.ReadMemStats(&after)
			if a.Status != 413 || a.Error.Code != "decoded_too_large" || !strings.Contains(a.Error.Message, "8388608") {
				t.Errorf("%d bytes: got %+v", len(bomb), a)
			}
			// Doubling to the limit of 8 MiB allocates twice that, zstd its window;
			// and the body is kept as it was sent, the failure's copy of it too.
			if took := after.TotalAlloc - before.TotalAlloc; took > 40<<20+4*uint64(len(bomb)) {
				t.Errorf("allocated %d bytes", took)
			}
			if len(s.Failures) != 1 || !bytes.Equal(s.Failures[0].Raw, bomb) || s.Failures[0].ContentEncoding != c.encoding {
				t.Error("it is not kept as it was sent")
			}
		})
	}
}

// bombs makes 1 GB of zeros, compressed, without compressing as much: 4 MB are
// sent 256 times where members may follow each other, else it is 16 MB.
func bombs(encoding, name string) []byte {
	zeros := make([]byte, 4<<20)
	var b bytes.Buffer
	switch {
	case encoding == "zstd":
		w, _ := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
		w.Write(zeros)
		w.Close()
		return bytes.Repeat(b.Bytes(), 256)
	case name == "zlib":
		w, _ := zlib.NewWriterLevel(&b, 1)
		return compressed(w, &b, bytes.Repeat(zeros, 4))
	case name == "bare deflate":
		w, _ := flate.NewWriter(&b, 1)
		return compressed(w, &b, bytes.Repeat(zeros, 4))
	}
	w, _ := gzip.NewWriterLevel(&b, 1)
	return bytes.Repeat(compressed(w, &b, zeros), 256)
}

func TestBodyAtItsLimits(t *testing.T) {
	const limit = 300 << 10
	for _, size := range []int{1, 511, 512, 513, 4095, 4096, 4097, 65535, 65536, 65537, limit - 1, limit, limit + 1,
		2 * limit} {
		for _, known := range []bool{true, false} {
			r, _ := newTest(func(o *Options) { o.MaxBody, o.MaxDecoded = limit, limit })
			for range 2 {
				var body io.Reader = strings.NewReader(one[:min(size, len(one)-1)] + strings.Repeat(" ", max(0, size-len(one))) +
					"}")
				if size < len(one) {
					body = strings.NewReader(strings.Repeat("1", size))
				}
				if !known {
					body = struct{ io.Reader }{body}
				}
				a := serve(t, r, withKey(intake.PostReader("/v1/events", body)))
				want := 202
				if size < len(one) {
					want = 400
				} else if size > limit {
					want = 413
				} else if size == 511 || size == 512 {
					want = 202
				}
				if a.Status != want {
					t.Errorf("%d bytes, known %v: got %d %s", size, known, a.Status, a.Codes())
				}
			}
			if r.admission.Memory() != 0 {
				t.Errorf("%d bytes still charged", r.admission.Memory())
			}
		}
	}
}

// A zstd frame's head of a few bytes asks for a window of megabytes: it counts.
func TestZstdWindowIsCharged(t *testing.T) {
	var b bytes.Buffer
	w, _ := zstd.NewWriter(&b, zstd.WithWindowSize(8<<20), zstd.WithEncoderConcurrency(1))
	w.Write(bytes.Repeat([]byte(one), 2000))
	w.Flush()
	w.Close()
	if got := zstdWindow(b.Bytes()); got < 8<<20 {
		t.Errorf("got %d", got)
	}
	if got := zstdWindow(zstded([]byte(one))); got > 1<<20 {
		t.Errorf("a small frame: got %d", got)
	}
}
