package loader

import (
	"context"
	"io"
	"iter"

	"github.com/penstock/penstock/internal/pipeline"
)

// Parts are what a loader works with.
type Parts struct {
	Queue   Queue
	Source  Source
	Table   Table
	Ledger  Ledger
	Letters Letters  // nil: the ledger alone has the dead letters
	Report  Reporter // nil: failures go to the log and the counters only
}

// Queue delivers notifications. Receive waits some seconds for the first of at
// most max deliveries; none is no error.
type Queue interface {
	Receive(ctx context.Context, max int) ([]pipeline.Delivery, error)
}

// Store reads objects. The caller closes the body.
type Store interface {
	Get(ctx context.Context, key string) (pipeline.Object, io.ReadCloser, error)
}

// Ledger is the load ledger. SaveLoad never hides an entry that has come further.
type Ledger interface {
	Load(ctx context.Context, key string) (l pipeline.Load, known bool, err error)
	SaveLoad(ctx context.Context, l pipeline.Load) error
}

// Table stores rows.
type Table interface {
	Ping(ctx context.Context) error

	// ChunkRows is how many rows like those of the sample a chunk may have; at most
	// most, and always the same for the same sample.
	ChunkRows(sample []pipeline.Event, most int) int

	NewBlock(ctx context.Context, table, object string, generation uint32) (Block, error)

	// Present returns the partitions that have any of these rows; if rows names none, one of those that do.
	Present(ctx context.Context, table string, rows pipeline.Rows) (map[int64]bool, error)

	// Newest is the highest generation of which the table has a row of the object.
	// received bounds the rows' received_at, in ms.
	Newest(ctx context.Context, table, object string, received [2]int64) (generation uint32, there bool, err error)

	// Known counts how many of the events are there, as rows of any object.
	Known(ctx context.Context, table string, events []pipeline.Identity) (uint64, error)

	// Expired says which rows the table's TTL deletes.
	Expired(ctx context.Context, table string) (pipeline.Expiry, error)

	// DeleteOlder deletes the object's rows of earlier generations.
	DeleteOlder(ctx context.Context, table, object string, generation uint32) error

	// Try makes a validation table.
	Try(ctx context.Context, table string) (Trial, error)
}

// Block is the rows of one insert.
type Block interface {
	// Append copies what it needs of the events, and of the values beside them. pick are
	// the places of the events to add, ascending; nil: all.
	Append(events []pipeline.Event, typed []*pipeline.Typed, pick []uint32)

	// Found says that another attempt has inserted the rows. The block is not inserted then.
	Found()

	// Insert inserts all rows or none, and does nothing if the table has seen the token
	// lately. again iterates over the same events once more. A block is inserted once.
	Insert(ctx context.Context, token string, again iter.Seq2[[]pipeline.Event, error]) error
}

// Trial is a validation table: it refuses what its table would refuse, and keeps
// nothing.
type Trial interface {
	Insert(ctx context.Context, object string, events []pipeline.Event) error
	Close(ctx context.Context) error
}

// Letters publishes dead letters. DeadLetter returns when the letter is safe.
type Letters interface {
	DeadLetter(ctx context.Context, d pipeline.DeadLetter) error
}

// Reporter is the errors pipeline. Report never blocks; Keep returns when the
// failures are on disk.
type Reporter interface {
	Report(f pipeline.Failure)
	Keep(ctx context.Context, failures []pipeline.Failure) error
}
