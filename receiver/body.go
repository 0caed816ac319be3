package receiver

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"math"
	"net/http"
	"os"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"

	"github.com/penstock/penstock/receiver/admission"
	"github.com/penstock/penstock/receiver/errcode"
)

// Errors of a body besides those of its encoding.
var (
	errMemory   = admission.ErrMemory
	errBody     = errors.New("body limit")
	errDecoded  = errors.New("decoded limit")
	errTrailing = errors.New("something follows the compressed data")
	errEarly    = errors.New("limit of the key") // request.early says which
)

// readBody reads the body as sent into dst.
func (r *Receiver) readBody(q *request, req *http.Request, dst *[]byte, limit int64) error {
	inside := q.lease.Inside()
	err := q.readSent(req, dst, limit)
	if inside {
		err = cmp.Or(q.lease.Arrived(), err)
	}
	q.extend = nil // net/http has lifted the deadline
	q.whole = err == nil
	return err
}

func (q *request) readSent(req *http.Request, dst *[]byte, limit int64) error {
	before := q.maxBody
	if req.ContentLength > before {
		return errBody
	}
	q.limited = limitReader{r: req.Body, left: q.maxBody, allow: q.limited.allow, pays: q}
	src, length, beside, err := io.Reader(&q.limited), req.ContentLength, int64(0), error(nil)
	if q.lease.Inside() {
		if src, err = q.introduce(src, length); err != nil {
			return err
		}
		q.limited.left += q.maxBody - before
		beside = int64(cap(q.frontBuf))
		if q.lease.Inside() {
			length = -1 // a stranger's announced length reserves neither memory nor disk
		}
	}
	return q.fill(dst, src, length, limit, beside)
}

// read reads the whole body, decompressed, into q.body. It also keeps a compressed body as sent, for the failure
// record.
func (r *Receiver) read(q *request, req *http.Request) *errcode.Error {
	var err error
	if q.route.Query && q.redrive == nil {
		err = q.takeQuery(req.URL.RawQuery)
	} else if q.encoding == "" {
		if err = r.readBody(q, req, &q.body, r.opts.MaxDecoded); err == nil && q.route.FindsGzip && isGzip(q.body) {
			q.sent, q.body = q.body, q.sent[:0]
			q.name(req, "gzip")
			if q.lease.Turn(req.Context(), 0) != nil {
				return cancelled()
			}
			err = q.decompress()
		}
	} else if err = r.readBody(q, req, &q.sent, q.maxBody); err == nil {
		if q.lease.Turn(req.Context(), 0) != nil {
			return cancelled()
		}
		err = q.decompress()
	}
	if err == nil {
		return nil
	}
	return r.unread(q, err)
}

// unread is the error for a body that could not be read.
func (r *Receiver) unread(q *request, err error) *errcode.Error {
	switch {
	case errors.Is(err, errEarly):
		return q.early
	case errors.Is(err, admission.ErrAnonymous):
		return keylessLimit()
	case errors.Is(err, admission.ErrCrowded):
		return q.crowded()
	case (errors.Is(err, errDecoded) || errors.Is(err, errBody)) && q.key.Project == "":
		return errcode.BodyTooLarge.Errorf("no known key is in the first %d bytes of the body: "+
			"larger bodies than %d bytes, sent or decompressed, need it there or in the head", admission.FrontBytes,
			r.opts.strangerBody())
	case errors.Is(err, errDecoded) && q.key.Small:
		return q.fits(q.decodedMax() + 1)
	case errors.Is(err, errDecoded) && q.encoding == "":
		return errcode.BodyTooLarge.Errorf("the body is larger than the limit of %d bytes", r.opts.MaxDecoded)
	case errors.Is(err, errDecoded):
		return errcode.DecodedTooLarge.Errorf("the decompressed body is larger than the limit of %d bytes", r.opts.MaxDecoded)
	case errors.Is(err, errBody):
		return errcode.BodyTooLarge.Errorf("the body is larger than the limit of %d bytes", q.maxBody)
	case errors.Is(err, errMemory):
		return busy()
	case errors.Is(err, admission.ErrSpool):
		r.log.Warn("large body rejected", "bytes_on_disk", r.admission.Spooled(), "limit", r.opts.MaxSpool, "error",
			err)
		return errcode.Busy.Errorf("too many large requests are on disk now; send it again")
	case q.whole:
		return errcode.InvalidEncoding.Errorf("the body is not valid %s: %s", q.encoding, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errcode.Timeout.Errorf("the body did not come within %s", r.opts.ReadTimeout)
	default:
		return errcode.IncompleteBody.Errorf("the body ended before it was complete: %s", err)
	}
}

// keep reads the body of a request that its head rejects, so that the failure record has the bytes. Bodies of strangers
// are kept up to a limit; beyond it, nothing is read.
func (r *Receiver) keep(q *request, req *http.Request) {
	if q.key.Project == "" {
		q.maxBody = min(q.maxBody, r.opts.strangerBody())
		size := q.recordSize(req)
		if q.route.Query {
			size += int64(len(req.URL.RawQuery))
		}
		if req.ContentLength <= q.maxBody {
			size += max(0, req.ContentLength)
		}
		if !r.admission.Budget.Take(size) {
			q.silent = true
			r.reporter.Drop("anonymous")
			return
		}
		if req.ContentLength < 0 {
			q.limited.allow = r.admission.Budget
		}
	}
	if q.route.Query {
		q.takeQuery(req.URL.RawQuery)
		return
	}
	switch err := r.readBody(q, req, &q.sent, q.maxBody); {
	case err == nil && q.encoding == "" && q.route.FindsGzip && isGzip(q.sent):
		q.name(req, "gzip")
	case errors.Is(err, admission.ErrAnonymous):
		q.silent = true
		r.reporter.Drop("anonymous")
	case errors.Is(err, errMemory), errors.Is(err, admission.ErrSpool):
		q.missing = "too many requests were in memory"
	case err != nil:
		q.missing = r.unread(q, err).Message
	}
}

func keylessLimit() *errcode.Error {
	return errcode.KeylessLimit.Errorf("the body's key was not found in its first %d bytes, and too much "+
		"is sent without a known key now: put the key into the head, or send this again later", admission.FrontBytes)
}

func busy() *errcode.Error {
	return errcode.Busy.Errorf("too many requests are in memory now; send it again")
}

// Sizes of a body's buffer, in bytes. Content-Length is not trusted: beyond firstBuffer, the buffer grows with the
// bytes that arrive.
const (
	smallBuffer = 4 << 10
	firstBuffer = 64 << 10
)

// fill reads src up to limit bytes into dst, which grows as needed. expect is the length; negative: unknown. beside is
// the memory that the request holds otherwise.
func (q *request) fill(dst *[]byte, src io.Reader, expect, limit, beside int64) error {
	return q.fillFrom(dst, src, expect, limit, beside, q.r.opts.SpoolDir != "")
}

// fillFrom is fill; with spool, a large body goes to disk.
func (q *request) fillFrom(dst *[]byte, src io.Reader, expect, limit, beside int64, spool bool) error {
	if spool && expect > spoolAt {
		return q.spool(dst, nil, src, limit)
	}
	buf := (*dst)[:cap(*dst)]
	if err := q.lease.Resize(int64(len(buf)) + beside); err != nil {
		return err
	}
	n := 0
	for {
		if n == len(buf) {
			if int64(n) > limit {
				return errDecoded
			}
			if spool && n >= spoolAt {
				return q.spool(dst, buf, src, limit)
			}
			size := max(2*int64(n), smallBuffer)
			if expect >= int64(n) {
				// One byte more than expected lets the last read find the end.
				size = min(expect+1, max(size, firstBuffer))
			}
			size = min(size, limit+1)
			if err := q.lease.Resize(size + beside); err != nil {
				return err
			}
			grown := make([]byte, size)
			copy(grown, buf)
			buf = grown
			*dst = buf[:n] // lets go of the old one before a slow client is awaited
		}
		m, err := src.Read(buf[n:])
		n += m
		*dst = buf[:n]
		if err == io.EOF {
			if int64(n) > limit {
				return errDecoded
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// limitReader returns an error at its limit, not io.EOF.
type limitReader struct {
	r     io.Reader
	left  int64
	allow *admission.Budget // that the bytes are taken from; nil: none
	pays  *request          // for the bytes, while its key is not known; nil: none
}

func (l *limitReader) Read(p []byte) (int, error) {
	if l.left < 0 {
		return 0, errBody
	}
	if l.pays != nil && l.pays.lease.Inside() {
		if l.pays.lease.Replaced() {
			return 0, admission.ErrCrowded
		}
		p = p[:min(len(p), strangerRead)]
	}
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		err = errBody
	}
	if l.allow != nil && !l.allow.Take(int64(n)) {
		err = admission.ErrAnonymous
	}
	if l.pays != nil {
		if unpaid := l.pays.lease.Pay(int64(n)); unpaid != nil {
			err = unpaid
		}
	}
	return n, err
}

var (
	gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
	zstdReaders = sync.Pool{New: func() any {
		z, _ := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(zstdMaxWindow))
		return z
	}}
)

// Memory of decompressors, in bytes. deflate: its window and tables. zstd: the window that the frame header names.
const (
	flateMemory   = 48 << 10
	zstdMaxWindow = 8 << 20 // RFC 8878 asks for no more
)

// encodings are the supported values of Content-Encoding.
var encodings = map[string]func(*request) error{
	"gzip": (*request).gunzip, "x-gzip": (*request).gunzip, "zstd": (*request).unzstd, "deflate": (*request).inflate,
}

// isGzip recognizes gzip by its first bytes: the magic number and the method deflate.
func isGzip(b []byte) bool { return bytes.HasPrefix(b, []byte{0x1f, 0x8b, 8}) }

// name sets the encoding of a body whose client did not name it. It also sets the header, so that a failure record says
// how to read its raw payload.
func (q *request) name(req *http.Request, encoding string) {
	q.encoding = encoding
	req.Header.Set("Content-Encoding", encoding)
}

// decompress decompresses q.sent into q.body.
func (q *request) decompress() error {
	q.packed.Reset(q.sent)
	err := encodings[q.encoding](q)
	if err == nil && q.packed.Len() > 0 {
		err = errTrailing
	}
	if err != nil {
		return err
	}
	return q.lease.Resize(q.lease.InMemory(q.sent) + q.lease.InMemory(q.body))
}

// unpack reads from a decompressor that needs memory bytes.
func (q *request) unpack(z io.Reader, memory int64) error {
	memory += q.lease.InMemory(q.sent)
	if q.lease.Inside() {
		z = &limitReader{r: z, left: math.MaxInt64, pays: q} // fill has the limit
		memory += admission.FrontBytes
		if err := q.lease.Resize(memory); err != nil {
			return err
		}
		var err error
		if z, err = q.introduce(z, int64(len(q.sent))); err != nil {
			return err
		}
	}
	return q.fill(&q.body, z, -1, q.decodedMax(), memory)
}

// decodedMax is the most bytes that a body may decompress to.
func (q *request) decodedMax() int64 {
	switch {
	case q.lease.Inside():
		return min(q.r.opts.strangerBody(), q.r.opts.MaxDecoded)
	case q.key.Small:
		return min(q.r.opts.SmallBody, q.r.opts.MaxDecoded)
	}
	return q.r.opts.MaxDecoded
}

// frontReader decompresses the front of a body.
func frontReader(head []byte, encoding string) (io.Reader, error) {
	src := bytes.NewReader(head)
	switch encoding {
	case "zstd":
		return zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(zstdMaxWindow))
	case "deflate":
		if !isZlib(head) {
			return flate.NewReader(src), nil
		}
		return zlib.NewReader(src)
	}
	return gzip.NewReader(src)
}

// isZlib distinguishes zlib from bare deflate: the 2 bytes of its header are a multiple of 31, and the first ends in 8.
func isZlib(b []byte) bool { return len(b) >= 2 && b[0]&0x0f == 8 && (int(b[0])<<8|int(b[1]))%31 == 0 }

func (q *request) gunzip() error {
	z := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(z)
	if err := z.Reset(&q.packed); err != nil {
		return noEOF(err)
	}
	return q.unpack(z, flateMemory)
}

func (q *request) unzstd() error {
	z := zstdReaders.Get().(*zstd.Decoder)
	defer func() { z.Reset(nil); zstdReaders.Put(z) }()
	if err := z.Reset(&q.packed); err != nil {
		return noEOF(err)
	}
	return q.unpack(z, zstdWindow(q.sent[:min(len(q.sent), zstd.HeaderMaxSize)]))
}

// inflate reads both forms of deflate: zlib, which the standard requires, and bare deflate, which some clients send.
func (q *request) inflate() error {
	if !isZlib(q.sent) {
		return q.unpack(flate.NewReader(&q.packed), flateMemory)
	}
	z, err := zlib.NewReader(&q.packed)
	if err != nil {
		return noEOF(err)
	}
	return q.unpack(z, flateMemory)
}

// zstdWindow is the window that the first frame of a zstd stream needs, in bytes. The stream begins with head.
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

// noEOF turns io.EOF into an error, so that an empty body does not look complete.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
