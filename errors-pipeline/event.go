package errorspipeline

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// Event is a failure as an event: its name is the code, its time the
// failure's, and all else is in the properties and the context. The raw bytes
// stand in "raw" where they are text, else in "raw_base64".
func Event(f *pipeline.Failure) pipeline.Event {
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
		p.key("index")
		p = strconv.AppendInt(p, int64(f.Index), 10)
	}
	if len(f.Raw) > 0 {
		if utf8.Valid(f.Raw) && bytes.IndexByte(f.Raw, 0) < 0 {
			p.key("raw")
			p = jsonscan.AppendQuoted(p, f.Raw)
		} else {
			p.key("raw_base64")
			p = append(p, '"')
			p = base64.StdEncoding.AppendEncode(p, f.Raw)
			p = append(p, '"')
		}
	}
	c := object{'{'}
	c.text("ip", f.ClientIP)
	c.text("user_agent", f.UserAgent)
	return pipeline.Event{
		ID: pipeline.NewUUIDv7(ms), Project: []byte(f.Project), Name: []byte(f.Code),
		Timestamp: ms, ReceivedAt: ms, Properties: append(p, '}'), Context: append(c, '}'),
	}
}

// object is a JSON object being written.
type object []byte

func (o *object) key(name string) {
	if len(*o) > 1 {
		*o = append(*o, ',')
	}
	*o = append(*o, '"')
	*o = append(*o, name...)
	*o = append(*o, `":`...)
}

// text writes a member unless it is empty.
func (o *object) text(name, value string) {
	if value == "" {
		return
	}
	o.key(name)
	*o = jsonscan.AppendQuoted(*o, []byte(strings.ToValidUTF8(value, "\uFFFD")))
}
