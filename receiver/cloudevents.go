package receiver

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
)

// CloudEvents 1.0 over HTTP, on the native route: https://github.com/cloudevents/spec
//
// Structured and batched they are JSON of a content type of their own. In binary
// mode the attributes are headers, and the body is the data, of any type; the
// one event of such a request is refused as the whole request, for its failure
// keeps the headers too.
var (
	cloudEvents = &dialect{name: "cloudevents", anyType: true, decode: (*request).decode, event: cloudEvent, nameKey: "type"}
	binaryCloud = &dialect{name: "cloudevents", anyType: true, decode: decodeBinaryCloud, event: cloudEvent, nameKey: "type"}
)

// cloudHeader is what the attributes' headers begin with in binary mode.
const cloudHeader = "Ce-"

// cloudVariant tells CloudEvents from native events, by the head.
func cloudVariant(head http.Header) *dialect {
	const mark = "application/cloudevents"
	if kinds := head["Content-Type"]; len(kinds) > 0 && len(kinds[0]) > len(mark) && strings.EqualFold(kinds[0][:len(mark)], mark) {
		switch kind, _, _ := mime.ParseMediaType(kinds[0]); kind {
		case mark + "+json", mark + "-batch+json":
			return cloudEvents
		}
		return nil // in another format
	}
	if head[cloudHeader+"Specversion"] != nil {
		return binaryCloud
	}
	return nil
}

func cloudEvent(q *request, members []jsonscan.Member) (pipeline.Event, error) {
	d := q.draft()
	var version, id, source, kind []byte
	var data *jsonscan.Member
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "specversion":
			version = d.text(m, maxID)
		case "id":
			id = d.text(m, maxID)
		case "source":
			source = d.text(m, maxID)
		case "type":
			d.name = d.text(m, maxName)
		case "time":
			d.setTime(m)
		case "userid":
			d.user = d.text(m, maxID)
		case "sessionid":
			d.session = d.text(m, maxID)
		case "data", "data_base64":
			if m.Kind == jsonscan.Null {
				continue
			}
			if data != nil {
				d.fail(errcode.DuplicateKey.Errorf("the event has both \"data\" and \"data_base64\""))
			}
			data = m
		case "datacontenttype":
			kind = plainText(m.Value)
		}
	}
	switch {
	case data == nil:
	case string(data.Key) == "data":
		d.spread(data)
	default:
		d.base64(data, kind)
	}
	switch {
	case !strings.HasPrefix(string(version), "1."):
		d.fail(errcode.UnknownSpecVersion.Errorf("specversion %.40q: CloudEvents 1.0 are understood", version))
	case len(id) == 0 || len(source) == 0:
		d.fail(errcode.MissingID.Errorf("the event has no id or no source"))
	}
	d.id = joined(source, id)
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "type", "time", "userid", "sessionid", "data", "data_base64":
		default:
			d.keep(m)
		}
	}
	return d.event()
}

// base64 makes a property of data in base64. Beyond the threshold they are a
// blob of that type, decoded.
func (d *draft) base64(m *jsonscan.Member, kind []byte) {
	q := d.q
	data, decode, size := q.data, writeAll, len(q.data)
	room := base64.StdEncoding.EncodedLen(size) + 2
	if data == nil {
		if m.Kind != jsonscan.String {
			d.fail(errcode.WrongType.Errorf("%q is of type %s, want a string", m.Key, m.Kind))
			return
		}
		if bytes.IndexByte(m.Value, '\\') >= 0 && q.charge(q.charged+int64(len(m.Value))) != nil { // there will be a copy
			q.overfull = true
			d.fail(errMemory)
			return
		}
		data, decode, room = content(m), decodeBase64, len(m.Value)
		if decode(io.Discard, data) != nil {
			d.fail(errcode.InvalidBase64.Errorf("%q is not base64 as RFC 4648 has it: padded, without line ends", m.Key))
			return
		}
		size = base64.StdEncoding.DecodedLen(len(data))
	}
	if q.threshold == 0 || room <= q.threshold {
		text := *m
		if q.data != nil {
			text.Value = append(base64.StdEncoding.AppendEncode([]byte{'"'}, data), '"')
		}
		q.property(&text)
		return
	}
	q.comma()
	q.scratch = append(jsonscan.AppendQuoted(q.scratch, m.Key), ':')
	q.blobs = append(q.blobs, pipeline.Blob{Event: len(q.events), At: len(q.scratch), Kind: pipeline.BlobFile, ContentType: cmp.Or(strings.ToValidUTF8(clip(string(kind)), "\uFFFD"), "application/octet-stream"),
		Size: int64(size), Write: func(w io.Writer) error { return decode(w, data) }})
	q.scratch = append(q.scratch, pipeline.BlobHole...)
}

func writeAll(w io.Writer, data []byte) error { _, err := w.Write(data); return err }

// decodeBinaryCloud makes an event in structured mode of one in binary mode.
func decodeBinaryCloud(q *request, body []byte) *errcode.Error {
	kind := q.header.Get("Content-Type")
	w := append(make([]byte, 0, 1<<10), '{')
	if kind != "" {
		w = appendKey(w, "datacontenttype")
		w = appendText(w, kind)
	}
	for _, name := range cloudHeaders(q.header) {
		attribute := strings.ToLower(name[len(cloudHeader):])
		switch attribute {
		case "data", "data_base64", "datacontenttype":
			return errcode.InvalidAttribute.Errorf("header %q: the data and their type are the body's", name)
		}
		w = jsonscan.AppendQuoted(appendKey(w, attribute), attributeOf(strings.Join(q.header[name], ",")))
	}
	text := (isText(kind) || isJSON(kind)) && utf8.Valid(body) // some clients call bare text JSON
	copied, threshold := text || isJSON(kind), q.r.opts.BlobThreshold
	if (copied || threshold == 0 || len(body) <= threshold || q.r.opts.Schemas != nil) && q.charge(q.charged+2*int64(len(body))) != nil {
		return busy()
	}
	if copied {
		w = slices.Grow(w, len(body)+64)
	}
	switch bare := jsonscan.TrimSpace(body); {
	case len(body) == 0:
	case isJSON(kind) && json.Valid(body):
		w = append(appendKey(w, "data"), body...)
	case isJSON(kind) && len(bare) > 0 && strings.IndexByte("{[\"", bare[0]) >= 0:
		return errcode.InvalidJSON.Errorf("the data are not JSON, which their content type says")
	case text:
		w = jsonscan.AppendQuoted(appendKey(w, "data"), body)
	case len(body) > q.r.opts.MaxEvent:
		return errcode.EventTooLarge.Errorf("the event's data have %d bytes, the limit is %d", len(body), q.r.opts.MaxEvent)
	default: // as if in base64
		w = append(appendKey(w, "data_base64"), `""`...)
		q.data = body
	}
	w = append(w, '}')
	mended := 0
	if copied { // the text is this function's own, so that another copy is not needed
		_, replaced := jsonscan.ReplaceLoneSurrogates(w, true)
		mended = min(replaced, 1)
	}
	_, err := q.event(w)
	switch {
	case err == nil:
		q.repaired += mended
	case err != errSampled:
		code, message := explain(err)
		return code.Errorf("%s", message)
	}
	q.count(nil, err)
	return nil
}

// cloudHeaders are the names of the headers that are attributes, in order.
func cloudHeaders(head http.Header) (names []string) {
	for name := range maps.Keys(head) {
		if strings.HasPrefix(name, cloudHeader) && len(name) > len(cloudHeader) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// attributeOf is what a header's value means: it may be quoted, and is
// percent-encoded UTF-8. One that is not is taken as the Latin-1 of headers.
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
	return kind == "" || strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "+xml") || kind == "application/xml" || kind == "application/x-www-form-urlencoded"
}
