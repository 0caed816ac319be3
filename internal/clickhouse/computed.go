package clickhouse

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Computed is a column that ClickHouse computes at insert.
type Computed struct {
	Name, Type, Expression string
	Index                  string // type of its skip index; empty: none
	Comment                string
}

// computedNote matches the comments of computed columns.
const computedNote = ` ?\(penstock: sha256 [0-9a-f]+\)$`

// note is the column's comment in the table. Its hash shows whether the column is this version's.
func (c Computed) note() string {
	sum := sha256.Sum256([]byte(c.Type + c.Expression + c.Index))
	return c.Comment + " (penstock: sha256 " + hex.EncodeToString(sum[:8]) + ")"
}

// SetComputed makes a table have exactly the wanted columns, and returns the names of changed ones. The server computes
// them in the background for the rows of before. Until then it computes a new column on read.
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
	// A running insert may have sent a default value by the old definition. Wait until its rows are in, then recompute
	// all.
	if err := db.settleInserts(ctx, table, func(string) {}); err != nil {
		return err
	}
	return db.exec(ctx, what, alter+strings.Join(after, ", "))
}
