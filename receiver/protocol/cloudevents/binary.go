package cloudevents

import (
	"encoding/json"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// header is the prefix of attributes' headers in binary mode.
const header = "Ce-"

type binary struct{ protocol.Base }

// Map maps an event in structured mode, after an operator edited it.
func (binary) Map(d *protocol.Draft, members []jsonscan.Member) { mapEvent(d, members, nil) }

// Events converts a binary event to a structured one.
func (binary) Events(r *protocol.Request, body []byte, to protocol.Sink) *errcode.Error {
	kind := r.Header.Get("Content-Type")
	w := append(make([]byte, 0, 1<<10), '{')
	if kind != "" {
		w = protocol.AppendKey(w, "datacontenttype")
		w = protocol.AppendText(w, kind)
	}
	for _, name := range attributeHeaders(r.Header) {
		attribute := strings.ToLower(name[len(header):])
		switch attribute {
		case "data", "data_base64", "datacontenttype":
			return errcode.InvalidAttribute.Errorf("header %q: the data and their type are the body's", name)
		}
		w = jsonscan.AppendQuoted(protocol.AppendKey(w, attribute), attributeOf(strings.Join(r.Header[name], ",")))
	}
	text := (isText(kind) || isJSON(kind)) && utf8.Valid(body) // some clients send plain text as JSON
	var data []byte
	if text || isJSON(kind) {
		if err := r.Charge(2 * int64(len(body))); err != nil {
			return err
		}
		w = slices.Grow(w, len(body)+64)
	}
	switch bare := jsonscan.TrimSpace(body); {
	case len(body) == 0:
	case isJSON(kind) && json.Valid(body):
		w = append(protocol.AppendKey(w, "data"), body...)
	case isJSON(kind) && len(bare) > 0 && strings.IndexByte("{[\"", bare[0]) >= 0:
		return errcode.InvalidJSON.Errorf("the data are not JSON, which their content type says")
	case text:
		w = jsonscan.AppendQuoted(protocol.AppendKey(w, "data"), body)
	case len(body) > r.MaxEvent:
		return errcode.EventTooLarge.Errorf("the event's data have %d bytes, the limit is %d", len(body), r.MaxEvent)
	default: // as base64
		w = append(protocol.AppendKey(w, "data_base64"), `""`...)
		data = body
	}
	return to.Single(protocol.MapperFunc(func(d *protocol.Draft,
		members []jsonscan.Member) {
		mapEvent(d, members, data)
	}),
		append(w, '}'), "the event")
}

// attributeHeaders returns the names of attributes' headers, sorted.
func attributeHeaders(head http.Header) (names []string) {
	for name := range maps.Keys(head) {
		if strings.HasPrefix(name, header) && len(name) > len(header) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// attributeOf decodes a header's value, which may be quoted and is percent-encoded UTF-8. Otherwise it is read as
// Latin-1, the encoding of headers.
func attributeOf(value string) []byte {
	if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
		var b strings.Builder
		for i := 1; i < n-1; i++ {
			if value[i] == '\\' && i+1 < n-1 {
				i++
			}
			b.WriteByte(value[i])
		}
		value = b.String()
	}
	if plain, err := url.PathUnescape(value); err == nil {
		value = plain
	}
	if utf8.ValidString(value) {
		return []byte(value)
	}
	var b []byte
	for i := range len(value) {
		b = utf8.AppendRune(b, rune(value[i]))
	}
	return b
}

func isJSON(kind string) bool {
	kind, _, _ = mime.ParseMediaType(kind)
	return kind == "application/json" || kind == "text/json" || strings.HasSuffix(kind, "+json")
}

func isText(kind string) bool {
	kind, _, _ = mime.ParseMediaType(kind)
	return kind == "" || strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "+xml") ||
		kind == "application/xml" || kind == "application/x-www-form-urlencoded"
}
