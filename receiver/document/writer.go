// Package document makes rows of events. A protocol says which members of an event are its properties, and in which
// order. The writer keeps them as pieces of the event's text, then writes the row once: without what the project
// redacts, and without the large values, which leave the row as blobs.
//
//	text     {"name":"a", "x":1,"y":[…large…], "properties":{"z":2}}
//	pieces                "x":1,"y":[…large…]                 "z":2
//	row      {"x":1,"y":null,"z":2}      blob [… large …]
//
// The scanner lists the large values while it reads the event, so the sizes of row and blobs are known before a byte is
// written.
package document

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/protocol"
)

const (
	// MaxRow limits the properties that stay in a row, in bytes. If more is left, smaller values leave as well, down to
	// minThreshold.
	MaxRow       = 8 << 20
	minThreshold = 1 << 10

	// blobRoom is the approximate size of a blob's reference in the row, in bytes.
	blobRoom = 320
)

// EnvelopeKey is the property that holds those members of the client's own envelope that have no column.
const EnvelopeKey = protocol.EnvelopeKey

// LargeFrom is the size from which the scanner has to list values for a writer with that threshold.
func LargeFrom(threshold int) int {
	for threshold > minThreshold {
		threshold /= 8
	}
	return threshold
}

// Writer makes the rows of a request's events, one after the other. Its zero value is ready.
type Writer struct {
	Threshold int // bytes of a value beyond which it becomes a blob; 0: none does

	Buf     []byte          // rows and texts that are not views of the body; they stay valid until Reset
	Blobs   []pipeline.Blob // of all events
	Applied []int32         // the rules of the redaction that were applied, one a value

	event    int
	sent     source // the event
	members  []piece
	envelope []piece
	redacted []piece // members and envelope after redaction
	cuts     []cut
}

// source is a text that pieces are of.
type source struct {
	text  []byte
	flat  bool            // without line ends
	large []jsonscan.Span // the values that may be cut out, outer ones first
}

// piece is one or more members of the row: a part of a text, or a blob.
type piece struct {
	*source
	start, end int32 // of the members in the text
	object     bool  // they are within braces, which are a part of the piece
	blob       *blobMember
}

type blobMember struct {
	key []byte
	pipeline.Blob
	inline func(dst []byte) []byte // appends the value as JSON; nil: there is none
}

// Begin starts the row of the event with that index in the request. large lists the values of text from
// LargeFrom(Threshold) bytes on, as a jsonscan.Scanner does; it is sorted here. flat reports that text has no line
// ends.
func (w *Writer) Begin(event int, text []byte, large []jsonscan.Span, flat bool) {
	w.event, w.sent.text, w.sent.large, w.sent.flat = event, text, sorted(large), flat
	w.members, w.envelope = w.members[:0], w.envelope[:0]
}

// sorted sorts values so that each is in front of those in it.
func sorted(large []jsonscan.Span) []jsonscan.Span {
	if len(large) > 1 {
		slices.SortFunc(large, func(a, b jsonscan.Span) int {
			return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(b.End, a.End))
		})
	}
	return large
}

// Reset removes all rows. Values beyond threshold become blobs. The buffers are reused.
func (w *Writer) Reset(threshold int) {
	*w = Writer{Threshold: threshold, Buf: w.Buf[:0], Blobs: w.Blobs[:0], Applied: w.Applied[:0], members: w.members[:0],
		envelope: w.envelope[:0], redacted: w.redacted[:0], cuts: w.cuts[:0]}
}

// Forget frees the rows and all buffers but Applied, which is counted after the answer.
func (w *Writer) Forget() { *w = Writer{Applied: w.Applied} }

// Property makes a member a property.
func (w *Writer) Property(m *jsonscan.Member) { w.members = w.add(w.members, m) }

// Keep makes a member a part of the property EnvelopeKey, which is behind all other properties.
func (w *Writer) Keep(m *jsonscan.Member) {
	if m.Kind != jsonscan.Null {
		w.envelope = w.add(w.envelope, m)
	}
}

// Spread makes the members of an object properties. A value that is no object is a property itself.
func (w *Writer) Spread(m *jsonscan.Member) {
	switch m.Kind {
	case jsonscan.Null:
	case jsonscan.Object:
		start, ok := w.offset(m.Value)
		if !ok {
			w.members = append(w.members, w.made(m.Value, true))
			return
		}
		w.members = append(w.members, piece{source: &w.sent, start: int32(start), end: int32(start + len(m.Value)),
			object: true})
	default:
		w.Property(m)
	}
}

// Cut reports whether values of the event became blobs.
func (w *Writer) Cut() bool { return len(w.Blobs) > 0 && w.Blobs[len(w.Blobs)-1].Event == w.event }

// Blob makes a property of a blob. If blobs are not allowed, inline appends the value as JSON; nil: null.
func (w *Writer) Blob(key []byte, b pipeline.Blob, inline func(dst []byte) []byte) {
	w.members = append(w.members, piece{blob: &blobMember{key, b, inline}})
}

// Text stores a value's JSON as text. Its readers need it exactly as sent, and nobody queries paths in it.
func (w *Writer) Text(key, value []byte) {
	if w.Threshold > 0 && len(value) > w.Threshold {
		w.Blob(key, pipeline.Blob{Kind: pipeline.BlobText, ContentType: "application/json", Size: int64(len(value)),
			Write: writer(value)}, func(dst []byte) []byte { return jsonscan.AppendQuoted(dst, value) })
		return
	}
	from := len(w.Buf)
	w.Buf = jsonscan.AppendQuoted(append(jsonscan.AppendQuoted(w.Buf, key), ':'), value)
	w.members = append(w.members, w.made(w.Buf[from:len(w.Buf):len(w.Buf)], false))
}

// made is a piece of a text that is not the event's.
func (w *Writer) made(text []byte, object bool) piece {
	return piece{source: &source{text: text}, end: int32(len(text)), object: object}
}

// add adds a member to pieces.
func (w *Writer) add(to []piece, m *jsonscan.Member) []piece {
	start, ok := w.offset(m.Value)
	end := start + len(m.Value)
	if ok && m.At > 0 {
		return w.append(to, int(m.At)-1, end)
	}
	if ok {
		if start, ok = w.keyBefore(start, m.Key); ok {
			return w.append(to, start, end)
		}
	}
	if value := m.Value; w.Threshold > 0 && len(value) > w.Threshold && value[0] == '"' {
		return append(to, piece{blob: &blobMember{m.Key, newBlob(value),
			func(dst []byte) []byte { return append(dst, value...) }}})
	}
	from := len(w.Buf)
	w.Buf = append(append(jsonscan.AppendQuoted(w.Buf, m.Key), ':'), m.Value...)
	return append(to, w.made(w.Buf[from:len(w.Buf):len(w.Buf)], false))
}

// keyBefore is where the key of the value at a position of the event's text begins. It must be the given key.
func (w *Writer) keyBefore(value int, key []byte) (start int, ok bool) {
	before := jsonscan.TrimSpace(w.sent.text[:value])
	if len(before) == 0 || before[len(before)-1] != ':' {
		return 0, false
	}
	before = jsonscan.TrimSpace(before[:len(before)-1])
	for start = len(before) - 2; start > 0; start-- { // no byte but an escape's is a backslash before a quote
		if before[start] == '"' && before[start-1] != '\\' {
			break
		}
	}
	if start <= 0 {
		return 0, false
	}
	sent := before[start:]
	start = cap(w.sent.text) - cap(sent)
	return start, string(sent[1:len(sent)-1]) == string(key) || string(jsonscan.AppendUnquoted(nil, sent)) == string(key)
}

// append adds a part of the event's text to pieces. Neighbours are one piece.
func (w *Writer) append(to []piece, start, end int) []piece {
	if n := len(to); n > 0 {
		p := &to[n-1]
		if p.source == &w.sent && !p.object && int(p.end) < start && isComma(w.sent.text[p.end:start]) {
			p.end = int32(end)
			return to
		}
	}
	return append(to, piece{source: &w.sent, start: int32(start), end: int32(end)})
}

// isComma reports whether a text between two members is the comma alone.
func isComma(text []byte) bool {
	return len(text) == 1 || len(text) < 100 && len(jsonscan.TrimSpace(text)) == 1
}

// offset is where a part of the event's text begins. Both end in the same array.
func (w *Writer) offset(part []byte) (at int, ok bool) {
	text := w.sent.text
	at = cap(text) - cap(part)
	return at, len(part) > 0 && at >= 0 && at < len(text) && &text[at] == &part[0]
}

// EnvelopeTaken reports whether a property may use the key of the envelope.
func (w *Writer) EnvelopeTaken() bool {
	return len(w.envelope) > 0 && slices.ContainsFunc(w.members, func(p piece) bool {
		if p.blob != nil {
			return string(p.blob.key) == EnvelopeKey
		}
		own := p.text[p.start:p.end]
		return bytes.Contains(own, []byte(EnvelopeKey)) || bytes.IndexByte(own, '\\') >= 0 // a key may be escaped
	})
}

// AsSent calls f with the properties as sent: nothing redacted and, with whole, no blobs cut out.
func (w *Writer) AsSent(whole bool, f func(row []byte) error) error {
	blobs, from := len(w.Blobs), len(w.Buf)
	threshold := w.Threshold
	if whole {
		threshold = 0
	}
	w.plan(w.members, w.envelope, threshold)
	err := f(w.write(w.members, w.envelope, whole))
	w.Blobs, w.Buf = w.Blobs[:blobs], w.Buf[:from]
	return err
}

// Row writes the properties, and adds the blobs that were cut out of them. left is the size of the row, including
// references. If it exceeds MaxRow even without the values above threshold, nothing is written.
func (w *Writer) Row(rules *Redaction) (row []byte, left, threshold int) {
	members, envelope := w.members, w.envelope
	if rules.properties() != nil {
		members, envelope = rules.redact(w)
	}
	left, threshold = w.plan(members, envelope, w.Threshold)
	if left > MaxRow {
		return nil, left, threshold
	}
	return w.write(members, envelope, false), left, threshold
}

// write writes a row of pieces and of the cuts that were planned for them.
func (w *Writer) write(members, envelope []piece, inline bool) []byte {
	if len(members) == 1 && len(envelope)+len(w.cuts) == 0 && members[0].object { // most events
		p := &members[0]
		object := p.text[p.start:p.end:p.end]
		if p.flat || !hasLineEnd(object) {
			return object
		}
		from := len(w.Buf)
		w.flatten(object, false)
		return w.Buf[from:len(w.Buf):len(w.Buf)]
	}
	s := rowWriter{w: w, from: len(w.Buf), cuts: w.cuts, inline: inline}
	w.Buf = append(w.Buf, '{')
	s.pieces(members)
	if len(envelope) > 0 {
		s.comma()
		w.Buf = append(w.Buf, `"`+EnvelopeKey+`":{`...)
		s.pieces(envelope)
		w.Buf = append(w.Buf, '}')
	}
	w.Buf = append(w.Buf, '}')
	return w.Buf[s.from:len(w.Buf):len(w.Buf)]
}

// rowWriter is a row that is being written.
type rowWriter struct {
	w      *Writer
	from   int   // where it begins in Buf
	cuts   []cut // that lie ahead
	inline bool  // blobs are written as JSON
	index  int   // of the piece
}

func (s *rowWriter) pieces(pieces []piece) {
	for i := range pieces {
		s.piece(&pieces[i])
		s.index++
	}
}

func (s *rowWriter) piece(p *piece) {
	w := s.w
	if b := p.blob; b != nil {
		s.comma()
		w.Buf = append(jsonscan.AppendQuoted(w.Buf, b.key), ':')
		if s.inline && b.inline != nil {
			w.Buf = b.inline(w.Buf)
			return
		}
		s.blob(b.Blob)
		return
	}
	start, end := p.bounds()
	if start == end {
		return
	}
	s.comma()
	for len(s.cuts) > 0 && s.cuts[0].piece == s.index {
		c := &s.cuts[0]
		w.flatten(p.text[start:c.Start], p.flat)
		s.blob(newBlob(p.text[c.Start:c.End]))
		start, s.cuts = int(c.End), s.cuts[1:]
	}
	w.flatten(p.text[start:end], p.flat)
}

// bounds is where the members of a piece are, without their braces.
func (p *piece) bounds() (start, end int) {
	if !p.object {
		return int(p.start), int(p.end)
	}
	inner := jsonscan.TrimSpace(p.text[p.start+1 : p.end-1])
	start = cap(p.text) - cap(inner)
	return start, start + len(inner)
}

// comma separates members.
func (s *rowWriter) comma() {
	if s.w.Buf[len(s.w.Buf)-1] != '{' {
		s.w.Buf = append(s.w.Buf, ',')
	}
}

// blob leaves a hole for a blob.
func (s *rowWriter) blob(b pipeline.Blob) {
	w := s.w
	b.Event, b.At = w.event, len(w.Buf)-s.from
	w.Blobs = append(w.Blobs, b)
	w.Buf = append(w.Buf, pipeline.BlobHole...)
}

// flatten writes a text without line ends, so that it fits into a line of NDJSON. Unescaped line ends can only be white
// space. flat reports that there are none.
func (w *Writer) flatten(text []byte, flat bool) {
	from := len(w.Buf)
	w.Buf = append(w.Buf, text...)
	if !flat && hasLineEnd(text) {
		for i, c := range w.Buf[from:] {
			if c == '\n' || c == '\r' {
				w.Buf[from+i] = ' '
			}
		}
	}
}
