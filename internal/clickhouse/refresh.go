package clickhouse

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/faultpoint"
)

// Bounds of a statement that computes several days of a rollup. Clients with wrong clocks send events of thousands of
// days, and each statement takes at least half a second.
const (
	batchDays = 100
	batchRows = 4 << 20 // rows of events in the weeks of these days
)

// weeks are the partitions of events, by week.
type weeks map[int64]week

// week describes a partition.
type week struct {
	rows    uint64
	version uint64 // changes at each insert and each mutation
}

// weeks reads only system.parts, no data. A part's name ends with its last mutation, which merges keep.
func (db *DB) weeks(ctx context.Context) (weeks, error) {
	all := weeks{}
	var id string
	var w week
	return all, db.each(ctx, "read the partitions of "+rollupSource, []any{&id, &w.rows, &w.version}, func() error {
		monday, err := time.Parse(partitionID, id)
		all[monday.UnixMilli()] = w
		return err
	}, `SELECT partition_id, sum(rows) AS n, sipHash64(max(max_block_number),
			max(toUInt64OrZero(splitByChar('_', name)[5])), n)
		FROM system.parts WHERE active AND database = ? AND table = ? GROUP BY partition_id`, db.database, rollupSource)
}

// of returns the week of a day's events that have a time.
func (w weeks) of(day time.Time) week { return w[pipeline.Partition(day.UnixMilli())] }

// seen identifies all parts that a day is computed from: those of its week, of its neighbors' weeks, and of events
// without a time.
func (w weeks) seen(day time.Time) uint64 {
	h := fnv.New64a()
	for _, at := range []time.Time{day.AddDate(0, 0, -1), day, day.AddDate(0, 0, 1), wholeRollup} {
		fmt.Fprintln(h, w.of(at).version)
	}
	return h.Sum64()
}

// RollupBatches groups ascending days into batches for one statement each.
func (db *DB) RollupBatches(ctx context.Context, r Rollup, days []time.Time) ([][]time.Time, error) {
	have, err := db.weeks(ctx)
	if err != nil {
		return nil, err
	}
	return r.batches(have, days), nil
}

func (r Rollup) batches(have weeks, days []time.Time) (all [][]time.Time) {
	var batch []time.Time
	for _, day := range days {
		full := len(batch) == batchDays || len(batch) > 0 && (!r.ofRange() || have.between(batch[0], day) > batchRows)
		if full {
			all, batch = append(all, batch), nil
		}
		batch = append(batch, day)
	}
	if len(batch) > 0 {
		all = append(all, batch)
	}
	return all
}

// between counts the rows from the week of first through the week of last.
func (w weeks) between(first, last time.Time) (rows uint64) {
	from, to := pipeline.Partition(first.UnixMilli()), pipeline.Partition(last.UnixMilli())
	for monday, week := range w {
		if monday >= min(from, to) && monday <= max(from, to) {
			rows += week.rows
		}
	}
	return rows
}

// RefreshRollup computes days and replaces their rows in the rollup. No query sees half a day. Several days must be a
// batch of RollupBatches. It returns the number of rows of each day.
//
// A claim lets one process refresh at a time. But a process that was stopped for long may continue although another has
// the claim. So each refresh first drops the staging tables of all others, which can then replace nothing. A later
// refresh also has newer events than as_of.
func (db *DB) RefreshRollup(ctx context.Context, r Rollup, days []time.Time) (rows []uint64, err error) {
	f, err := db.beginRefresh(ctx, r, days)
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, db.exec(context.WithoutCancel(ctx), f.what, "DROP TABLE IF EXISTS "+quoteName(f.staging)))
	}()
	for _, step := range []func(context.Context) error{f.compute, f.put, f.save} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return f.rows, nil
}

// refresh is one computation of days.
type refresh struct {
	*DB
	Rollup
	what    string
	days    []time.Time
	began   time.Time
	asOf    time.Time // server's clock; all changes marked earlier are included
	seen    weeks     // before the computation
	staging string
	rows    []uint64 // of each day
}

// stagingOf returns the prefix of a rollup's staging tables. An id follows.
func stagingOf(rollup string) string { return "penstock_staging_" + rollup + "_" }

const stagingID = 16 // hex digits

func (db *DB) beginRefresh(ctx context.Context, r Rollup, days []time.Time) (*refresh, error) {
	id := make([]byte, stagingID/2)
	rand.Read(id)
	f := &refresh{DB: db, Rollup: r, days: days, began: time.Now(), rows: make([]uint64, len(days)),
		staging: stagingOf(r.Name) + hex.EncodeToString(id), what: "refresh rollup " + r.Name}
	// A running DELETE is only partly included. So as_of must be before its start.
	err := db.one(ctx, f.what, []any{&f.asOf}, `SELECT least(now64(3) - INTERVAL ? SECOND,
		toDateTime64(ifNull((SELECT minOrNull(create_time)`+foreignDeletes+` AND NOT is_done), now()), 3))`,
		int(db.settling.Seconds()), db.database, ownDelete)
	if err != nil {
		return nil, err
	}
	var others []string
	if err = db.one(ctx, f.what, []any{&others}, "SELECT groupArray(name) FROM system.tables WHERE database = ?"+
		" AND startsWith(name, ?) AND length(name) = ?", db.database, stagingOf(r.Name), len(f.staging)); err != nil {
		return nil, err
	}
	statements := []string{"CREATE TABLE " + quoteName(f.staging) + " AS " + quoteName(r.Name)}
	for _, other := range others {
		statements = append([]string{"DROP TABLE IF EXISTS " + quoteName(other)}, statements...)
	}
	for _, statement := range statements {
		if err = db.exec(ctx, f.what, statement); err != nil {
			return nil, err
		}
	}
	f.seen, err = db.weeks(ctx)
	return f, err
}

// compute writes the days into the staging table.
func (f *refresh) compute(ctx context.Context) error {
	var columns []string
	if err := f.one(ctx, f.what, []any{&columns}, "SELECT arraySort(groupArray(name)) FROM system.columns"+
		" WHERE database = ? AND table = ?", f.database, f.Name); err != nil {
		return err
	}
	for i := range columns {
		columns[i] = quoteName(columns[i])
	}
	names := strings.Join(columns, ", ")
	dates := make([]string, len(f.days))
	for i, day := range f.days {
		dates[i] = day.Format(time.DateOnly)
	}
	insert := "INSERT INTO " + quoteName(f.staging) + " (" + names + ") SELECT " + names + " FROM (\n" + f.Select + "\n)"
	if len(dates) > 1 { // leave out the days between
		insert += " WHERE day IN ('" + strings.Join(dates, "', '") + "')"
	}
	of := clickhouse.Parameters{"day": dates[0], "from": dates[0], "to": dates[len(dates)-1]}
	with := clickhouse.Context(ctx, clickhouse.WithParameters(of),
		clickhouse.WithSettings(clickhouse.Settings{"max_partitions_per_insert_block": batchDays}))
	if err := f.exec(with, f.what, insert); err != nil {
		return err
	}
	faultpoint.Hit("rollup.computed")
	var day time.Time
	var rows uint64
	return f.each(ctx, f.what, []any{&day, &rows}, func() error {
		i, found := slices.BinarySearchFunc(f.days, day, time.Time.Compare)
		if !found {
			return fmt.Errorf("its select returned %d rows of %s, which is another day than {day:Date} %s", rows,
				day.Format(time.DateOnly), strings.Join(dates, ", "))
		}
		f.rows[i] = rows
		return nil
	}, "SELECT day, count() FROM "+quoteName(f.staging)+" GROUP BY day")
}

// put puts the days in place, one by one. Rows of a day without events are moved away. DROP PARTITION would succeed for
// a process whose staging table another one has dropped, and delete what that one has computed.
func (f *refresh) put(ctx context.Context) error {
	var commands []string
	for i, day := range f.days {
		date, staging := quoteText(day.Format(time.DateOnly)), quoteName(f.staging)
		if f.rows[i] > 0 {
			commands = append(commands, "REPLACE PARTITION "+date+" FROM "+staging)
		} else {
			commands = append(commands, "MOVE PARTITION "+date+" TO TABLE "+staging)
		}
	}
	err := f.exec(ctx, f.what, "ALTER TABLE "+quoteName(f.Name)+" "+strings.Join(commands, ", "))
	if err == nil {
		faultpoint.Hit("rollup.put")
	}
	return err
}

// save records what was computed.
func (f *refresh) save(ctx context.Context) error {
	took := time.Since(f.began).Seconds() / float64(len(f.days))
	return f.insert(ctx, "write rollup_days",
		"INSERT INTO rollup_days (rollup, day, definition, as_of, rows, seconds, seen)", func(row func(...any) error) error {
			for i, day := range f.days {
				if err := row(f.Name, day, f.definition(), f.asOf, f.rows[i], took, f.seen.seen(day)); err != nil {
					return err
				}
			}
			return nil
		})
}
