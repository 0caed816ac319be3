package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/faultpoint"
	"github.com/penstock/penstock/internal/wallclock"
	"github.com/penstock/penstock/receiver"
)

// shiftedClock moves received_at by the seconds of PENSTOCK_TEST_CLOCK_SHIFT, so that a test can receive events on
// another day. Only a binary with fault points reads that variable; others get the appender itself.
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

func (s shifted) Append(ctx context.Context, events []pipeline.Event, blobs []pipeline.Blob,
	d pipeline.Durability) (pipeline.Ticket, error) {
	for i := range events {
		events[i].ReceivedAt += s.by
	}
	return s.to.Append(ctx, events, blobs, d)
}

// watchClock compares this machine's clock with the store's.
func watchClock(cfg config.Config, log *slog.Logger, reg prometheus.Registerer) *wallclock.Watch {
	w := wallclock.New(OpenBucket(cfg.Storage).Offset, time.Now, log)
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "penstock_clock_offset_seconds",
		Help: "How far this machine's clock is ahead of the store's; 0 until the store has answered."},
		func() float64 { return w.Offset().Seconds() }))
	return w
}
