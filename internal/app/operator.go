package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/loader"
	"github.com/penstock/penstock/receiver/tap"
)

// operatorConns is the number of connections to ClickHouse that operations share.
const operatorConns = 12

// peekWait limits the wait for the queue if an operation only reads its state.
const peekWait = 2 * time.Second

// connections are opened when the first operation needs them.
type connections struct {
	process
	isolated *loader.Isolation

	db     *clickhouse.DB
	source loader.Source

	mu     sync.Mutex  // guards what follows
	queue  queue.Queue // with streams that exist
	peeked queue.Queue // that only looks
}

// NewOperator runs operations on the servers of the configuration. isolated loads suspicious objects. close closes the
// connections.
func NewOperator(cfg config.Config, isolated *loader.Isolation, log *slog.Logger) (o *operate.Operator,
	close func() error) {
	c := &connections{process: newProcess(cfg, log, prometheus.NewRegistry()), isolated: isolated}
	c.trace("operator", LoaderName(cfg))
	c.db = openLoading(c.process, operatorConns)
	c.source = Source(cfg, c.store, c.db)
	o = &operate.Operator{
		Trail:  operate.NewTrail(c.db, filepath.Join(cfg.Batcher.Dir, "audit.ndjson"), log),
		Config: cfg, Name: LoaderName(cfg), Said: io.Discard, Store: c.store,
		Claim: func(ctx context.Context, name, owner string, ttl time.Duration) (operate.Claim, bool, error) {
			return c.store.Claim(ctx, name, owner, ttl)
		},
		Table: c.db, Source: &c.source,
		Ping: func(ctx context.Context) error {
			if err := c.store.Ping(ctx); err != nil {
				return explainStorage(cfg.Storage, err)
			}
			return nil
		},
		Queue:    func(ctx context.Context) (operate.Queue, error) { return c.connect(ctx) },
		Peek:     func(ctx context.Context) (operate.Queue, error) { return c.peek(ctx) },
		Receiver: func() (operate.Receiver, func() error, error) { return c.receiver(o.Tap) },
		Explain:  func(err error) error { return explainServer(cfg, err) },
		Loader:   c.loader,
	}
	return o, c.close
}

// connect returns nil if there is no queue.
func (c *connections) connect(ctx context.Context) (queue.Queue, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queue == nil {
		q, err := OpenQueue(c.cfg, "penstock-operator", c.log)
		if q == nil || err != nil {
			return nil, err
		}
		if err := q.Setup(ctx, pipeline.Specs(), nil); err != nil {
			q.Close()
			return nil, err
		}
		c.queue = q
	}
	return c.queue, nil
}

// peek returns nil if there is no queue.
func (c *connections) peek(ctx context.Context) (queue.Queue, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peeked == nil {
		q, err := OpenQueue(c.cfg, "penstock-status", c.log)
		if q == nil || err != nil {
			return nil, err
		}
		c.peeked = q
	}
	quick, cancel := context.WithTimeout(ctx, peekWait)
	defer cancel()
	if err := c.peeked.Ping(quick); err != nil {
		return nil, explainQueue(c.cfg, err)
	}
	return c.peeked, nil
}

// receiver makes a separate receiver for redrives, whose events shown shows. Its log is next to that of a receiver that
// may run here. stop stores its events.
func (c *connections) receiver(shown *tap.Tap) (_ operate.Receiver, stop func() error, err error) {
	p := c.process
	p.reg = prometheus.NewRegistry() // of each receiver: metrics have one owner
	in, err := newIntake(p, "redrive", pipeline.Specs(), shown)
	if err != nil {
		return nil, nil, err
	}
	if err := in.start(); err != nil {
		return nil, nil, errors.Join(err, in.close())
	}
	return in.receiver, in.stop, nil
}

// loader makes a separate loader for objects that an operator names.
func (c *connections) loader(ctx context.Context, spec pipeline.Spec) (operate.Loader, error) {
	q, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	o := &outlet{process: c.process, name: "operator-" + LoaderName(c.cfg), isolated: c.isolated, queue: q, db: c.db,
		source: c.source}
	o.reg = prometheus.NewRegistry()
	return o.newLoader(spec, nil), nil
}

func (c *connections) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, q := range []queue.Queue{c.queue, c.peeked} {
		if q != nil {
			q.Close()
		}
	}
	c.tracer.Close()
	return c.db.Close()
}
