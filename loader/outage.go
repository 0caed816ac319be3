package loader

import (
	"context"

	"github.com/penstock/penstock/internal/retry"
)

// broken returns why nothing is received from the queue now.
func (l *Loader) broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.outage
}

func (l *Loader) setBroken(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && l.outage == nil {
		l.pause.Failed(err)
		l.metrics.outages.Inc()
		l.trips++
	}
	if err == nil {
		l.pause.Works()
	}
	l.outage = err
	l.metrics.setPaused(err != nil)
}

// probe waits until the table answers again. If the server answers but rejects inserts (too many parts, read-only), the
// interval grows.
func (l *Loader) probe(ctx context.Context) {
	l.mu.Lock()
	n := l.trips
	l.mu.Unlock()
	for ; retry.Sleep(ctx, l.opts.Probe.Delay(n)) == nil; n++ {
		err := l.parts.Table.Ping(ctx)
		if err == nil {
			l.setBroken(nil)
			return
		}
		l.pause.Failed(err)
	}
}
