package receiver

import (
	"crypto/rand"
	"encoding/hex"
	"mime"
	"net/http"
	"strings"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// request is all that serving one POST needs, used again for the next.
type request struct {
	opts       *Options
	id         string
	key        Key
	project    []byte
	durability pipeline.Durability
	clientIP   string
	lines      bool  // the body is NDJSON by its content type: one document a line
	now        int64 // received_at, ms
	object     string

	body     []byte // decompressed
	whole    bool   // body was read to its end
	charged  int64  // bytes counted in Receiver.memory
	scan     jsonscan.Scanner
	inner    jsonscan.Scanner // of a nested properties object
	scratch  []byte           // what events hold that does not stand in the body as it is
	context  []byte
	events   []pipeline.Event
	rejects  []reject
	rejected int
	index    int // of the next event in the request
}

// reject is one event that was refused.
type reject struct {
	index   int
	code    string
	message string
	raw     []byte // a view into the body
}

// refusal refuses a request as a whole.
type refusal struct {
	status  int
	code    string
	message string
}

func newRequest(opts *Options) *request {
	return &request{opts: opts,
		scan:  jsonscan.Scanner{MaxDepth: opts.MaxDepth},
		inner: jsonscan.Scanner{MaxDepth: opts.MaxDepth}}
}

func (q *request) reset(now int64) {
	var id [8]byte
	rand.Read(id[:])
	*q = request{opts: q.opts, id: hex.EncodeToString(id[:]), now: now, scan: q.scan, inner: q.inner,
		body: q.body[:0], scratch: q.scratch[:0], context: q.context[:0], events: q.events[:0], rejects: q.rejects[:0]}
}

// keepBody is the largest body, in bytes, whose buffers are used again.
const keepBody = 1 << 20

func (q *request) small() bool {
	return cap(q.body) <= keepBody && cap(q.scratch) <= keepBody && cap(q.events) <= 1<<14
}

// setContext writes what is known of the client, once for all events.
func (q *request) setContext(req *http.Request, countryHeader string) {
	q.project = append(q.project, q.key.Project...)
	c := append(q.context[:0], `{"ip":`...)
	c = jsonscan.AppendQuoted(c, []byte(q.clientIP))
	if ua := req.UserAgent(); ua != "" {
		c = append(c, `,"user_agent":`...)
		c = jsonscan.AppendQuoted(c, []byte(strings.ToValidUTF8(ua, "\uFFFD")))
	}
	if countryHeader != "" {
		if country := req.Header.Get(countryHeader); country != "" {
			c = append(c, `,"country":`...)
			c = jsonscan.AppendQuoted(c, []byte(strings.ToValidUTF8(country, "\uFFFD")))
		}
	}
	q.context = append(c, '}')
}

// contentType accepts what JSON is sent as: its own types, text/plain (beacons),
// and curl's default, application/x-www-form-urlencoded.
func (q *request) contentType(req *http.Request) *refusal {
	value := req.Header.Get("Content-Type")
	if value == "" || value == "application/json" {
		return nil
	}
	kind, params, err := mime.ParseMediaType(value)
	if err != nil {
		return refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "content type %q cannot be read: %s", value, err)
	}
	switch kind {
	case "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines", "application/json-lines":
		q.lines = true
	case "application/json", "text/json", "text/plain", "application/x-www-form-urlencoded", "application/octet-stream":
	default:
		return refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "content type %q: send application/json or application/x-ndjson", kind)
	}
	switch charset := params["charset"]; strings.ToLower(charset) {
	case "", "utf-8", "utf8", "us-ascii":
		return nil
	default:
		return refuse(http.StatusUnsupportedMediaType, "unsupported_charset", "charset %q: JSON is UTF-8", charset)
	}
}
