package clickhouse

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// trialPrefix begins the names of validation tables. The time in the name identifies tables left by killed loaders.
const trialPrefix = "penstock_trial_"

// Trial is a validation table: a copy of a table that computes and rejects the same, and stores nothing.
type Trial struct {
	db         *DB
	name, like string
}

// Try creates a validation table. The user needs CREATE TABLE and DROP TABLE.
func (db *DB) Try(ctx context.Context, table string) (*Trial, error) {
	db.dropTrials(ctx)
	var random [4]byte
	rand.Read(random[:])
	name := fmt.Sprintf("%s%d_%s", trialPrefix, time.Now().Unix(), hex.EncodeToString(random[:]))
	if err := db.exec(ctx, "create a validation table for "+table,
		"CREATE TABLE "+quoteName(name)+" AS "+quoteName(table)+" ENGINE = Null"); err != nil {
		return nil, err
	}
	return &Trial{db, name, table}, nil
}

// Insert returns the error that the table itself would return.
func (t *Trial) Insert(ctx context.Context, object string, events []pipeline.Event) error {
	b, err := t.db.NewBlock(ctx, t.like, object, 0)
	if err != nil {
		return err
	}
	b.table, b.catalogue = t.name, nil
	b.Append(events, nil, nil)
	return b.Insert(ctx, "", func(yield func([]pipeline.Event, error) bool) { yield(events, nil) })
}

// Close drops the validation table.
func (t *Trial) Close(ctx context.Context) error {
	return t.db.exec(ctx, "drop validation table", "DROP TABLE IF EXISTS "+quoteName(t.name))
}

// dropTrials drops validation tables left by killed loaders. Failures are retried the next time.
func (db *DB) dropTrials(ctx context.Context) {
	var name string
	_ = db.each(ctx, "list validation tables", []any{&name}, func() error {
		if abandoned(name, time.Now()) {
			_ = db.exec(ctx, "drop validation table", "DROP TABLE IF EXISTS "+quoteName(name))
		}
		return nil
	}, "SELECT name FROM system.tables WHERE database = ? AND startsWith(name, ?)", db.database, trialPrefix)
}

// abandoned reports whether a validation table is older than any in use, by its name.
func abandoned(name string, now time.Time) bool {
	made, _, _ := strings.Cut(strings.TrimPrefix(name, trialPrefix), "_")
	sec, err := strconv.ParseInt(made, 10, 64)
	return err == nil && now.Sub(time.Unix(sec, 0)) > time.Hour
}
