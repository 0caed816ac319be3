package receiver

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/admission"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// A stranger is a client whose key is not known: missing, wrong, or in a body that was not read yet. Package admission
// limits the cost of strangers. This file looks for their keys.

const (
	// anonymousRecord is the least size of a failure record besides its raw payload.
	anonymousRecord = 1 << 10
	// strangerRead is how many bytes are read before they are paid for.
	strangerRead = 16 << 10
)

// strangerBody is the largest body of a stranger in bytes, sent or decompressed.
func (o *Options) strangerBody() int64 {
	if o.SmallBody == 0 {
		return o.MaxBody
	}
	return min(o.SmallBody, o.MaxBody)
}

// front is the beginning of a body, and then the rest of it.
type front struct {
	head []byte // unread part of the front
	rest io.Reader
}

func (f *front) Read(p []byte) (int, error) {
	if len(f.head) == 0 {
		return f.rest.Read(p)
	}
	n := copy(p, f.head)
	f.head = f.head[n:]
	return n, nil
}

// arrive starts to read a body that contains its key.
func (q *request) arrive() *errcode.Error {
	if q.lease.Enter(q.clientIP, q.extend) != nil {
		return q.crowded()
	}
	return nil
}

func (q *request) crowded() *errcode.Error {
	return errcode.TooManyKeyless.Errorf(
		"%d bodies of your address %s whose key is not known are being read: put the key into "+
			"the head, or send this again later", q.r.opts.MaxKeyless, q.clientIP)
}

// unknown ends the account of a rejected request whose key was, or should have been, in its body. The failure record is
// kept if the strangers' budget covers it.
func (q *request) unknown(req *http.Request, refused *errcode.Error) {
	if !q.lease.Inside() {
		return
	}
	if !refused.Code.Kept() {
		q.lease.Unknown(0)
	} else if !q.lease.Unknown(q.recordSize(req)) {
		q.silent = true
		q.r.reporter.Drop("anonymous")
	}
}

// introduce reads the front of a body and looks for its key there. The returned reader reads the whole body. length is
// that of the body as sent.
func (q *request) introduce(src io.Reader, length int64) (io.Reader, error) {
	head, err := q.readFront(src)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	q.front = front{head, src}
	if errors.Is(err, io.EOF) {
		return &q.front, nil
	}
	encoding := q.encoding
	if encoding == "" && q.route.FindsGzip && isGzip(head) {
		encoding = "gzip"
	}
	if encoding != "" && !q.whole { // what is read was not decompressed yet
		if head, err = q.unpackFront(head, encoding); err != nil {
			return nil, err
		}
	}
	return &q.front, q.meet(head, length)
}

// unpackFront decompresses as much of the front as possible. Later reads find a truncated or broken body.
func (q *request) unpackFront(head []byte, encoding string) ([]byte, error) {
	takes := int64(admission.FrontBytes + flateMemory)
	if encoding == "zstd" {
		takes = admission.FrontBytes + zstdWindow(head[:min(len(head), zstd.HeaderMaxSize)])
	}
	if err := q.lease.Grow(takes); err != nil {
		return nil, err
	}
	defer func() { q.lease.Grow(-takes) }()
	z, err := frontReader(head, encoding)
	if err != nil {
		return nil, nil
	}
	plain := make([]byte, admission.FrontBytes)
	n, _ := io.ReadFull(z, plain)
	return plain[:n], q.lease.Pay(int64(n))
}

// readFront reads up to admission.FrontBytes, and returns io.EOF if that is all.
func (q *request) readFront(src io.Reader) ([]byte, error) {
	if q.frontBuf == nil {
		q.frontBuf = make([]byte, smallBuffer)
	}
	if err := q.lease.Grow(int64(len(q.frontBuf))); err != nil {
		return nil, err
	}
	for n := 0; ; {
		if n == len(q.frontBuf) {
			if n >= admission.FrontBytes {
				return q.frontBuf, nil
			}
			grown := make([]byte, min(2*len(q.frontBuf), admission.FrontBytes))
			if err := q.lease.Grow(int64(len(grown) - n)); err != nil {
				return nil, err
			}
			copy(grown, q.frontBuf)
			q.frontBuf = grown
		}
		m, err := src.Read(q.frontBuf[n:])
		if n += m; err != nil {
			return q.frontBuf[:n], err
		}
	}
}

// meet looks for a known key in the front of a body, and applies the limits of that key. Without one it applies those
// of strangers.
func (q *request) meet(text []byte, length int64) error {
	eachToken(protocol.Whole(text), func(key []byte) bool {
		if q.r.tenants.Known(string(key)) {
			q.maxBody = q.r.opts.MaxBody
			q.denied = q.r.useKey(q, string(key)) // it is answered with the whole body, which its project keeps
		}
		return q.key.Project == ""
	})
	if q.key.Project == "" {
		q.maxBody = min(q.maxBody, q.r.opts.strangerBody())
		if length > q.maxBody {
			return errBody
		}
		return nil
	}
	if q.early = q.admitHead(length); q.early != nil {
		return errEarly
	}
	return nil
}

// maxTokens limits how many texts of one body are looked up as keys.
const maxTokens = 8

// eachToken calls f with texts of a JSON document, or of its beginning, that are where clients put keys, until f
// returns false. It looks only at strings.
func eachToken(b []byte, f func(text []byte) bool) {
	if len(b) == 0 || b[0] != '{' && b[0] != '[' {
		return
	}
	for tokens := 0; tokens < maxTokens; {
		at := bytes.IndexByte(b, '"')
		if at < 0 {
			return
		}
		b = b[at:]
		n := jsonscan.Extent(b)
		if n == 0 {
			return
		}
		name := b[1 : n-1]
		b = jsonscan.TrimSpace(b[n:])
		if !slices.Contains(protocol.KeyNames, string(name)) || len(b) == 0 || b[0] != ':' {
			continue
		}
		b = jsonscan.TrimSpace(b[1:])
		if len(b) > 0 && b[0] == '"' {
			tokens++
			if n = jsonscan.Extent(b); n == 0 || !f(protocol.PlainText(b[:n])) {
				return
			}
			b = b[n:]
		}
	}
}
