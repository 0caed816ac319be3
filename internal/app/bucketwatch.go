package app

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/internal/testing/faultpoint"
)

const (
	bucketWait  = 10 * time.Second // for an answer of the bucket
	bucketRetry = 10 * time.Second // between two looks at a bucket that did not answer
	bucketEvery = 30 * time.Second // between two looks at one that did
)

// watchEvery is the interval between two checks. A test can set it by PENSTOCK_TEST_WATCH_MS, in milliseconds.
func watchEvery(usual time.Duration) time.Duration {
	return time.Duration(faultpoint.Setting("WATCH_MS", int(usual.Milliseconds()))) * time.Millisecond
}

// bucketWatch checks the bucket from the start of a role on. So a wrong secret or a missing bucket shows before the
// first batch is due, and an outage before the next. Events are buffered meanwhile.
type bucketWatch struct {
	storage config.Storage
	ping    func(context.Context) error
	probe   func(context.Context) error // of conditional PUT
	log     *slog.Logger

	mu  sync.Mutex
	err error // why the bucket cannot be used
}

func newBucketWatch(p process) *bucketWatch {
	w := &bucketWatch{storage: p.cfg.Storage, ping: p.store.Ping, probe: p.store.Probe, log: p.log}
	p.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "penstock_bucket_available",
		Help: "1 if the bucket answered the last look at it, else 0. " +
			"A role looks every 30 s, and every 10 s while the bucket does not answer."}, func() float64 {
		if w.problem() != "" {
			return 0
		}
		return 1
	}))
	return w
}

// run checks until ctx ends.
func (w *bucketWatch) run(ctx context.Context) {
	for wait := time.Duration(0); retry.Sleep(ctx, wait) == nil; {
		if wait = watchEvery(bucketEvery); !w.look(ctx) {
			wait = watchEvery(bucketRetry)
		}
	}
}

// look reports whether the bucket can be used, and logs a problem once.
func (w *bucketWatch) look(ctx context.Context) bool {
	ask, cancel := context.WithTimeout(ctx, bucketWait)
	defer cancel()
	err := w.ping(ask)
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		err = explainStorage(w.storage, err)
	}
	w.mu.Lock()
	was := w.err
	w.err = err
	w.mu.Unlock()
	switch {
	case err != nil && (was == nil || was.Error() != err.Error()):
		w.log.Warn("bucket cannot be used; events wait on disk", "error", err)
	case err == nil && was != nil:
		w.log.Info("bucket can be used")
	}
	if err == nil {
		// A missing right to write does not matter here: an upload reports it, with the missing right.
		if err := w.probe(ask); errors.Is(err, objstore.ErrUnconditional) {
			w.log.Error("objects are not safe from being overwritten", "endpoint", show.URL(w.storage.Endpoint), "error", err)
		}
	}
	return err == nil
}

// problem is why the bucket cannot be used; empty: it can.
func (w *bucketWatch) problem() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		return ""
	}
	return w.err.Error()
}
