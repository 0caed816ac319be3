package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
)

// rebuild copies a table of a version before 0.1.0 into the table that a file creates now. It first renames the old
// table: inserts of loaders then fail as in an outage, so every row is copied. It compares each partition after copying
// it. If rebuild is interrupted, the next run continues:
//
//	TABLE exists                         rename it to old
//	old exists                           create new, copy what differs, rename new to TABLE
//	old and TABLE exist, new does not    drop old
type rebuild struct {
	*DB
	table, old, new string
	text            string // of the file
	progress        func(text string)
}

func newRebuild(db *DB, m migration, progress func(string)) *rebuild {
	table := m.creates()
	return &rebuild{DB: db, table: table, old: "penstock_old_" + table, new: "penstock_new_" + table, text: m.text,
		progress: progress}
}

// run rebuilds the table. tables are the existing tables.
func (r *rebuild) run(ctx context.Context, tables map[string]string) error {
	_, was := tables[r.old]
	_, is := tables[r.table]
	_, begun := tables[r.new]
	switch {
	case !was:
		if err := r.rename(ctx, r.table, r.old); err != nil {
			return err
		}
	case is && begun:
		return fmt.Errorf("copy table %s: it was created while %s was copied into %s; drop it if it has no rows that you"+
			" need, and run `penstock setup` again", r.table, r.old, r.new)
	case is:
		return r.drop(ctx)
	}
	if err := r.settle(ctx); err != nil {
		return err
	}
	if err := r.create(ctx); err != nil {
		return err
	}
	if err := r.copyAll(ctx); err != nil {
		return fmt.Errorf("copy %s into %s (`penstock setup` goes on with it): %w", r.old, r.new, err)
	}
	if err := r.release(ctx); err != nil {
		return err
	}
	if err := r.rename(ctx, r.new, r.table); err != nil {
		return err
	}
	return r.drop(ctx)
}

func (r *rebuild) rename(ctx context.Context, from, to string) error {
	return r.exec(ctx, "rename table "+from, "RENAME TABLE "+quoteName(from)+" TO "+quoteName(to))
}

func (r *rebuild) drop(ctx context.Context) error {
	return r.exec(ctx, "drop table "+r.old, "DROP TABLE "+quoteName(r.old)+" SETTINGS max_table_size_to_drop = 0")
}

// settle waits for running inserts: one that began before the rename ends in the old table.
func (r *rebuild) settle(ctx context.Context) error { return r.settleInserts(ctx, r.table, r.progress) }

// settleInserts waits for running inserts into a table. system.processes does not name the table, so the query's text
// is searched.
func (db *DB) settleInserts(ctx context.Context, table string, progress func(string)) error {
	const running = "SELECT groupArray(query_id) FROM system.processes" +
		" WHERE query_kind IN ('Insert', 'AsyncInsertFlush') AND position(query, ?) > 0"
	var began []string
	if err := db.one(ctx, "list inserts", []any{&began}, running, table); err != nil {
		return err
	}
	for told := false; len(began) > 0; told = true {
		if !told {
			progress(fmt.Sprintf("%s: waiting for %s that began earlier", table, show.Plural(len(began), "insert")))
		}
		if err := retry.Sleep(ctx, settlePoll); err != nil {
			return err
		}
		if err := db.one(ctx, "list inserts", []any{&began}, running+" AND query_id IN (?)", table, began); err != nil {
			return err
		}
	}
	return nil
}

const settlePoll = 100 * time.Millisecond

// unmerged and unlimited are settings of a table without merges.
var (
	unmerged = []string{"max_bytes_to_merge_at_max_space_in_pool", "max_bytes_to_merge_at_min_space_in_pool",
		"max_number_of_merges_with_ttl_in_pool"}
	unlimited = []string{"parts_to_delay_insert", "parts_to_throw_insert"}
)

// create creates the new table, with columns and indexes that somebody added to the old one.
func (r *rebuild) create(ctx context.Context) error {
	as := strings.Replace(r.text, "IF NOT EXISTS "+r.table, "IF NOT EXISTS "+quoteName(r.new), 1)
	if err := r.apply(ctx, migration{name: "create " + r.new, text: as}); err != nil {
		return err
	}
	// A row deleted by a TTL, or merged away as a duplicate, would look lost.
	for _, table := range []string{r.old, r.new} {
		if err := r.exec(ctx, "stop merges of "+table, "ALTER TABLE "+quoteName(table)+" MODIFY SETTING "+
			strings.Join(unmerged, " = 1, ")+" = 1, "+strings.Join(unlimited, " = 1000000, ")+" = 1000000"); err != nil {
			return err
		}
	}
	changes, err := r.added(ctx)
	if err != nil {
		return err
	}
	for _, change := range changes {
		if err := r.exec(ctx, "add to "+r.new, "ALTER TABLE "+quoteName(r.new)+" "+change); err != nil {
			return err
		}
	}
	return nil
}

// added returns what the new table lacks, as clauses of ALTER TABLE. It keeps the old types of JSON columns. ClickHouse
// converts JSON types through text, where 1.0 becomes 1, and where it cannot read a float of 1e20. To get the new
// types, load the objects into a new database.
func (r *rebuild) added(ctx context.Context) (changes []string, err error) {
	var name, kind, now, defaults, expression, comment, codec string
	into := []any{&name, &kind, &now, &defaults, &expression, &comment, &codec}
	err = r.each(ctx, "compare columns", into, func() error {
		clause := quoteName(name) + " " + kind
		if now != "" {
			if strings.HasPrefix(kind, "JSON") && kind != now {
				changes = append(changes, "MODIFY COLUMN "+clause)
			}
			return nil
		}
		if defaults != "" {
			clause += " " + defaults + " " + expression
		}
		if clause += " COMMENT " + quoteText(comment); codec != "" {
			clause += " " + codec
		}
		changes = append(changes, "ADD COLUMN IF NOT EXISTS "+clause)
		return nil
	}, `SELECT o.name, o.type, n.type, o.default_kind, o.default_expression, o.comment, o.compression_codec
		FROM (SELECT * FROM system.columns WHERE database = ? AND table = ?) AS o
		LEFT JOIN (SELECT * FROM system.columns WHERE database = ? AND table = ?) AS n ON o.name = n.name
		ORDER BY o.position`, r.database, r.old, r.database, r.new)
	if err != nil {
		return nil, err
	}
	var granularity uint64
	err = r.each(ctx, "compare indexes", []any{&name, &kind, &expression, &granularity}, func() error {
		changes = append(changes, fmt.Sprintf("ADD INDEX IF NOT EXISTS %s %s TYPE %s GRANULARITY %d", quoteName(name),
			expression, kind, granularity))
		return nil
	}, `SELECT name, type_full, expr, granularity FROM system.data_skipping_indices WHERE database = ? AND table = ?
		AND name NOT IN (SELECT name FROM system.data_skipping_indices WHERE database = ? AND table = ?) ORDER BY name`,
		r.database, r.old, r.database, r.new)
	return changes, err
}

// identity is the time in a row's identity, for rows of an earlier version. There, a row without a client's time had
// 1970, and `timestamp` was the time of receipt.
const (
	idBits    = "toUInt128(event_id)"
	idMillis  = "toInt64(bitShiftRight(" + idBits + ", 80))"
	timedByID = "(toUnixTimestamp64Milli(identity_time) = 0 AND timestamp != identity_time" +
		" AND bitAnd(bitShiftRight(" + idBits + ", 76), 15) = 7 AND bitAnd(bitShiftRight(" + idBits + ", 62), 3) = 2" +
		" AND " + idMillis + " >= 1262304000000 AND " + idMillis + " < 2840140800000)"
	idTime = "fromUnixTimestamp64Milli(least(" + idMillis + ", 2840140800000), 'UTC')"
)

// copied is a column to copy: its value in the old table and in the new one.
type copied struct{ name, value, kind string }

// hashed is an argument of cityHash64 that is never NULL.
func hashed(value, kind string) string {
	if strings.HasPrefix(kind, "JSON") || strings.Contains(kind, "Nullable") {
		return "ifNull(toString(" + value + "), 'null')"
	}
	return value
}

// columns returns the columns that both tables store.
func (r *rebuild) columns(ctx context.Context) (all []copied, err error) {
	var name, kind string
	err = r.each(ctx, "read columns of "+r.new, []any{&name, &kind}, func() error {
		value := quoteName(name)
		if name == "identity_time" || name == "timestamp" {
			value = "if(" + timedByID + ", " + idTime + ", " + value + ")"
		}
		all = append(all, copied{quoteName(name), value, kind})
		return nil
	}, "SELECT name, type FROM system.columns WHERE database = ? AND table = ? AND default_kind IN ('', 'DEFAULT')"+
		" AND name IN (SELECT name FROM system.columns WHERE database = ? AND table = ?) ORDER BY position",
		r.database, r.new, r.database, r.old)
	return all, err
}

// copyAll copies each partition that the new table lacks.
func (r *rebuild) copyAll(ctx context.Context) error {
	columns, err := r.columns(ctx)
	if err != nil {
		return err
	}
	var parts []string
	var rows []uint64
	var id string
	var n, size, total uint64
	if err := r.each(ctx, "list partitions", []any{&id, &n, &size}, func() error {
		parts, rows = append(parts, id), append(rows, n)
		total += size
		return nil
	}, "SELECT partition_id, sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active AND database = ? AND table = ?"+
		" GROUP BY partition_id ORDER BY partition_id", r.database, r.old); err != nil {
		return err
	}
	var free uint64
	if err := r.one(ctx, "read free space", []any{&free}, "SELECT max(free_space) FROM system.disks"); err != nil {
		return err
	}
	if free < total+total/10 {
		return fmt.Errorf("the disk has %d MiB free, and the copy takes %d MiB: free some, then run `penstock setup` again",
			free>>20, total>>20)
	}
	for i, id := range parts {
		if err := r.copyPartition(ctx, id, columns); err != nil {
			return err
		}
		r.progress(fmt.Sprintf("%s: copied %s, %s (%d of %s)", r.table, id, show.Plural(rows[i], "row"), i+1,
			show.Plural(len(parts), "partition")))
	}
	return nil
}

// copyPartition copies a partition, which is a day of received_at. An interrupted attempt may have copied a part of it.
func (r *rebuild) copyPartition(ctx context.Context, id string, columns []copied) error {
	var names, values, before, after []string
	for _, c := range columns {
		names, values = append(names, c.name), append(values, c.value)
		before, after = append(before, hashed(c.value, c.kind)), append(after, hashed(c.name, c.kind))
	}
	const ofOld, ofNew = "_partition_id = ?", "toString(toYYYYMMDD(received_at)) = ?"
	want, err := r.sum(ctx, r.old, before, ofOld, id)
	if err != nil {
		return err
	}
	got, err := r.sum(ctx, r.new, after, ofNew, id)
	if err != nil || got == want {
		return err
	}
	sync := clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
		"lightweight_deletes_sync": 2, "mutations_sync": 2}))
	if got.rows > 0 {
		if err := r.exec(sync, "delete an unfinished copy", "DELETE FROM "+quoteName(r.new)+" WHERE "+ofNew, id); err != nil {
			return err
		}
	}
	whole := clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
		"max_partitions_per_insert_block": 0, "optimize_on_insert": 0, "max_insert_threads": 1, "max_execution_time": 0,
		"insert_deduplicate": 0})) // otherwise rows that were copied and deleted count as a repeated insert
	if err := r.exec(whole, "copy partition "+id, "INSERT INTO "+quoteName(r.new)+" ("+strings.Join(names, ", ")+")"+
		" SELECT "+strings.Join(values, ", ")+" FROM "+quoteName(r.old)+" WHERE "+ofOld, id); err != nil {
		return err
	}
	if got, err = r.sum(ctx, r.new, after, ofNew, id); err == nil && got != want {
		err = fmt.Errorf("partition %s has %d rows of sum %d, the copy %d rows of sum %d", id, want.rows, want.sum, got.rows,
			got.sum)
	}
	return err
}

// sums are equal if two tables have the same rows.
type sums struct{ rows, sum uint64 }

func (r *rebuild) sum(ctx context.Context, table string, values []string, where, id string) (s sums, err error) {
	err = r.one(ctx, "count rows of "+table, []any{&s.rows, &s.sum}, "SELECT count(), sum(cityHash64("+
		strings.Join(values, ", ")+")) FROM "+quoteName(table)+" WHERE "+where, id)
	return s, err
}

// release enables merges of the new table, and sets the TTL of the old one.
func (r *rebuild) release(ctx context.Context) error {
	if err := r.exec(ctx, "allow merges of "+r.new, "ALTER TABLE "+quoteName(r.new)+" RESET SETTING "+
		strings.Join(slices.Concat(unmerged, unlimited), ", ")); err != nil {
		return err
	}
	ttls, err := r.pairs(ctx, "read TTLs", "SELECT name, engine_full FROM system.tables"+
		" WHERE database = ? AND name IN (?)", r.database, []string{r.old, r.new})
	if err != nil {
		return err
	}
	want, has := ttlOf(ttls[r.old]), ttlOf(ttls[r.new])
	if want == "" || has != "" {
		return nil
	}
	return r.exec(ctx, "set the TTL of "+r.new, "ALTER TABLE "+quoteName(r.new)+" MODIFY TTL "+want)
}

// ttlOf returns the TTL of a table's engine, as the server prints it.
func ttlOf(engine string) string {
	from := outer(engine, " TTL ")
	if from < 0 {
		return ""
	}
	text := engine[from+len(" TTL "):]
	if to := outer(text, " SETTINGS "); to >= 0 {
		text = text[:to]
	}
	return text
}

// earlier lists the files of tables of versions before 0.1.0 that have another form now, by sha256. A table with other
// partitions is rebuilt; everything else already has its form.
var earlier = map[string][]string{
	"001_events.sql": {"07a35eff33797fa9aa966a9cdcb4e6836aa4e2469c51778c3071fdbd16c20826",
		"568bea15317efb55ba03564060768c84036f3bce9fc4c5338b3261d0eac78d17"}, // 051 sets its comment
	"002_errors.sql": {"c8205eb2f58f07d8835e800d7e0ffd3fb452e11a39f47a182317b065bc2fc48b"},
}

// renew applies a file. It first converts what an earlier version created by it.
func (db *DB) renew(ctx context.Context, m migration, progress func(string)) error {
	if _, changed := earlier[m.name]; !changed {
		return db.apply(ctx, m)
	}
	tables, err := db.pairs(ctx, "read tables",
		"SELECT name, partition_key FROM system.tables WHERE database = ?", db.database)
	if err != nil {
		return err
	}
	r := newRebuild(db, m, progress)
	if tables[r.table] == "toDate(received_at)" || tables[r.old] != "" {
		return r.run(ctx, tables)
	}
	return db.apply(ctx, m)
}

// isEarlier reports whether the hash of a recorded file is that of a version before 0.1.0.
func isEarlier(name, hash string) bool { return slices.Contains(earlier[name], hash) }
