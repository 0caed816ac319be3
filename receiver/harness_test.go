package receiver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver/admission"
	"github.com/penstock/penstock/receiver/tenant"
)

// Short names for what tests of receiving share.
type (
	sink   = intake.Sink
	answer = intake.Answer
)

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

func post(target, body string, header ...string) *http.Request {
	return intake.Post(target, body, header...)
}

// withKey adds the usual key.
func withKey(req *http.Request) *http.Request {
	req.Header.Set("Authorization", "Bearer "+key)
	return req
}

func serve(t testing.TB, h http.Handler, req *http.Request) answer {
	t.Helper()
	return intake.Serve(t, h, req)
}

// protobuf is the content type of OTLP in protobuf.
const protobuf = "application/x-protobuf"

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

// send posts and returns the answer as it is.
func send(r *Receiver, target, body string, header ...string) (int, map[string]any) {
	w := httptest.NewRecorder()
	r.ServeHTTP(w, post(target, body, header...))
	var a map[string]any
	json.Unmarshal(w.Body.Bytes(), &a)
	return w.Code, a
}

const secret = "secret-key-of-game"

func withSecret(o *Options) { o.Keys[0].Secret = secret }

func signed(body, secret string) string {
	sum := hmac.New(sha256.New, []byte(secret))
	sum.Write([]byte(body))
	return base64.StdEncoding.EncodeToString(sum.Sum(nil))
}

// Ids of a span.
const (
	traceHex = "5b000000000000000000000000000001"
	spanHex  = "ee00000000000002"
)

func zipped(s string) string { return intake.Gzip(s) }

const salt = "a salt of sixteen"

func hashed(text string) string {
	h := hmac.New(sha256.New, []byte(salt))
	h.Write([]byte(text))
	return hex.EncodeToString(h.Sum(nil))
}

func parsed(t *testing.T, doc []byte) any { return intake.Parsed(t, doc) }
