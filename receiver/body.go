package receiver

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

func refuse(status int, code, format string, args ...any) *refusal {
	return &refusal{status, code, fmt.Sprintf(format, args...)}
}

// What can be wrong with a body besides its encoding.
var (
	errMemory   = errors.New("memory limit")
	errBody     = errors.New("body limit")
	errDecoded  = errors.New("decoded limit")
	errTrailing = errors.New("something follows the compressed data")
)

// read brings the whole body, decompressed, into q.body.
func (r *Receiver) read(q *request, req *http.Request) *refusal {
	if req.ContentLength > r.opts.MaxBody {
		return r.tooLarge(errBody)
	}
	limited := &q.limited
	*limited = limitReader{r: req.Body, left: r.opts.MaxBody}
	encoding := strings.ToLower(strings.TrimSpace(req.Header.Get("Content-Encoding")))
	body, err := decompress(limited, encoding)
	if body == nil && err == nil {
		return refuse(http.StatusUnsupportedMediaType, "unsupported_encoding", "content encoding %q: send gzip, zstd, deflate or none", encoding)
	}
	if err == nil {
		expect := int64(-1)
		if body.plain {
			expect = req.ContentLength
		}
		if err = r.fill(q, body, expect); err == nil && body.end != nil {
			err = body.end()
		}
		if body.done != nil {
			body.done()
		}
	}
	switch {
	case err == nil:
		q.whole = true
		return nil
	case limited.err != nil && !errors.Is(limited.err, io.EOF):
		err = limited.err // the decompressor's own words only hide it
	}
	switch {
	case errors.Is(err, errBody), errors.Is(err, errDecoded):
		return r.tooLarge(err)
	case errors.Is(err, errMemory):
		return busy()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(http.StatusRequestTimeout, "timeout", "the body did not come within %s", r.opts.ReadTimeout)
	case limited.err != nil && !errors.Is(limited.err, io.EOF):
		return refuse(http.StatusBadRequest, "incomplete_body", "the body ended before it was complete: %s", limited.err)
	default:
		return refuse(http.StatusBadRequest, "invalid_encoding", "the body is not valid %s: %s", encoding, err)
	}
}

func busy() *refusal {
	return refuse(http.StatusServiceUnavailable, "busy", "too many requests are in memory now; send it again")
}

func (r *Receiver) tooLarge(err error) *refusal {
	if errors.Is(err, errDecoded) {
		return refuse(http.StatusRequestEntityTooLarge, "decoded_too_large", "the decompressed body is larger than the limit of %d bytes", r.opts.MaxDecoded)
	}
	return refuse(http.StatusRequestEntityTooLarge, "body_too_large", "the body is larger than the limit of %d bytes", r.opts.MaxBody)
}

// Sizes of a body's buffer, in bytes. What a client announces is not taken at
// its word: beyond firstBuffer, memory follows what has come.
const (
	smallBuffer = 4 << 10
	firstBuffer = 64 << 10
)

// fill reads all of body; expect is its length, or negative where that is not known.
func (r *Receiver) fill(q *request, body *stream, expect int64) error {
	buf := q.body[:cap(q.body)]
	if err := q.charge(int64(len(buf)) + body.memory); err != nil {
		return err
	}
	n := 0
	for {
		if n == len(buf) {
			if int64(n) > r.opts.MaxDecoded {
				return errDecoded
			}
			size := max(2*int64(n), smallBuffer)
			if expect >= int64(n) {
				// One byte more than foreseen lets the last read find the end.
				size = min(expect+1, max(size, firstBuffer))
			}
			size = min(size, r.opts.MaxDecoded+1)
			if err := q.charge(size + body.memory); err != nil {
				return err
			}
			grown := make([]byte, size)
			copy(grown, buf)
			buf = grown
		}
		m, err := body.Read(buf[n:])
		n += m
		q.body = buf[:n]
		if err == io.EOF {
			if int64(n) > r.opts.MaxDecoded {
				return errDecoded
			}
			return q.charge(int64(len(buf)))
		}
		if err != nil {
			return err
		}
	}
}

// limitReader fails, rather than ends, at its limit, and keeps its error.
type limitReader struct {
	r    io.Reader
	left int64
	err  error
}

func (l *limitReader) Read(p []byte) (int, error) {
	if l.left < 0 {
		return 0, errBody
	}
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		err = errBody
	}
	if err != nil {
		l.err = err
	}
	return n, err
}

var (
	gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
	zstdReaders = sync.Pool{New: func() any {
		z, _ := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdMaxWindow))
		return z
	}}
)

// stream is a body on its way through a decompressor.
type stream struct {
	io.Reader
	plain  bool         // not compressed
	memory int64        // bytes that the decompressor takes
	end    func() error // tells whether all of the body was read; nil: it was
	done   func()       // gives the decompressor back; nil: nothing to do
}

// What decompressors take, in bytes: deflate its window and tables; zstd a
// window as large as the frame's head asks for.
const (
	flateMemory   = 48 << 10
	zstdMaxWindow = 8 << 20 // RFC 8878 asks for no more
)

// decompress returns nil for an encoding that is not known.
func decompress(body io.Reader, encoding string) (*stream, error) {
	switch encoding {
	case "", "identity":
		return &stream{Reader: body, plain: true}, nil
	case "gzip", "x-gzip":
		z := gzipReaders.Get().(*gzip.Reader)
		if err := z.Reset(body); err != nil {
			return nil, noEOF(err)
		}
		return &stream{Reader: z, memory: flateMemory, done: func() { gzipReaders.Put(z) }}, nil
	case "zstd":
		b := bufio.NewReaderSize(body, 512)
		head, _ := b.Peek(zstd.HeaderMaxSize)
		z := zstdReaders.Get().(*zstd.Decoder)
		if err := z.Reset(b); err != nil {
			return nil, noEOF(err)
		}
		return &stream{Reader: z, memory: zstdWindow(head), done: func() { z.Reset(nil); zstdReaders.Put(z) }}, nil
	case "deflate":
		// The standard means zlib; some clients send bare deflate. A zlib
		// header is 2 bytes that are a multiple of 31, the first ending in 8.
		b := bufio.NewReaderSize(body, 4096)
		head, _ := b.Peek(2)
		s := &stream{memory: flateMemory, end: func() error {
			if _, err := b.Peek(1); err != io.EOF {
				return errTrailing
			}
			return nil
		}}
		if len(head) == 2 && head[0]&0x0f == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 {
			z, err := zlib.NewReader(b)
			if err != nil {
				return nil, noEOF(err)
			}
			s.Reader = z
		} else {
			s.Reader = flate.NewReader(b)
		}
		return s, nil
	}
	return nil, nil
}

// zstdWindow is what the first frame of a zstd stream, which begins with head,
// needs of memory.
func zstdWindow(head []byte) int64 {
	var h zstd.Header
	if h.Decode(head) != nil {
		return zstdMaxWindow
	}
	window := h.WindowSize
	if h.SingleSegment {
		window = h.FrameContentSize
	}
	return int64(min(window, zstdMaxWindow)) + 256<<10 // and two blocks
}

// noEOF keeps an empty body from looking like a good end.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
