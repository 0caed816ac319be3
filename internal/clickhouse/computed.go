package clickhouse

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Computed is a column of a table that ClickHouse computes when a row is inserted.
type Computed struct {
	Name, Type, Expression string
	Index                  string // type of its skip index; empty: none
	Comment                string
}

// computedNote matches the comments of computed columns.
const computedNote = ` ?\(penstock: sha256 [0-9a-f]+\)$`

// note is the column's comment in the table. Its hash tells whether the column is that of this version.
func (c Computed) note() string {
	sum := sha256.Sum256([]byte(c.Type + c.Expression + c.Index))
	return c.Comment + " (penstock: sha256 " + hex.EncodeToString(sum[:8]) + ")"
}

// SetComputed makes a table's columns those that are wanted, and returns the names of
// those that changed. The server computes them for the rows of before in the
// background; until then it computes a new column when it is read.
func (db *DB) SetComputed(ctx context.Context, table string, columns []Computed) (changed []string, err error) {
	notes, err := db.pairs(ctx, "read columns of "+table,
		"SELECT name, comment FROM system.columns WHERE database = ? AND table = ?", db.database, table)
	if err != nil {
		return nil, err
	}
	for _, c := range columns {
		note, exists := notes[c.Name]
		if exists && note == c.note() {
			continue
		}
		if err := db.setComputed(ctx, table, c, exists); err != nil {
			return changed, err
		}
		changed = append(changed, c.Name)
	}
	return changed, nil
}

func (db *DB) setComputed(ctx context.Context, table string, c Computed, exists bool) error {
	name, alter := quoteName(c.Name), "ALTER TABLE "+quoteName(table)+" "
	verb := "ADD COLUMN IF NOT EXISTS "
	if exists {
		verb = "MODIFY COLUMN "
	}
	steps := []string{verb + name + " " + c.Type + " MATERIALIZED " + c.Expression + " COMMENT " + quoteText(c.note())}
	after := []string{"MATERIALIZE COLUMN " + name}
	if c.Index != "" {
		steps = append(steps, "ADD INDEX IF NOT EXISTS "+name+" "+name+" TYPE "+c.Index+" GRANULARITY 1")
		after = append(after, "MATERIALIZE INDEX "+name)
	}
	what := "set column " + c.Name + " of " + table
	for _, step := range steps {
		if err := db.exec(ctx, what, alter+step); err != nil {
			return err
		}
	}
	// An insert that runs may have sent what is a default value by the old definition: its rows
	// must be there before all rows are computed again.
	if err := db.settleInserts(ctx, table, func(string) {}); err != nil {
		return err
	}
	return db.exec(ctx, what, alter+strings.Join(after, ", "))
}
