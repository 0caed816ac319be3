package receiver

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"io"
	"slices"
	"strings"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// write makes an event of what its protocol says of it.
func (q *request) write(e *pipeline.Event, d *protocol.Draft) error {
	*e = pipeline.Event{Project: q.project, ReceivedAt: q.now, Timestamp: d.Time, Context: q.context, Name: d.Name,
		SessionID: d.Session, UserID: d.User}
	err := d.Err
	if err == nil {
		err = q.identify(e, d)
	}
	if err == nil {
		e.Properties, err = q.properties(d)
	}
	if err == nil && q.route.MaxDepth > 0 { // what was deep is text by now
		_, _, err = q.inner.Object(e.Properties)
	}
	if len(d.SDK) > 0 && err == nil {
		e.Context = q.sdkContext(d.SDK, d.Version)
	}
	return err
}

// identify gives an event its id, and checks its name.
func (q *request) identify(e *pipeline.Event, d *protocol.Draft) error {
	if len(e.Name) == 0 {
		return errcode.MissingName.Errorf("the event has no name: it needs a member %q that is a string of 1 to %d bytes",
			cmp.Or(q.route.NameMember, "name"), protocol.MaxName)
	}
	var given bool
	if e.ID, given = d.UUID(q.project); given {
		return nil
	}
	now := q.now
	if q.redrive != nil {
		e.ID, now = q.redriven(), q.redrive.Time
	} else {
		e.ID = pipeline.NewUUIDv7(now)
	}
	if e.Timestamp == pipeline.NoTime {
		e.Timestamp = now // no client can send this event a second time
	}
	return nil
}

// properties are all of the event beside its columns. If they stand in the body as they are, so they stay there.
func (q *request) properties(d *protocol.Draft) ([]byte, error) {
	from := len(q.scratch)
	if p := d.Parts; len(p) == 1 && p[0].As == protocol.Members && len(d.Envelope) == 0 && !q.large(p[0].Of.Value) {
		if !hasLineEnd(p[0].Of.Value) {
			return p[0].Of.Value, nil
		}
		q.flat(p[0].Of.Value)
		return q.scratch[from:len(q.scratch):len(q.scratch)], nil
	}
	q.scratch = append(q.scratch, '{')
	for i := range d.Parts {
		if p := &d.Parts[i]; p.As == protocol.Member {
			q.property(p.Of)
		} else if err := q.part(p); err != nil {
			return nil, err
		}
	}
	own := q.scratch[from:]
	if len(d.Envelope) > 0 {
		q.comma()
		q.scratch = append(q.scratch, `"`+protocol.EnvelopeKey+`":{`...)
		for _, m := range d.Envelope {
			q.property(m)
		}
		q.scratch = append(q.scratch, '}')
	}
	q.scratch = append(q.scratch, '}')
	q.settle(from)
	all := q.scratch[from:len(q.scratch):len(q.scratch)]
	if d.Mixed || len(d.Envelope) > 0 && (bytes.Contains(own, []byte(protocol.EnvelopeKey)) || bytes.IndexByte(own, '\\') >= 0) {
		if _, _, err := q.inner.Object(all); err != nil {
			return nil, clash(d, err)
		}
	}
	return all, nil
}

// clash says which parts of an event have the same key.
func clash(d *protocol.Draft, err error) error {
	switch {
	case len(d.Envelope) > 0:
		return errcode.DuplicateKey.Errorf("the property %q is taken: the client's own envelope goes there", protocol.EnvelopeKey)
	case slices.ContainsFunc(d.Parts, func(p protocol.Part) bool { return p.As == protocol.Blob }):
		return errcode.DuplicateKey.Errorf("a file and a property, or two files, have the same name")
	}
	what := err.Error() // the byte that it names is none of the client's
	return errcode.DuplicateKey.Errorf("%s: in \"properties\" and beside it", what[:strings.LastIndex(what, " at byte ")])
}

// part writes a piece of the properties into scratch.
func (q *request) part(p *protocol.Part) error {
	switch p.As {
	case protocol.Members:
		q.spread(p.Of.Value)
	case protocol.Text:
		q.jsonText(p.Of.Key, p.Of.Value)
	case protocol.Base64:
		return q.base64(p)
	case protocol.Data:
		q.bytes(p)
	case protocol.Blob:
		q.begin(p.Of.Key)
		if len(p.Of.Value) == 0 { // no range of an object has no bytes
			q.scratch = append(q.scratch, `""`...)
		} else {
			q.file(p.File, int64(len(p.Of.Value)), writeAll, p.Of.Value)
		}
	}
	return nil
}

// begin begins a property in scratch.
func (q *request) begin(name []byte) {
	q.comma()
	q.scratch = append(jsonscan.AppendQuoted(q.scratch, name), ':')
}

// property adds a member to the properties that are being written in scratch.
func (q *request) property(m *jsonscan.Member) {
	q.begin(m.Key)
	if v := m.Value; len(v) == 0 || v[0] == '{' || v[0] == '[' || q.large(v) {
		q.line(v)
	} else {
		q.scratch = append(q.scratch, v...) // only between values can there be line ends
	}
}

// base64 writes a JSON string that is base64, or a file of what it means if it is large.
func (q *request) base64(p *protocol.Part) error {
	escaped := bytes.IndexByte(p.Of.Value, '\\') >= 0
	if escaped && q.charge(q.charged+int64(len(p.Of.Value))) != nil { // there will be a copy
		q.overfull = true
		return errMemory
	}
	data := protocol.Content(&jsonscan.Member{Value: p.Of.Value})
	if decodeBase64(io.Discard, data) != nil {
		return errcode.InvalidBase64.Errorf("%q is not base64 as RFC 4648 has it: padded, without line ends", p.Of.Key)
	}
	if q.threshold == 0 || len(p.Of.Value) <= q.threshold {
		q.property(p.Of)
		return nil
	}
	q.begin(p.Of.Key)
	q.file(p.File, int64(base64.StdEncoding.DecodedLen(len(data))), decodeBase64, data)
	return nil
}

// bytes writes bytes as base64, or a file of them if that is large.
func (q *request) bytes(p *protocol.Part) {
	q.begin(p.Of.Key)
	if q.threshold == 0 || base64.StdEncoding.EncodedLen(len(p.Of.Value))+2 <= q.threshold {
		q.scratch = append(q.scratch, '"')
		q.scratch = append(base64.StdEncoding.AppendEncode(q.scratch, p.Of.Value), '"')
		return
	}
	q.file(p.File, int64(len(p.Of.Value)), writeAll, p.Of.Value)
}

// file takes bytes out of the event as a file.
func (q *request) file(f *protocol.File, size int64, write func(io.Writer, []byte) error, data []byte) {
	q.blobs = append(q.blobs, pipeline.Blob{Event: len(q.events), At: len(q.scratch), Kind: pipeline.BlobFile,
		ContentType: f.ContentType, Name: f.Name, Size: size, Write: func(w io.Writer) error { return write(w, data) }})
	q.scratch = append(q.scratch, pipeline.BlobHole...)
}

func writeAll(w io.Writer, data []byte) error { _, err := w.Write(data); return err }

// sdkContext is the request's context with the client's library.
func (q *request) sdkContext(name, version []byte) []byte {
	from := len(q.scratch)
	b := append(q.scratch, q.context[:len(q.context)-1]...)
	b = append(b, `,"sdk":{"name":`...)
	b = protocol.AppendText(b, view(name[:min(len(name), maxContext)]))
	if len(version) > 0 {
		b = append(b, `,"version":`...)
		b = protocol.AppendText(b, view(version[:min(len(version), maxContext)]))
	}
	q.scratch = append(b, "}}"...)
	return q.scratch[from:len(q.scratch):len(q.scratch)]
}
