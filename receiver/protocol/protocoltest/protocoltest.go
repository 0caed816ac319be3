// Package protocoltest is the conformance suite of protocols. A protocol's test says what answers mean to its clients.
package protocoltest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/tenant"
)

// Meaning is what a client of the protocol does after an answer.
type Meaning string

// The possible reactions of clients.
const (
	Done  Meaning = "done with all of it"
	Drop  Meaning = "drops it"
	Again Meaning = "sends the same again later"
	Halve Meaning = "sends it again in smaller requests"
)

// Reads is the reaction of a client that reads only the status. It is done after 2xx, retries after 408, 429 and 5xx,
// and drops a request after any other status.
func Reads(a *http.Response, _ []byte) Meaning {
	switch {
	case a.StatusCode < 300:
		return Done
	case a.StatusCode == http.StatusRequestTimeout, a.StatusCode == http.StatusTooManyRequests, a.StatusCode >= 500:
		return Again
	case a.StatusCode == http.StatusRequestEntityTooLarge:
		return Halve
	}
	return Drop
}

// Bad is an event name for which Body makes an invalid event.
const Bad = "(bad)"

// Protocol describes a protocol to the suite.
type Protocol struct {
	// Route is the name of the protocol.Route for the requests.
	Route string
	// Request returns a request with these events and this key, in the place where clients put it; empty key: none. The
	// same arguments give the same request.
	Request func(key string, events ...string) *http.Request
	// Sign adds a signature of the body to a request, with the secret of the suite's keys; nil: no signatures.
	Sign func(req *http.Request, secret string, body []byte)
	// Reads is the client's reaction to an answer with that body.
	Reads func(a *http.Response, answer []byte) Meaning
	// Code is the error code of a Bad event.
	Code errcode.Code

	Name   string // of all events; empty: each has its own
	Single bool   // a request has one event; if it is rejected, so is the request
	NoIDs  bool   // events have no ids, so a resend adds rows
	NoBody bool   // the request has no body, so it is never compressed or too large
	InPath bool   // the key is in the path, so no request is without one
	Empty  bool   // a request without events succeeds

	// KeyInEvent: each event contains the key. So a request without events has none, and failure records of events contain
	// it.
	KeyInEvent bool
}

// Run checks a protocol.
func Run(t *testing.T, p Protocol) {
	r, _ := newReceiver(t, tenant.Rate{})
	if got := r.RouteOf(p.request(t, Key, "a")); got != p.Route {
		t.Fatalf("the request is received by route %q, want %q: is the path another protocol's?", got, p.Route)
	}
	for name, f := range map[string]func(*testing.T, *Protocol){
		"good batch": goodBatch, "bad event": badEvent, "all bad": allBad, "rejected keys": rejectedKeys,
		"too large":    tooLarge,
		"rate limited": rateLimited, "outage": outage, "wrong clock": wrongClock, "empty": empty, "compressed": compressed,
		"resend": resend,
		"broken": broken, "methods": methods, "redrive": redrive,
	} {
		t.Run(name, func(t *testing.T) { f(t, &p) })
	}
}

// request returns a request with these events.
func (p *Protocol) request(t *testing.T, key string, events ...string) *http.Request {
	t.Helper()
	req := p.Request(key, events...)
	body, err := io.ReadAll(req.Body)
	if err != nil {
		t.Fatal(err)
	}
	p.setBody(req, body)
	return req
}

// setBody sets a request's body, and signs it.
func (p *Protocol) setBody(req *http.Request, body []byte) {
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if p.Sign != nil {
		p.Sign(req, secret, body)
	}
}

func (p *Protocol) send(t *testing.T, r http.Handler, req *http.Request) (Meaning, string) {
	t.Helper()
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	a := w.Result()
	if a.Header.Get("Content-Type") == "application/json" && w.Body.Len() > 0 && !json.Valid(w.Body.Bytes()) {
		t.Errorf("%s answers %d with %q, which is no JSON", req.URL, w.Code, w.Body)
	}
	return p.Reads(a, w.Body.Bytes()), http.StatusText(w.Code) + " " + w.Body.String()
}

// sent checks the client's reaction and what was stored.
func (p *Protocol) sent(t *testing.T, r http.Handler, s *intake.Sink, req *http.Request, want Meaning,
	events, failures int) {
	t.Helper()
	s.Events, s.Failures = nil, nil
	got, answer := p.send(t, r, req)
	if got != want || len(s.Events) != events || len(s.Failures) != failures {
		t.Errorf("the client %s, want: %s; %d events and %d failure records, want %d and %d; answer %.300q",
			got, want, len(s.Events), len(s.Failures), events, failures, answer)
	}
}

// named returns the names that events get.
func (p *Protocol) named(events ...string) string {
	if p.Name != "" {
		for i := range events {
			events[i] = p.Name
		}
	}
	return strings.Join(events, " ")
}

// events returns as many events as a request may have.
func (p *Protocol) events(names ...string) []string {
	if p.Single {
		return names[:1]
	}
	return names
}

func goodBatch(t *testing.T, p *Protocol) {
	r, s := newReceiver(t, tenant.Rate{})
	names := p.events("a", "b", "c")
	p.sent(t, r, s, p.request(t, Key, names...), Done, len(names), 0)
	if got, want := s.Names(), p.named(names...); got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
	for _, e := range s.Events {
		if string(e.Project) != project || e.ID == (pipeline.UUID{}) || e.ReceivedAt == 0 {
			t.Errorf("event of project %q with id %s, received at %d", e.Project, e.ID, e.ReceivedAt)
		}
		if !json.Valid(e.Properties) || e.Properties[0] != '{' || !json.Valid(e.Context) ||
			bytes.ContainsAny(e.Properties, "\r\n") {
			t.Errorf("properties %q, context %q", e.Properties, e.Context)
		}
		if all := string(e.Properties) + string(e.Context); strings.Contains(all, Key) {
			t.Errorf("the key is stored with the event: %s", all)
		}
	}
}

// A bad event is rejected alone, by its index.
func badEvent(t *testing.T, p *Protocol) {
	r, s := newReceiver(t, tenant.Rate{})
	if p.Single {
		p.sent(t, r, s, p.request(t, Key, Bad), Drop, 0, 1)
	} else {
		p.sent(t, r, s, p.request(t, Key, "a", Bad, "c"), Done, 2, 1)
		if got, want := s.Names(), p.named("a", "c"); got != want {
			t.Errorf("stored %q, want %q", got, want)
		}
	}
	for _, f := range s.Failures {
		want := 1
		if p.Single {
			want = -1
		}
		if f.Index != want || f.Code != p.Code.String() || f.Project != project || len(f.Raw) == 0 ||
			strings.Contains(string(f.Raw), Key) && !p.Single && !p.KeyInEvent {
			t.Errorf("failure record %+v, want index %d and code %s", f, want, p.Code)
		}
	}
}

func allBad(t *testing.T, p *Protocol) {
	r, s := newReceiver(t, tenant.Rate{})
	names := p.events(Bad, Bad)
	got, answer := p.send(t, r, p.request(t, Key, names...))
	if got == Again || got == Halve || len(s.Events) != 0 || len(s.Failures) != len(names) {
		t.Errorf("the client %s, %d events, %d failure records of %d events; answer %.300q",
			got, len(s.Events), len(s.Failures), len(names), answer)
	}
}

func rejectedKeys(t *testing.T, p *Protocol) {
	for _, c := range []struct {
		key  string
		code errcode.Code
	}{
		{"", errcode.MissingKey}, {unknown, errcode.UnknownKey}, {readOnly, errcode.WriteNotAllowed},
		{expired, errcode.ExpiredKey},
	} {
		if c.key == "" && p.InPath {
			continue
		}
		r, s := newReceiver(t, tenant.Rate{})
		p.sent(t, r, s, p.request(t, c.key, "a"), Drop, 0, 1)
		if len(s.Failures) == 1 && s.Failures[0].Code != c.code.String() {
			t.Errorf("key %q: code %s, want %s", c.key, s.Failures[0].Code, c.code)
		}
	}
}

func tooLarge(t *testing.T, p *Protocol) {
	if p.NoBody {
		return
	}
	r, s := newReceiver(t, tenant.Rate{})
	padded := func(key string, size int) *http.Request {
		req := p.request(t, key, "a")
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Fatal(err)
		}
		p.setBody(req, append(body, bytes.Repeat([]byte(" "), size)...))
		return req
	}
	for name, req := range map[string]*http.Request{"any key": padded(Key, maxBody),
		"key of small bodies": padded(small, smallBody)} {
		s.Events, s.Failures = nil, nil
		if got, answer := p.send(t, r, req); got != Drop && got != Halve || len(s.Events) != 0 || len(s.Failures) != 1 ||
			s.Failures[0].Code != errcode.BodyTooLarge.String() {
			t.Errorf("%s: the client %s, %d events, failure records %+v, answer %.300q", name, got, len(s.Events), s.Failures,
				answer)
		}
	}
}

func rateLimited(t *testing.T, p *Protocol) {
	r, s := newReceiver(t, tenant.Rate{PerSecond: 0.001, Burst: 1})
	p.sent(t, r, s, p.request(t, Key, "a"), Done, 1, 0)
	p.sent(t, r, s, p.request(t, Key, "b"), Again, 0, 0)
}

// If events cannot be stored, the client keeps them: no failure record, and it retries.
func outage(t *testing.T, p *Protocol) {
	r, s := newReceiver(t, tenant.Rate{})
	s.Err = errors.New("the disk is full")
	p.sent(t, r, s, p.request(t, Key, "a"), Again, 0, 0)
	w := httptest.NewRecorder()
	r.ServeHTTP(w, p.request(t, Key, "a"))
	if got, want := w.Header().Get("Retry-After"), "7"; got != want {
		t.Errorf("Retry-After %q, want %q", got, want)
	}
	s.Err = nil
	p.sent(t, r, s, p.request(t, Key, "a"), Done, 1, 0)
}

// While the clock is wrong, clients keep their events and retry.
func wrongClock(t *testing.T, p *Protocol) {
	var clock error
	r, s := newReceiver(t, tenant.Rate{}, func(o *receiver.Options) { o.Ready = func() error { return clock } })
	clock = errors.New("this machine's clock is an hour behind the store's")
	p.sent(t, r, s, p.request(t, Key, "a"), Again, 0, 0)
	w := httptest.NewRecorder()
	r.ServeHTTP(w, p.request(t, Key, "a"))
	if got, want := w.Header().Get("Retry-After"), "7"; w.Code != http.StatusServiceUnavailable || got != want {
		t.Errorf("status %d, Retry-After %q, want 503 and %q", w.Code, got, want)
	}
	clock = nil
	p.sent(t, r, s, p.request(t, Key, "a"), Done, 1, 0)
}

func empty(t *testing.T, p *Protocol) {
	r, s := newReceiver(t, tenant.Rate{})
	want, failures := Drop, 1
	if p.Empty && !p.KeyInEvent {
		want, failures = Done, 0
	}
	p.sent(t, r, s, p.request(t, Key), want, 0, failures)
}

func compressed(t *testing.T, p *Protocol) {
	if p.NoBody {
		return
	}
	r, s := newReceiver(t, tenant.Rate{})
	req := p.request(t, Key, "a")
	body, err := io.ReadAll(req.Body)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(body)
	z.Close()
	p.setBody(req, packed.Bytes())
	req.Header.Set("Content-Encoding", "gzip")
	p.sent(t, r, s, req, Done, 1, 0)
}

// A resent request has the same ids.
func resend(t *testing.T, p *Protocol) {
	r, s := newReceiver(t, tenant.Rate{})
	ids := func() (ids []pipeline.UUID) {
		s.Events = nil
		p.send(t, r, p.request(t, Key, p.events("a", "b")...))
		for _, e := range s.Events {
			ids = append(ids, e.ID)
		}
		return ids
	}
	first, second := ids(), ids()
	if same := slices.Equal(first, second); same == p.NoIDs {
		t.Errorf("ids %s, then %s", first, second)
	}
	if len(first) > 1 && first[0] == first[1] {
		t.Errorf("two events have the id %s", first[0])
	}
}

// An unreadable body becomes a failure record, and the client does not retry.
func broken(t *testing.T, p *Protocol) {
	if p.NoBody {
		return
	}
	r, s := newReceiver(t, tenant.Rate{})
	req := p.request(t, Key, "a")
	if p.Sign == nil {
		req.Header.Set("Authorization", "Bearer "+Key) // a broken body has no key
	}
	p.setBody(req, []byte("{\"never\xffended"))
	got, answer := p.send(t, r, req)
	if got == Again || len(s.Events) != 0 || len(s.Failures) != 1 || string(s.Failures[0].Raw) != "{\"never\xffended" {
		t.Errorf("the client %s, %d events, failure records %+v, answer %.300q", got, len(s.Events), s.Failures, answer)
	}
}

func methods(t *testing.T, p *Protocol) {
	r, s := newReceiver(t, tenant.Rate{})
	req := p.request(t, Key, "a")
	for _, method := range []string{http.MethodOptions, http.MethodDelete} {
		w := httptest.NewRecorder()
		asked := req.Clone(t.Context())
		asked.Method = method
		r.ServeHTTP(w, asked)
		want := http.StatusNoContent
		if method == http.MethodDelete {
			want = http.StatusMethodNotAllowed
		}
		if allow := w.Header().Get("Allow"); w.Code != want || !strings.Contains(allow, req.Method) {
			t.Errorf("%s: status %d, want %d; Allow %q", method, w.Code, want, allow)
		}
	}
	if len(s.Events)+len(s.Failures) != 0 {
		t.Errorf("%d events, %d failure records", len(s.Events), len(s.Failures))
	}
}

// A redriven event is rejected for the same reason again.
func redrive(t *testing.T, p *Protocol) {
	r, s := newReceiver(t, tenant.Rate{})
	p.send(t, r, p.request(t, Key, p.events(Bad, "b")...))
	if len(s.Failures) != 1 {
		t.Fatalf("%d failure records", len(s.Failures))
	}
	f := s.Failures[0]
	s.Events, s.Failures = nil, nil
	out, err := r.Redrive(t.Context(), receiver.Redrive{
		ID: pipeline.NewUUIDv7(f.Time.UnixMilli()), Time: f.Time.UnixMilli(), Project: f.Project, Path: f.Path,
		Event:       f.Index >= 0,
		ContentType: f.ContentType, ContentEncoding: f.ContentEncoding, ClientIP: f.ClientIP, UserAgent: f.UserAgent,
		Headers: f.Headers, Body: f.Raw, Durability: pipeline.Disk,
	})
	if err != nil || out.Code != p.Code.String() || out.Accepted != 0 || len(s.Events)+len(s.Failures) != 0 {
		t.Errorf("redriven %+v, error %v, %d events and %d failure records, want code %s", out, err, len(s.Events),
			len(s.Failures), p.Code)
	}
}

// Post returns a POST with a body.
func Post(path, contentType string, body []byte) *http.Request {
	req := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	req.Header.Set("Content-Type", contentType)
	return req
}

// Bearer puts the key into the usual place.
func Bearer(req *http.Request, key string) *http.Request {
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	return req
}

// Basic puts the key into the user of Basic authentication.
func Basic(req *http.Request, key string) *http.Request {
	if key != "" {
		req.SetBasicAuth(key, "")
	}
	return req
}

// Join writes each event, separated by separator.
func Join(events []string, separator string, each func(i int, name string) string) string {
	all := make([]string, len(events))
	for i, name := range events {
		all[i] = each(i, name)
	}
	return strings.Join(all, separator)
}
