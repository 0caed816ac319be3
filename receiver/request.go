package receiver

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"mime"
	"net/http"
	"strings"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/tracing"
	"github.com/penstock/penstock/receiver/admission"
	"github.com/penstock/penstock/receiver/document"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
	"github.com/penstock/penstock/receiver/tenant"
)

// request is the state of serving one POST. It is reused for the next.
type request struct {
	r          *Receiver
	route      *protocol.Route
	lost       bool    // no route has its path; route is the native one
	series     *series // of the last request
	in         protocol.Request
	draft      protocol.Draft // of the current event
	outcome    protocol.Outcome
	id         string
	key        tenant.Key
	tenant     *tenant.Tenant[*redaction] // nil: its project has no settings
	project    []byte
	durability pipeline.Durability
	asked      bool // the request names its durability
	clientIP   string
	proxied    bool   // a trusted proxy has sent it
	encoding   string // of the body, in lower case; empty: none
	maxBody    int64
	now        int64 // received_at, ms
	object     string
	redrive    *Redrive         // nil: a client's request
	traced     *tracing.Request // nil: it is not
	missing    string           // why a request rejected by its head has no bytes
	silent     bool             // no failure is reported
	account    tenant.Account
	notNow     *tenant.Limit  // the limit that rejects it for now; nil: none
	early      *errcode.Error // by the limits of the key that is in the front of the body
	denied     *errcode.Error // why that key may not send these events
	lease      admission.Lease

	extend     *http.ResponseController // while the body is read; nil: in a redrive
	limited    limitReader
	frontBuf   []byte // the front of a body whose key is in it
	front      front
	sent       []byte // the body as it was sent, where that is not body
	packed     bytes.Reader
	body       []byte // decompressed; never changed, because rejected events are kept as sent
	keyText    []byte // a text in the body that is a key; nil: none was looked up
	whole      bool   // the sent body was read to its end
	accepted   int    // events that the batcher was given
	scan       *jsonscan.Scanner
	inner      *jsonscan.Scanner // of a nested properties object
	rows       *document.Writer  // of the events
	context    []byte
	events     []pipeline.Event
	overfull   bool // no memory for a redacted event
	rejects    []protocol.Reject
	violation  error       // of the event that was taken last; nil: none, or noted
	violations []violation // events that were taken and are reported all the same
	rejected   int
	sampled    int    // events that the project's sample leaves out
	repaired   int    // events that were accepted and had lone surrogates
	mended     int    // 1 if the last accepted event was repaired, else 0
	index      int    // of the next event in the request
	inRows     int    // bytes of the events' properties, without their blobs
	largest    int    // bytes of the largest event so far
	response   []byte // the answer
}

func newRequest(r *Receiver) *request {
	q := &request{r: r, rows: &document.Writer{}}
	q.freshScanners()
	q.reset(0)
	return q
}

func (q *request) freshScanners() {
	q.scan = &jsonscan.Scanner{MaxDepth: q.r.opts.MaxDepth, AllowLoneSurrogates: true,
		LargeFrom: document.LargeFrom(q.r.opts.BlobThreshold)}
	q.inner = &jsonscan.Scanner{MaxDepth: q.r.opts.MaxDepth}
}

func (q *request) reset(now int64) {
	var id [8]byte
	binary.BigEndian.PutUint64(id[:], rand.Uint64()) // #nosec G404 -- tells requests apart, and is no secret
	in := protocol.Request{Host: q, MaxEvent: q.r.opts.MaxEvent, MaxDepth: q.r.opts.MaxDepth, MaxBody: q.r.opts.MaxDecoded}
	q.rows.Reset(q.r.opts.BlobThreshold)
	*q = request{r: q.r, series: q.series, in: in, route: q.r.native, id: hex.EncodeToString(id[:]), now: now,
		maxBody: q.r.opts.MaxBody, scan: q.scan, inner: q.inner, rows: q.rows,
		project: q.project[:0], sent: q.sent[:0], body: q.body[:0],
		context: q.context[:0], events: q.events[:0], rejects: q.rejects[:0], violations: q.violations[:0],
		response: q.response[:0], frontBuf: q.frontBuf,
		draft: protocol.Draft{Parts: q.draft.Parts[:0], Envelope: q.draft.Envelope[:0]}}
	q.lease.Open(q.r.admission)
}

// Buffers up to these sizes are reused.
const (
	keepBytes  = 256 << 10
	keepEvents = 1 << 11
)

func (q *request) small() bool {
	return cap(q.sent) <= keepBytes && cap(q.body) <= keepBytes && cap(q.rows.Buf) <= keepBytes &&
		cap(q.response) <= keepBytes && cap(q.rows.Applied) <= keepBytes &&
		cap(q.events) <= keepEvents && cap(q.rejects) <= keepEvents && cap(q.violations) <= keepEvents
}

// AdmitHead counts a request that did not reach ServeHTTP yet, until done is called. It returns false if no memory is
// left for it.
func (r *Receiver) AdmitHead(req *http.Request) (done func(), ok bool) {
	var l admission.Lease
	l.Open(r.admission)
	if key, given := protocol.HeadKey(req); given && r.tenants.Known(key) {
		l.Known()
	}
	return l.Close, l.Head(req) == nil
}

// maxContext limits the bytes that a header adds to each event's context.
const maxContext = 512

// head reads what the request's head says about all events of the body.
func (q *request) head(req *http.Request) *errcode.Error {
	q.in.Header = req.Header
	q.setContext(req)
	if err := q.contentType(req); err != nil {
		return err
	}
	return q.contentEncoding(req)
}

// setContext writes what is known about the client, once for all events.
func (q *request) setContext(req *http.Request) {
	c := append(q.context[:0], `{"ip":`...)
	c = jsonscan.AppendQuoted(c, []byte(q.clientIP))
	if ua := req.UserAgent(); ua != "" {
		c = append(c, `,"user_agent":`...)
		c = protocol.AppendText(c, ua[:min(len(ua), maxContext)])
	}
	if h := q.r.opts.CountryHeader; h != "" && q.proxied {
		if country := req.Header.Get(h); country != "" {
			c = append(c, `,"country":`...)
			c = protocol.AppendText(c, country[:min(len(country), maxContext)])
		}
	}
	q.context = append(c, '}')
}

// contentType accepts the content types of JSON, text/plain (beacons), and curl's default,
// application/x-www-form-urlencoded.
func (q *request) contentType(req *http.Request) *errcode.Error {
	if q.route.AnyType {
		return nil
	}
	value := req.Header.Get("Content-Type")
	switch value { // the usual ones need no parsing
	case "", "application/json", "text/plain;charset=UTF-8":
		return nil
	case "application/x-ndjson":
		q.in.Lines = true
		return nil
	}
	kind, params, err := mime.ParseMediaType(value)
	if err != nil {
		return errcode.UnsupportedMediaType.Errorf("content type %.100q cannot be read: %s", value, err)
	}
	switch kind {
	case "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines",
		"application/json-lines":
		q.in.Lines = true
	case "application/json", "text/json", "text/plain", "application/x-www-form-urlencoded", "application/octet-stream":
	default:
		return errcode.UnsupportedMediaType.Errorf("content type %.100q: send application/json or application/x-ndjson", kind)
	}
	switch charset := params["charset"]; strings.ToLower(charset) {
	case "", "utf-8", "utf8", "us-ascii":
		return nil
	default:
		return errcode.UnsupportedCharset.Errorf("charset %.100q: JSON is UTF-8", charset)
	}
}

func (q *request) contentEncoding(req *http.Request) *errcode.Error {
	q.encoding = strings.ToLower(strings.TrimSpace(req.Header.Get("Content-Encoding")))
	if q.encoding == "identity" {
		q.encoding = ""
	}
	if _, known := encodings[q.encoding]; !known && q.encoding != "" {
		return errcode.UnsupportedEncoding.Errorf("content encoding %.100q: send gzip, zstd, deflate or none", q.encoding)
	}
	return nil
}
