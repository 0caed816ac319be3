package receiver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/klauspost/compress/gzip"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/admission"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// The methods below serve protocols that look for the events of a body: protocol.Host and protocol.Sink.

// Charge counts n more bytes of memory.
func (q *request) Charge(n int64) *errcode.Error {
	if q.lease.Grow(n) != nil {
		return busy()
	}
	return nil
}

// Unzip decompresses gzip within a body. It stays in memory, so its limit is low.
func (q *request) Unzip(data []byte, limit int64) (out []byte, refused *errcode.Error) {
	limit = min(limit, q.decodedMax())
	z := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(z)
	err := noEOF(z.Reset(bytes.NewReader(data)))
	if err == nil {
		src := &limitReader{r: z, left: math.MaxInt64, pays: q} // fillFrom has the limit
		err = q.fillFrom(&out, src, -1, limit, q.lease.Size()+flateMemory, false)
	}
	switch {
	case err == nil:
		return out, nil
	case errors.Is(err, errMemory):
		return nil, busy()
	case errors.Is(err, admission.ErrAnonymous):
		return nil, keylessLimit()
	case errors.Is(err, errDecoded):
		return nil, errcode.DecodedTooLarge.Errorf("the decompressed data is larger than the limit of %d bytes: "+
			"send gzip as the body, not in a form or a query", limit)
	}
	return nil, errcode.InvalidEncoding.Errorf("the data is not valid gzip: %s", err)
}

// IsKey reports whether a text is a key, which must not become part of a row. PostHog's own keys are recognized by
// their prefix.
func (q *request) IsKey(text []byte) bool {
	if len(text) == 0 || bytes.Equal(text, q.keyText) {
		return len(text) > 0
	}
	if !q.r.tenants.Known(view(text)) && !bytes.HasPrefix(text, []byte("phc_")) {
		return false
	}
	q.keyText = text
	return true
}

// Library sets the client library of all events.
func (q *request) Library(name, version []byte) {
	q.context = bytes.Clone(q.sdkContext(name, version))
}

// Values reads each value in a text as an event.
func (q *request) Values(m protocol.Mapper, text []byte, lines bool) *errcode.Error {
	values := jsonscan.NewValues(text, lines)
	for {
		value, err := values.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err := q.full(); err != nil {
			return err
		}
		if err == nil {
			value, err = q.value(m, &values, value)
		}
		q.count(jsonscan.TrimSpace(value), "", err)
	}
}

// value reads the value at the start of text as an event, and returns its bytes.
func (q *request) value(m protocol.Mapper, values *jsonscan.Values, text []byte) (value []byte, err error) {
	n, err := q.event(m, text)
	if !structural(err) {
		return text[:values.Take(n)], err
	}
	n, found := values.Skip(n)
	if !found {
		err = fmt.Errorf("%w; the %d bytes up to the next event that can be found are rejected with it", err, n)
	}
	return text[:n], err
}

// Single reads the only event of a request. If it is rejected, the whole request is.
func (q *request) Single(m protocol.Mapper, text []byte, what string) *errcode.Error {
	n, err := q.event(m, text)
	if after := jsonscan.TrimSpace(text[n:]); (err == nil || errors.Is(err, errSampled)) && len(after) > 0 {
		if err == nil {
			q.drop()
		}
		err = errcode.InvalidJSON.Errorf("something follows the object at byte %d of %s", n, what)
	}
	if err != nil && !errors.Is(err, errSampled) {
		code, message := errcode.Of(err)
		return code.Errorf("%s", message)
	}
	q.count(nil, "", err)
	return nil
}

// Next reports whether one more record is within the limits.
func (q *request) Next() (index int, err *errcode.Error) { return q.index, q.full() }

// Record reads a record. Its whole row stays in memory.
func (q *request) Record(m protocol.Mapper, text []byte) (v protocol.Verdict) {
	err := q.room(len(text) + len(q.context) + 1<<10)
	blobs := len(q.rows.Blobs)
	if err == nil {
		_, err = q.event(m, text)
	}
	switch {
	case errors.Is(err, errMemory):
		v.Err = busy()
	case errors.Is(err, errSampled):
		v.Sampled = true
	default:
		v.Err = err
	}
	v.Reported = v.Err != nil || q.violation != nil
	v.Held = len(q.rows.Blobs) > blobs
	return v
}

// Done counts a record.
func (q *request) Done(v protocol.Verdict, raw []byte, contentType string) *errcode.Error {
	err := v.Err
	switch {
	case v.Sampled:
		err = errSampled
	case err == nil && v.Repaired:
		q.repaired++
	}
	if len(raw) > 0 {
		if busy := q.Charge(int64(len(raw))); busy != nil {
			return busy
		}
	}
	q.count(raw, contentType, err)
	return nil
}
