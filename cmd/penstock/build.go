package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/batcher"
	errorspipeline "github.com/penstock/penstock/errors-pipeline"
	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/projects"
	"github.com/penstock/penstock/internal/queue/jetstream"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/schemas"
	"github.com/penstock/penstock/internal/testing/faultpoint"
	"github.com/penstock/penstock/loader"
	"github.com/penstock/penstock/receiver"
)

// receiverKeys are the keys of the configuration as the receiver wants them.
func receiverKeys(c config.Receiver) (keys []receiver.Key, err error) {
	for i, k := range c.Keys {
		key := receiver.Key{Project: k.Project, Secret: k.Secret}
		if key.Hash, key.MinDurability, err = k.Parse(); err != nil {
			return nil, fmt.Errorf("receiver.keys[%d].%w", i, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// newBatcher makes one pipeline's batcher, in a folder and under a name that
// are this process's alone.
func newBatcher(cfg config.Config, spec pipeline.Spec, name, dir string, store *objstore.Bucket, q *jetstream.Queue, failed func(pipeline.Failure), log *slog.Logger, reg prometheus.Registerer) (*batcher.Batcher, error) {
	format, err := pipeline.ParseFormat(cfg.Batcher.Format)
	if err != nil {
		return nil, err
	}
	opts := batcher.Options{
		Receiver: name, Dir: dir, Format: format,
		RollAge: time.Duration(cfg.Batcher.RollAge), RollBytes: int64(cfg.Batcher.RollBytes), RollRows: cfg.Batcher.RollRows,
		SegmentBytes: int64(cfg.Batcher.MaxSegment), MaxDisk: int64(cfg.Batcher.MaxDisk),
		ObjectWait: time.Duration(cfg.Batcher.ObjectWait), ObjectTimeout: time.Duration(cfg.Batcher.ObjectTimeout),
		Uploads: cfg.Batcher.Uploads, PutTimeout: time.Duration(cfg.Batcher.PutTimeout),
		Backoff: retry.Backoff{Min: time.Duration(cfg.Batcher.BackoffMin), Max: time.Duration(cfg.Batcher.BackoffMax)},
		// Requests under way have had the first half.
		Drain: time.Duration(cfg.Process.Drain) / 2,
	}
	if q != nil {
		opts.Stored = func(ctx context.Context, o pipeline.Object) { notify(ctx, q, spec, o, log) }
	}
	if spec == pipeline.Errors {
		opts.MaxDisk = int64(cfg.Errors.MaxDisk)
		opts.SegmentBytes = min(opts.SegmentBytes, opts.MaxDisk)
	} else {
		opts.Failed = failed // the errors pipeline does not report about itself
	}
	return batcher.New(spec, opts, store, log, reg), nil
}

// intake takes events in: a batcher a pipeline, the reporter, and (but for the
// loader, which only reports) the receiver.
type intake struct {
	receiver *receiver.Receiver
	projects *projects.Watcher // nil: there is none
	dir      string
	reporter *errorspipeline.Reporter
	batchers []*batcher.Batcher
	queue    *jetstream.Queue // nil unless storage.notify is self
	folder   io.Closer        // nil: the receiver's own

	schemas *schemas.Set // nil: events are not held against any

	stopReporter, stopBatchers context.CancelFunc
	stopWatch                  context.CancelFunc // nil: nobody looks at projects
	reporting, batching        errgroup.Group
	watching                   errgroup.Group
}

// buildIntake wires one event's way from the request to the bucket. dir holds
// the log; where it is empty, a folder of its own below base is taken, and the
// name gets its number: for processes beside the receiver.
func buildIntake(cfg config.Config, role string, specs []pipeline.Spec, log *slog.Logger, reg prometheus.Registerer) (*intake, error) {
	name, err := receiverName(cfg)
	if err != nil {
		return nil, err
	}
	in := &intake{}
	dir := cfg.Batcher.Dir
	if role != "receive" {
		if dir, in.folder, err = batcher.FreeFolder(filepath.Join(dir, role)); err != nil {
			return nil, err
		}
		name = fmt.Sprintf("%.50s-%s%s", name, role, filepath.Base(dir))
	}
	in.dir = dir
	store := app.OpenBucket(cfg.Storage)
	if cfg.Storage.Notify == "self" {
		if in.queue, err = app.ConnectQueue(cfg.Queue, "penstock-"+role+" "+name, log); err != nil {
			return nil, err
		}
	}
	appenders := map[string]*batcher.Batcher{}
	for _, spec := range specs {
		b, err := newBatcher(cfg, spec, name, filepath.Join(dir, spec.Name), store, in.queue, func(f pipeline.Failure) { in.reporter.Report(f) }, log, reg)
		if err != nil {
			return nil, err
		}
		in.batchers = append(in.batchers, b)
		appenders[spec.Name] = b
	}
	in.reporter = errorspipeline.New(appenders[pipeline.Errors.Name],
		errorspipeline.Options{Memory: int64(cfg.Errors.MaxMemory), BlobThreshold: int64(cfg.Errors.BlobThreshold)}, log, reg)
	if appenders[pipeline.Events.Name] == nil {
		return in, nil
	}
	keys, err := receiverKeys(cfg.Receiver)
	if err != nil {
		return nil, err
	}
	proxies, err := cfg.Receiver.Proxies()
	if err != nil {
		return nil, err
	}
	spool := filepath.Join(dir, "spool")
	if err := os.MkdirAll(spool, 0o700); err != nil {
		return nil, fmt.Errorf("batcher.dir: %w", err)
	}
	var judge receiver.Schemas
	if cfg.Schemas.Mode != "off" {
		if in.schemas, err = schemas.Open(cfg.Schemas.Dir, log); err != nil {
			return nil, err
		}
		judge = in.schemas
	}
	durability, _ := pipeline.ParseDurability(cfg.Receiver.Durability)
	in.receiver = receiver.New(receiver.Options{
		Keys: keys, Durability: durability,
		MaxBody: int64(cfg.Receiver.MaxBody), MaxDecoded: int64(cfg.Receiver.MaxDecoded), SmallBody: int64(cfg.Receiver.SmallBody), MaxEvent: int(cfg.Receiver.MaxEvent),
		MaxEvents: cfg.Receiver.MaxEvents, BlobThreshold: int(cfg.Receiver.BlobThreshold), MaxDepth: cfg.Receiver.MaxDepth, MaxMemory: int64(cfg.Receiver.MaxMemory), MaxSpool: int64(cfg.Receiver.MaxSpool), SpoolDir: spool,
		ReadTimeout: time.Duration(cfg.Receiver.ReadTimeout), RetryAfter: time.Duration(cfg.Receiver.RetryAfter),
		Origins: cfg.Receiver.Origins, TrustedProxies: proxies, ClientIPHeader: cfg.Receiver.ClientIPHeader,
		CountryHeader: cfg.Receiver.CountryHeader, SessionReplay: cfg.Receiver.SessionReplay,
		Schemas: judge, EnforceSchemas: cfg.Schemas.Mode == "enforce",
		AnonymousRate: int64(cfg.Errors.AnonymousRate), MaxKeyless: cfg.Receiver.MaxKeyless, MaxConnections: cfg.Receiver.MaxConnections,
	}, shiftedClock(appenders[pipeline.Events.Name]), in.reporter, log, reg)
	if cfg.Receiver.Projects != "" {
		if in.projects, err = projects.Open(cfg.Receiver.Projects, in.receiver, log, reg); err != nil && in.folder != nil {
			err = errors.Join(err, in.folder.Close())
		}
	}
	return in, err
}

// start takes over what an earlier process left, before anything new is taken,
// and lets events through.
func (in *intake) start() error {
	for _, b := range in.batchers {
		if err := b.Open(); err != nil {
			return err
		}
	}
	var reporting, batching context.Context
	reporting, in.stopReporter = context.WithCancel(context.Background())
	batching, in.stopBatchers = context.WithCancel(context.Background())
	for _, b := range in.batchers {
		in.batching.Go(func() error { return b.Run(batching) })
	}
	if in.schemas != nil {
		in.reporting.Go(func() error { in.schemas.Watch(reporting, time.Second); return nil })
	}
	in.reporting.Go(func() error { return in.reporter.Run(reporting) })
	if in.projects != nil {
		var watching context.Context
		watching, in.stopWatch = context.WithCancel(context.Background())
		in.projects.ReadUsage(in.dir)
		in.watching.Go(func() error { in.projects.Watch(watching, in.dir); return nil })
	}
	return nil
}

// stop drains: the reporter, then the batchers that it reports into. Whoever
// brings events has stopped before.
func (in *intake) stop() error {
	if in.stopWatch != nil {
		in.stopWatch()
		in.watching.Wait()
	}
	in.stopReporter()
	err := in.reporting.Wait()
	in.stopBatchers()
	err = errors.Join(err, in.batching.Wait())
	if in.queue != nil {
		in.queue.Close()
	}
	if in.folder != nil {
		err = errors.Join(err, in.folder.Close())
	}
	return err
}

// notifyWait is how long an upload waits for the queue. A notification is a
// hint: what the queue does not take now, the sweep finds.
const notifyWait = 2 * time.Second

func notify(ctx context.Context, q *jetstream.Queue, spec pipeline.Spec, o pipeline.Object, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, notifyWait)
	defer cancel()
	if _, err := q.Enqueue(ctx, spec, pipeline.Notification{Key: o.Key, ETag: o.ETag, Size: o.Size}, false); err != nil {
		log.Warn("the queue was not told of an object; the sweep will", "pipeline", spec.Name, "key", o.Key, "error", err)
	}
}

// receiverName is the configured name, or one that is made once and kept in the
// log's folder: two receivers must never write under one name.
func receiverName(cfg config.Config) (string, error) {
	if cfg.Receiver.Name != "" {
		return cfg.Receiver.Name, nil
	}
	path := filepath.Join(cfg.Batcher.Dir, "receiver-name")
	if text, err := os.ReadFile(path); err == nil {
		name := strings.TrimSpace(string(text))
		if err := pipeline.ValidReceiver(name); err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
		return name, nil
	}
	host, _ := os.Hostname()
	var random [3]byte
	rand.Read(random[:])
	name := strings.Trim(strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' {
			return c
		}
		return '-'
	}, host[:min(len(host), 40)]), "-") + "-" + hex.EncodeToString(random[:])
	name = strings.TrimPrefix(name, "-")
	if err := os.MkdirAll(cfg.Batcher.Dir, 0o700); err != nil {
		return "", err
	}
	return name, os.WriteFile(path, []byte(name+"\n"), 0o600)
}

// Where an object is cut into inserts. These are no settings: two loaders at
// the same object must cut it at the same rows, or each would take the other's
// chunks for its own. Other numbers need another pipeline.SchemaVersion.
const (
	chunkRows  = 1 << 20
	chunkBytes = 128 << 20 // as events, by their Size, with values in typed columns by theirs
)

// newLoader makes one pipeline's loader. What fails in loading the errors
// pipeline is not reported to it.
func newLoader(cfg config.Config, spec pipeline.Spec, name string, isolated *loader.Isolation, q loader.Queue, source loader.Source, db *clickhouse.DB, letters *jetstream.Queue, report loader.Reporter, log *slog.Logger, reg prometheus.Registerer) *loader.Loader {
	if spec == pipeline.Errors {
		report = nil
	}
	var to loader.Letters // an interface that holds a nil pointer is not nil
	if letters != nil {
		to = letters
	}
	return loader.New(spec, loader.Options{
		Name: name, Workers: cfg.Loader.Workers, ChunkRows: faultpoint.Setting("CHUNK_ROWS", chunkRows), MinChunk: clickhouse.MinChunk, ChunkBytes: chunkBytes,
		Extend:   time.Duration(cfg.Queue.AckWait) / 3,
		Backoff:  retry.Backoff{Min: time.Duration(cfg.Loader.BackoffMin), Max: time.Duration(cfg.Loader.BackoffMax)},
		Attempts: cfg.Loader.MaxAttempts, Unfinished: cfg.Loader.MaxUnfinished, Isolation: isolated,
		Probe: retry.Backoff{Min: 500 * time.Millisecond, Max: 15 * time.Second},
		Drain: time.Duration(cfg.Process.Drain),
	}, loader.Parts{Queue: q, Source: source, Table: table{db}, Ledger: db, Letters: to, Report: report}, log, reg)
}

// table is ClickHouse as the loader wants it.
type table struct{ *clickhouse.DB }

func (t table) NewBlock(ctx context.Context, name, object string, generation uint32) (loader.Block, error) {
	return t.DB.NewBlock(ctx, name, object, generation)
}

func (t table) Try(ctx context.Context, name string) (loader.Trial, error) {
	return t.DB.Try(ctx, name)
}

// loaderName is the configured name, or one of this process.
func loaderName(cfg config.Config) string {
	if cfg.Loader.Name != "" {
		return cfg.Loader.Name
	}
	host, _ := os.Hostname()
	return fmt.Sprintf("%s-%d", host, os.Getpid())
}

// outlet is the loading role: a loader a pipeline, and what they share.
type outlet struct {
	queue   *jetstream.Queue // nil where storage.notify is none
	db      *clickhouse.DB
	reports *intake // of the errors pipeline; nil: it cannot be had
	loaders []*loader.Loader
	sweeps  []func(context.Context) // run until their context ends
}

// buildOutlet wires one object's way from the notification to the table.
func buildOutlet(cfg config.Config, isolated *loader.Isolation, log *slog.Logger, reg prometheus.Registerer) (*outlet, error) {
	name := loaderName(cfg)
	specs := pipeline.Specs()
	db, err := clickhouse.Open(app.TableOptions(cfg.ClickHouse, len(specs)*(cfg.Loader.Workers+1)+2))
	if err != nil {
		return nil, err
	}
	out := &outlet{db: db}
	if cfg.Storage.Notify != "none" {
		if out.queue, err = app.ConnectQueue(cfg.Queue, "penstock-load "+name, log); err != nil {
			db.Close()
			return nil, err
		}
	}
	// Events do not wait for the errors pipeline: without it failures go to the
	// log, the counters and the ledger.
	var report loader.Reporter
	if out.reports, err = buildIntake(cfg, "load", []pipeline.Spec{pipeline.Errors}, log, reg); err != nil {
		log.Error("failures of loads are not reported to the errors pipeline", "error", err)
	} else {
		report = out.reports.reporter
	}
	store := app.OpenBucket(cfg.Storage)
	source, err := app.Source(cfg, store, db)
	if err != nil {
		return nil, err
	}
	for _, spec := range specs {
		var q loader.Queue
		if out.queue != nil {
			q = deliveries{out.queue.Consumer(spec)}
			out.sweeps = append(out.sweeps, func(ctx context.Context) { out.sweep(ctx, cfg.Sweep, spec, name, store, log) })
			out.fullSweep(cfg.Sweep, spec, name, store, func(ctx context.Context, n pipeline.Notification) (bool, error) {
				return out.queue.Enqueue(ctx, spec, n, false)
			}, log, reg)
		} else {
			p := &loader.Poller{Spec: spec, Owner: name, Poll: time.Duration(cfg.Sweep.Poll),
				Every: time.Duration(cfg.Sweep.Every), Span: time.Duration(cfg.Sweep.Span), TTL: time.Duration(cfg.Queue.AckWait),
				Bucket: store, Ledger: db, Claims: claimer{store}, More: make(chan pipeline.Notification, 10_000)}
			out.fullSweep(cfg.Sweep, spec, name, store, p.Enqueue, log, reg)
			q = p
		}
		out.loaders = append(out.loaders, newLoader(cfg, spec, name, isolated, q, source, db, out.queue, report, log, reg))
	}
	return out, nil
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

// deliveries is a queue as the loader wants it.
type deliveries struct{ *jetstream.Consumer }

func (d deliveries) Receive(ctx context.Context, max int) ([]loader.Delivery, error) {
	messages, err := d.Consumer.Receive(ctx, max)
	all := make([]loader.Delivery, len(messages))
	for i, m := range messages {
		all[i] = m
	}
	return all, err
}

// claimer is the bucket's claims as the loader wants them.
type claimer struct{ *objstore.Bucket }

func (c claimer) Claim(ctx context.Context, name, owner string, ttl time.Duration) (loader.Claim, bool, error) {
	return c.Bucket.Claim(ctx, name, owner, ttl)
}
