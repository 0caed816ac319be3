package protocoltest

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/receivertest"
	"github.com/penstock/penstock/receiver/tenant"
)

// sink is a batcher and an errors pipeline. It copies what it takes.
type sink struct {
	mu       sync.Mutex
	err      error // of Append; nil: it takes events
	events   []pipeline.Event
	failures []pipeline.Failure
}

func (s *sink) Append(_ context.Context, events []pipeline.Event, _ []pipeline.Blob,
	_ pipeline.Durability) (pipeline.Ticket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	for _, e := range events {
		for _, b := range []*[]byte{&e.Project, &e.Name, &e.SessionID, &e.UserID, &e.Properties, &e.Context} {
			*b = bytes.Clone(*b)
		}
		s.events = append(s.events, e)
	}
	return s, nil
}

// Wait is for the ticket of Append.
func (s *sink) Wait(context.Context) (string, error) { return "", nil }

func (s *sink) Report(f pipeline.Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.Raw = bytes.Clone(f.Raw)
	s.failures = append(s.failures, f)
}

func (s *sink) Drop(string) {}

func (s *sink) names() string {
	var all []string
	for _, e := range s.events {
		all = append(all, string(e.Name))
	}
	return strings.Join(all, " ")
}

// Keys that the receiver of a test knows.
const (
	Key        = "key-of-the-project"
	secret     = "secret-of-the-project" // of Key, for signatures
	readOnly   = "key-without-write"
	expired    = "key-that-expired"
	small      = "key-of-small-bodies"
	unknown    = "key-of-nobody"
	project    = "game"
	maxBody    = 1 << 20
	smallBody  = 4 << 10
	retryAfter = 7 * time.Second
)

func newReceiver(t *testing.T, rate tenant.Rate, change ...func(*receiver.Options)) (*receiver.Receiver, *sink) {
	t.Helper()
	s := &sink{}
	o := receivertest.Options()
	o.MaxBody, o.MaxDecoded, o.SmallBody, o.RetryAfter = maxBody, maxBody, smallBody, retryAfter
	for _, f := range change {
		f(&o)
	}
	r := receivertest.New(t, o, s)
	key := func(name string) tenant.Key {
		return tenant.Key{Project: project, Name: name, Hash: tenant.HashKey(name), Secret: secret}
	}
	noWrite, old, narrow := key(readOnly), key(expired), key(small)
	noWrite.ReadOnly, narrow.Small, old.Expires = true, true, time.Now().Add(-time.Hour)
	if err := r.SetProjects([]tenant.Project{{Name: project, Events: rate}},
		[]tenant.Key{key(Key), noWrite, old, narrow}); err != nil {
		t.Fatal(err)
	}
	return r, s
}
