package document

import (
	"bytes"
	"encoding/base64"
	"io"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// newBlob is the blob of a JSON value: the content of a string, the bytes of a data URL, or the JSON itself.
func newBlob(value []byte) pipeline.Blob {
	if value[0] != '"' {
		return pipeline.Blob{Kind: pipeline.BlobJSON, ContentType: "application/json", Size: int64(len(value)),
			Write: writer(value)}
	}
	text := value[1 : len(value)-1]
	if mediaType, data, ok := dataURL(text); ok {
		return pipeline.Blob{Kind: pipeline.BlobDataURL, ContentType: mediaType,
			Size:  int64(base64.StdEncoding.DecodedLen(len(data))),
			Write: func(w io.Writer) error { return DecodeBase64(w, data) }}
	}
	return pipeline.Blob{Kind: pipeline.BlobText, ContentType: "text/plain; charset=utf-8", Size: int64(len(value)),
		Write: func(w io.Writer) error { return writeUnescaped(w, text) }}
}

// writer writes bytes as they are.
func writer(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}

// maxMediaType limits the head of a data URL, in bytes.
const maxMediaType = 200

// dataURL reports whether a string is a data URL, and whether its decoded bytes can restore it exactly.
func dataURL(text []byte) (mediaType string, data []byte, ok bool) {
	head, ok := bytes.CutPrefix(text, []byte("data:"))
	if !ok {
		return "", nil, false
	}
	at := bytes.Index(head[:min(len(head), maxMediaType)], []byte(";base64,"))
	if at < 0 || bytes.IndexByte(head[:at], '\\') >= 0 {
		return "", nil, false
	}
	data = head[at+len(";base64,"):]
	if DecodeBase64(io.Discard, data) != nil {
		return "", nil, false
	}
	return string(head[:at]), data, true
}

// decodePart is how many bytes of base64, or of an escaped string, are decoded at once.
const decodePart = 256 << 10

// DecodeBase64 decodes data that an encoder can restore exactly: padded, without white space, unused bits 0.
func DecodeBase64(w io.Writer, data []byte) error {
	out := make([]byte, base64.StdEncoding.DecodedLen(min(decodePart, len(data))))
	for len(data) > 0 {
		part := data[:min(decodePart, len(data))]
		data = data[len(part):]
		n, err := base64.StdEncoding.Strict().Decode(out, part)
		if err != nil {
			return err
		}
		if len(data) > 0 && n != len(part)/4*3 || hasLineEnd(part) {
			return base64.CorruptInputError(n) // padding in the middle, or line ends, which the decoder skips
		}
		if _, err := w.Write(out[:n]); err != nil {
			return err
		}
	}
	return nil
}

// writeUnescaped writes the content of a JSON string, a part at a time.
func writeUnescaped(w io.Writer, text []byte) error {
	if bytes.IndexByte(text, '\\') < 0 {
		_, err := w.Write(text)
		return err
	}
	var quoted, out []byte
	for len(text) > 0 {
		n := 0
		for n < len(text) && n < decodePart { // a part never ends within an escape or a surrogate pair
			switch {
			case text[n] != '\\':
				n++
			case text[n+1] != 'u':
				n += 2
			case (text[n+2] == 'd' || text[n+2] == 'D') && text[n+3] >= '8' && n+12 <= len(text) && text[n+6] == '\\':
				n += 12
			default:
				n += 6
			}
		}
		quoted = append(append(append(quoted[:0], '"'), text[:n]...), '"')
		text = text[n:]
		out = jsonscan.AppendUnquoted(out[:0], quoted)
		if _, err := w.Write(out); err != nil {
			return err
		}
	}
	return nil
}

func hasLineEnd(b []byte) bool {
	return bytes.IndexByte(b, '\n') >= 0 || bytes.IndexByte(b, '\r') >= 0
}
