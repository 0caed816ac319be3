package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/batcher"
	errorspipeline "github.com/penstock/penstock/errors-pipeline"
	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/faultpoint"
	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue/jetstream"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/loader"
	"github.com/penstock/penstock/receiver"
)

func openBucket(c StorageConfig) *objstore.Bucket {
	return objstore.Open(objstore.Options{Endpoint: c.Endpoint, Region: c.Region, Bucket: c.Bucket,
		AccessKey: c.AccessKey, SecretKey: c.SecretKey, PathStyle: c.PathStyle})
}

func connectQueue(c QueueConfig, name string, log *slog.Logger) (*jetstream.Queue, error) {
	return jetstream.Connect(jetstream.Options{URL: c.URL, User: c.User, Password: c.Password, Creds: c.Creds,
		AckWait: time.Duration(c.AckWait), MaxAge: time.Duration(c.MaxAge), MaxBytes: int64(c.MaxBytes), Replicas: c.Replicas}, name, log)
}

func tableOptions(c ClickHouseConfig, conns int) clickhouse.Options {
	return clickhouse.Options{Addresses: c.Addresses, Database: c.Database, User: c.User, Password: c.Password,
		TLS: c.TLS, Timeout: time.Duration(c.Timeout), Conns: conns}
}

// intake is the receiving role: receiver, reporter, and a batcher a pipeline.
type intake struct {
	receiver *receiver.Receiver
	reporter *errorspipeline.Reporter
	batchers []*batcher.Batcher
	queue    *jetstream.Queue // nil unless storage.notify is self
}

// buildIntake wires one event's way from the request to the bucket.
func buildIntake(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*intake, error) {
	name, err := receiverName(cfg)
	if err != nil {
		return nil, err
	}
	keys, err := cfg.keys()
	if err != nil {
		return nil, err
	}
	proxies, err := cfg.proxies()
	if err != nil {
		return nil, err
	}
	durability, _ := pipeline.ParseDurability(cfg.Receiver.Durability)
	format, err := pipeline.ParseFormat(cfg.Batcher.Format)
	if err != nil {
		return nil, err
	}
	store := openBucket(cfg.Storage)
	in := &intake{}
	if cfg.Storage.Notify == "self" {
		if in.queue, err = connectQueue(cfg.Queue, "penstock-receive "+name, log); err != nil {
			return nil, err
		}
	}
	appenders := map[string]*batcher.Batcher{}
	for _, spec := range pipeline.Specs() {
		opts := batcher.Options{
			Receiver: name, Dir: filepath.Join(cfg.Batcher.Dir, spec.Name), Format: format,
			RollAge: time.Duration(cfg.Batcher.RollAge), RollBytes: int64(cfg.Batcher.RollBytes), RollRows: cfg.Batcher.RollRows,
			SegmentBytes: int64(cfg.Batcher.MaxSegment), MaxDisk: int64(cfg.Batcher.MaxDisk),
			ObjectWait: time.Duration(cfg.Batcher.ObjectWait), ObjectTimeout: time.Duration(cfg.Batcher.ObjectTimeout),
			Uploads: cfg.Batcher.Uploads, PutTimeout: time.Duration(cfg.Batcher.PutTimeout),
			Backoff: retry.Backoff{Min: time.Duration(cfg.Batcher.BackoffMin), Max: time.Duration(cfg.Batcher.BackoffMax)},
			// Requests under way have had the first half.
			Drain: time.Duration(cfg.Process.Drain) / 2,
		}
		if in.queue != nil {
			opts.Stored = func(ctx context.Context, o pipeline.Object) { in.notify(ctx, spec, o, log) }
		}
		if spec == pipeline.Errors {
			opts.MaxDisk = int64(cfg.Errors.MaxDisk)
			opts.SegmentBytes = min(opts.SegmentBytes, opts.MaxDisk)
		}
		b := batcher.New(spec, opts, store, log, reg)
		in.batchers = append(in.batchers, b)
		appenders[spec.Name] = b
	}
	in.reporter = errorspipeline.New(appenders[pipeline.Errors.Name], store,
		errorspipeline.Options{Memory: int64(cfg.Errors.MaxMemory), BlobThreshold: int64(cfg.Errors.BlobThreshold)}, log, reg)
	in.receiver = receiver.New(receiver.Options{
		Keys: keys, Durability: durability,
		MaxBody: int64(cfg.Receiver.MaxBody), MaxDecoded: int64(cfg.Receiver.MaxDecoded), MaxEvent: int(cfg.Receiver.MaxEvent),
		MaxEvents: cfg.Receiver.MaxEvents, MaxDepth: cfg.Receiver.MaxDepth, MaxMemory: int64(cfg.Receiver.MaxMemory),
		ReadTimeout: time.Duration(cfg.Receiver.ReadTimeout), RetryAfter: time.Duration(cfg.Receiver.RetryAfter),
		Origins: cfg.Receiver.Origins, TrustedProxies: proxies, CountryHeader: cfg.Receiver.CountryHeader,
		AnonymousRate: int64(cfg.Errors.AnonymousRate),
	}, appenders[pipeline.Events.Name], in.reporter, log, reg)
	return in, nil
}

// notifyWait is how long an upload waits for the queue. A notification is a
// hint: what the queue does not take now, the sweep finds.
const notifyWait = 2 * time.Second

func (in *intake) notify(ctx context.Context, spec pipeline.Spec, o pipeline.Object, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, notifyWait)
	defer cancel()
	if _, err := in.queue.Enqueue(ctx, spec, pipeline.Notification{Key: o.Key, ETag: o.ETag, Size: o.Size}, false); err != nil {
		log.Warn("the queue was not told of an object; the sweep will", "pipeline", spec.Name, "key", o.Key, "error", err)
	}
}

// receiverName is the configured name, or one that is made once and kept in the
// log's folder: two receivers must never write under one name.
func receiverName(cfg Config) (string, error) {
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
	chunkRows  = 128 << 10
	chunkBytes = 32 << 20 // of events in memory
)

// outlet is the loading role: a loader a pipeline, and what they share.
type outlet struct {
	queue   *jetstream.Queue // nil where storage.notify is none
	db      *clickhouse.DB
	loaders []*loader.Loader
	sweeps  []func(context.Context) // run until their context ends
}

// buildOutlet wires one object's way from the notification to the table.
func buildOutlet(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*outlet, error) {
	name := cfg.Loader.Name
	if name == "" {
		host, _ := os.Hostname()
		name = fmt.Sprintf("%s-%d", host, os.Getpid())
	}
	specs := pipeline.Specs()
	db, err := clickhouse.Open(tableOptions(cfg.ClickHouse, len(specs)*(cfg.Loader.Workers+1)+2))
	if err != nil {
		return nil, err
	}
	out := &outlet{db: db}
	if cfg.Storage.Notify != "none" {
		if out.queue, err = connectQueue(cfg.Queue, "penstock-load "+name, log); err != nil {
			db.Close()
			return nil, err
		}
	}
	store := openBucket(cfg.Storage)
	ttl := time.Duration(cfg.Queue.AckWait)
	for _, spec := range specs {
		var q loader.Queue
		if out.queue != nil {
			q = deliveries{out.queue.Consumer(spec)}
			out.sweeps = append(out.sweeps, func(ctx context.Context) { out.sweep(ctx, cfg.Sweep, spec, name, store, log) })
		} else {
			q = &loader.Poller{Spec: spec, Owner: name, Poll: time.Duration(cfg.Sweep.Poll), Every: time.Duration(cfg.Sweep.Every), Span: time.Duration(cfg.Sweep.Span), TTL: ttl,
				Lister: store, Entries: db, Claims: claimer{store}}
		}
		out.loaders = append(out.loaders, loader.New(spec, loader.Options{
			Name: name, Workers: cfg.Loader.Workers, ChunkRows: faultpoint.Setting("CHUNK_ROWS", chunkRows), ChunkBytes: chunkBytes,
			Dir: cfg.Loader.Dir, Extend: ttl / 3,
			Backoff: retry.Backoff{Min: time.Duration(cfg.Loader.BackoffMin), Max: time.Duration(cfg.Loader.BackoffMax)},
			Probe:   retry.Backoff{Min: 500 * time.Millisecond, Max: 15 * time.Second},
			Drain:   time.Duration(cfg.Process.Drain),
		}, q, store, db, db, log, reg))
	}
	return out, nil
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
