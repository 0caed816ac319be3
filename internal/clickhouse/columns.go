package clickhouse

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	sqlfiles "github.com/penstock/penstock/infra/clickhouse"
	"github.com/penstock/penstock/internal/clickhouse/native"
	"github.com/penstock/penstock/internal/retry"
)

// Column is a column of a table, computed from a property.
type Column struct {
	Name string
	Path string // below properties: keys joined by dots
	Type string // one of ColumnTypes
}

// ColumnTypes are the possible types of a Column. In the table each is Nullable.
var ColumnTypes = []string{"String", "LowCardinality(String)", "Int64", "Float64", "Bool", "DateTime64(3)", "UUID"}

var columnName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// Check rejects a column that no table can have.
func (c Column) Check() error {
	switch {
	case !columnName.MatchString(c.Name):
		return fmt.Errorf("name %q: want letters, digits and underscores, no digit first, 64 at most", c.Name)
	case slices.Contains(strings.Split(native.Columns, ", "), c.Name):
		return fmt.Errorf("name %q: the table has that column already; choose another", c.Name)
	case slices.Contains(strings.Split(c.Path, "."), ""):
		return fmt.Errorf("path %q of %s: want keys joined by dots, below properties, as position.x", c.Path, c.Name)
	case !slices.Contains(ColumnTypes, c.Type):
		return fmt.Errorf("type %q of %s: want %s", c.Type, c.Name, strings.Join(ColumnTypes, ", "))
	}
	return nil
}

// columnNote begins the comments of columns that setup has added.
const columnNote = "penstock: "

// unwritten ends the comment of a column with a new expression until the server was asked to recompute older rows.
const unwritten = ", to be computed anew"

// note is the column's comment in the table, by which setup recognises it.
func (c Column) note() string {
	return fmt.Sprintf("%sproperties.%s as %s", columnNote, c.Path, c.Type)
}

// definition is the column's DDL.
func (c Column) definition(note string) (string, error) {
	kind, value, err := c.expression()
	return quoteName(c.Name) + " " + kind + " MATERIALIZED " + value + " COMMENT " + quoteText(note), err
}

// expression returns the column's type and value. It never throws: values that do not fit become NULL.
func (c Column) expression() (kind, value string, err error) {
	keys := strings.Split(c.Path, ".")
	for i := range keys {
		keys[i] = quoteName(keys[i])
	}
	path := "properties." + strings.Join(keys, ".")
	kind, value = "Nullable("+c.Type+")", "accurateCastOrNull("+path+", '"+c.Type+"')"
	switch c.Type {
	case "String", "LowCardinality(String)": // an array would become text
		value = "if(startsWith(dynamicType(" + path + "), 'Array'), NULL, accurateCastOrNull(" + path + ", 'String'))"
		if c.Type != "String" {
			kind = "LowCardinality(Nullable(String))"
			value = "CAST(" + value + ", '" + kind + "')"
		}
	case "Float64":
		value, err = sqlfiles.Num(path)
	case "Int64": // true would become 1
		value = "if(dynamicType(" + path + ") = 'Bool', NULL, " + value + ")"
	case "DateTime64(3)": // as for an event's timestamp: RFC 3339, or seconds or milliseconds since 1970
		kind = "Nullable(DateTime64(3, 'UTC'))"
		number := "coalesce(" + path + ".:Float64, toFloat64(" + path + ".:Int64))"
		value = "coalesce(parseDateTime64BestEffortOrNull(" + path + ".:String, 3, 'UTC')," +
			" fromUnixTimestamp64Milli(accurateCastOrNull(multiIf(" +
			number + " BETWEEN -2208988800 AND 10413791999, round(" + number + " * 1000), " +
			number + " BETWEEN 1e11 AND 10413791999999, round(" + number + "), NULL), 'Int64'), 'UTC'))"
	}
	return kind, value, err
}

// AddColumns adds the missing columns of a table. If an earlier version computed a column in another way, it changes
// the expression and lets the server recompute older rows. It returns the names of both. A column that exists with
// another path or type, or that setup did not create, is an error.
func (db *DB) AddColumns(ctx context.Context, table string, columns []Column) (added, changed []string, err error) {
	missing, others, err := db.PlanColumns(ctx, table, columns)
	if err != nil {
		return nil, nil, err
	}
	for _, c := range others {
		changed = append(changed, c.Name)
		if err := db.changeColumn(ctx, table, c); err != nil {
			return nil, changed, err
		}
	}
	for _, c := range missing {
		definition, err := c.definition(c.note())
		if err == nil {
			err = db.exec(ctx, "add column "+c.Name+" to "+table,
				"ALTER TABLE "+quoteName(table)+" ADD COLUMN IF NOT EXISTS "+definition)
		}
		if err != nil {
			return added, changed, err
		}
		added = append(added, c.Name)
	}
	return added, changed, nil
}

// PlanColumns returns the columns that AddColumns would add, and those that it would change.
func (db *DB) PlanColumns(ctx context.Context, table string, columns []Column) (missing, changed []Column, err error) {
	notes, err := db.pairs(ctx, "read columns of "+table,
		"SELECT name, comment FROM system.columns WHERE database = ? AND table = ?", db.database, table)
	if err != nil {
		return nil, nil, err
	}
	if missing, err = missingColumns(columns, notes, db.database, table); err != nil {
		return nil, nil, err
	}
	for _, c := range columns {
		if slices.Contains(missing, c) {
			continue
		}
		old, err := db.outdated(ctx, table, c)
		if err != nil {
			return nil, nil, err
		}
		if old || notes[c.Name] != c.note() {
			changed = append(changed, c)
		}
	}
	return missing, changed, nil
}

// outdated reports whether a column has an expression of another version. The server stores expressions in its own
// spelling.
func (db *DB) outdated(ctx context.Context, table string, c Column) (bool, error) {
	_, value, err := c.expression()
	if err != nil {
		return false, err
	}
	var same uint64
	err = db.one(ctx, "read the expression of column "+c.Name, []any{&same}, `SELECT count() FROM system.columns
		WHERE database = ? AND table = ? AND name = ? AND formatQuerySingleLine('SELECT ' || default_expression)
			= formatQuerySingleLine('SELECT ' || ?)`, db.database, table, c.Name, value)
	return same == 0, err
}

// changeColumn changes a column's expression. If it is interrupted, the column's comment makes the next setup continue.
func (db *DB) changeColumn(ctx context.Context, table string, c Column) error {
	definition, err := c.definition(c.note() + unwritten)
	if err != nil {
		return err
	}
	for _, step := range []string{"MODIFY COLUMN " + definition, "MATERIALIZE COLUMN " + quoteName(c.Name),
		"COMMENT COLUMN " + quoteName(c.Name) + " " + quoteText(c.note())} {
		if err := db.exec(ctx, "change column "+c.Name+" of "+table, "ALTER TABLE "+quoteName(table)+" "+step); err != nil {
			return err
		}
	}
	return nil
}

// missingColumns returns the columns that a table lacks. notes are the comments of existing columns.
func missingColumns(columns []Column, notes map[string]string, database, table string) (missing []Column, err error) {
	for _, c := range columns {
		note, exists := notes[c.Name]
		switch note = strings.TrimSuffix(note, unwritten); {
		case !exists:
			missing = append(missing, c)
		case !strings.HasPrefix(note, columnNote):
			return nil, fmt.Errorf("column %s of %s was not made by setup: choose another name", c.Name, table)
		case note != c.note():
			return nil, fmt.Errorf("column %s of %s is %s, and now wanted as %s: choose another name, or, if nobody needs it"+
				" as it is, run ALTER TABLE %s.%s DROP COLUMN %s, and setup again", c.Name, table,
				strings.TrimPrefix(note, columnNote), strings.TrimPrefix(c.note(), columnNote),
				quoteName(database), quoteName(table), quoteName(c.Name))
		}
	}
	return missing, nil
}

// MaterializeColumns writes the columns' values into parts that are older than the columns. Until then a query computes
// them from all properties and is 2 to 9 times slower. It returns how many parts lack a column after wait; the server
// continues in the background.
func (db *DB) MaterializeColumns(ctx context.Context, table string, columns []Column,
	wait time.Duration) (before, left uint64, err error) {
	if len(columns) == 0 {
		return 0, 0, nil
	}
	if before, err = db.materialize(ctx, table, columns); err != nil || before == 0 {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		var reason string
		if err := db.one(ctx, "read mutations of "+table, []any{&left, &reason},
			`SELECT toUInt64(sum(parts_to_do)), anyLast(latest_fail_reason) FROM system.mutations
			WHERE database = ? AND table = ? AND NOT is_done AND NOT is_killed AND command LIKE '%MATERIALIZE COLUMN%'`,
			db.database, table); err != nil && ctx.Err() == nil {
			return before, left, err
		}
		if reason != "" {
			return before, left, fmt.Errorf("materialize columns of %s: %s", table, reason)
		}
		if left == 0 || retry.Sleep(ctx, 200*time.Millisecond) != nil {
			return before, left, nil
		}
	}
}

// materialize starts writing the columns that parts lack, unless the server already does. It returns how many parts
// lack one.
func (db *DB) materialize(ctx context.Context, table string, columns []Column) (parts uint64, err error) {
	var names, running []string
	for _, c := range columns {
		names = append(names, c.Name)
	}
	var lacking []string
	if err := db.one(ctx, "read parts of "+table, []any{&parts, &lacking}, `SELECT count(), groupUniqArrayArray(lacking)
		FROM (SELECT arrayFilter(c -> NOT has(groupArray(column), c), ?) AS lacking FROM system.parts_columns
			WHERE active AND database = ? AND table = ? GROUP BY name)
		WHERE notEmpty(lacking)`, names, db.database, table); err != nil || parts == 0 {
		return 0, err
	}
	if err := db.one(ctx, "read mutations of "+table, []any{&running}, `SELECT groupArray(command) FROM system.mutations
		WHERE database = ? AND table = ? AND NOT is_done AND NOT is_killed`, db.database, table); err != nil {
		return 0, err
	}
	var commands []string
	for _, name := range lacking {
		command := "MATERIALIZE COLUMN " + quoteName(name)
		if !slices.ContainsFunc(running, func(c string) bool {
			return strings.Contains(c, command) || strings.HasSuffix(strings.Trim(c, "()"), "MATERIALIZE COLUMN "+name)
		}) {
			commands = append(commands, command)
		}
	}
	if len(commands) == 0 {
		return parts, nil
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"mutations_sync": 0}))
	return parts, db.exec(ctx, "materialize columns of "+table, "ALTER TABLE "+quoteName(table)+" "+
		strings.Join(commands, ", "))
}
