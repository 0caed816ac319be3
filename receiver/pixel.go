package receiver

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
)

// The pixel, for pages and mails that can only show an image: its query is an
// event as native clients send it. All values are strings; a parameter that
// comes more than once is an array, unless it is a column.
var pixel = []*dialect{{
	name: "pixel", paths: []string{"/v1/pixel.gif"}, methods: []string{http.MethodGet, http.MethodHead},
	query: true, anyType: true, decode: decodePixel, event: (*request).envelope,
	contentType: "image/gif", answer: pixelAnswer,
}}

// pixelAnswer is an image, whatever became of the event.
func pixelAnswer(_ *request, _ *errcode.Error, status int, b []byte) (int, []byte) {
	if isGood(status) {
		status = http.StatusOK
	}
	return status, append(b[:0], transparent...)
}

// transparent is the smallest image that all browsers take.
const transparent = "GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"

// takeQuery makes the query the request's body, without the key, for whoever is
// to see why it was refused.
func (q *request) takeQuery(raw string) error {
	if err := q.charge(2 * int64(len(raw))); err != nil {
		return err
	}
	for part := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(part, "=")
		plain, err := url.QueryUnescape(name)
		if part == "" || err == nil && (plain == "key" || plain != "" && plain == q.dialect.queryKey) {
			continue
		}
		if len(q.body) > 0 {
			q.body = append(q.body, '&')
		}
		q.body = append(q.body, part...)
	}
	q.whole = true
	return nil
}

func decodePixel(q *request, body []byte) *errcode.Error {
	if q.redrive != nil && len(body) > 0 && body[0] == '{' {
		return q.decode(body) // an operator mended it
	}
	var names []string
	values := map[string][]string{}
	for part := range strings.SplitSeq(string(body), "&") {
		name, value, _ := strings.Cut(part, "=")
		var err error
		if name, err = url.QueryUnescape(name); err == nil {
			value, err = url.QueryUnescape(value)
		}
		if err != nil {
			return errcode.InvalidQuery.Errorf("parameter %.100q: %s", part, err)
		}
		if name == "" && value == "" || name == "durability" {
			continue
		}
		if values[name] == nil {
			names = append(names, name)
		}
		values[name] = append(values[name], value)
	}
	w := []byte{'{'}
	for _, name := range names {
		all := values[name]
		switch w = appendKey(w, name); {
		case len(all) == 1:
			w = jsonscan.AppendQuoted(w, []byte(all[0]))
		case name == "name" || name == "user_id" || name == "session_id" || name == "timestamp" || name == "event_id":
			return errcode.DuplicateKey.Errorf("%q is there %d times", name, len(all))
		default:
			for i, value := range all {
				w = append(w, "[,"[min(i, 1)])
				w = jsonscan.AppendQuoted(w, []byte(value))
			}
			w = append(w, ']')
		}
	}
	_, err := q.event(append(w, '}'))
	if err != nil && err != errSampled {
		code, message := explain(err)
		return code.Errorf("%s", message)
	}
	q.count(nil, err)
	return nil
}
