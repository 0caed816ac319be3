package receiver

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/document"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// write makes an event of a draft. It begins the row, and does not write it yet.
func (q *request) write(e *pipeline.Event, d *protocol.Draft) error {
	*e = pipeline.Event{}
	e.Project, e.Context, e.ReceivedAt, e.Timestamp = q.project, q.context, q.now, d.Time
	e.Name, e.SessionID, e.UserID = d.Name, d.Session, d.User
	err := d.Err
	if err == nil {
		err = q.identify(e, d)
	}
	if err == nil {
		err = q.properties(d)
	}
	if len(d.SDK) > 0 && err == nil {
		e.Context = q.sdkContext(d.SDK, d.Version)
	}
	return err
}

// identify sets the event's id, and checks its name.
func (q *request) identify(e *pipeline.Event, d *protocol.Draft) error {
	if len(e.Name) == 0 {
		return errcode.MissingName.Errorf("the event has no name: it needs a member %q that is a string of 1 to %d bytes",
			cmp.Or(q.route.NameMember, "name"), protocol.MaxName)
	}
	if len(e.Name) > protocol.MaxName {
		return errcode.FieldTooLong.Errorf("%q has %d bytes, the limit is %d", cmp.Or(q.route.NameMember, "name"),
			len(e.Name), protocol.MaxName)
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

// properties begins the row.
func (q *request) properties(d *protocol.Draft) error {
	for i := range d.Parts {
		switch p := &d.Parts[i]; p.As {
		case protocol.Member:
			q.rows.Property(p.Of)
		case protocol.Members:
			q.rows.Spread(p.Of)
		case protocol.Text:
			q.rows.Text(p.Of.Key, p.Of.Value)
		case protocol.Base64:
			if err := q.base64(p); err != nil {
				return err
			}
		case protocol.Data:
			q.data(p)
		case protocol.Blob:
			if !q.drops(p.Of.Key) { // two files of one name, or a property's, do not clash then
				q.file(p)
			}
		}
	}
	for _, m := range d.Envelope {
		q.rows.Keep(m)
	}
	if d.Mixed || q.rows.EnvelopeTaken() {
		if err := q.rows.AsSent(false, q.valid); err != nil {
			return clash(d, err)
		}
	}
	if q.route.MaxDepth > 0 { // what was deep is text by now
		return q.rows.AsSent(false, q.valid)
	}
	return nil
}

// valid checks a row.
func (q *request) valid(row []byte) error {
	_, _, err := q.inner.Object(row)
	return err
}

// clash names the parts of an event that have the same key.
func clash(d *protocol.Draft, err error) error {
	switch {
	case len(d.Envelope) > 0:
		return errcode.DuplicateKey.Errorf("the property %q is taken: the client's own envelope goes there",
			protocol.EnvelopeKey)
	case slices.ContainsFunc(d.Parts, func(p protocol.Part) bool {
		return p.As == protocol.Blob && strings.HasPrefix(err.Error(), fmt.Sprintf("duplicate key %q", p.Of.Key))
	}):
		return errcode.DuplicateKey.Errorf("a file and a property, or two files, have the same name")
	}
	what := err.Error() // the byte that it names is none of the client's
	return errcode.DuplicateKey.Errorf("%s: in \"properties\" and beside it", what[:strings.LastIndex(what, " at byte ")])
}

// base64 adds a JSON string in base64. If it is large, it adds the decoded bytes as a file.
func (q *request) base64(p *protocol.Part) error {
	escaped := bytes.IndexByte(p.Of.Value, '\\') >= 0
	if escaped && q.lease.Grow(int64(len(p.Of.Value))) != nil { // there will be a copy
		q.overfull = true
		return errMemory
	}
	data := (&jsonscan.Member{Value: p.Of.Value}).Text()
	if document.DecodeBase64(io.Discard, data) != nil {
		return errcode.InvalidBase64.Errorf("%q is not base64 as RFC 4648 has it: padded, without line ends", p.Of.Key)
	}
	if q.rows.Threshold == 0 || len(p.Of.Value) <= q.rows.Threshold {
		q.rows.Property(p.Of)
		return nil
	}
	q.rows.Blob(p.Of.Key, pipeline.Blob{Kind: pipeline.BlobFile, ContentType: p.File.ContentType, Name: p.File.Name,
		Size:  int64(base64.StdEncoding.DecodedLen(len(data))),
		Write: func(w io.Writer) error { return document.DecodeBase64(w, data) }},
		func(dst []byte) []byte { return append(dst, p.Of.Value...) })
	return nil
}

// data adds bytes in base64. If they are large, it adds a file.
func (q *request) data(p *protocol.Part) {
	quoted := func(dst []byte) []byte {
		return append(base64.StdEncoding.AppendEncode(append(dst, '"'), p.Of.Value), '"')
	}
	if q.rows.Threshold == 0 || base64.StdEncoding.EncodedLen(len(p.Of.Value))+2 <= q.rows.Threshold {
		q.rows.Property(&jsonscan.Member{Key: p.Of.Key, Value: quoted(nil), Kind: jsonscan.String})
		return
	}
	q.rows.Blob(p.Of.Key, fileBlob(p), quoted)
}

// file adds a file.
func (q *request) file(p *protocol.Part) {
	if len(p.Of.Value) == 0 { // no range of an object has no bytes
		q.rows.Property(&jsonscan.Member{Key: p.Of.Key, Value: []byte(`""`), Kind: jsonscan.String})
		return
	}
	q.rows.Blob(p.Of.Key, fileBlob(p), nil)
}

// drops reports whether the project drops a property, and counts it.
func (q *request) drops(key []byte) bool {
	return q.tenant != nil && q.tenant.Edits != nil && q.tenant.Edits.Drops(q.rows, key)
}

func fileBlob(p *protocol.Part) pipeline.Blob {
	data := p.Of.Value
	return pipeline.Blob{Kind: pipeline.BlobFile, ContentType: p.File.ContentType, Name: p.File.Name,
		Size: int64(len(data)), Write: func(w io.Writer) error { _, err := w.Write(data); return err }}
}

// sdkContext is the request's context with the client's library.
func (q *request) sdkContext(name, version []byte) []byte {
	from := len(q.rows.Buf)
	b := append(q.rows.Buf, q.context[:len(q.context)-1]...)
	b = append(b, `,"sdk":{"name":`...)
	b = protocol.AppendText(b, view(name[:min(len(name), maxContext)]))
	if len(version) > 0 {
		b = append(b, `,"version":`...)
		b = protocol.AppendText(b, view(version[:min(len(version), maxContext)]))
	}
	q.rows.Buf = append(b, "}}"...)
	return q.rows.Buf[from:len(q.rows.Buf):len(q.rows.Buf)]
}
