package main

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

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
)

// blobOpening begins a reference. In JSON these bytes are nothing else: within a
// string the quote would be escaped.
var blobOpening = []byte(`{"` + pipeline.BlobKeyName + `":`)

// resolveBlobs puts the values that a document refers to back in their places.
func resolveBlobs(ctx context.Context, store *objstore.Bucket, doc []byte) ([]byte, error) {
	var out []byte
	for {
		at := bytes.Index(doc, blobOpening)
		if at < 0 {
			return append(out, doc...), nil
		}
		var value struct {
			Ref *pipeline.BlobRef `json:"$blob"`
		}
		rest := json.NewDecoder(bytes.NewReader(doc[at:]))
		if err := rest.Decode(&value); err != nil || value.Ref == nil || !pipeline.IsBlobKey(value.Ref.Object) {
			out = append(out, doc[:at+len(blobOpening)]...) // a client's own
			doc = doc[at+len(blobOpening):]
			continue
		}
		out = append(out, doc[:at]...)
		doc = doc[at+int(rest.InputOffset()):]
		data, err := readBlob(ctx, store, *value.Ref)
		if err != nil {
			return nil, err
		}
		switch value.Ref.Kind {
		case pipeline.BlobJSON:
			out = append(out, data...)
		case pipeline.BlobText:
			out = jsonscan.AppendQuoted(out, data)
		case pipeline.BlobDataURL:
			out = append(append(out, `"data:`...), value.Ref.ContentType...)
			out = base64.StdEncoding.AppendEncode(append(out, ";base64,"...), data)
			out = append(out, '"')
		default: // a file was never JSON
			out = append(base64.StdEncoding.AppendEncode(append(out, '"'), data), '"')
		}
	}
}

// readBlob is a blob's bytes. Their sum must be that of the reference: a client
// can write one, but not of what it does not know.
func readBlob(ctx context.Context, store *objstore.Bucket, ref pipeline.BlobRef) ([]byte, error) {
	body, err := store.GetRange(ctx, ref.Object, ref.Range[0], ref.Range[1])
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", ref.Object, err)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != ref.SHA256 {
		return nil, fmt.Errorf("blob %s, bytes %d-%d: its sha256 is %x, the reference says %s", ref.Object, ref.Range[0], ref.Range[1], sum, ref.SHA256)
	}
	return data, nil
}

// serveBlob is GET /v1/blobs/KEY?range=FIRST-LAST&content_type=TYPE: a blob as it
// is, by what its reference says. Without a content type the bytes tell it.
func (o *operator) serveBlob(w http.ResponseWriter, req *http.Request) {
	key := req.PathValue("key")
	if !strings.HasPrefix(key, "blobs/") {
		key = "blobs/" + key
	}
	first, last, err := blobRange(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !pipeline.IsBlobKey(key) {
		http.Error(w, fmt.Sprintf("%q is no object of blobs", key), http.StatusNotFound)
		return
	}
	body, err := o.store.GetRange(req.Context(), key, first, last)
	if err != nil {
		status := http.StatusBadGateway
		if errors.Is(err, objstore.ErrNotFound) {
			status = http.StatusNotFound
		}
		http.Error(w, err.Error(), status)
		return
	}
	defer body.Close()
	head := make([]byte, min(512, last-first+1))
	if _, err := io.ReadFull(body, head); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	kind := req.FormValue("content_type")
	if kind == "" {
		kind = http.DetectContentType(head)
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.FormatInt(last-first+1, 10))
	// What clients sent must not run in the operator's browser.
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'; img-src 'self'; media-src 'self'")
	h.Set("X-Content-Type-Options", "nosniff")
	w.Write(head)
	io.Copy(w, body)
}

// blobRange takes the range from the query or from the head.
func blobRange(req *http.Request) (first, last int64, err error) {
	text := req.FormValue("range")
	if text == "" {
		text = strings.TrimPrefix(req.Header.Get("Range"), "bytes=")
	}
	a, b, ok := strings.Cut(text, "-")
	if ok {
		if first, err = strconv.ParseInt(a, 10, 64); err == nil {
			last, err = strconv.ParseInt(b, 10, 64)
		}
	}
	if !ok || err != nil || first < 0 || last < first {
		return 0, 0, errors.New("say ?range=FIRST-LAST, as the reference has them")
	}
	return first, last, nil
}
