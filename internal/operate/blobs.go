package operate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
)

// blobOpening begins a reference. In JSON these bytes can be nothing else: within a string the quote would be escaped.
var blobOpening = []byte(`{"` + pipeline.BlobKeyName + `":`)

// resolver replaces an event's references by the values. A client may have written a reference itself, so nothing
// beyond its content is trusted. A reference that cannot be resolved stays.
type resolver struct {
	store Store
	limit int64 // most bytes of blobs in one event; real events stay below

	failed int
	first  error // of the failed ones
}

// done returns an error if references were not resolved.
func (r *resolver) done() error {
	if r.failed == 0 {
		return nil
	}
	return fmt.Errorf("%s could not be resolved and stayed as they are; the first: %w", show.Plural(r.failed, "reference"),
		r.first)
}

// resolve returns an event's properties with the values inserted. where names the event, for errors.
func (r *resolver) resolve(ctx context.Context, where string, doc []byte) ([]byte, error) {
	var out []byte
	left := r.limit
	for {
		at := bytes.Index(doc, blobOpening)
		if at < 0 {
			return append(out, doc...), nil
		}
		var value struct {
			Ref *pipeline.BlobRef `json:"$blob"`
		}
		rest := json.NewDecoder(bytes.NewReader(doc[at:]))
		rest.DisallowUnknownFields() // our references have no other members
		if err := rest.Decode(&value); err != nil || value.Ref == nil || !pipeline.IsBlobKey(value.Ref.Object) {
			out = append(out, doc[:at+len(blobOpening)]...) // a client's own object
			doc = doc[at+len(blobOpening):]
			continue
		}
		out = append(out, doc[:at]...)
		whole := doc[at : at+int(rest.InputOffset())]
		doc = doc[at+len(whole):]
		data, err := readBlob(ctx, r.store, *value.Ref, left)
		switch {
		case err == nil:
			left -= int64(len(data))
			out = appendValue(out, value.Ref, data)
		case ctx.Err() != nil || retry.ClassOf(err) == retry.Outage:
			return nil, fmt.Errorf("%s: %w", where, err)
		default:
			if out = append(out, whole...); r.failed == 0 {
				r.first = fmt.Errorf("%s: %w", where, err)
			}
			r.failed++
		}
	}
}

// appendValue appends a blob in its original form. readBlob has validated JSON.
func appendValue(out []byte, ref *pipeline.BlobRef, data []byte) []byte {
	switch ref.Kind {
	case pipeline.BlobJSON:
		return append(out, data...)
	case pipeline.BlobText:
		return jsonscan.AppendQuoted(out, data)
	case pipeline.BlobDataURL:
		out = jsonscan.AppendQuoted(out, []byte("data:"+ref.ContentType+";base64,"))
		out = out[:len(out)-1]
	default: // a file, which was never JSON
		out = append(out, '"')
	}
	return append(base64.StdEncoding.AppendEncode(out, data), '"')
}

// readBlob reads a blob's bytes. Their sum must match the reference: a client can write a reference, but not for bytes
// that it does not know. JSON must be a single value, so that it cannot add members.
func readBlob(ctx context.Context, store Store, ref pipeline.BlobRef, limit int64) ([]byte, error) {
	first, last := ref.Range[0], ref.Range[1]
	if n := last - first + 1; n != ref.Bytes {
		return nil, fmt.Errorf("blob %s, bytes %d-%d: these are %d, the reference says %d", ref.Object, first, last, n,
			ref.Bytes)
	}
	if first < 0 || last < first || last-first >= limit {
		return nil, fmt.Errorf("blob %s, bytes %d-%d: an event has no more than %d bytes left", ref.Object, first, last,
			limit)
	}
	body, err := store.GetRange(ctx, ref.Object, first, last)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", ref.Object, err)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != ref.SHA256 {
		return nil, fmt.Errorf("blob %s, bytes %d-%d: its sha256 is %x, the reference says %s", ref.Object, first, last, sum,
			ref.SHA256)
	}
	if ref.Kind == pipeline.BlobJSON && !json.Valid(data) {
		return nil, fmt.Errorf("blob %s, bytes %d-%d: not the JSON that the reference says", ref.Object, first, last)
	}
	return data, nil
}

// serveBlob is GET /v1/blobs/KEY?range=FIRST-LAST&content_type=TYPE: a blob as its reference describes it. Without a
// range, it serves the whole object. Without a content type, the bytes decide. A Range header is relative to the blob.
func (o *Operator) serveBlob(w http.ResponseWriter, req *http.Request) {
	for name := range req.URL.Query() {
		if name != "range" && name != "content_type" {
			WriteError(w, http.StatusBadRequest, fmt.Sprintf("unknown parameter %q: want range, content_type", name))
			return
		}
	}
	key := req.PathValue("key")
	if !strings.HasPrefix(key, "blobs/") {
		key = "blobs/" + key
	}
	if !pipeline.IsBlobKey(key) {
		WriteError(w, http.StatusNotFound, fmt.Sprintf("%q is no object of blobs", key))
		return
	}
	object, err := o.Store.Head(req.Context(), key)
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		WriteError(w, http.StatusNotFound, err.Error())
		return
	case err != nil:
		WriteError(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	blob := &blobReader{ctx: req.Context(), store: o.Store, key: key, size: object.Size}
	if text := req.FormValue("range"); text != "" {
		var last int64
		if blob.first, last, err = blobRange(text); err != nil {
			WriteError(w, http.StatusBadRequest, err.Error())
			return
		}
		if last >= object.Size {
			WriteError(w, http.StatusRequestedRangeNotSatisfiable,
				fmt.Sprintf("the range ends at byte %d, and %s has %d bytes", last, key, object.Size))
			return
		}
		blob.size = last - blob.first + 1
	}
	defer blob.close()
	h := w.Header()
	if kind := req.FormValue("content_type"); kind != "" {
		h.Set("Content-Type", kind)
	}
	h.Set("ETag", fmt.Sprintf(`"%s-%d-%d"`, object.ETag, blob.first, blob.size))
	// Clients' content must not run in the operator's browser.
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'; img-src 'self'; media-src 'self'")
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, req, "", time.Time{}, blob)
}

// blobRange parses FIRST-LAST, as in references.
func blobRange(text string) (first, last int64, err error) {
	a, b, ok := strings.Cut(text, "-")
	if ok {
		if first, err = strconv.ParseInt(a, 10, 64); err == nil {
			last, err = strconv.ParseInt(b, 10, 64)
		}
	}
	if !ok || err != nil || first < 0 || last < first {
		return 0, 0, fmt.Errorf("range %.40q: want FIRST-LAST, as the reference has them", text)
	}
	return first, last, nil
}

// blobReader reads a part of an object, from any offset.
type blobReader struct {
	ctx         context.Context
	store       Store
	key         string
	first, size int64

	at   int64
	body io.ReadCloser // starting at at; nil: not open
}

func (r *blobReader) Read(p []byte) (n int, err error) {
	if r.at >= r.size {
		return 0, io.EOF
	}
	if r.body == nil {
		if r.body, err = r.store.GetRange(r.ctx, r.key, r.first+r.at, r.first+r.size-1); err != nil {
			return 0, err
		}
	}
	n, err = r.body.Read(p)
	r.at += int64(n)
	return n, err
}

func (r *blobReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, errors.New("sought to before the beginning")
	}
	if offset != r.at {
		r.close()
		r.at = offset
	}
	return offset, nil
}

func (r *blobReader) close() {
	if r.body != nil {
		r.body.Close()
		r.body = nil
	}
}
