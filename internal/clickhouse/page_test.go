package clickhouse

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/reference/tables.md")

const tablesPage = "../../docs/reference/tables.md"

// The page of tables matches the server: tables, views, columns and comments.
func TestTablesPage(t *testing.T) {
	_, _, opts := open(t)
	db, _ := setUp(t, opts)
	page := tablesText(t, db)
	if *update {
		if err := os.WriteFile(tablesPage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(tablesPage)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(page, string(got)); diff != "" {
		t.Errorf("docs/reference/tables.md is out of date (-server +page);"+
			" run go test ./internal/clickhouse -run TablesPage -update\n%s", diff)
	}
}

func tablesText(t *testing.T, db *DB) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`# Tables and views

<!-- Written by go test ./internal/clickhouse -run TablesPage -update. Do not edit. -->

` + "`penstock setup`" + ` creates them. [Analytics](../guides/analytics.md) shows how to query them. [LLM calls](../guides/llm.md#columns)
has more about the view llm_calls.

`)
	rows, err := db.conn.Query(t.Context(), "SELECT name, engine, replaceRegexpOne(comment, $1, '') FROM system.tables"+
		" WHERE database = currentDatabase() ORDER BY engine LIKE '%View' DESC, name", computedNote)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name, engine, comment string
		if err := rows.Scan(&name, &engine, &comment); err != nil {
			t.Fatal(err)
		}
		if comment == "" {
			t.Errorf("%s has no comment", name)
		}
		fmt.Fprintf(&b, "## %s\n\n%s.", name, plainComment(comment))
		if !strings.HasSuffix(engine, "View") {
			fmt.Fprintf(&b, " Engine: `%s`.", engine)
		}
		b.WriteString("\n\n")
		writeColumns(t, db, &b, name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// parameterized views have no columns in system.columns, because they depend on the parameters.
var parameterized = map[string]string{"user_timeline": "`timestamp`, `name`, `session_id`, `properties`, `event_id`, `user_id`, `project`",
	"session_events": "`timestamp`, `name`, `user_id`, `properties`, `event_id`, `session_id`, `project`"}

// writeColumns writes a table's columns.
func writeColumns(t *testing.T, db *DB, b *strings.Builder, table string) {
	t.Helper()
	if columns := parameterized[table]; columns != "" {
		fmt.Fprintf(b, "Columns: %s, as in `events_once`.\n\n", columns)
		return
	}
	rows, err := db.conn.Query(t.Context(), "SELECT name, type, replaceRegexpOne(comment, $2, '') FROM system.columns"+
		" WHERE database = currentDatabase() AND table = $1 ORDER BY position", table, computedNote)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for first := true; rows.Next(); first = false {
		var name, kind, comment string
		if err := rows.Scan(&name, &kind, &comment); err != nil {
			t.Fatal(err)
		}
		if comment == "" {
			t.Errorf("column %s of %s has no comment", name, table)
		}
		if first {
			b.WriteString("| column | type | meaning |\n|---|---|---|\n")
		}
		fmt.Fprintf(b, "| `%s` | `%s` | %s |\n", name, kind, plainComment(comment))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	b.WriteString("\n")
}

// plainComment returns a comment as text for a table cell.
func plainComment(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "*", `\*`, "<", `\<`).Replace(strings.TrimSuffix(s, "."))
}
