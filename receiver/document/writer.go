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
	"unsafe"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

const (
	// MaxRow limits the properties that stay in a row, in bytes. If more is left, smaller values leave as well, down to
	// minThreshold.
	MaxRow       = 8 << 20
	minThreshold = 1 << 10

	// blobRoom is about what a blob's reference takes in the row, in bytes.
	blobRoom = 320
)

// EnvelopeKey is the property that holds those members of the client's own envelope that have no column.
const EnvelopeKey = "$envelope"

// LargeFrom is the size from which on the scanner has to list values, for a writer with that threshold.
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
	text     []byte
	large    []jsonscan.Span // of text, outer ones first
	members  []piece
	envelope []piece
	redacted []piece // members and envelope without what is redacted
	cuts     []cut
}

// piece is one or more members of the row, or a blob.
type piece struct {
	text       []byte          // the members are text[start:end]
	large      []jsonscan.Span // of text
	start, end int
	sent       bool // text is the event's
	object     bool // the members are within braces, which are a part of the piece
	key        []byte
	blob       *pipeline.Blob // the value of key; nil: the piece is text
	inline     func([]byte) []byte
}

// Begin starts the row of the event with that index in the request. large lists the values of text from
// LargeFrom(Threshold) bytes on, as a jsonscan.Scanner does; it is sorted here.
func (w *Writer) Begin(event int, text []byte, large []jsonscan.Span) {
	w.event, w.text, w.large = event, text, sorted(large)
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

// Reset forgets all rows. The buffers are used again.
func (w *Writer) Reset() {
	*w = Writer{Buf: w.Buf[:0], Blobs: w.Blobs[:0], Applied: w.Applied[:0], members: w.members[:0],
		envelope: w.envelope[:0], redacted: w.redacted[:0], cuts: w.cuts[:0]}
}

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
		if start, ok := w.offset(m.Value); ok {
			w.members = append(w.members, piece{text: w.text, large: w.large, start: start, end: start + len(m.Value), object: true})
		} else {
			w.members = append(w.members, piece{text: m.Value, end: len(m.Value), object: true})
		}
	default:
		w.Property(m)
	}
}

// Blob makes a property of a blob. inline appends the property's value as JSON where no blob may be; nil: null.
func (w *Writer) Blob(key []byte, b pipeline.Blob, inline func(dst []byte) []byte) {
	w.members = append(w.members, piece{key: key, blob: &b, inline: inline})
}

// Text makes a property of a value's JSON as text. Its readers need it exactly as it was sent, and nobody queries paths
// in it.
func (w *Writer) Text(key, value []byte) {
	quoted := func(dst []byte) []byte { return jsonscan.AppendQuoted(dst, value) }
	if w.Threshold > 0 && len(value) > w.Threshold {
		w.Blob(key, pipeline.Blob{Kind: pipeline.BlobText, ContentType: "application/json", Size: int64(len(value)),
			Write: writer(value)}, quoted)
		return
	}
	from := len(w.Buf)
	w.Buf = quoted(append(jsonscan.AppendQuoted(w.Buf, key), ':'))
	w.members = append(w.members, piece{text: w.Buf[from:len(w.Buf):len(w.Buf)], end: len(w.Buf) - from})
}

// add adds a member to pieces. Neighbours in the text are one piece.
func (w *Writer) add(to []piece, m *jsonscan.Member) []piece {
	start, ok := w.offset(m.Sent)
	if !ok { // a protocol has made it
		from := len(w.Buf)
		w.Buf = append(append(jsonscan.AppendQuoted(w.Buf, m.Key), ':'), m.Value...)
		return append(to, piece{text: w.Buf[from:len(w.Buf):len(w.Buf)], end: len(w.Buf) - from})
	}
	if n := len(to); n > 0 {
		if p := &to[n-1]; p.sent && p.end+1 == start && w.text[p.end] == ',' {
			p.end = start + len(m.Sent)
			return to
		}
	}
	return append(to, piece{text: w.text, large: w.large, start: start, end: start + len(m.Sent), sent: true})
}

// offset is where a part of the event's text begins.
func (w *Writer) offset(part []byte) (at int, ok bool) {
	if len(w.text) == 0 || len(part) == 0 {
		return 0, false
	}
	begin, from := uintptr(unsafe.Pointer(&w.text[0])), uintptr(unsafe.Pointer(&part[0]))
	return int(from - begin), from >= begin && from-begin <= uintptr(len(w.text)-len(part))
}

// Empty reports whether the row has no properties yet.
func (w *Writer) Empty() bool { return len(w.members)+len(w.envelope) == 0 }

// Merged reports whether the row has members of several objects, which may have the same key.
func (w *Writer) Merged() bool {
	for i := range w.members {
		if w.members[i].object && len(w.members) > 1 {
			return true
		}
	}
	return false
}

// EnvelopeTaken reports whether a property may have the key of the envelope.
func (w *Writer) EnvelopeTaken() bool {
	if len(w.envelope) == 0 {
		return false
	}
	for i := range w.members {
		p := &w.members[i]
		if own := p.text[p.start:p.end]; bytes.Contains(own, []byte(EnvelopeKey)) || bytes.IndexByte(own, '\\') >= 0 {
			return true
		}
	}
	return false
}

// AsSent calls f with the properties as they were sent: nothing redacted and, with whole, no blobs cut out.
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

// Row writes the properties, and adds the blobs that were cut out of them. left is how many bytes the row takes, with
// what its references will. If they are more than MaxRow even with values above threshold cut out, nothing is
// written.
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
	if len(members) == 1 && len(envelope)+len(w.cuts) == 0 && members[0].object {
		if p := &members[0]; !hasLineEnd(p.text[p.start:p.end]) {
			return p.text[p.start:p.end:p.end]
		}
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
	if p.blob != nil {
		s.comma()
		w.Buf = append(jsonscan.AppendQuoted(w.Buf, p.key), ':')
		if s.inline && p.inline != nil {
			w.Buf = p.inline(w.Buf)
			return
		}
		s.blob(*p.blob)
		return
	}
	start, end := p.bounds()
	if start == end {
		return
	}
	s.comma()
	for len(s.cuts) > 0 && s.cuts[0].piece == s.index {
		c := &s.cuts[0]
		w.flat(p.text[start:c.Start])
		s.blob(newBlob(p.text[c.Start:c.End]))
		start, s.cuts = int(c.End), s.cuts[1:]
	}
	w.flat(p.text[start:end])
}

// bounds is where the members of a piece are, without their braces.
func (p *piece) bounds() (start, end int) {
	if !p.object {
		return p.start, p.end
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

// flat writes a text so that it fits into a line of NDJSON. Unescaped line ends can only be white space.
func (w *Writer) flat(text []byte) {
	from := len(w.Buf)
	w.Buf = append(w.Buf, text...)
	if hasLineEnd(text) {
		for i, c := range w.Buf[from:] {
			if c == '\n' || c == '\r' {
				w.Buf[from+i] = ' '
			}
		}
	}
}
