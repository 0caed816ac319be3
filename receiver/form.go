package receiver

import (
	"bufio"
	"bytes"
	"io"
	"mime"
	"net/http"
	"net/textproto"
	"strings"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
)

// A form (multipart/form-data, RFC 7578) on the native route is one event with
// files: the part "event" is its JSON, and every other part becomes a blob, under
// its name among the event's properties. The event is refused as the whole
// request, so that its files stay with it.
var form = &dialect{name: "form", anyType: true, decode: decodeForm, event: (*request).envelope}

const (
	formType = "multipart/form-data"
	maxFiles = 1000
	maxHead  = 16 << 10 // of a part, bytes
)

// file is a part of a form that is to be a blob.
type file struct {
	name, contentType, fileName string
	data                        []byte
}

// nativeVariant tells from the head what is sent to the native route.
func nativeVariant(head http.Header) *dialect {
	if kinds := head["Content-Type"]; len(kinds) > 0 && len(kinds[0]) >= len(formType) && strings.EqualFold(kinds[0][:len(formType)], formType) {
		return form
	}
	return cloudVariant(head)
}

func decodeForm(q *request, body []byte) *errcode.Error {
	_, params, err := mime.ParseMediaType(q.header.Get("Content-Type"))
	if err != nil || params["boundary"] == "" {
		return errcode.InvalidForm.Errorf("the content type names no boundary")
	}
	var event []byte
	found := false
	if err := eachPart(body, params["boundary"], func(head textproto.MIMEHeader, data []byte) *errcode.Error {
		_, of, err := mime.ParseMediaType(head.Get("Content-Disposition"))
		name := of["name"]
		switch {
		case err != nil || name == "" || len(name) > maxName || !utf8.ValidString(name):
			return errcode.InvalidForm.Errorf("a part of the form has no name of 1 to %d bytes of UTF-8", maxName)
		case name == "event" && found:
			return errcode.InvalidForm.Errorf("the form has more than one part \"event\"")
		case name == "event":
			event, found = data, true
			return nil
		case len(q.files) == maxFiles:
			return errcode.TooManyFiles.Errorf("more than %d files in one form", maxFiles)
		}
		kind := head.Get("Content-Type")
		if kind == "" {
			kind = "application/octet-stream"
		}
		q.files = append(q.files, file{name, strings.ToValidUTF8(clip(kind), "\uFFFD"), strings.ToValidUTF8(clip(of["filename"]), "\uFFFD"), data})
		return nil
	}); err != nil {
		return err
	}
	if !found {
		return errcode.MissingEvent.Errorf("the form has no part \"event\" with the event's JSON")
	}
	size := len(event)
	for _, f := range q.files {
		size += len(f.data)
	}
	if limit := q.r.opts.MaxEvent; size > limit {
		return errcode.EventTooLarge.Errorf("the event has %d bytes with its files, the limit is %d", size, limit)
	}
	event = wholeBody(event)
	n, e := q.event(event)
	if after := jsonscan.TrimSpace(event[n:]); (e == nil || e == errSampled) && len(after) > 0 {
		if e == nil {
			q.drop()
		}
		e = errcode.InvalidJSON.Errorf("something follows the object at byte %d of the part \"event\"", n)
	}
	if e == nil && len(q.files) > 0 { // a file may have a property's name
		if _, _, err := q.inner.Object(q.events[0].Properties); err != nil {
			q.drop()
			e = errcode.DuplicateKey.Errorf("a file and a property, or two files, have the same name")
		}
	}
	if e != nil && e != errSampled {
		code, message := explain(e)
		return code.Errorf("%s", message)
	}
	q.count(nil, e)
	return nil
}

// takeFiles puts a form's files among the properties that are being written.
func (q *request) takeFiles() {
	for _, f := range q.files {
		q.comma()
		q.scratch = append(jsonscan.AppendQuoted(q.scratch, []byte(f.name)), ':')
		if len(f.data) == 0 { // no range of an object has no bytes
			q.scratch = append(q.scratch, `""`...)
			continue
		}
		q.blobs = append(q.blobs, pipeline.Blob{Event: len(q.events), At: len(q.scratch), Kind: pipeline.BlobFile, ContentType: f.contentType, Name: f.fileName,
			Size: int64(len(f.data)), Write: func(w io.Writer) error { _, err := w.Write(f.data); return err }})
		q.scratch = append(q.scratch, pipeline.BlobHole...)
	}
}

// eachPart calls f for each part of a form. What the parts hold are views into body.
func eachPart(body []byte, boundary string, f func(head textproto.MIMEHeader, data []byte) *errcode.Error) *errcode.Error {
	bad := func(why string) *errcode.Error {
		return errcode.InvalidForm.Errorf("the form cannot be read: %s", why)
	}
	mark := []byte("\r\n--" + boundary)
	if bytes.HasPrefix(body, mark[2:]) {
		body = body[len(mark)-2:]
	} else if i := bytes.Index(body, mark); i >= 0 {
		body = body[i+len(mark):]
	} else {
		return bad("its boundary is not there")
	}
	for {
		if bytes.HasPrefix(body, []byte("--")) {
			return nil
		}
		line, rest, ok := bytes.Cut(body, []byte("\r\n"))
		if !ok || len(bytes.Trim(line, " \t")) > 0 {
			return bad("a boundary is followed by something else than a part")
		}
		end := bytes.Index(rest[:min(len(rest), maxHead)], []byte("\r\n\r\n"))
		if end < 0 {
			return bad("a part has no head that ends")
		}
		head, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(rest[:end+4]))).ReadMIMEHeader()
		if err != nil {
			return bad("a part's head: " + clip(err.Error()))
		}
		rest = rest[end+4:]
		// A part without content ends with the line end of its head's last line.
		next := bytes.Index(rest, mark)
		if next < 0 {
			return bad("it ends within a part")
		}
		if err := f(head, rest[:next]); err != nil {
			return err
		}
		body = rest[next+len(mark):]
	}
}
