package receiver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/admission"
	"github.com/penstock/penstock/receiver/tenant"
)

// sink stands for the batcher and the errors pipeline: it copies what it takes.
type sink struct {
	err  error                           // of Append
	wait func(ctx context.Context) error // in Append; nil: none
	last func()                          // in Wait; nil: none

	mu         sync.Mutex
	events     []pipeline.Event
	blobs      []keptBlob
	failures   []pipeline.Failure
	dropped    []string
	durability pipeline.Durability
	appends    int
}

type keptBlob struct {
	pipeline.Blob
	data []byte
}

func (s *sink) Append(ctx context.Context, events []pipeline.Event, blobs []pipeline.Blob,
	d pipeline.Durability) (pipeline.Ticket, error) {
	if s.wait != nil {
		if err := s.wait(ctx); err != nil {
			return nil, err
		}
	}
	if s.err != nil {
		return nil, s.err
	}
	return s, s.take(events, blobs, d)
}

func (s *sink) Wait(context.Context) (string, error) {
	if s.last != nil {
		s.last()
	}
	return "events/x.parquet", nil
}

func (s *sink) take(events []pipeline.Event, blobs []pipeline.Blob, d pipeline.Durability) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.appends++
	s.durability = d
	at := len(s.events)
	for _, e := range events {
		s.events = append(s.events, cloned(e))
	}
	for _, b := range blobs {
		var data bytes.Buffer
		if err := b.Write(&data); err != nil {
			return err
		}
		if int64(data.Len()) > b.Size {
			return fmt.Errorf("a blob has %d bytes, %d were foreseen", data.Len(), b.Size)
		}
		b.Event += at
		s.blobs = append(s.blobs, keptBlob{b, data.Bytes()})
	}
	return nil
}

func (s *sink) Drop(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped = append(s.dropped, reason)
}

func (s *sink) Report(f pipeline.Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.Raw = bytes.Clone(f.Raw)
	s.failures = append(s.failures, f)
}

func cloned(e pipeline.Event) pipeline.Event {
	for _, b := range []*[]byte{&e.Project, &e.Name, &e.SessionID, &e.UserID, &e.Properties, &e.Context} {
		*b = bytes.Clone(*b)
	}
	return e
}

const (
	key     = "secret-of-game"
	keyDisk = "secret-of-bank" // may not go below disk
)

func options() Options {
	return Options{
		Keys: []Key{
			{Project: "game", Hash: HashKey(key)},
			{Project: "bank", Hash: HashKey(keyDisk), MinDurability: pipeline.Disk},
		},
		Durability: pipeline.Disk, MaxBody: 4 << 20, MaxDecoded: 8 << 20, MaxEvent: 2 << 20, MaxEvents: 1000, MaxDepth: 64,
		MaxMemory: 64 << 20, ReadTimeout: 10 * time.Second, RetryAfter: 3 * time.Second, AnonymousRate: 1 << 20,
	}
}

// must is for a call that fails only if a test itself is wrong.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// newTest makes a receiver over a new sink; with changes its options.
func newTest(with func(*Options)) (*Receiver, *sink) {
	opts := options()
	if with != nil {
		with(&opts)
	}
	s := &sink{}
	return must(New(opts, s, s, slog.New(slog.DiscardHandler), prometheus.NewRegistry())), s
}

type answerError struct {
	Index   *int   `json:"index"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// answer is what a client reads.
type answer struct {
	Status        int         `json:"-"`
	Header        http.Header `json:"-"`
	Accepted      int         `json:"accepted"`
	Rejected      int         `json:"rejected"`
	Sampled       int         `json:"sampled"`
	RequestID     string      `json:"request_id"`
	Object        string      `json:"object"`
	Error         answerError `json:"error"`
	Errors        []answerError
	ErrorsOmitted int `json:"errors_omitted"`
	Limit         struct {
		Of, Per            string
		Limit, Burst, Left int64
		RetryAfter         int64     `json:"retry_after"`
		RetryAt            time.Time `json:"retry_at"`
	} `json:"limit"`
}

// codes lists index:code of the refused events, or the code of the request.
func (a answer) codes() string {
	var b strings.Builder
	for _, e := range a.Errors {
		b.WriteString(" " + string(rune('0'+*e.Index)) + ":" + e.Code)
	}
	return strings.TrimSpace(b.String() + " " + a.Error.Code)
}

func post(target, body string, header ...string) *http.Request {
	return postReader(target, strings.NewReader(body), header...)
}

func postReader(target string, body io.Reader, header ...string) *http.Request {
	req := httptest.NewRequest("POST", target, body)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return req
}

// withKey adds the usual key.
func withKey(req *http.Request) *http.Request {
	req.Header.Set("Authorization", "Bearer "+key)
	return req
}

func serve(t testing.TB, h http.Handler, req *http.Request) answer {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return parseAnswer(t, w.Result())
}

func parseAnswer(t testing.TB, resp *http.Response) answer {
	t.Helper()
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{Status: resp.StatusCode, Header: resp.Header}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		t.Fatalf("answer %q: %v", text, err)
	}
	if a.RequestID == "" {
		t.Errorf("answer %s has no request id", text)
	}
	return a
}

// names lists the accepted events' names.
func names(events []pipeline.Event) string {
	var all []string
	for _, e := range events {
		all = append(all, string(e.Name))
	}
	return strings.Join(all, " ")
}

// protobuf is the content type of OTLP in protobuf.
const protobuf = "application/x-protobuf"

// transparent is what pixels answer.
const transparent = "GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"

// Short names for tests.
type (
	Key     = tenant.Key
	Project = tenant.Project
	Rate    = tenant.Rate
	Quota   = tenant.Quota
	Sample  = tenant.Sample
	Usage   = tenant.Usage
	Used    = tenant.Used
)

const (
	SampleSession = tenant.BySession
	SampleUser    = tenant.ByUser
	SampleEvent   = tenant.ByEvent
)

func HashKey(key string) [32]byte { return tenant.HashKey(key) }

// hold takes memory of a receiver for another customer's request.
func hold(t *testing.T, r *Receiver, size int64) *admission.Lease {
	t.Helper()
	var l admission.Lease
	l.Open(r.admission)
	l.Known()
	if err := l.Resize(size); err != nil {
		t.Fatal(err)
	}
	return &l
}
