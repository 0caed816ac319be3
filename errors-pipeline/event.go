package errorspipeline

import (
	"bytes"
	"encoding/base64"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// Event makes an event of a failure. Its name is the code, and its time is the failure's; properties and context have
// the rest. The raw bytes are in "raw" if they are text, else in "raw_base64". Beyond threshold bytes they are a blob,
// to which "raw_blob" refers. A failure with an ID is the same row each time it is reported.
func Event(f *pipeline.Failure, threshold int64) (pipeline.Event, []pipeline.Blob) {
	var blobs []pipeline.Blob
	ms := f.Time.UnixMilli()
	p := object{'{'}
	p.text("stage", f.Stage)
	p.text("message", f.Message)
	p.text("request_id", f.RequestID)
	p.text("method", f.Method)
	p.text("path", f.Path)
	p.text("content_type", f.ContentType)
	p.text("content_encoding", f.ContentEncoding)
	if f.Index >= 0 {
		p.number("index", int64(f.Index))
	}
	if f.Count > 0 {
		p.number("count", int64(f.Count))
	}
	if len(f.Headers) > 0 {
		h := object{'{'}
		for _, header := range f.Headers {
			h.text(header.Name, header.Value)
		}
		p.key("headers")
		p = append(append(p, h...), '}')
	}
	if f.Object != "" {
		p.text("source_object", f.Object)
		if f.Row >= 0 {
			p.number("source_row", f.Row)
		}
		p.number("attempt", int64(f.Attempt))
		p.number("server_code", int64(f.ServerCode))
		p.text("class", f.Class)
		p.text("loader", f.Loader)
	} else {
		p.text("class", f.Class)
	}
	switch {
	case int64(len(f.Raw)) > threshold:
		raw := f.Raw
		p.number("raw_bytes", int64(len(raw)))
		p.key("raw_blob")
		// It must never be shown as the type that its sender claims.
		blobs = []pipeline.Blob{{At: len(p), Kind: pipeline.BlobFile, ContentType: "application/octet-stream",
			Size:  int64(len(raw)),
			Write: func(w io.Writer) error { _, err := w.Write(raw); return err }}}
		p = append(p, pipeline.BlobHole...)
	case len(f.Raw) == 0:
	case utf8.Valid(f.Raw) && bytes.IndexByte(f.Raw, 0) < 0:
		p.key("raw")
		p = jsonscan.AppendQuoted(p, f.Raw)
	default:
		p.key("raw_base64")
		p = append(p, '"')
		p = base64.StdEncoding.AppendEncode(p, f.Raw)
		p = append(p, '"')
	}
	c := object{'{'}
	c.text("ip", f.ClientIP)
	c.text("user_agent", f.UserAgent)
	id, at := f.ID, pipeline.NoTime // then the time is none of the row's identity
	if id == (pipeline.UUID{}) {
		id, at = pipeline.NewUUIDv7(ms), ms
	}
	return pipeline.Event{
		ID: id, Project: []byte(f.Project), Name: []byte(f.Code),
		Timestamp: at, ReceivedAt: ms, Properties: append(p, '}'), Context: append(c, '}'),
	}, blobs
}

// object is a JSON object under construction.
type object []byte

func (o *object) key(name string) {
	if len(*o) > 1 {
		*o = append(*o, ',')
	}
	*o = append(*o, '"')
	*o = append(*o, name...)
	*o = append(*o, `":`...)
}

func (o *object) number(name string, value int64) {
	o.key(name)
	*o = strconv.AppendInt(*o, value, 10)
}

// text adds a member unless it is empty.
func (o *object) text(name, value string) {
	if value == "" {
		return
	}
	o.key(name)
	*o = jsonscan.AppendQuoted(*o, []byte(strings.ToValidUTF8(value, "\uFFFD")))
}
