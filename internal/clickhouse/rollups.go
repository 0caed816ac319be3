package clickhouse

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// Rollup is a table that Penstock computes from events, in whole days.
type Rollup struct {
	Name   string // of the table, whose partitions are days
	Select string // the rows of {day:Date}, or of the days {from:Date} through {to:Date}; has a column day
	Key    string // the table's sorting key; only for a table that setup makes
	Around bool   // a change in one day may change the rows of its neighbors
	Depend string // what its rows depend on besides the query and events
}

// definition is a hash of everything that a day's rows depend on. If it changes, all days are computed again.
func (r Rollup) definition() string {
	sum := sha256.Sum256([]byte(r.Select + "\x00" + r.Depend))
	return hex.EncodeToString(sum[:8])
}

// Check rejects a rollup that cannot be computed.
func (r Rollup) Check() error {
	switch {
	case !columnName.MatchString(r.Name):
		return fmt.Errorf("name %q: want letters, digits and underscores, no digit first, 64 at most", r.Name)
	case !dayParameter.MatchString(r.Select) && !r.ofRange():
		return fmt.Errorf("select of %s: it has no {day:Date}; it must return the rows of that day, with a column day, "+
			"or those of the days {from:Date} through {to:Date}", r.Name)
	case strings.TrimSpace(r.Key) == "":
		return fmt.Errorf("key of %s is empty: want its columns, as \"project, country\"", r.Name)
	}
	return nil
}

var (
	dayParameter  = regexp.MustCompile(`\{\s*day\s*:\s*Date\s*\}`)
	fromParameter = regexp.MustCompile(`\{\s*from\s*:\s*Date\s*\}`)
	toParameter   = regexp.MustCompile(`\{\s*to\s*:\s*Date\s*\}`)
)

// ofRange reports whether one statement computes several days.
func (r Rollup) ofRange() bool {
	return fromParameter.MatchString(r.Select) && toParameter.MatchString(r.Select)
}

const (
	rollupSource = "events"
	ownDelete    = "generation < " // occurs in the condition of DeleteOlder
)

// changedDays are the days that this process has marked, with times.
type changedDays struct {
	mu     sync.Mutex
	marked map[int64]time.Time
}

// markedFor is how long a mark also covers further changes.
const markedFor = 5 * time.Minute

// settled is how late a change may become visible after its day was marked: an insert or a delete ends after Timeout,
// and the server's may as well. A day is computed again until its last computation began that long after the last
// change, unless no part has come since.
func settled(timeout time.Duration) time.Duration { return markedFor + 2*timeout }

// markDays records that rows of these days are about to change. Days count from 1970.
func (db *DB) markDays(ctx context.Context, days map[int64]bool) error {
	db.changed.mu.Lock()
	var due []int64
	for d := range days {
		if time.Since(db.changed.marked[d]) > markedFor {
			due = append(due, d)
		}
	}
	db.changed.mu.Unlock()
	if len(due) == 0 {
		return nil
	}
	now := time.Now()
	err := db.insert(ctx, "write changed_days", "INSERT INTO changed_days (day)", func(row func(...any) error) error {
		for _, d := range due {
			if err := row(time.Unix(d*secondsOfDay, 0).UTC()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return unlessNoRollups(err)
	}
	db.changed.mu.Lock()
	defer db.changed.mu.Unlock()
	if db.changed.marked == nil || len(db.changed.marked) > maxMarked {
		db.changed.marked = map[int64]time.Time{}
	}
	for _, d := range due {
		db.changed.marked[d] = now
	}
	return nil
}

const (
	secondsOfDay = 24 * 60 * 60
	maxMarked    = 10_000
	// Rollups have only these days: a Date has no others.
	rolledUp = "timestamp >= toDateTime64('1970-01-02', 3, 'UTC') AND timestamp < toDateTime64('2149-06-06', 3, 'UTC')"
	lastDay  = 65535 // 2149-06-06
)

// addDays adds the days of events that rollups can have.
func addDays(days map[int64]bool, events []pipeline.Event, pick []uint32) {
	last := int64(0)
	add := func(e *pipeline.Event) {
		if d := e.Time() / (1000 * secondsOfDay); d != last && d > 0 && d < lastDay {
			days[d], last = true, d
		}
	}
	if pick == nil {
		for i := range events {
			add(&events[i])
		}
		return
	}
	for _, i := range pick {
		add(&events[i])
	}
}

// markWhere marks the days of the rows of events that a condition selects.
func (db *DB) markWhere(ctx context.Context, condition string, args ...any) error {
	return unlessNoRollups(db.exec(ctx, "write changed_days",
		"INSERT INTO changed_days (day) SELECT DISTINCT toDate(timestamp) FROM events WHERE "+rolledUp+
			" AND ("+condition+")", args...))
}

// unlessNoRollups drops the error of a database set up by an earlier version. When setup creates the rollups, they
// compute all days.
func unlessNoRollups(err error) error {
	if code, said := codeOf(err); said && code == unknownTable {
		return nil
	}
	return err
}

// CreateRollup creates the table of a rollup that has no DDL of its own.
func (db *DB) CreateRollup(ctx context.Context, r Rollup) (created bool, err error) {
	if missing, err := db.PlanRollup(ctx, r); err != nil || !missing {
		return false, err
	}
	// CREATE accepts no parameter; any day gives the same columns.
	empty := r.Select
	for _, parameter := range []*regexp.Regexp{dayParameter, fromParameter, toParameter} {
		empty = parameter.ReplaceAllLiteralString(empty, "toDate('2000-01-01')")
	}
	return true, db.exec(ctx, "create rollup "+r.Name, "CREATE TABLE "+quoteName(r.Name)+
		" ENGINE = MergeTree PARTITION BY day ORDER BY ("+r.Key+") COMMENT "+quoteText(rollupNote)+" EMPTY AS "+empty)
}

// PlanRollup reports whether CreateRollup would create the rollup's table.
func (db *DB) PlanRollup(ctx context.Context, r Rollup) (missing bool, err error) {
	var n uint64
	if err := db.one(ctx, "look for table "+r.Name, []any{&n},
		"SELECT count() FROM system.tables WHERE database = ? AND name = ?", db.database, r.Name); err != nil {
		return false, err
	}
	if n > 0 {
		return false, db.checkRollup(ctx, r)
	}
	return true, nil
}

// rollupNote is the comment of tables that CreateRollup made.
const rollupNote = "Rollup of clickhouse.rollups: penstock computes its days"

// checkRollup rejects a table that is not this rollup's, because its partitions would be replaced.
func (db *DB) checkRollup(ctx context.Context, r Rollup) error {
	var comment string
	if err := db.one(ctx, "read the comment of "+r.Name, []any{&comment},
		"SELECT comment FROM system.tables WHERE database = ? AND name = ?", db.database, r.Name); err != nil {
		return err
	}
	if comment != rollupNote {
		return fmt.Errorf("rollup %s: the database has a table or view of that name that setup did not make; "+
			"choose another name", r.Name)
	}
	return nil
}

// RollupDay is a day that a rollup has or must compute.
type RollupDay struct {
	Day       time.Time
	Due       bool      // changed since it was computed, or perhaps
	Refreshed time.Time // zero: never
	Rows      uint64
}

// wholeRollup is the day in rollup_days that records which definition has computed all days of events.
var wholeRollup = time.Unix(0, 0).UTC()

// RollupDays returns the days of a rollup, and those of events that it must compute, in order. A day is due if it has
// changed since, or if the rollup is new or has another definition. Days with events deleted by the table's TTL stay as
// they are.
func (db *DB) RollupDays(ctx context.Context, r Rollup) ([]RollupDay, error) {
	now, err := db.weeks(ctx)
	if err != nil {
		return nil, err
	}
	deleted, err := db.lastDelete(ctx)
	if err != nil {
		return nil, err
	}
	days, known := map[time.Time]RollupDay{}, false
	var d RollupDay
	var other, touched bool
	var seen uint64
	err = db.each(ctx, "read rollup_days", []any{&d.Day, &d.Refreshed, &d.Rows, &other, &touched, &seen}, func() error {
		if d.Day.Equal(wholeRollup) {
			known = !other
		} else {
			d.Due = other || touched && seen != now.seen(d.Day)
			days[d.Day] = d
		}
		return nil
	}, `SELECT r.day, r.refreshed_at, r.rows, r.definition != ?,
			c.changed_at >= r.as_of OR fromUnixTimestamp64Milli(?) >= r.as_of, r.seen
		FROM (SELECT * FROM rollup_days FINAL WHERE rollup = ?) AS r
		LEFT JOIN (SELECT * FROM changed_days FINAL) AS c ON c.day = r.day`,
		r.definition(), deleted.UnixMilli(), r.Name)
	if err != nil {
		return nil, err
	}
	source := "SELECT day FROM changed_days FINAL"
	if !known {
		source += " UNION DISTINCT SELECT DISTINCT toDate(timestamp) FROM events WHERE " + rolledUp
	}
	if err := db.each(ctx, "read the days of events", []any{&d.Day}, func() error {
		if _, ok := days[d.Day]; !ok {
			days[d.Day] = RollupDay{Day: d.Day, Due: true}
		}
		return nil
	}, source); err != nil {
		return nil, err
	}
	return db.dueDays(ctx, r, days)
}

// foreignDeletes are deletes of events' rows that Penstock did not make.
const foreignDeletes = ` FROM system.mutations WHERE database = ? AND table = 'events'
	AND (command ILIKE '%_row_exists%' OR command ILIKE '%DELETE%') AND command NOT ILIKE '%'||?||'%'`

// lastDelete is the time of the last DELETE FROM events that Penstock did not make, such as an erasure by hand: nobody
// has marked its days. While one runs, it is now.
func (db *DB) lastDelete(ctx context.Context) (at time.Time, err error) {
	err = db.one(ctx, "read system.mutations", []any{&at}, "SELECT max(if(is_done, create_time, now()))"+foreignDeletes,
		db.database, ownDelete)
	return at, err
}

// dueDays adds the neighbors of due days where they matter, and removes expired days.
func (db *DB) dueDays(ctx context.Context, r Rollup, days map[time.Time]RollupDay) ([]RollupDay, error) {
	if r.Around {
		var due []time.Time
		for at, d := range days {
			if d.Due {
				due = append(due, at)
			}
		}
		for _, at := range due {
			for _, near := range []time.Time{at.AddDate(0, 0, -1), at.AddDate(0, 0, 1)} {
				if d, ok := days[near]; ok {
					d.Due = true
					days[near] = d
				}
			}
		}
	}
	expired, err := db.Expired(ctx, "events")
	if err != nil {
		return nil, err
	}
	var all []RollupDay
	for _, d := range days {
		d.Due = d.Due && !d.Day.Before(expired.Time) && !d.Day.Before(expired.Received)
		if d.Due || !d.Refreshed.IsZero() {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b RollupDay) int { return a.Day.Compare(b.Day) })
	return all, nil
}

// RollupDone records that all days of a rollup have its current definition.
func (db *DB) RollupDone(ctx context.Context, r Rollup) error {
	return db.exec(ctx, "write rollup_days", `INSERT INTO rollup_days (rollup, day, definition, as_of)
		SELECT ?, toDate(0), ?, now64(3)`, r.Name, r.definition())
}
