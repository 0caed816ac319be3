package operate

import (
	"context"
	"io"
	"time"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/codec/foreign"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/loader/audit"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/tap"
)

// Operator has everything that operations use. Its functions connect at their first call; each error says what cannot
// be reached.
type Operator struct {
	Config config.Config
	Name   string    // of this process, in claims
	From   string    // source of a command's configuration; empty in a role
	Said   io.Writer // for a command's messages besides its answer

	Ping    func(context.Context) error // pings the bucket
	Explain func(error) error           // adds the field of the configuration to a table's error

	Store    Store
	Claim    func(ctx context.Context, name, owner string, ttl time.Duration) (Claim, bool, error)
	Table    Table                                // connects at first use
	Source   Source                               // connects at first use
	Queue    func(context.Context) (Queue, error) // creates missing streams; nil: no queue
	Peek     func(context.Context) (Queue, error) // creates nothing; nil: no queue
	Receiver func() (r Receiver, stop func() error, err error)
	Loader   func(context.Context, pipeline.Spec) (Loader, error)
	Tap      *tap.Tap // of the receiver in this process and of redrives; nil: none
	Receives bool     // a receiver runs in this process, and tail shows its events only
	Trail    *Trail   // nil: actions are not recorded
}

// Source reads objects, and rows of imports that are not valid events.
type Source interface {
	audit.Source
	ReadRows(ctx context.Context, key string, each func(*pipeline.Event) error,
		rejected func(foreign.Rejected) error) (pipeline.Object, error)
}

// Store is the bucket.
type Store interface {
	audit.Bucket
	Get(ctx context.Context, key string) (pipeline.Object, io.ReadCloser, error)
	GetRange(ctx context.Context, key string, first, last int64) (io.ReadCloser, error)
}

// Claim lets only one process at a time do something.
type Claim interface {
	Renew(context.Context) (bool, error)
	Release(context.Context) error
	Holder() string // if the claim was not taken: who has it, and until when
}

// Receiver accepts a failure's bytes again. When it is stopped, it stores its batch.
type Receiver interface {
	Redrive(context.Context, receiver.Redrive) (receiver.Redriven, error)
}

// Loader loads an object for an operator. It replaces rows if job is not empty.
type Loader interface {
	Reingest(ctx context.Context, item audit.Item, job string) (pipeline.Load, error)
}

// Queue has the notifications. If it also keeps dead letters, it is a queue.Letters.
type Queue interface {
	Enqueue(ctx context.Context, spec pipeline.Spec, n pipeline.Notification, again bool) (known bool, err error)
	Stats(ctx context.Context, spec pipeline.Spec) (queue.Stats, error)
}

// Table is ClickHouse: tables and load ledger.
type Table interface {
	audit.Table
	Ledger
	Failures
	Jobs
	RollupTable
	Catalogue
	ActionTable
	Objects(ctx context.Context, table, first, last string) (map[string]bool, error)
	FindEvent(ctx context.Context, table string, id pipeline.UUID) ([]clickhouse.Place, error)
	FindRow(ctx context.Context, table, object string, row uint32) ([]clickhouse.Place, error)
	Minutes(ctx context.Context) ([]clickhouse.Minute, error)
	TableStatus(ctx context.Context) (map[string]clickhouse.TableStatus, error)
}

// Catalogue is the property catalogue.
type Catalogue interface {
	Properties(ctx context.Context, project, name string, each func(clickhouse.Property) error) error
	Explosions(ctx context.Context, table string) ([]clickhouse.Explosion, error)
	SuggestColumns(ctx context.Context, table, project string, have []clickhouse.Column) ([]clickhouse.Suggestion, error)
}

// Ledger is the load ledger.
type Ledger interface {
	audit.Ledger
	Dead(ctx context.Context, table string, each func(pipeline.Load) error) error
	Failing(ctx context.Context, table string, each func(pipeline.Load) error) error
	SaveLoad(ctx context.Context, l pipeline.Load) error
}

// Failures is the table of failure records.
type Failures interface {
	Errors(ctx context.Context, f clickhouse.ErrorFilter, each func(clickhouse.Kept) error) error
	CountErrors(ctx context.Context, f clickhouse.ErrorFilter, each func(clickhouse.ErrorCount) error) error
	MarkRedriven(ctx context.Context, all []clickhouse.Redriven) error
}

// Jobs are runs of reingest that replace rows.
type Jobs interface {
	OpenJob(ctx context.Context, selection string) (j clickhouse.Job, ok bool, err error)
	SaveJob(ctx context.Context, j clickhouse.Job) error
	LastVerify(ctx context.Context, each func(detail string) error) error
}
