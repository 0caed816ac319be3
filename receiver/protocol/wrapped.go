package protocol

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/penstock/penstock/receiver/errcode"
)

// Browser clients wrap JSON to avoid a preflight request: in a form or a query (data=…), in base64 of either alphabet,
// and in gzip within that.

const (
	maxWraps = 4 // nested layers
	// maxWrapped bounds the size of wrapped data and of the result, in bytes. Both are copied in memory. A beacon has at
	// most 64 KiB, a query 1 MiB.
	maxWrapped = 8 << 20
)

// QueryToBody moves the query of a request without a body into its body, as a form. It leaves out parameters with keys,
// because failure records keep the body.
func QueryToBody(req *http.Request) {
	if req.Method != http.MethodGet && (req.ContentLength != 0 || QueryValue(req.URL.RawQuery, "data") == "") {
		return
	}
	var kept []string
	for part := range strings.SplitSeq(req.URL.RawQuery, "&") {
		name, _, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(name); err != nil || part != "" && !slices.Contains(KeyNames, plain) {
			kept = append(kept, part)
		}
	}
	form := strings.Join(kept, "&")
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader(form)), int64(len(form))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Del("Content-Encoding")
}

// wrapped is the result of unwrapping a body.
type wrapped struct {
	done bool
	json []byte
	made bool   // the JSON is a copy, not a part of the body
	key  string // the key next to it in a form
	err  *errcode.Error
}

// Unwrapped returns the JSON of a body. It unwraps once.
func (r *Request) Unwrapped(body []byte) ([]byte, *errcode.Error) {
	if w := &r.wrapped; !w.done {
		w.done = true
		w.json, w.err = r.unwrapAll(body)
	}
	return r.wrapped.json, r.wrapped.err
}

// FormKey returns the key next to the JSON in a form; empty: none.
func (r *Request) FormKey() string { return r.wrapped.key }

// Copied returns the memory of the unwrapped JSON, in bytes.
func (r *Request) Copied() int64 {
	if !r.wrapped.made {
		return 0
	}
	return int64(cap(r.wrapped.json))
}

// Forget releases the unwrapped JSON.
func (r *Request) Forget() { r.wrapped.json, r.wrapped.made = nil, false }

func (r *Request) unwrapAll(body []byte) ([]byte, *errcode.Error) {
	data := Whole(body)
	isForm := bytes.HasPrefix(data, []byte("data=")) || bytes.Contains(data, []byte("&data="))
	switch {
	case beginsJSON(data):
		return data, nil
	case isGzip(data) || isForm || looksWrapped(data):
	default:
		return data, nil // it is rejected as invalid JSON
	}
	if len(data) > maxWrapped {
		return nil, errcode.BodyTooLarge.Errorf(
			"the form is larger than the limit of %d bytes: send JSON, or gzip as the body", maxWrapped)
	}
	if err := r.Charge(4 * int64(len(data))); err != nil { // for the copies made below
		return nil, err
	}
	if isForm && !isGzip(data) {
		form, err := parseForm(data)
		if err != nil {
			return nil, err
		}
		data = []byte(form.Get("data"))
		for _, name := range KeyNames {
			r.wrapped.key = cmp.Or(r.wrapped.key, form.Get(name))
		}
	}
	data, err := r.unwrap(data)
	r.wrapped.made = err == nil
	return data, err
}

// beginsJSON reports whether data begins like an object or an array, or is empty.
func beginsJSON(b []byte) bool { return len(b) == 0 || b[0] == '{' || b[0] == '[' }

// looksWrapped reports whether data begins like a string, or like base64 of an object, an array or gzip. It reads two
// characters.
func looksWrapped(b []byte) bool {
	if len(b) > 0 && b[0] == '"' {
		return true
	}
	if len(b) < 4 || b[0] != 'e' && b[0] != 'W' && b[0] != 'H' {
		return false
	}
	return b[0] == 'H' && b[1] == '4' || b[0] != 'H' && bytes.IndexByte([]byte("wxyz0123456789+/-_"), b[1]) >= 0
}

// Compressions are the values that a client may name in a form or a query. The bytes decide, because posthog-js names
// compressions only sometimes, and sometimes wrongly.
var Compressions = []string{"", "none", "base64", "gzip", "gzip-js"}

func parseForm(body []byte) (url.Values, *errcode.Error) {
	form, err := url.ParseQuery(string(body))
	switch {
	case err != nil:
		return nil, errcode.InvalidForm.Errorf("the form cannot be read: %.100s", err)
	case len(form["data"]) > 1:
		return nil, errcode.DuplicateKey.Errorf("the form has more than one \"data\": send several events as one array")
	case !slices.Contains(Compressions, form.Get("compression")):
		return nil, errcode.UnsupportedEncoding.Errorf(
			"compression %.40q: send gzip (compression=gzip-js), base64 or plain JSON",
			form.Get("compression"))
	}
	return form, nil
}

// unwrap removes the layers around JSON.
func (r *Request) unwrap(data []byte) ([]byte, *errcode.Error) {
	for range maxWraps {
		if data = Whole(data); beginsJSON(data) {
			return data, nil
		}
		err := r.Charge(2 * int64(len(data)))
		if err == nil {
			data, err = r.unwrapOnce(data)
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, errcode.InvalidForm.Errorf("the data is encoded more than %d times", maxWraps)
}

func (r *Request) unwrapOnce(data []byte) ([]byte, *errcode.Error) {
	switch {
	case isGzip(data):
		return r.Unzip(data, maxWrapped)
	case data[0] == '"': // JSON of JSON
		var text string
		if err := json.Unmarshal(data, &text); err != nil {
			return nil, errcode.InvalidJSON.Errorf("the data is not valid JSON: %s", err)
		}
		return []byte(text), nil
	case bytes.IndexByte(data, '%') >= 0: // percent-encoded twice
		text, err := url.PathUnescape(string(data))
		if err != nil {
			return nil, errcode.InvalidForm.Errorf("the data cannot be read: %.100s", err)
		}
		return []byte(text), nil
	}
	data, err := fromBase64(data)
	if err != nil {
		return nil, errcode.InvalidForm.Errorf("the data is neither JSON nor valid base64: %s", err)
	}
	return data, nil
}

// isGzip recognizes gzip by its magic number and the method deflate.
func isGzip(b []byte) bool { return bytes.HasPrefix(b, []byte{0x1f, 0x8b, 8}) }

// fromBase64 decodes either alphabet, with or without padding. In a form, a plus may have become a space.
func fromBase64(data []byte) ([]byte, error) {
	text := make([]byte, 0, len(data))
	for _, c := range bytes.TrimRight(data, "=") {
		switch c {
		case ' ', '-':
			c = '+'
		case '_':
			c = '/'
		}
		text = append(text, c)
	}
	n, err := base64.RawStdEncoding.Decode(text, text)
	return text[:n], err
}
