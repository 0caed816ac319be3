package app

import (
	"context"
	"time"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/faultpoint"
	"github.com/penstock/penstock/loader"
)

// How objects are cut into inserts. These are not settings: two loaders with the same object must cut it at the same
// rows, or each would take the other's chunks for its own. Other numbers need another pipeline.SchemaVersion.
const (
	chunkRows  = 1 << 20
	chunkBytes = 128 << 20 // as events, by their Size, with values in typed columns by theirs
)

// outlet is the loading role: a loader for each pipeline, and what they share.
type outlet struct {
	process
	name     string            // of this loader
	isolated *loader.Isolation // how a suspicious object is loaded
	queue    queue.Queue       // nil: no queue
	db       *clickhouse.DB
	source   loader.Source
	reports  *intake         // of the errors pipeline; nil: it cannot be had
	report   loader.Reporter // nil: no errors pipeline
	loaders  []*loader.Loader
	sweeps   []func(context.Context) // run until their context ends
	ledger   *ledgerWatch
}

// newOutlet connects the stages from the notification to the table.
func newOutlet(p process, isolated *loader.Isolation) (_ *outlet, err error) {
	specs := pipeline.Specs()
	out := &outlet{process: p, name: LoaderName(p.cfg), isolated: isolated}
	defer func() {
		if err != nil {
			out.close()
		}
	}()
	out.db = openLoading(p, len(specs)*(p.cfg.Loader.Workers+1)+3)
	out.source = Source(p.cfg, p.store, out.db)
	if out.queue, err = OpenQueue(p.cfg, "penstock-load "+out.name, p.log); err != nil {
		return nil, err
	}
	// Events do not wait for the errors pipeline. Without it, failures go to the log, the counters and the ledger.
	if out.reports, err = newIntake(p, "load", []pipeline.Spec{pipeline.Errors}, nil); err != nil {
		p.log.Error("load failures are not reported to the errors pipeline", "error", err)
	} else {
		out.report = out.reports.reporter
	}
	for _, spec := range specs {
		out.loaders = append(out.loaders, out.newLoader(spec, out.deliveries(spec)))
	}
	out.rollups()
	out.ledger = newLedgerWatch(out)
	return out, nil
}

// deliveries are the source of a pipeline's notifications, and its sweep.
func (o *outlet) deliveries(spec pipeline.Spec) loader.Queue {
	if o.queue != nil {
		enqueue := func(ctx context.Context, n pipeline.Notification) (bool, error) {
			return o.queue.Enqueue(ctx, spec, n, false)
		}
		o.sweep(spec, enqueue)
		o.fullSweep(spec, enqueue)
		return explainedConsumer{o.queue.Consumer(spec), o.cfg}
	}
	c := o.cfg.Sweep
	p := &loader.Poller{Spec: spec, Owner: o.name, Poll: time.Duration(c.Poll),
		Every: time.Duration(c.Every), Span: time.Duration(c.Span), TTL: time.Duration(o.cfg.Queue.AckWait),
		Bucket: o.store, Ledger: o.db, Claims: claimer{o.store}, More: make(chan pipeline.Notification, 10_000)}
	o.fullSweep(spec, p.Enqueue)
	return p
}

// explainedConsumer names the field of the configuration that an outage of the queue is about, for the loader's log.
type explainedConsumer struct {
	queue.Consumer
	cfg config.Config
}

func (c explainedConsumer) Receive(ctx context.Context, max int) ([]pipeline.Delivery, error) {
	all, err := c.Consumer.Receive(ctx, max)
	if err != nil && retry.ClassOf(err) == retry.Outage && ctx.Err() == nil {
		err = explainQueue(c.cfg, err)
	}
	return all, err
}

// newLoader makes one pipeline's loader. Failures of the errors pipeline's loader are not reported to the errors
// pipeline.
func (o *outlet) newLoader(spec pipeline.Spec, q loader.Queue) *loader.Loader {
	report := o.report
	if spec == pipeline.Errors {
		report = nil
	}
	c := o.cfg.Loader
	extend := time.Duration(o.cfg.Queue.AckWait) / 3
	if o.queue != nil && o.queue.Limits().FixedLease {
		extend = 0
	}
	return loader.New(spec, loader.Options{
		Name: o.name, Workers: c.Workers, ChunkRows: faultpoint.Setting("CHUNK_ROWS", chunkRows),
		MinChunk: clickhouse.MinChunk, ChunkBytes: chunkBytes,
		Extend:   extend,
		Backoff:  retry.Backoff{Min: time.Duration(c.BackoffMin), Max: time.Duration(c.BackoffMax)},
		Attempts: c.MaxAttempts, Unfinished: c.MaxUnfinished, Isolation: o.isolated,
		Probe: retry.Backoff{Min: 500 * time.Millisecond, Max: 15 * time.Second},
		Drain: time.Duration(o.cfg.Process.Drain), Tracer: o.tracer,
	}, loader.Parts{Queue: q, Source: o.source, Table: table{o.db}, Ledger: o.db,
		Letters: lettersOf(o.queue), Report: report}, o.log, o.reg)
}

// table is ClickHouse as the loader wants it.
type table struct{ *clickhouse.DB }

func (t table) NewBlock(ctx context.Context, name, object string, generation uint32) (loader.Block, error) {
	return t.DB.NewBlock(ctx, name, object, generation)
}

func (t table) Try(ctx context.Context, name string) (loader.Trial, error) {
	return t.DB.Try(ctx, name)
}

func (o *outlet) stopReports() error {
	if o.reports == nil || o.reports.stopReporter == nil { // it never ran
		return nil
	}
	return o.reports.stop()
}

func (o *outlet) close() {
	if o.queue != nil {
		o.queue.Close()
	}
	o.db.Close()
}

// claimer is the bucket's claims as the loader wants them.
type claimer struct{ *objstore.Bucket }

func (c claimer) Claim(ctx context.Context, name, owner string, ttl time.Duration) (loader.Claim, bool, error) {
	return c.Bucket.Claim(ctx, name, owner, ttl)
}
