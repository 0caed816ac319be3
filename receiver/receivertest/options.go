// Package receivertest has the options of receivers in tests of other packages.
package receivertest

import (
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/tenant"
)

// Sink is a batcher and an errors pipeline.
type Sink interface {
	receiver.Appender
	receiver.Reporter
}

// Options has limits that are small and that no test reaches by accident, and these keys.
func Options(keys ...tenant.Key) receiver.Options {
	return receiver.Options{
		Keys: keys, Durability: pipeline.Disk,
		MaxBody: 1 << 20, MaxDecoded: 2 << 20, MaxEvent: 1 << 20, MaxEvents: 1000, MaxDepth: 64, MaxMemory: 64 << 20,
		ReadTimeout: 10 * time.Second, RetryAfter: 7 * time.Second, AnonymousRate: 1 << 20,
	}
}

// New makes a receiver that appends to a sink and reports to it.
func New(t testing.TB, o receiver.Options, s Sink) *receiver.Receiver {
	t.Helper()
	r, err := receiver.New(o, s, s, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return r
}
