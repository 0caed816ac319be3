package main

import (
	"context"
	"time"

	"github.com/penstock/penstock/internal/faultpoint"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver"
)

// shiftedClock moves received_at by the seconds of PENSTOCK_TEST_CLOCK_SHIFT, so
// that a test can receive events on another day. Only a binary with fault points
// reads that variable; all others get the appender itself.
func shiftedClock(to receiver.Appender) receiver.Appender {
	if seconds := faultpoint.Setting("CLOCK_SHIFT", 0); seconds != 0 {
		return shifted{to, (time.Duration(seconds) * time.Second).Milliseconds()}
	}
	return to
}

type shifted struct {
	to receiver.Appender
	by int64 // ms
}

func (s shifted) Append(ctx context.Context, events []pipeline.Event, blobs []pipeline.Blob, d pipeline.Durability,
	copied func()) (string, error) {
	for i := range events {
		events[i].ReceivedAt += s.by
	}
	return s.to.Append(ctx, events, blobs, d, copied)
}
