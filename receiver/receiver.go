// Package receiver accepts events over HTTP. It reads and checks a request (body.go, decode.go, event.go), appends the
// good events to a batcher, waits for the requested durability, and answers. It does not know objects, queues or
// tables.
package receiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/sparselog"
	"github.com/penstock/penstock/internal/tracing"
	"github.com/penstock/penstock/receiver/admission"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
	"github.com/penstock/penstock/receiver/protocol/native"
	"github.com/penstock/penstock/receiver/tap"
	"github.com/penstock/penstock/receiver/tenant"
)

// Appender copies events, all or none. The ticket waits until they have the requested durability.
type Appender interface {
	Append(ctx context.Context, events []pipeline.Event, blobs []pipeline.Blob,
		d pipeline.Durability) (pipeline.Ticket, error)
}

// Reporter stores failure records. It never blocks, and copies what it stores.
type Reporter interface {
	Report(f pipeline.Failure)
	// Drop counts a failure without a record, by its reason.
	Drop(reason string)
}

// Options are a receiver's limits. They have no defaults here. New returns an error if a limit is 0, unless its comment
// defines 0.
type Options struct {
	Name       string              // in the keys of objects, for the tap
	Tap        *tap.Tap            // nil: of this receiver alone
	Keys       []tenant.Key        // that stay; SetProjects brings others
	Durability pipeline.Durability // where the request does not ask for another
	MaxBody    int64               // bytes as sent
	MaxDecoded int64               // bytes decompressed
	// bytes of a body, sent or decompressed, whose key is Small or still unknown; 0: MaxBody for strangers
	SmallBody      int64
	MaxEvent       int            // bytes of one event
	MaxSpool       int64          // bytes of large bodies on disk while they are read and checked; 0: no SpoolDir
	SpoolDir       string         // where; empty: none go there
	MaxEvents      int            // in one request
	BlobThreshold  int            // bytes of a value that leaves its event's row; 0: none does
	MaxDepth       int            // of an event's JSON; the event itself is 1
	MaxMemory      int64          // bytes of all requests together: bodies, decompressors, events
	ReadTimeout    time.Duration  // for a request's body, and for its answer to be read
	RetryAfter     time.Duration  // sent with 503
	Origins        []string       // that browsers may send from; "*": all
	TrustedProxies []netip.Prefix // whose ClientIPHeader and CountryHeader count
	ClientIPHeader string         // that names the client; empty: X-Forwarded-For, or else Forwarded
	CountryHeader  string         // empty: none
	SessionReplay  bool           // clients of PostHog are asked to record sessions
	Schemas        Schemas        // nil: events are not held against any
	EnforceSchemas bool           // reject events that do not fit; false: accept and report them
	// bytes a second of requests without a known key, read or reported; 0: none is reported
	AnonymousRate int64
	// bodies that one address may send at once while their key is unknown; 0: any number
	MaxKeyless     int
	MaxConnections int // of clients at once, see Attach; 0: any number
	// Tracer traces a sample of the requests; nil: none.
	Tracer *tracing.Tracer
	// Ready reports why no event can be accepted now, for example a wrong clock. nil: events are always accepted.
	Ready func() error
}

// check names a missing limit. A limit of 0 would reject every event.
func (o *Options) check() error {
	for _, limit := range []struct {
		name  string
		value int64
	}{
		{"MaxBody", o.MaxBody}, {"MaxDecoded", o.MaxDecoded}, {"MaxEvent", int64(o.MaxEvent)},
		{"MaxEvents", int64(o.MaxEvents)}, {"MaxDepth", int64(o.MaxDepth)}, {"MaxMemory", o.MaxMemory},
		{"ReadTimeout", int64(o.ReadTimeout)}, {"RetryAfter", int64(o.RetryAfter)},
	} {
		if limit.value <= 0 {
			return fmt.Errorf("receiver: Options.%s is %d: it must be positive", limit.name, limit.value)
		}
	}
	if o.SpoolDir != "" && o.MaxSpool <= 0 {
		return fmt.Errorf("receiver: Options.MaxSpool is %d: it must be positive with a SpoolDir", o.MaxSpool)
	}
	return nil
}

// Receiver is an http.Handler for the public listener.
type Receiver struct {
	opts      Options
	tenants   *tenants
	router    *protocol.Router
	native    *protocol.Route // the route of requests that have none
	appender  Appender
	reporter  Reporter
	log       *slog.Logger
	metrics   *metrics
	admission *admission.Control
	tap       *tap.Tap
	counts    counts
	pool      sync.Pool // of *request
}

// New makes a receiver. It starts nothing.
func New(opts Options, appender Appender, reporter Reporter, log *slog.Logger,
	reg prometheus.Registerer) (*Receiver, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	router, err := newRouter(&opts)
	if err != nil {
		return nil, err
	}
	opts.ClientIPHeader = http.CanonicalHeaderKey(opts.ClientIPHeader)
	log = slog.New(sparselog.New(log.Handler())) // strangers must not flood the log
	r := &Receiver{opts: opts, appender: appender, reporter: reporter, log: log,
		metrics: newMetrics(reg), tap: cmp.Or(opts.Tap, &tap.Tap{})}
	r.admission = admission.New(admission.Limits{Memory: opts.MaxMemory, Spool: opts.MaxSpool, SpoolDir: opts.SpoolDir,
		AnonymousRate: opts.AnonymousRate, StrangerBody: opts.strangerBody(), MaxKeyless: opts.MaxKeyless,
		Connections: opts.MaxConnections}, log, reg)
	r.tenants, r.router = newTenants(opts.Keys, r.metrics), router
	r.native = r.router.Find(native.Path, nil)
	r.metrics.begin(opts.Keys, r.native.Name)
	r.pool.New = func() any { return newRequest(r) }
	return r, nil
}

// Attach counts the connections of a server towards Options.MaxConnections and MaxMemory. The server has to use the
// returned listener.
func (r *Receiver) Attach(server *http.Server, l net.Listener) net.Listener {
	return r.admission.Conns.Attach(server, l)
}

// Tap shows the events that the receiver accepts and rejects.
func (r *Receiver) Tap() *tap.Tap { return r.tap }

// RouteOf returns the name of the route that receives a request, or nothing if none does.
func (r *Receiver) RouteOf(req *http.Request) string {
	if route := r.router.Find(req.URL.Path, req.Header); route != nil {
		return route.Name
	}
	return ""
}

// ServeHTTP serves POST /v1/events and the routes of other protocols, from the request's bytes to the batcher.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.cors(w, req)
	route := r.router.Find(req.URL.Path, req.Header)
	if route != nil && req.Method == http.MethodOptions {
		preflight(w, req, route)
		return
	}
	began := time.Now()
	q := r.begin(began)
	if route != nil && route.Protocol != nil {
		q.route = route
	}
	q.lost = route == nil
	defer r.end(q)
	q.traced = r.opts.Tracer.Sample(req.Header, began)
	// The deadline also covers a rejected body, whose rest the server reads before it answers. The server's own
	// ReadTimeout would also cut off the answer. net/http removes the deadline after the body, when it waits for the
	// client to close.
	client := http.NewResponseController(w)
	q.extend = client
	client.SetReadDeadline(began.Add(r.opts.ReadTimeout))

	refusal := reject(w, route, req)
	if refusal == nil && route.Protocol == nil {
		r.reply(w, route, req)
		return
	}
	if refusal == nil {
		refusal = r.ready()
	}
	if refusal == nil {
		if p, ok := route.Protocol.(protocol.Preparer); ok {
			p.Prepare(req)
		}
		refusal = r.admit(q, req)
		if q.lease.Head(req) != nil {
			refusal = busy()
		} else if refusal == nil {
			refusal = r.take(q, req)
		} else {
			r.keep(q, req)
		}
	}
	if refusal != nil {
		q.unknown(req, refusal)
	}
	q.settleAccount(refusal)
	status, answer := r.answer(w.Header(), q, refusal)
	r.metrics.observe(status, q, time.Since(began))
	r.counts.add(status, q, refusal)
	if q.traced != nil {
		defer r.trace(q.trace(req, refusal), status)
	}
	// The answer does not wait for the report's turn at large bodies. And no turn waits for a client that reads its answer
	// slowly.
	later := q.reported(refusal) && q.lease.Spooled() && q.lease.Class() != admission.Large
	if later {
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	} else {
		r.report(q, req, refusal)
		q.release()
	}
	client.SetWriteDeadline(time.Now().Add(r.opts.ReadTimeout + time.Duration(len(answer)/slowest)*time.Second))
	w.WriteHeader(status)
	w.Write(answer)
	if later {
		client.Flush()
		r.report(q, req, refusal)
	}
}

func (r *Receiver) begin(now time.Time) *request {
	q := r.pool.Get().(*request)
	q.reset(now.UnixMilli())
	return q
}

func (r *Receiver) end(q *request) {
	q.unspool()
	q.lease.Close()
	if len(q.frontBuf) > smallBuffer {
		q.frontBuf = nil // the next request may be small
	}
	if q.small() {
		r.pool.Put(q)
	}
}

// release frees everything that the request holds, except its answer.
func (q *request) release() {
	answer := int64(cap(q.response))
	if answer <= keepBytes {
		answer = 0
	}
	q.lease.Resize(answer)
	q.lease.Yield()
	q.unspool()
	if !q.small() {
		q.sent, q.body, q.events, q.rejects, q.violations = nil, nil, nil, nil, nil
		q.rows.Forget()
		q.in.Forget()
	}
}

// reject answers a request without events.
func reject(w http.ResponseWriter, route *protocol.Route, req *http.Request) *errcode.Error {
	switch {
	case route == nil:
		return errcode.NotFound.Errorf("there is nothing here: send events to POST %s", native.Path)
	case !slices.Contains(route.Allowed(), req.Method):
		w.Header().Set("Allow", allow(route))
		return errcode.MethodNotAllowed.Errorf("method %.100q: send events by %s", req.Method,
			strings.Join(route.Allowed(), " or "))
	}
	return nil
}

// ready rejects events while the clock is wrong. Their rows would be stored under a wrong day.
func (r *Receiver) ready() *errcode.Error {
	if r.opts.Ready == nil {
		return nil
	}
	if err := r.opts.Ready(); err != nil {
		return errcode.ClockWrong.Errorf("events cannot be stored now: %s", err)
	}
	return nil
}

// reply answers a request that clients send before their first events.
func (r *Receiver) reply(w http.ResponseWriter, route *protocol.Route, req *http.Request) {
	reply := route.Answer(req)
	setContentType(w.Header(), reply.ContentType)
	w.Header().Set("X-Content-Type-Options", "nosniff") // some answers repeat parts of the request
	w.WriteHeader(reply.Status)
	w.Write(reply.Body)
	r.metrics.requests.WithLabelValues("", route.Name, strconv.Itoa(reply.Status)).Inc()
}

// take appends a body's events to the batcher.
func (r *Receiver) take(q *request, req *http.Request) *errcode.Error {
	if err := q.admitHead(req.ContentLength); err != nil {
		return err
	}
	inBody := q.key.Project == ""
	if inBody {
		if err := q.arrive(); err != nil {
			return err
		}
	}
	if err := r.read(q, req); err != nil {
		return err
	}
	if q.traced != nil {
		q.traced.Read = time.Now()
	}
	if q.lease.Turn(req.Context(), len(q.body)) != nil {
		return cancelled()
	}
	if q.lease.Overdrawn() {
		return busy()
	}
	if c, ok := q.route.Protocol.(protocol.Chooser); ok && q.in.Redrive != protocol.RedriveEvent {
		q.route = c.Choose(q.body)
	}
	if inBody {
		if err := r.unlock(q); err != nil {
			return err
		}
	}
	if err := q.admitBody(); err != nil {
		return err
	}
	if v, ok := q.route.Protocol.(protocol.Verifier); ok && q.redrive == nil {
		if err := v.Verify(req.Header, q.key.Secret, q.asSent()); err != nil {
			return err
		}
	}
	err := q.decode(q.body)
	if q.largest > keepBytes {
		q.freshScanners() // their buffers are many times as large
	}
	if q.overfull {
		err = busy()
	}
	if err == nil {
		err = q.within(q.account.Count(q.index, q.meterTime()))
	}
	if err != nil || len(q.events) == 0 {
		return err
	}
	return r.append(q, req)
}

// asSent is the body as sent.
func (q *request) asSent() []byte {
	if q.encoding != "" {
		return q.sent
	}
	return q.body
}

// append appends the events to the batcher.
func (r *Receiver) append(q *request, req *http.Request) *errcode.Error {
	q.accepted = len(q.events)
	var seen tap.Batch
	if r.tap.Watched() {
		seen = r.tap.Copy(tap.Event{RequestID: q.id, Receiver: r.opts.Name, Redriven: q.redrive != nil}, q.events)
	}
	// of a small one there is little to let go of, and its buffers are used again
	large := q.lease.Class() != admission.Small
	if large {
		q.lease.Unload()
	}
	ticket, err := r.appender.Append(req.Context(), q.events, q.rows.Blobs, q.durability)
	if err != nil {
		return r.unavailable(req, err)
	}
	seen.Number(q.events[0].Seq)
	if large {
		q.letGo()
	}
	if q.traced != nil {
		q.traced.Ticket, q.traced.Appended = ticket, time.Now()
	}
	if q.object, err = ticket.Wait(req.Context()); err != nil {
		return r.unavailable(req, err)
	}
	if q.traced != nil {
		q.traced.Stored = time.Now()
	}
	seen.Show(q.object)
	return nil
}

// cors lets browsers of allowed origins send events and read the answer. It names the origin instead of "*", because
// sendBeacon sends credentials, which "*" forbids.
func (r *Receiver) cors(w http.ResponseWriter, req *http.Request) {
	origin := req.Header.Get("Origin")
	if origin == "" || !slices.Contains(r.opts.Origins, "*") && !slices.Contains(r.opts.Origins, origin) {
		return
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Credentials", "true")
	h.Set("Access-Control-Expose-Headers", "Retry-After")
	h.Add("Vary", "Origin")
}

// allow is the value of the header Allow.
func allow(route *protocol.Route) string {
	return strings.Join(slices.Concat(route.Allowed(), []string{http.MethodOptions}), ", ")
}

// preflight allows any headers; cors decides which origins may send.
func preflight(w http.ResponseWriter, req *http.Request, route *protocol.Route) {
	h := w.Header()
	h.Set("Allow", allow(route))
	h.Set("Access-Control-Allow-Methods", allow(route))
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Content-Encoding, X-API-Key")
	if asked := req.Header.Get("Access-Control-Request-Headers"); asked != "" {
		h.Set("Access-Control-Allow-Headers", asked)
	}
	h.Set("Access-Control-Max-Age", "86400")
	w.WriteHeader(http.StatusNoContent)
}

// admit checks key, durability, content type and encoding before it reads the body.
func (r *Receiver) admit(q *request, req *http.Request) *errcode.Error {
	q.clientIP, q.proxied = r.client(req)
	q.lease.Conn = admission.ConnOf(req.Context())
	key, given := q.route.Protocol.Authenticate(req)
	if _, finds := q.route.Protocol.(protocol.KeyFinder); !given && !finds {
		return missingKey()
	}
	if asked := protocol.QueryValue(req.URL.RawQuery, "durability"); asked != "" {
		var ok bool
		if q.durability, ok = pipeline.ParseDurability(asked); !ok {
			return errcode.UnknownDurability.Errorf("durability %.100q: memory, disk or object", asked)
		}
		q.asked = true
	}
	if given {
		if err := r.useKey(q, key); err != nil {
			return err
		}
	}
	return q.head(req)
}

func missingKey() *errcode.Error {
	return errcode.MissingKey.Errorf("no key: send it as Authorization: Bearer KEY, Basic user, X-API-Key or ?key=")
}

// unlock finds the key in a body that was read without one. If a key was found in the front of the body, both must be
// equal.
func (r *Receiver) unlock(q *request) *errcode.Error {
	key, sealed := q.route.Protocol.(protocol.KeyFinder).Key(&q.in, q.body)
	switch {
	case q.key.Project != "" && key != "" && tenant.HashKey(key) != q.key.Hash:
		return errcode.DuplicateKey.Errorf("the body has two keys: send the events of each key in a separate request")
	case key == "" && sealed != nil:
		return sealed // it may be there
	case key == "":
		return missingKey()
	case q.key.Project != "":
		return q.denied
	}
	return r.useKey(q, key)
}

// unavailable is the answer if the batcher rejects the events.
func (r *Receiver) unavailable(req *http.Request, err error) *errcode.Error {
	if req.Context().Err() != nil && errors.Is(err, req.Context().Err()) {
		// The client is gone; nobody reads the answer.
		return cancelled()
	}
	if errors.Is(err, pipeline.ErrPending) {
		return errcode.NotStoredYet.Errorf("%s", err)
	}
	// The batcher logs and counts the cause. Its text is not for clients.
	r.log.Debug("events rejected", "error", err)
	return errcode.Unavailable.Errorf("events cannot be stored now, and none of this request was accepted: send it again")
}

func cancelled() *errcode.Error {
	return errcode.Cancelled.Errorf("the request was cancelled")
}

// takeQuery makes the query, without the key, the request's body, so that a failure record has it.
func (q *request) takeQuery(raw string) error {
	if err := q.lease.Resize(2 * int64(len(raw))); err != nil {
		return err
	}
	for part := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(part, "=")
		plain, err := url.QueryUnescape(name)
		if part == "" || err == nil && (plain == "key" || plain != "" && plain == q.route.QueryKey) {
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
