package receiver

import (
	"bytes"
	"encoding/base64"
	"io"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/protocol"
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
	switch value[0] {
	case '"':
		q.blob(value)
	case '{', '[':
		c := cutter{q: q, text: value}
		c.begin(hugeSize)
	default:
		q.flat(value) // a number of very many digits
	}
}

// cutter goes through an array or object, and cuts out what is large. Where those
// in it end, at whatever depth, it finds by looking at each byte three times at
// most: for the huge ones, for the large ones in what is not huge (so that few
// are noted at a time), and for what is small.
type cutter struct {
	q    *request
	text []byte

	huge  map[int]int // where they end, by where they begin
	large map[int]int // those before seen
	seen  int
	open  []int // while ends are looked for
	looks int   // at bytes, for that
}

const hugeSize = 1 << 20

func (c *cutter) begin(huge int) {
	if huge = max(huge, c.q.threshold); len(c.text) > huge {
		_, c.huge = c.ends(0, huge)
	}
	c.cut(0, len(c.text))
}

// ends is where the array or object ends that begins there, and where all of more
// than size bytes do in it.
func (c *cutter) ends(from, size int) (end int, of map[int]int) {
	c.open = c.open[:0]
	for i := from; ; i++ {
		switch c.text[i] {
		case '"':
			for i++; c.text[i] != '"'; i++ {
				if c.text[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			c.open = append(c.open, i)
		case '}', ']':
			last := len(c.open) - 1
			at := c.open[last]
			c.open = c.open[:last]
			if i+1-at > size {
				if of == nil {
					of = map[int]int{}
				}
				of[at] = i + 1
			}
			if last == 0 {
				c.looks += i + 1 - from
				return i + 1, of
			}
		}
	}
}

// end is where the array or object at a place ends. Places are asked for in order.
func (c *cutter) end(at int) int {
	if at >= c.seen {
		if end, ok := c.huge[at]; ok {
			return end
		}
		c.seen, c.large = c.ends(at, c.q.threshold)
		return c.seen
	}
	if end, ok := c.large[at]; ok {
		return end
	}
	n := jsonscan.Extent(c.text[at:])
	c.looks += n
	return at + n
}

// cut writes what is between the two places, an array or object.
func (c *cutter) cut(from, to int) {
	q := c.q
	at, blobs := len(q.scratch), len(q.blobs)
	over := func() bool { return len(q.scratch)-at+(len(q.blobs)-blobs)*blobRoom > q.threshold }
	object := c.text[from] == '{'
	q.scratch = append(q.scratch, c.text[from])
	if inner := jsonscan.TrimSpace(c.text[from+1 : to-1]); object && !q.large(inner) {
		q.flat(inner)
	} else {
		for i := c.next(from + 1); i < to-1 && !over(); i = c.next(i) {
			if c.text[i] == ',' {
				q.scratch = append(q.scratch, ',')
				i = c.next(i + 1)
			}
			if object {
				n := jsonscan.Extent(c.text[i:])
				q.scratch = append(append(q.scratch, c.text[i:i+n]...), ':')
				i = c.next(c.next(i+n) + 1)
			}
			i = c.value(i)
		}
	}
	q.scratch = append(q.scratch, c.text[to-1])
	if over() { // no more of it was written than that takes
		q.scratch, q.blobs = q.scratch[:at], q.blobs[:blobs]
		q.blob(c.text[from:to])
	}
}

// value writes the one at a place, and is where it ends.
func (c *cutter) value(at int) (end int) {
	switch c.text[at] {
	case '{', '[':
		if end = c.end(at); c.q.large(c.text[at:end]) {
			c.cut(at, end)
			return end
		}
	default:
		end = at + jsonscan.Extent(c.text[at:])
	}
	c.q.line(c.text[at:end])
	return end
}

// next is the place behind white space.
func (c *cutter) next(at int) int { return len(c.text) - len(jsonscan.TrimSpace(c.text[at:])) }

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
	protocol.EachSent(object, func(key, value []byte) {
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

// jsonText makes a property of a value's JSON as text: what reads it needs it as it
// was sent, with nulls and empty objects, and its paths are none to query.
func (q *request) jsonText(name, value []byte) {
	q.comma()
	q.scratch = append(jsonscan.AppendQuoted(q.scratch, name), ':')
	if !q.large(value) {
		q.scratch = jsonscan.AppendQuoted(q.scratch, value)
		return
	}
	q.blobs = append(q.blobs, pipeline.Blob{Event: len(q.events), At: len(q.scratch), Kind: pipeline.BlobText,
		ContentType: "application/json", Size: int64(len(value)),
		Write: func(w io.Writer) error { _, err := w.Write(value); return err }})
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
