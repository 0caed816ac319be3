package loader

import (
	"context"
	"io"
	"iter"

	"github.com/penstock/penstock/internal/pipeline"
)

// Parts are a loader's dependencies.
type Parts struct {
	Queue   Queue
	Source  Source
	Table   Table
	Ledger  Ledger
	Letters Letters  // nil: dead letters are only in the ledger
	Report  Reporter // nil: failures go only to the log and the counters
}

// Queue delivers notifications. Receive waits some seconds for the first of at most max deliveries. Returning none is
// no error.
type Queue interface {
	Receive(ctx context.Context, max int) ([]pipeline.Delivery, error)
}

// Store reads objects. The caller closes the body.
type Store interface {
	Get(ctx context.Context, key string) (pipeline.Object, io.ReadCloser, error)
}

// Ledger is the load ledger. SaveLoad never hides a more advanced entry.
type Ledger interface {
	Load(ctx context.Context, key string) (l pipeline.Load, known bool, err error)
	SaveLoad(ctx context.Context, l pipeline.Load) error
}

// Table stores rows.
type Table interface {
	Ping(ctx context.Context) error

	// ChunkRows returns how many rows like the sample's a chunk may have, at most most. The same sample always gives the
	// same number.
	ChunkRows(sample []pipeline.Event, most int) int

	NewBlock(ctx context.Context, table, object string, generation uint32) (Block, error)

	// Present returns the partitions that have any of these rows. If rows names no partition, it returns one that has
	// some.
	Present(ctx context.Context, table string, rows pipeline.Rows) (map[int64]bool, error)

	// Newest returns the highest generation of the object's rows in the table. received bounds received_at, in ms.
	Newest(ctx context.Context, table, object string, received [2]int64) (generation uint32, there bool, err error)

	// Known counts how many of the events are in the table, as rows of any object.
	Known(ctx context.Context, table string, events []pipeline.Identity) (uint64, error)

	// Expired returns which rows the table's TTL deletes.
	Expired(ctx context.Context, table string) (pipeline.Expiry, error)

	// DeleteOlder deletes the object's rows of earlier generations.
	DeleteOlder(ctx context.Context, table, object string, generation uint32) error

	// Try creates a validation table.
	Try(ctx context.Context, table string) (Trial, error)
}

// Block is the rows of one insert.
type Block interface {
	// Append copies what it needs of the events and of the typed values. pick are the indexes of the events to add,
	// ascending; nil: all.
	Append(events []pipeline.Event, typed []*pipeline.Typed, pick []uint32)

	// Found reports that another attempt has inserted the rows. Do not call Insert then.
	Found()

	// Insert inserts all rows or none. If the table has seen the token recently, it does nothing. again iterates over the
	// same events once more. Call it once for each block.
	Insert(ctx context.Context, token string, again iter.Seq2[[]pipeline.Event, error]) error
}

// Trial is a validation table: it rejects what its table would reject, and stores nothing.
type Trial interface {
	Insert(ctx context.Context, object string, events []pipeline.Event) error
	Close(ctx context.Context) error
}

// Letters publishes dead letters. DeadLetter returns once the letter is stored.
type Letters interface {
	DeadLetter(ctx context.Context, d pipeline.DeadLetter) error
}

// Reporter is the errors pipeline. Report never blocks. Keep returns once the failures are on disk.
type Reporter interface {
	Report(f pipeline.Failure)
	Keep(ctx context.Context, failures []pipeline.Failure) error
}
