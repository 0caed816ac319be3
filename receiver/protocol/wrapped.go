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

// Browsers' clients wrap JSON so that no preflight is needed: in a form or a query
// (data=…), in base64 of either alphabet, and in gzip within that.

const (
	maxWraps = 4 // around one another
	// maxWrapped bounds, in bytes, what is wrapped and what comes out of it: all of
	// that is copied in memory. A beacon has 64 KiB, and a query 1 MiB.
	maxWrapped = 8 << 20
)

// QueryToBody moves a query into the body of a request that has none, as a form,
// without the parameters that hold keys: failure records keep the body.
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

// wrapped is what was found around the JSON of a body.
type wrapped struct {
	done bool
	json []byte
	made bool   // the JSON was copied out of the body
	key  string // that is beside it in a form
	err  *errcode.Error
}

// Unwrapped is the JSON of a body, which is made once.
func (r *Request) Unwrapped(body []byte) ([]byte, *errcode.Error) {
	if w := &r.wrapped; !w.done {
		w.done = true
		w.json, w.err = r.unwrapAll(body)
	}
	return r.wrapped.json, r.wrapped.err
}

// FormKey is the key beside the JSON in a form; empty: there is none.
func (r *Request) FormKey() string { return r.wrapped.key }

// Copied is how many bytes of memory the unwrapped JSON takes.
func (r *Request) Copied() int64 {
	if !r.wrapped.made {
		return 0
	}
	return int64(cap(r.wrapped.json))
}

// Forget lets the unwrapped JSON go.
func (r *Request) Forget() { r.wrapped.json, r.wrapped.made = nil, false }

func (r *Request) unwrapAll(body []byte) ([]byte, *errcode.Error) {
	data := Whole(body)
	isForm := bytes.HasPrefix(data, []byte("data=")) || bytes.Contains(data, []byte("&data="))
	switch {
	case beginsJSON(data):
		return data, nil
	case isGzip(data) || isForm || looksWrapped(data):
	default:
		return data, nil // whatever it is, it is rejected as JSON
	}
	if len(data) > maxWrapped {
		return nil, errcode.BodyTooLarge.Errorf(
			"the form is larger than the limit of %d bytes: send JSON, or gzip as the body", maxWrapped)
	}
	if err := r.Charge(4 * int64(len(data))); err != nil { // the copies that are made here
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

// beginsJSON tells an object or an array, or nothing, by its first byte.
func beginsJSON(b []byte) bool { return len(b) == 0 || b[0] == '{' || b[0] == '[' }

// looksWrapped tells a string, and base64 of an object, an array or gzip, by its first
// two characters.
func looksWrapped(b []byte) bool {
	if len(b) > 0 && b[0] == '"' {
		return true
	}
	if len(b) < 4 || b[0] != 'e' && b[0] != 'W' && b[0] != 'H' {
		return false
	}
	return b[0] == 'H' && b[1] == '4' || b[0] != 'H' && bytes.IndexByte([]byte("wxyz0123456789+/-_"), b[1]) >= 0
}

// Compressions are what a client may name in a form or a query. What was used is
// told by the bytes: posthog-js names it sometimes, and sometimes wrongly.
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

// unwrap takes off what is around JSON.
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
	case bytes.IndexByte(data, '%') >= 0: // escaped twice
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

// isGzip tells gzip by its first bytes: the magic number, and deflate.
func isGzip(b []byte) bool { return bytes.HasPrefix(b, []byte{0x1f, 0x8b, 8}) }

// fromBase64 takes either alphabet, with or without padding, and a plus that a
// form made a space.
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
