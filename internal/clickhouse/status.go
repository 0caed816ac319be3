package clickhouse

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// TableStatus describes a pipeline by its table and the load ledger.
type TableStatus struct {
	Rows              uint64 `json:"rows"`              // including resends not yet merged
	Newest            int64  `json:"newest_ms"`         // received_at of the newest event loaded; 0: none
	Settled           int64  `json:"newest_settled_ms"` // likewise, or of the newest event in a dead or dropped object
	Objects           uint64 `json:"objects_loaded"`
	ObjectsLastMinute uint64 `json:"objects_loaded_last_minute"`
	RowsLastMinute    uint64 `json:"rows_loaded_last_minute"`
	Loading           uint64 `json:"objects_loading"` // started, not finished
	Failing           uint64 `json:"objects_failing"` // of these, failed and to be retried
	Dead              uint64 `json:"dead_letters"`
	Refused           uint64 `json:"rows_refused"` // by the table, in total
}

// TableStatus describes the pipelines, by name. A pipeline whose table does not exist is not in the answer, and is an
// error. With a million objects in the ledger, the answer takes ClickHouse 30 ms of CPU: of most objects, it reads four
// narrow columns.
func (db *DB) TableStatus(ctx context.Context) (map[string]TableStatus, error) {
	all := map[string]TableStatus{}
	var name string
	var s TableStatus
	if err := db.each(ctx, "read ledger", []any{&name, &s.Objects, &s.Refused, &s.Newest}, func() error {
		all[name] = s
		return nil
	}, `SELECT pipeline, countIf(status = 'loaded'), sum(length(refused)),
			maxIf(toUnixTimestamp64Milli(received_at), status = 'loaded')
		FROM loads FINAL GROUP BY pipeline SETTINGS max_threads = 1`); err != nil {
		return nil, err
	}
	rest, err := db.unloaded(ctx)
	if err != nil {
		return nil, err
	}
	if err := db.each(ctx, "read ledger", []any{&name, &s.ObjectsLastMinute, &s.RowsLastMinute}, func() error {
		st := all[name]
		st.ObjectsLastMinute, st.RowsLastMinute = s.ObjectsLastMinute, s.RowsLastMinute
		all[name] = st
		return nil
	}, `SELECT pipeline, count(), sum(rows) FROM loads FINAL WHERE status = 'loaded' AND finished_at > now64(3) - 60
			AND key IN (SELECT key FROM loads WHERE finished_at > now64(3) - 60)
		GROUP BY pipeline SETTINGS max_threads = 1`); err != nil {
		return nil, err
	}
	var failed error
	for _, spec := range pipeline.Specs() {
		st, open := all[spec.Name], rest[spec.Name]
		st.Failing, st.Dead = open.Objects[pipeline.Failed], open.Objects[pipeline.Dead]
		st.Loading, st.Settled = open.Objects[pipeline.Loading]+st.Failing, max(st.Newest, open.Settled)
		err := db.one(ctx, "read table "+spec.Name, []any{&st.Rows},
			"SELECT ifNull(total_rows, 0) FROM system.tables WHERE database = ? AND name = ?", db.database, spec.Name)
		if errors.Is(err, sql.ErrNoRows) {
			err = fmt.Errorf("table %s.%s does not exist; run `penstock setup`", db.database, spec.Name)
		}
		if all[spec.Name] = st; err != nil {
			delete(all, spec.Name)
			failed = errors.Join(failed, err)
		}
	}
	return all, failed
}

// LedgerStatus describes a pipeline by the load ledger, for metrics.
type LedgerStatus struct {
	Objects  [pipeline.LoadStates]uint64 // by pipeline.LoadState
	Settled  int64                       // received_at of the newest event in a dead or dropped object, ms; 0: none
	Verified int64                       // last verify without differences, ms; 0: never
}

// LedgerStatus reads the status of all pipelines, by name, without the loaded objects.
func (db *DB) LedgerStatus(ctx context.Context) (map[string]LedgerStatus, error) {
	all, err := db.unloaded(ctx)
	if err != nil {
		return nil, err
	}
	var name string
	var newest int64
	return all, db.each(ctx, "read jobs", []any{&name, &newest}, func() error {
		name = strings.TrimPrefix(name, verifyJobs)
		st := all[name]
		st.Verified = newest
		all[name] = st
		return nil
	}, `SELECT selection, toUnixTimestamp64Milli(max(updated_at)) FROM jobs FINAL
		WHERE startsWith(selection, ?) AND failed = 0 GROUP BY selection`, verifyJobs)
}

// unloaded reads the objects that are not loaded. They are few: with a million objects in the ledger, it takes
// ClickHouse 14 ms of CPU. The subquery finds entries of earlier attempts too, so FINAL decides which of them are the
// objects' last.
//
// If an object could not be read, no loader knows when its events were received: it may be gone from the bucket. They
// were received before it failed first.
func (db *DB) unloaded(ctx context.Context) (map[string]LedgerStatus, error) {
	all := map[string]LedgerStatus{}
	var name, status string
	var n uint64
	var newest int64
	return all, db.each(ctx, "read ledger", []any{&name, &status, &n, &newest}, func() error {
		state, err := pipeline.ParseLoadState(status)
		if err != nil {
			return err
		}
		st := all[name]
		if st.Objects[state] = n; state == pipeline.Dead || state == pipeline.Dropped {
			st.Settled = max(st.Settled, newest)
		}
		all[name] = st
		return nil
	}, `SELECT pipeline, toString(status), count(),
			max(toUnixTimestamp64Milli(if(received_at > toDateTime64(0, 3), received_at, first_fail))) FROM loads FINAL
		WHERE status != 'loaded' AND key IN (SELECT key FROM loads WHERE status != 'loaded')
		GROUP BY pipeline, status SETTINGS max_threads = 1`)
}

// LoadedStatus describes the loaded objects of a pipeline.
type LoadedStatus struct {
	Objects uint64
	Newest  int64 // received_at of the newest event loaded, ms; 0: none
}

// LoadedStatus counts the loaded objects of all pipelines, by name. It reads the whole ledger: a million objects take
// ClickHouse 65 ms of CPU.
func (db *DB) LoadedStatus(ctx context.Context) (map[string]LoadedStatus, error) {
	all := map[string]LoadedStatus{}
	var name string
	var st LoadedStatus
	return all, db.each(ctx, "count loaded objects", []any{&name, &st.Objects, &st.Newest}, func() error {
		all[name] = st
		return nil
	}, `SELECT pipeline, count(), max(toUnixTimestamp64Milli(received_at)) FROM loads FINAL WHERE status = 'loaded'
		GROUP BY pipeline SETTINGS max_threads = 1`)
}

// RunStatus counts the events of one run of generated traffic. Session ids begin with the run's name.
type RunStatus struct {
	Rows, Distinct, Objects uint64
}

// RunStatus reads the table. since is the least received_at, in ms.
func (db *DB) RunStatus(ctx context.Context, table, run string, since int64) (s RunStatus, err error) {
	err = db.one(ctx, "count rows of run "+run, []any{&s.Rows, &s.Distinct, &s.Objects},
		"SELECT count(), uniqExact(event_id), uniqExact(object) FROM "+quoteName(table)+
			" WHERE startsWith(session_id, ?) AND received_at >= fromUnixTimestamp64Milli(?)", run+"-", since)
	return s, err
}

// Merges returns the number of running merges, of all tables.
func (db *DB) Merges(ctx context.Context) (n uint64, err error) {
	err = db.one(ctx, "read merges", []any{&n}, "SELECT count() FROM system.merges")
	return n, err
}

// DiskUse is the size of a table on disk.
type DiskUse struct {
	Parts   uint64
	Bytes   int64
	Columns []ColumnUse // largest first
}

// ColumnUse is the compressed size of a column on disk.
type ColumnUse struct {
	Name  string
	Bytes int64
}

// DiskUse reads the table's active parts.
func (db *DB) DiskUse(ctx context.Context, table string) (u DiskUse, err error) {
	if err := db.one(ctx, "read parts of "+table, []any{&u.Parts, &u.Bytes},
		"SELECT count(), toInt64(sum(bytes_on_disk)) FROM system.parts WHERE active AND database = ? AND table = ?",
		db.database, table); err != nil {
		return u, err
	}
	var c ColumnUse
	err = db.each(ctx, "read columns of "+table, []any{&c.Name, &c.Bytes}, func() error {
		u.Columns = append(u.Columns, c)
		return nil
	}, `SELECT column, toInt64(sum(column_bytes_on_disk)) AS bytes FROM system.parts_columns
		WHERE active AND database = ? AND table = ? GROUP BY column ORDER BY bytes DESC, column`, db.database, table)
	return u, err
}

// Minute is the activity in 60 seconds.
type Minute struct {
	Start    time.Time
	Rows     uint64  // loaded into events
	Seconds  float64 // from receipt to row, of the slowest object; one whose rows were replaced does not count
	Rejected uint64  // failure records of events and requests
}

// Minutes returns the last hour, oldest minute first. They count back from now, so the newest is as long as the others.
func (db *DB) Minutes(ctx context.Context) ([]Minute, error) {
	var m Minute
	var all []Minute
	err := db.each(ctx, "read the last hour", []any{&m.Start, &m.Rows, &m.Seconds, &m.Rejected}, func() error {
		all = append(all, m)
		return nil
	}, `SELECT now() - toIntervalSecond(60 * (ago + 1)), sum(rows), max(seconds), sum(rejected) FROM (
			SELECT `+minutesAgo("finished_at")+` AS ago, sum(rows) AS rows,
				maxIf(greatest(0, dateDiff('millisecond', received_at, finished_at)) / 1000, generation = 0) AS seconds,
				toUInt64(0) AS rejected
			FROM loads FINAL
			WHERE pipeline = 'events' AND status = 'loaded' AND finished_at > now() - INTERVAL 1 HOUR
				AND key IN (SELECT key FROM loads WHERE finished_at > now() - INTERVAL 1 HOUR)
			GROUP BY ago
			UNION ALL
			SELECT `+minutesAgo("received_at")+` AS ago, 0, 0, count() FROM errors
			WHERE received_at > now() - INTERVAL 1 HOUR AND stage = 'receiver' GROUP BY ago
			UNION ALL
			SELECT toInt64(number), 0, 0, 0 FROM numbers(60)
		) GROUP BY ago ORDER BY ago DESC`)
	return all, err
}

// minutesAgo is how many whole minutes ago a time was, from 0 to 59. A time after now, by another clock, was 0 ago.
func minutesAgo(column string) string {
	return "least(59, intDiv(greatest(0, dateDiff('second', " + column + ", now())), 60))"
}
