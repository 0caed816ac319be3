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
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

func refuse(status int, code, format string, args ...any) *refusal {
	return &refusal{status, code, fmt.Sprintf(format, args...)}
}

// errMemory and errBody are limits met while a body is read.
var (
	errMemory  = errors.New("memory limit")
	errBody    = errors.New("body limit")
	errDecoded = errors.New("decoded limit")
)

// read brings the whole body, decompressed, into q.body.
func (r *Receiver) read(q *request, w http.ResponseWriter, req *http.Request) *refusal {
	if req.ContentLength > r.opts.MaxBody {
		return r.tooLarge(errBody)
	}
	// The server's own deadline would cut the answer as well.
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(r.opts.ReadTimeout))
	limited := &limitReader{r: req.Body, left: r.opts.MaxBody}
	encoding := strings.ToLower(strings.TrimSpace(req.Header.Get("Content-Encoding")))
	body, done, err := decompress(limited, encoding)
	if body == nil && err == nil {
		return refuse(http.StatusUnsupportedMediaType, "unsupported_encoding", "content encoding %q: send gzip, zstd, deflate or none", encoding)
	}
	if err == nil {
		err = r.fill(q, body, max(req.ContentLength, 512))
		done()
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
		return refuse(http.StatusServiceUnavailable, "busy", "the memory limit for requests is reached; send it again")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(http.StatusRequestTimeout, "timeout", "the body did not come within %s", r.opts.ReadTimeout)
	case limited.err != nil && !errors.Is(limited.err, io.EOF):
		return refuse(http.StatusBadRequest, "incomplete_body", "the body ended before it was complete: %s", limited.err)
	default:
		return refuse(http.StatusBadRequest, "invalid_encoding", "the body is not valid %s: %s", encoding, err)
	}
}

func (r *Receiver) tooLarge(err error) *refusal {
	if errors.Is(err, errDecoded) {
		return refuse(http.StatusRequestEntityTooLarge, "decoded_too_large", "the decompressed body is larger than the limit of %d bytes", r.opts.MaxDecoded)
	}
	return refuse(http.StatusRequestEntityTooLarge, "body_too_large", "the body is larger than the limit of %d bytes", r.opts.MaxBody)
}

// fill reads all of body. What it holds is charged to the receiver's memory
// before it is read, so that many large requests at once are refused rather
// than fatal.
func (r *Receiver) fill(q *request, body io.Reader, expect int64) error {
	buf := q.body[:cap(q.body)]
	if err := r.charge(q, int64(len(buf))); err != nil {
		return err
	}
	n := 0
	for {
		if n == len(buf) {
			if int64(n) > r.opts.MaxDecoded {
				return errDecoded
			}
			// One byte more than foreseen lets the last read find the end.
			size := min(max(2*int64(n), min(expect, r.opts.MaxBody)+1), r.opts.MaxDecoded+1)
			if err := r.charge(q, size); err != nil {
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
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// charge counts q's body as size bytes.
func (r *Receiver) charge(q *request, size int64) error {
	more := size - q.charged
	if r.memory.Add(more) > r.opts.MaxMemory && more > 0 {
		r.memory.Add(-more)
		return errMemory
	}
	q.charged = size
	return nil
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
		// A window larger than 8 MiB is no web client's; RFC 8878 asks for no more.
		z, _ := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20))
		return z
	}}
)

// decompress returns nil for an encoding that is not known. done gives the
// decompressor back.
func decompress(body io.Reader, encoding string) (r io.Reader, done func(), err error) {
	switch encoding {
	case "", "identity":
		return body, func() {}, nil
	case "gzip", "x-gzip":
		z := gzipReaders.Get().(*gzip.Reader)
		if err := z.Reset(body); err != nil {
			return nil, nil, noEOF(err)
		}
		return z, func() { gzipReaders.Put(z) }, nil
	case "zstd":
		z := zstdReaders.Get().(*zstd.Decoder)
		if err := z.Reset(body); err != nil {
			return nil, nil, noEOF(err)
		}
		return z, func() { z.Reset(nil); zstdReaders.Put(z) }, nil
	case "deflate":
		// The standard means zlib; some clients send bare deflate. A zlib
		// header is 2 bytes that are a multiple of 31, the first ending in 8.
		b := bufio.NewReaderSize(body, 4096)
		head, _ := b.Peek(2)
		if len(head) == 2 && head[0]&0x0f == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 {
			z, err := zlib.NewReader(b)
			if err != nil {
				return nil, nil, noEOF(err)
			}
			return z, func() {}, nil
		}
		return flate.NewReader(b), func() {}, nil
	}
	return nil, nil, nil
}

// noEOF keeps an empty body from looking like a good end.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
