package receiver

import (
	"bytes"
	"encoding/base64"
	"io"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// Values beyond Options.BlobThreshold leave their event's row: they are cut out
// while its properties are written, and a null holds their place until the
// batcher knows where they went.

// blobRoom is about what a reference takes in the row, in bytes.
const blobRoom = 320

// maxRow bounds the properties that stay in an event's row, in bytes. Where more
// is left, smaller values leave as well, down to minThreshold.
const (
	maxRow       = 8 << 20
	minThreshold = 1 << 10
)

// large tells whether a value is to leave its row, or what is in it.
func (q *request) large(value []byte) bool {
	return q.threshold > 0 && !q.uncut && len(value) > q.threshold
}

// cut writes a large value into scratch, without what is large in it. What is
// still large then leaves as a whole.
func (q *request) cut(value []byte) {
	from, before := len(q.scratch), len(q.blobs)
	switch value[0] {
	case '"':
		q.blob(value)
		return
	case '{':
		q.scratch = append(q.scratch, '{')
		q.spread(value)
		q.scratch = append(q.scratch, '}')
	case '[':
		q.scratch = append(q.scratch, '[')
		for rest := jsonscan.TrimSpace(value[1:]); rest[0] != ']'; {
			if rest[0] == ',' {
				q.scratch = append(q.scratch, ',')
				rest = jsonscan.TrimSpace(rest[1:])
			}
			n := extent(rest)
			q.line(rest[:n])
			rest = jsonscan.TrimSpace(rest[n:])
		}
		q.scratch = append(q.scratch, ']')
	default:
		q.flat(value) // a number of very many digits
		return
	}
	if len(q.scratch)-from+(len(q.blobs)-before)*blobRoom > q.threshold {
		q.scratch, q.blobs = q.scratch[:from], q.blobs[:before]
		q.blob(value)
	}
}

// spread writes the members of an object into the one that is being written.
func (q *request) spread(object []byte) {
	inner := jsonscan.TrimSpace(object[1 : len(object)-1])
	if len(inner) == 0 {
		return
	}
	if !q.large(inner) {
		q.comma()
		q.flat(inner)
		return
	}
	eachSent(object, func(key, value []byte) {
		q.comma()
		q.scratch = append(append(append(q.scratch, '"'), key...), '"', ':')
		q.line(value)
	})
}

// comma goes before every member but the first.
func (q *request) comma() {
	if q.scratch[len(q.scratch)-1] != '{' {
		q.scratch = append(q.scratch, ',')
	}
}

// blob takes a value out of the event that is being written.
func (q *request) blob(value []byte) {
	b := pipeline.Blob{Event: len(q.events), At: len(q.scratch), Kind: pipeline.BlobJSON, ContentType: "application/json", Size: int64(len(value)),
		Write: func(w io.Writer) error { _, err := w.Write(value); return err }}
	if value[0] == '"' {
		text := value[1 : len(value)-1]
		b.Kind, b.ContentType = pipeline.BlobText, "text/plain; charset=utf-8"
		b.Write = func(w io.Writer) error { return writeUnescaped(w, text) }
		if kind, data, ok := dataURL(text); ok {
			b.Kind, b.ContentType, b.Size = pipeline.BlobDataURL, kind, int64(base64.StdEncoding.DecodedLen(len(data)))
			b.Write = func(w io.Writer) error { return decodeBase64(w, data) }
		}
	}
	q.blobs = append(q.blobs, b)
	q.scratch = append(q.scratch, pipeline.BlobHole...)
}

// settle gives the blobs of the event that was written their places in its
// properties, which begin at from in scratch.
func (q *request) settle(from int) {
	for i := len(q.blobs) - 1; i >= 0 && q.blobs[i].Event == len(q.events); i-- {
		q.blobs[i].At -= from
	}
}

// maxMediaType bounds the head of a data URL, in bytes.
const maxMediaType = 200

// dataURL tells whether a string is a data URL that its decoded bytes say all of.
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
	if decodeBase64(io.Discard, data) != nil {
		return "", nil, false
	}
	return string(head[:at]), data, true
}

// decodePart is how much is decoded at once, in bytes of base64.
const decodePart = 256 << 10

// decodeBase64 takes what an encoder writes and nothing else: padded, without
// white space, the last bits 0.
func decodeBase64(w io.Writer, data []byte) error {
	out := make([]byte, base64.StdEncoding.DecodedLen(min(decodePart, len(data))))
	for len(data) > 0 {
		part := data[:min(decodePart, len(data))]
		data = data[len(part):]
		n, err := base64.StdEncoding.Strict().Decode(out, part)
		if err != nil {
			return err
		}
		if len(data) > 0 && n != len(part)/4*3 || hasLineEnd(part) {
			return base64.CorruptInputError(n) // padding in the middle, or what the decoder passes over
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
		for n < len(text) && n < decodePart { // never within an escape, or between two halves of a character
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
