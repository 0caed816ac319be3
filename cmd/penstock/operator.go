package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue/jetstream"
	"github.com/penstock/penstock/loader"
	"github.com/penstock/penstock/receiver"
)

// operator is what operations work on: bucket, queue and table, each connected
// when the first operation needs it.
type operator struct {
	cfg   config.Config
	log   *slog.Logger
	store *objstore.Bucket
	from  string    // where a command's configuration is; empty in a role
	said  io.Writer // what a command says beside its answer

	isolated *loader.Isolation // how a suspicious object is loaded

	mu    sync.Mutex
	db    *clickhouse.DB
	queue *jetstream.Queue
}

// operatorConns is how many connections to ClickHouse operations share.
const operatorConns = 12

func newOperator(cfg config.Config, log *slog.Logger) *operator {
	return &operator{cfg: cfg, log: log, store: app.OpenBucket(cfg.Storage), said: io.Discard, isolated: loader.NewIsolation(nil)}
}

// table connects to ClickHouse.
func (o *operator) table() (*clickhouse.DB, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.db == nil {
		db, err := clickhouse.Open(app.TableOptions(o.cfg.ClickHouse, operatorConns))
		if err != nil {
			return nil, err
		}
		o.db = db
	}
	return o.db, nil
}

// source reads objects.
func (o *operator) source() (loader.Source, error) {
	db, err := o.table()
	if err != nil {
		return loader.Source{}, err
	}
	return app.Source(o.cfg, o.store, db)
}

// notifications connects to the queue; nil where there is none.
func (o *operator) notifications(ctx context.Context) (*jetstream.Queue, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.queue == nil && o.cfg.Storage.Notify != "none" {
		q, err := app.ConnectQueue(o.cfg.Queue, "penstock-operator", o.log)
		if err != nil {
			return nil, err
		}
		if err := q.Setup(ctx, pipeline.Specs()); err != nil {
			q.Close()
			return nil, err
		}
		o.queue = q
	}
	return o.queue, nil
}

// receiver is one of our own, for what is sent again: with a log beside that of
// the receiver that may run here. stop stores what is left in it.
func (o *operator) receiver() (_ *receiver.Receiver, stop func() error, err error) {
	in, err := buildIntake(o.cfg, "redrive", pipeline.Specs(), o.log, prometheus.NewRegistry())
	if err != nil {
		return nil, nil, err
	}
	if err := in.start(); err != nil {
		return nil, nil, errors.Join(err, in.folder.Close())
	}
	return in.receiver, in.stop, nil
}

// loader is one of our own, for what is loaded at an operator's word.
func (o *operator) loader(ctx context.Context, spec pipeline.Spec) (*loader.Loader, error) {
	db, err := o.table()
	if err != nil {
		return nil, err
	}
	q, err := o.notifications(ctx)
	if err != nil {
		return nil, err
	}
	source, err := o.source()
	if err != nil {
		return nil, err
	}
	return newLoader(o.cfg, spec, "operator-"+loaderName(o.cfg), o.isolated, nil, source, db, q, nil, o.log, prometheus.NewRegistry()), nil
}

func (o *operator) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var err error
	if o.queue != nil {
		o.queue.Close()
	}
	if o.db != nil {
		err = errors.Join(err, o.db.Close())
	}
	return err
}
