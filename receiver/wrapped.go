package receiver

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/penstock/penstock/internal/jsonscan"
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

// queryToBody moves a query into the body of a request that has none, as a form,
// without the parameters that hold keys: failure records keep the body.
func queryToBody(req *http.Request) {
	if req.Method != http.MethodGet && (req.ContentLength != 0 || queryValue(req.URL.RawQuery, "data") == "") {
		return
	}
	var kept []string
	for part := range strings.SplitSeq(req.URL.RawQuery, "&") {
		name, _, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(name); err != nil || part != "" && !slices.Contains(keyParameters, plain) {
			kept = append(kept, part)
		}
	}
	form := strings.Join(kept, "&")
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader(form)), int64(len(form))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Del("Content-Encoding")
}

// keyParameters are those of a query or a form in which clients put their key.
var keyParameters = []string{"key", "api_key", "token", "writeKey"}

// unwrapped is the JSON of a body, which is made once.
func (q *request) unwrapped(body []byte) (data []byte, err *errcode.Error) {
	if q.form != nil || q.sealed != nil {
		return q.form, q.sealed
	}
	defer func() { q.sealed = err }()
	data = wholeBody(body)
	isForm := bytes.HasPrefix(data, []byte("data=")) || bytes.Contains(data, []byte("&data="))
	switch {
	case beginsJSON(data):
		return data, nil
	case isGzip(data) || isForm || looksWrapped(data):
	default:
		return data, nil // whatever it is, it is refused as JSON
	}
	if len(data) > maxWrapped {
		return nil, refuse(http.StatusRequestEntityTooLarge, "body_too_large",
			"the form is larger than the limit of %d bytes: send JSON, or gzip as the body", maxWrapped)
	}
	if q.charge(q.charged+4*int64(len(data))) != nil { // the copies that are made here
		return nil, busy()
	}
	if isForm && !isGzip(data) {
		form, err := parseForm(data)
		if err != nil {
			return nil, err
		}
		data = []byte(form.Get("data"))
		for _, name := range keyParameters {
			q.formKey = cmp.Or(q.formKey, form.Get(name))
		}
	}
	if data, err = q.unwrap(data); err == nil {
		q.form = data
	}
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

// compressions are what a client may name in a form or a query. What was used is
// told by the bytes: posthog-js names it sometimes, and sometimes wrongly.
var compressions = []string{"", "none", "base64", "gzip", "gzip-js"}

func parseForm(body []byte) (url.Values, *errcode.Error) {
	form, err := url.ParseQuery(string(body))
	switch {
	case err != nil:
		return nil, errcode.InvalidForm.Errorf("the form cannot be read: %.100s", err)
	case len(form["data"]) > 1:
		return nil, refuse(http.StatusBadRequest, jsonscan.DuplicateKey,
			"the form has more than one \"data\": send several events as one array")
	case !slices.Contains(compressions, form.Get("compression")):
		return nil, unknownCompression(form.Get("compression"))
	}
	return form, nil
}

func unknownCompression(name string) *errcode.Error {
	return refuse(http.StatusUnsupportedMediaType, "unsupported_encoding",
		"compression %.40q: send gzip (compression=gzip-js), base64 or plain JSON", name)
}

// unwrap takes off what is around JSON.
func (q *request) unwrap(data []byte) ([]byte, *errcode.Error) {
	for range maxWraps {
		if data = wholeBody(data); beginsJSON(data) {
			return data, nil
		}
		if q.charge(q.charged+2*int64(len(data))) != nil {
			return nil, busy()
		}
		var err error
		switch {
		case isGzip(data):
			if data, err = q.unzip(data); errors.Is(err, errMemory) {
				return nil, busy()
			} else if errors.Is(err, errAnonymous) {
				return nil, keylessLimit()
			} else if errors.Is(err, errDecoded) {
				return nil, refuse(http.StatusRequestEntityTooLarge, "decoded_too_large",
					"the decompressed data is larger than the limit of %d bytes: send gzip as the body, not in a form or a query",
					min(q.decodedMax(), maxWrapped))
			} else if err != nil {
				return nil, errcode.InvalidEncoding.Errorf("the data is not valid gzip: %s", err)
			}
		case data[0] == '"': // JSON of JSON
			var text string
			if err = json.Unmarshal(data, &text); err != nil {
				return nil, errcode.InvalidJSON.Errorf("the data is not valid JSON: %s", err)
			}
			data = []byte(text)
		case bytes.IndexByte(data, '%') >= 0: // escaped twice
			text, err := url.PathUnescape(string(data))
			if err != nil {
				return nil, errcode.InvalidForm.Errorf("the data cannot be read: %.100s", err)
			}
			data = []byte(text)
		default:
			if data, err = fromBase64(data); err != nil {
				return nil, errcode.InvalidForm.Errorf("the data is neither JSON nor valid base64: %s", err)
			}
		}
	}
	return nil, errcode.InvalidForm.Errorf("the data is encoded more than %d times", maxWraps)
}

// unzip is gzip within a body. It never goes to disk, so little is taken.
func (q *request) unzip(data []byte) (out []byte, err error) {
	z := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(z)
	if err := z.Reset(bytes.NewReader(data)); err != nil {
		return nil, noEOF(err)
	}
	src := &limitReader{r: z, left: math.MaxInt64, pays: q} // fillFrom has the limit
	err = q.fillFrom(&out, src, -1, min(q.decodedMax(), maxWrapped), q.charged+flateMemory, false)
	return out, err
}

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
