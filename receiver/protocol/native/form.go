package native

import (
	"bufio"
	"bytes"
	"cmp"
	"mime"
	"net/http"
	"net/textproto"
	"strings"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// form is a form (multipart/form-data, RFC 7578) on the native route: one event with files. The part "event" is its
// JSON. Every other part becomes a blob under its name in the properties. If the event is rejected, so is the whole
// request, so that the failure record has its files.
type form struct{ protocol.Base }

const (
	formType = "multipart/form-data"
	maxFiles = 1000
	maxHead  = 16 << 10 // of a part's headers, bytes
)

// file is a part of a form that becomes a blob.
type file struct {
	jsonscan.Member // its value is the part's bytes
	protocol.File
}

// isForm reports whether the content type is a form's.
func isForm(head http.Header) bool {
	kinds := head["Content-Type"]
	return len(kinds) > 0 && len(kinds[0]) >= len(formType) && strings.EqualFold(kinds[0][:len(formType)], formType)
}

// Map maps an event of a form that is redriven alone. It is a native event then.
func (form) Map(d *protocol.Draft, members []jsonscan.Member) { mapEvent(d, members, nil) }

func (form) Events(r *protocol.Request, body []byte, to protocol.Sink) *errcode.Error {
	event, files, err := parts(r.Header.Get("Content-Type"), body)
	if err != nil {
		return err
	}
	size := len(event)
	for i := range files {
		size += len(files[i].Value)
	}
	if size > r.MaxEvent {
		return errcode.EventTooLarge.Errorf("the event has %d bytes with its files, the limit is %d", size, r.MaxEvent)
	}
	return to.Single(protocol.MapperFunc(func(d *protocol.Draft,
		members []jsonscan.Member) {
		mapEvent(d, members, files)
	}),
		protocol.Whole(event), "the part \"event\"")
}

// parts returns the event and the files of a form.
func parts(contentType string, body []byte) (event []byte, files []file, refused *errcode.Error) {
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil || params["boundary"] == "" {
		return nil, nil, errcode.InvalidForm.Errorf("the content type names no boundary")
	}
	found := false
	refused = eachPart(body, params["boundary"], func(head textproto.MIMEHeader, data []byte) *errcode.Error {
		_, of, err := mime.ParseMediaType(head.Get("Content-Disposition"))
		name := of["name"]
		switch {
		case err != nil || name == "" || len(name) > protocol.MaxName || !utf8.ValidString(name):
			return errcode.InvalidForm.Errorf("a part of the form has no name of 1 to %d bytes of UTF-8", protocol.MaxName)
		case name == "event" && found:
			return errcode.InvalidForm.Errorf("the form has more than one part \"event\"")
		case name == "event":
			event, found = data, true
			return nil
		case len(files) == maxFiles:
			return errcode.TooManyFiles.Errorf("more than %d files in one form", maxFiles)
		}
		kind := cmp.Or(head.Get("Content-Type"), "application/octet-stream")
		files = append(files, file{jsonscan.Member{Key: []byte(name), Value: data},
			protocol.File{ContentType: protocol.Clip(kind), Name: protocol.Clip(of["filename"])}})
		return nil
	})
	if refused == nil && !found {
		refused = errcode.MissingEvent.Errorf("the form has no part \"event\" with the event's JSON")
	}
	return event, files, refused
}

// eachPart calls f for each part of a form. The parts refer to body.
func eachPart(body []byte, boundary string,
	f func(head textproto.MIMEHeader, data []byte) *errcode.Error) *errcode.Error {
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
			return bad("a part's head: " + protocol.Clip(err.Error()))
		}
		rest = rest[end+4:]
		// A part without content ends at the newline after its last header.
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
