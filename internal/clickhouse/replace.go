package clickhouse

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/penstock/penstock/internal/pipeline"
)

// Newest is the highest generation of an object's rows in the table; there is
// false where it has none. received bounds their received_at, in ms.
func (db *DB) Newest(ctx context.Context, table, object string, received [2]int64) (generation uint32, there bool, err error) {
	var n uint64
	err = db.conn.QueryRow(ctx, "SELECT count(), max(generation) FROM "+quoteName(table)+" WHERE object = ? AND toDate(received_at) BETWEEN toDate(?) AND toDate(?)",
		object, pipeline.Millis(received[0]).Format("2006-01-02"), pipeline.Millis(received[1]).Format("2006-01-02")).Scan(&n, &generation)
	if err != nil {
		return 0, false, fmt.Errorf("ask %s for rows of %s: %w", table, object, class(err))
	}
	return generation, n > 0, nil
}

// Objects are those, of keys from first up to and with last, of which the table has rows.
func (db *DB) Objects(ctx context.Context, table, first, last string) (map[string]bool, error) {
	rows, err := db.conn.Query(ctx, "SELECT DISTINCT toString(object) FROM "+quoteName(table)+" WHERE object >= ? AND object <= ?", first, last)
	if err != nil {
		return nil, fmt.Errorf("ask %s for objects: %w", table, class(err))
	}
	defer rows.Close()
	all := map[string]bool{}
	for rows.Next() {
		var object string
		if err := rows.Scan(&object); err != nil {
			return nil, fmt.Errorf("ask %s for objects: %w", table, class(err))
		}
		all[object] = true
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("ask %s for objects: %w", table, class(err))
	}
	return all, nil
}

// DeleteOlder deletes an object's rows of generations before the given one, and
// returns when no query sees them any more. The user needs ALTER DELETE.
func (db *DB) DeleteOlder(ctx context.Context, table, object string, generation uint32) error {
	ctx, cancel := context.WithTimeout(ctx, db.opts.Timeout)
	defer cancel()
	// Which days: a mutation looks into every part that it is not kept out of.
	var days []string
	if err := db.conn.QueryRow(ctx, "SELECT groupUniqArray(toString(toDate(received_at))) FROM "+quoteName(table)+
		" WHERE object = ? AND generation < ?", object, generation).Scan(&days); err != nil {
		return fmt.Errorf("ask %s for rows of %s: %w", table, object, class(err))
	}
	if len(days) == 0 {
		return nil
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"lightweight_deletes_sync": 2, "mutations_sync": 2}))
	if err := db.conn.Exec(ctx, "DELETE FROM "+quoteName(table)+" WHERE object = ? AND generation < ? AND toDate(received_at) IN (?)", object, generation, days); err != nil {
		return fmt.Errorf("delete rows of %s from %s: %w", object, table, class(err))
	}
	return nil
}

// trialPrefix begins the names of tables that only try inserts. The time in the
// name tells those that a loader that was killed has left.
const trialPrefix = "penstock_trial_"

// Trial is a copy of a table that evaluates and refuses what the table does,
// and keeps nothing.
type Trial struct {
	db         *DB
	name, like string
}

// Try makes a trial of a table. The user needs CREATE TABLE and DROP TABLE.
func (db *DB) Try(ctx context.Context, table string) (*Trial, error) {
	db.dropTrials(ctx)
	var random [4]byte
	rand.Read(random[:])
	name := fmt.Sprintf("%s%d_%s", trialPrefix, time.Now().Unix(), hex.EncodeToString(random[:]))
	if err := db.conn.Exec(ctx, "CREATE TABLE "+quoteName(name)+" AS "+quoteName(table)+" ENGINE = Null"); err != nil {
		return nil, fmt.Errorf("make a trial of %s: %w", table, class(err))
	}
	return &Trial{db, name, table}, nil
}

// Insert tells by its error whether the table would take the events.
func (t *Trial) Insert(ctx context.Context, object string, events []pipeline.Event) error {
	b, err := t.db.NewBlock(ctx, t.like, object, 0)
	if err != nil {
		return err
	}
	b.table = t.name
	b.Append(events, nil)
	return b.Insert(ctx, "", func(yield func([]pipeline.Event, error) bool) { yield(events, nil) })
}

// Close drops the trial.
func (t *Trial) Close(ctx context.Context) error {
	if err := t.db.conn.Exec(ctx, "DROP TABLE IF EXISTS "+quoteName(t.name)); err != nil {
		return fmt.Errorf("drop trial: %w", class(err))
	}
	return nil
}

// dropTrials removes what killed loaders have left; what fails is tried again
// the next time.
func (db *DB) dropTrials(ctx context.Context) {
	rows, err := db.conn.Query(ctx, "SELECT name FROM system.tables WHERE database = ? AND startsWith(name, ?)", db.database, trialPrefix)
	if err != nil {
		return
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if rows.Scan(&name) != nil {
			return
		}
		made, _, _ := strings.Cut(strings.TrimPrefix(name, trialPrefix), "_")
		if sec, err := strconv.ParseInt(made, 10, 64); err == nil && time.Since(time.Unix(sec, 0)) > time.Hour {
			db.conn.Exec(ctx, "DROP TABLE IF EXISTS "+quoteName(name))
		}
	}
}
