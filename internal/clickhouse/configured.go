package clickhouse

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/penstock/penstock/internal/clickhouse/native"
)

// What `setup` makes of the configuration, beside the files.

// Price is what calls of models cost, in USD per million tokens.
type Price struct {
	Model    string // a `*` stands for anything
	Provider string // empty: any
	Input    float64
	Cached   *float64 // nil: as Input
	Output   float64
}

// SetPrices makes the list that of llm_prices, whole, and tells whether it was another.
func (db *DB) SetPrices(ctx context.Context, prices []Price) (changed bool, err error) {
	rows, err := db.conn.Query(ctx, "SELECT model, provider, input, cached_input, output FROM llm_prices ORDER BY position")
	if err != nil {
		return false, fmt.Errorf("read llm_prices: %w", class(err))
	}
	defer rows.Close()
	var was []Price
	for rows.Next() {
		var p Price
		if err := rows.Scan(&p.Model, &p.Provider, &p.Input, &p.Cached, &p.Output); err != nil {
			return false, fmt.Errorf("read llm_prices: %w", class(err))
		}
		was = append(was, p)
	}
	if err := rows.Err(); err != nil {
		return false, fmt.Errorf("read llm_prices: %w", class(err))
	}
	same := func(a, b Price) bool {
		cached := a.Cached == b.Cached || a.Cached != nil && b.Cached != nil && *a.Cached == *b.Cached
		a.Cached, b.Cached = nil, nil
		return a == b && cached
	}
	if slices.EqualFunc(was, prices, same) {
		return false, nil
	}
	if err := db.conn.Exec(ctx, "TRUNCATE TABLE llm_prices"); err != nil {
		return false, fmt.Errorf("empty llm_prices: %w", class(err))
	}
	if len(prices) == 0 {
		return true, nil
	}
	batch, err := db.conn.PrepareBatch(ctx, "INSERT INTO llm_prices (model, provider, input, cached_input, output, position)")
	if err != nil {
		return false, fmt.Errorf("write llm_prices: %w", class(err))
	}
	defer batch.Abort() // nothing, where it was sent
	for i, p := range prices {
		if err := batch.Append(p.Model, p.Provider, p.Input, p.Cached, p.Output, uint32(i)); err != nil {
			return false, fmt.Errorf("write llm_prices: %w", err)
		}
	}
	if err := batch.Send(); err != nil {
		return false, fmt.Errorf("write llm_prices: %w", class(err))
	}
	return true, nil
}

// SetView makes the view that of the query, and reports whether it was another.
// The hash of the query is the view's comment, for the server stores queries in
// its own words.
func (db *DB) SetView(ctx context.Context, name, query string) (changed bool, err error) {
	sum := sha256.Sum256([]byte(query))
	note := "penstock: sha256 " + hex.EncodeToString(sum[:])
	var was string
	err = db.conn.QueryRow(ctx, "SELECT ifNull(anyOrNull(comment), '') FROM (SELECT comment FROM system.tables WHERE database = ? AND name = ?)", db.database, name).Scan(&was)
	if err != nil {
		return false, fmt.Errorf("read the comment of view %s: %w", name, class(err))
	}
	if was == note {
		return false, nil
	}
	if err := db.conn.Exec(ctx, "CREATE OR REPLACE VIEW "+quoteName(name)+" AS "+query+" COMMENT "+quoteText(note)); err != nil {
		return false, fmt.Errorf("replace view %s: %w", name, class(err))
	}
	return true, nil
}

// Column is one of a table's that is made of a property.
type Column struct {
	Name string
	Path string // below properties: keys joined by dots
	Type string // one of ColumnTypes
}

// ColumnTypes are what a Column may be; in the table each is nullable.
var ColumnTypes = []string{"String", "LowCardinality(String)", "Int64", "Float64", "Bool", "DateTime64(3)", "UUID"}

var columnName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// Check refuses a column that no table could have.
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

// note stands at the column in the table, to know it again.
func (c Column) note() string { return fmt.Sprintf("penstock: properties.%s as %s", c.Path, c.Type) }

// definition is the column's, of an expression that no value makes throw: what
// does not fit is NULL.
func (c Column) definition() string {
	keys := strings.Split(c.Path, ".")
	for i := range keys {
		keys[i] = quoteName(strings.ReplaceAll(keys[i], `\`, `\\`))
	}
	path := "properties." + strings.Join(keys, ".")
	kind, value := "Nullable("+c.Type+")", "accurateCastOrNull("+path+", '"+c.Type+"')"
	switch c.Type {
	case "String", "LowCardinality(String)": // an array would give its text
		value = "if(startsWith(dynamicType(" + path + "), 'Array'), NULL, accurateCastOrNull(" + path + ", 'String'))"
		if c.Type != "String" {
			kind = "LowCardinality(Nullable(String))"
			value = "CAST(" + value + ", '" + kind + "')"
		}
	case "Int64", "Float64": // true would give 1
		value = "if(dynamicType(" + path + ") = 'Bool', NULL, " + value + ")"
	case "DateTime64(3)": // as an event's own: RFC 3339, or seconds or milliseconds since 1970
		kind = "Nullable(DateTime64(3, 'UTC'))"
		number := "coalesce(" + path + ".:Float64, toFloat64(" + path + ".:Int64))"
		value = "coalesce(parseDateTime64BestEffortOrNull(" + path + ".:String, 3, 'UTC'), fromUnixTimestamp64Milli(accurateCastOrNull(" +
			"multiIf(" + number + " BETWEEN -2208988800 AND 10413791999, round(" + number + " * 1000), " + number + " BETWEEN 1e11 AND 10413791999999, round(" + number + "), NULL), 'Int64'), 'UTC'))"
	}
	return quoteName(c.Name) + " " + kind + " MATERIALIZED " + value + " COMMENT " + quoteText(c.note())
}

func quoteText(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// AddColumns adds those that a table does not have, and returns their names. One
// that is there and was another, or is nobody's here, is an error; nothing is
// changed or dropped, ever.
func (db *DB) AddColumns(ctx context.Context, table string, columns []Column) (added []string, err error) {
	rows, err := db.conn.Query(ctx, "SELECT name, comment FROM system.columns WHERE database = ? AND table = ?", db.database, table)
	if err != nil {
		return nil, fmt.Errorf("read columns of %s: %w", table, class(err))
	}
	defer rows.Close()
	notes := map[string]string{}
	for rows.Next() {
		var name, note string
		if err := rows.Scan(&name, &note); err != nil {
			return nil, fmt.Errorf("read columns of %s: %w", table, class(err))
		}
		notes[name] = note
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read columns of %s: %w", table, class(err))
	}
	var missing []Column
	for _, c := range columns {
		switch note, there := notes[c.Name]; {
		case !there:
			missing = append(missing, c)
		case !strings.HasPrefix(note, "penstock: "):
			return nil, fmt.Errorf("column %s of %s was not made by setup: choose another name", c.Name, table)
		case note != c.note():
			return nil, fmt.Errorf("column %s of %s is %s, and now wanted as %s: choose another name, or, where nobody needs it as it is, run ALTER TABLE %s.%s DROP COLUMN %s, and setup again",
				c.Name, table, strings.TrimPrefix(note, "penstock: "), strings.TrimPrefix(c.note(), "penstock: "), quoteName(db.database), quoteName(table), quoteName(c.Name))
		}
	}
	for _, c := range missing {
		if err := db.conn.Exec(ctx, "ALTER TABLE "+quoteName(table)+" ADD COLUMN IF NOT EXISTS "+c.definition()); err != nil {
			return added, fmt.Errorf("add column %s to %s: %w", c.Name, table, class(err))
		}
		added = append(added, c.Name)
	}
	return added, nil
}
