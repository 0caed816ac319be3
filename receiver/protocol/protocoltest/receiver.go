package protocoltest

import (
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/receivertest"
	"github.com/penstock/penstock/receiver/tenant"
)

// Keys that the test's receiver knows.
const (
	Key        = "key-of-the-project"
	secret     = "secret-of-the-project" // Key's, for signatures
	readOnly   = "key-without-write"
	expired    = "key-that-expired"
	small      = "key-of-small-bodies"
	unknown    = "key-of-nobody"
	project    = "game"
	maxBody    = 1 << 20
	smallBody  = 4 << 10
	retryAfter = 7 * time.Second
)

func newReceiver(t *testing.T, rate tenant.Rate, change ...func(*receiver.Options)) (*receiver.Receiver, *intake.Sink) {
	t.Helper()
	s := &intake.Sink{}
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
