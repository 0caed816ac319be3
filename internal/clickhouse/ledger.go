package clickhouse

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// loadColumns are the columns of the load ledger, in the order of loadRow and SaveLoad.
const loadColumns = "key, etag, generation, status, pipeline, rows, refused, bytes, chunk_rows, chunk_bytes, " +
	"attempts, failures, unfinished, code, error, loader, job, reading, received_at, first_fail, started_at, finished_at"

var loadSelect = "SELECT " + strings.Replace(loadColumns, "status", "toString(status)", 1) + " FROM loads FINAL "

// loadRow is a ledger entry as it is scanned.
type loadRow struct {
	pipeline.Load
	status string
}

func (r *loadRow) into() []any {
	return []any{&r.Key, &r.ETag, &r.Generation, &r.status, &r.Pipeline, &r.Rows, &r.Refused, &r.Bytes, &r.ChunkRows,
		&r.ChunkBytes,
		&r.Attempts, &r.Failures, &r.Unfinished, &r.Code, &r.Error, &r.Loader, &r.Job, &r.Reading, &r.Received, &r.FirstFail,
		&r.Started, &r.Finished}
}

// load returns the entry. A time of 1970 means none.
func (r *loadRow) load() (l pipeline.Load, err error) {
	l = r.Load
	for _, t := range []*time.Time{&l.FirstFail, &l.Finished} {
		if t.Unix() <= 0 {
			*t = time.Time{}
		}
	}
	l.State, err = pipeline.ParseLoadState(r.status)
	return l, err
}

// Load reads an object's entry in the load ledger; ok is false if there is none.
func (db *DB) Load(ctx context.Context, key string) (l pipeline.Load, ok bool, err error) {
	var r loadRow
	err = db.one(ctx, "read ledger", r.into(), loadSelect+"WHERE key = ?", key)
	if errors.Is(err, sql.ErrNoRows) {
		return l, false, nil
	}
	if err == nil {
		l, err = r.load()
	}
	return l, err == nil, err
}

// Loads calls each with the entries of keys from first through last, in the order
// of the keys.
func (db *DB) Loads(ctx context.Context, first, last string, each func(pipeline.Load) error) error {
	return db.loads(ctx, each, "WHERE key >= ? AND key <= ? ORDER BY key", first, last)
}

// Dead calls each with the dead letters of a pipeline, in the order of their keys.
func (db *DB) Dead(ctx context.Context, table string, each func(pipeline.Load) error) error {
	return db.inState(ctx, pipeline.Dead, table, each)
}

// Failing calls each with the objects of a pipeline that failed and will be tried again, in the order of their keys.
func (db *DB) Failing(ctx context.Context, table string, each func(pipeline.Load) error) error {
	return db.inState(ctx, pipeline.Failed, table, each)
}

// inState reads of most objects only the column status. The subquery finds earlier entries too, so FINAL decides.
func (db *DB) inState(ctx context.Context, state pipeline.LoadState, table string,
	each func(pipeline.Load) error) error {
	return db.loads(ctx, each, "WHERE pipeline = ? AND status = ? AND key IN (SELECT key FROM loads WHERE status = ?)"+
		" ORDER BY key", table, state.String(), state.String())
}

func (db *DB) loads(ctx context.Context, each func(pipeline.Load) error, where string, args ...any) error {
	var r loadRow
	return db.each(ctx, "read ledger", r.into(), func() error {
		l, err := r.load()
		if err != nil {
			return err
		}
		return each(l)
	}, loadSelect+where, args...)
}

// SaveLoad writes an entry. It never hides a more advanced entry.
func (db *DB) SaveLoad(ctx context.Context, l pipeline.Load) error {
	first, finished := l.FirstFail, l.Finished
	for _, t := range []*time.Time{&first, &finished} {
		if t.IsZero() {
			*t = time.Unix(0, 0)
		}
	}
	if l.Refused == nil {
		l.Refused = []uint32{}
	}
	return db.insert(ctx, "write ledger", "INSERT INTO loads ("+loadColumns+", version)",
		func(row func(...any) error) error {
			return row(l.Key, l.ETag, l.Generation, l.State.String(), l.Pipeline, l.Rows, l.Refused, l.Bytes, l.ChunkRows,
				l.ChunkBytes, l.Attempts, l.Failures, l.Unfinished, l.Code, l.Error, l.Loader, l.Job, l.Reading, l.Received, first,
				l.Started, finished, l.Version())
		})
}
