package clickhouse

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	sqlfiles "github.com/penstock/penstock/infra/clickhouse"
	"github.com/penstock/penstock/internal/llm"
)

func TestStatements(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                nil,
		"-- only; a comment;\n":           nil,
		"SELECT 1;\nSELECT 2;\n":          {"SELECT 1", "SELECT 2"},
		"SELECT ';' || 1; \t\nSELECT 2":   {"SELECT ';' || 1", "SELECT 2"},
		"-- why; so\nSELECT 1;\n\n-- b\n": {"-- why; so\nSELECT 1"},
	} {
		if diff := cmp.Diff(want, statements(text)); diff != "" && len(want)+len(statements(text)) > 0 {
			t.Errorf("%q: -want +got\n%s", text, diff)
		}
	}
}

func TestPending(t *testing.T) {
	all := []migration{{"001_a.sql", "CREATE TABLE IF NOT EXISTS a (x Int8)", "1"},
		{"002_b.sql", "CREATE OR REPLACE VIEW b AS SELECT 1", "2"},
		{"003_a_y.sql", "ALTER TABLE a ADD COLUMN IF NOT EXISTS y Int8", "3"}}
	type m = map[string]string
	released := m{"001_a.sql": "1", "002_b.sql": "2", "003_a_y.sql": "3"}
	for name, tt := range map[string]struct {
		recorded, tables m
		want             []string
		err              string
	}{
		"an empty database":      {m{}, m{"migrations": ""}, []string{"001_a.sql", "002_b.sql", "003_a_y.sql"}, ""},
		"up to date":             {released, m{"a": "", "b": ""}, nil, ""},
		"a later file is new":    {m{"001_a.sql": "1", "002_b.sql": "2"}, m{"a": "", "b": ""}, []string{"003_a_y.sql"}, ""},
		"an earlier file is new": {m{"002_b.sql": "2", "003_a_y.sql": "3"}, m{"a": "", "b": ""}, []string{"001_a.sql"}, ""},
		"a table is gone":        {released, m{"b": ""}, []string{"001_a.sql", "002_b.sql", "003_a_y.sql"}, ""},
		"a view is gone":         {released, m{"a": ""}, []string{"002_b.sql", "003_a_y.sql"}, ""},
		"a file was changed": {m{"001_a.sql": "9"}, m{"a": ""}, nil,
			"001_a.sql was changed after it was applied (recorded sha256 9, now 1)"},
		"a view was changed": {m{"001_a.sql": "1", "002_b.sql": "9", "003_a_y.sql": "3"}, m{"a": "", "b": ""},
			[]string{"002_b.sql"}, ""},
		"before the first release": {m{"0002_events.sql": "", "0020_unfinished.sql": ""}, m{"a": "", "b": ""},
			[]string{"001_a.sql", "002_b.sql", "003_a_y.sql"}, ""},
		"long before it": {m{"0002_events.sql": "", "0014_once.sql": ""}, m{"a": ""}, nil,
			"lacks 0020_unfinished.sql; run `penstock setup`"},
	} {
		todo, err := pending(all, tt.recorded, tt.tables)
		if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got error %v, want %q", name, err, tt.err)
		}
		var got []string
		for _, m := range todo {
			got = append(got, m.name)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

// Each file creates the one table or view of its name, so that the record shows which file to apply again if it is
// missing.
func TestAFileForEachTable(t *testing.T) {
	all, err := readMigrations(sqlfiles.Files)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		_, table, _ := strings.Cut(strings.TrimSuffix(m.name, ".sql"), "_")
		var got []string
		for _, found := range created.FindAllStringSubmatch(m.text, -1) {
			got = append(got, found[2])
		}
		if len(got) == 0 { // the file changes existing tables
			for _, statement := range statements(m.text) {
				if !strings.Contains(statement, "ALTER TABLE ") {
					t.Errorf("%s neither creates nor alters a table: %s", m.name, statement)
				}
			}
			continue
		}
		if diff := cmp.Diff([]string{table}, got); diff != "" {
			t.Errorf("%s creates: -want +got\n%s", m.name, diff)
		}
		for _, statement := range statements(m.text)[1:] {
			if !strings.HasPrefix(statement, "ALTER TABLE "+table+"\n    COMMENT COLUMN ") {
				t.Errorf("%s has a statement beside that which creates %s: %s", m.name, table, statement)
			}
		}
	}
	if _, err := readMigrations(fstest.MapFS{}); err == nil {
		t.Error("no files: want an error")
	}
}

func TestMigrateRefusesChangedFile(t *testing.T) {
	_, _, opts := open(t)
	changed := fstest.MapFS{}
	for _, name := range []string{"000_migrations.sql", "001_events.sql"} {
		text, err := sqlfiles.Files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		changed[name] = &fstest.MapFile{Data: text}
	}
	changed["001_events.sql"].Data = append(changed["001_events.sql"].Data, "-- more\n"...)
	if _, err := Migrate(t.Context(), opts, changed, func(string) {}); err == nil ||
		!strings.Contains(err.Error(), "001_events.sql was changed") {
		t.Errorf("got %v", err)
	}
}

// A dropped table or view is created again.
func TestMigrateCreatesWhatIsGone(t *testing.T) {
	db, _, opts := open(t)
	want := schema(t, db)
	for _, statement := range []string{"DROP VIEW load_failures", "DROP TABLE loads"} {
		if err := db.conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	announced, err := Pending(t.Context(), opts, sqlfiles.Files)
	if err != nil {
		t.Error(err)
	}
	applied, err := Migrate(t.Context(), opts, sqlfiles.Files, func(string) {})
	if err != nil || len(applied) == 0 || applied[0] != "003_loads.sql" {
		t.Errorf("applied %v, %v", applied, err)
	}
	if diff := cmp.Diff(announced, applied); diff != "" {
		t.Errorf("applied, -announced +applied\n%s", diff)
	}
	if diff := cmp.Diff(want, schema(t, db)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if again, err := Pending(t.Context(), opts, sqlfiles.Files); len(again) > 0 || err != nil {
		t.Errorf("after it, got %q to apply, %v; want nothing", again, err)
	}
}

// Pending looks at a database that does not exist, and does not create it.
func TestPendingOfNothing(t *testing.T) {
	db, _, opts := open(t)
	opts.Database += "_absent"
	all, err := readMigrations(sqlfiles.Files)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Pending(t.Context(), opts, sqlfiles.Files)
	if err != nil || len(got) != len(all)-1 || got[0] != "001_events.sql" {
		t.Errorf("got %q, %v; want all %d files but the first", got, err, len(all))
	}
	var n uint64
	if err := db.conn.QueryRow(t.Context(), "SELECT count() FROM system.databases WHERE name = ?",
		opts.Database).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d databases %s, %v; want none", n, opts.Database, err)
	}
}

// Another version's views are replaced by this version's.
func TestMigrateReplacesViews(t *testing.T) {
	_, _, opts := open(t)
	db, _ := setUp(t, opts)
	want := schema(t, db)
	all, err := readMigrations(sqlfiles.Files)
	if err != nil {
		t.Fatal(err)
	}
	var views []string
	for _, m := range all {
		if !m.isView() {
			continue
		}
		views = append(views, m.name)
		if err := db.apply(t.Context(), migration{text: "CREATE OR REPLACE VIEW " + m.creates() + " AS SELECT 1 AS x;\n" +
			"INSERT INTO migrations VALUES ('" + m.name + "', repeat('0', 64), now64(3) + 1)"}); err != nil {
			t.Fatal(err)
		}
	}
	db, applied := setUp(t, opts)
	if diff := cmp.Diff(views, applied); diff != "" || len(views) < 10 {
		t.Errorf("files applied: -want +got\n%s", diff)
	}
	if diff := cmp.Diff(want, schema(t, db)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// schema returns the DDL of all tables and views by name.
func schema(t *testing.T, db *DB) map[string]string {
	t.Helper()
	all := map[string]string{}
	tables, err := db.pairs(t.Context(), "list tables", "SELECT name, '' FROM system.tables WHERE database = ?",
		db.database)
	if err != nil {
		t.Fatal(err)
	}
	for name := range tables {
		create := query[string](t, db, "SHOW CREATE TABLE "+quoteName(name))
		all[name] = strings.NewReplacer(quoteName(db.database)+".", "", db.database+".", "").Replace(create)
	}
	return all
}

// setUp does what `penstock setup` does to a database.
func setUp(t *testing.T, opts Options) (*DB, []string) {
	t.Helper()
	applied, err := Migrate(t.Context(), opts, sqlfiles.Files, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	db, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.SetComputed(t.Context(), "events", callColumns()); err != nil {
		t.Fatal(err)
	}
	if _, err := db.SetView(t.Context(), View(llm.CallsView())); err != nil {
		t.Fatal(err)
	}
	if _, err := db.MirrorColumns(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db, applied
}

// contents returns all rows of a table as text.
func contents(t *testing.T, db *DB, table string) string {
	t.Helper()
	return query[string](t, db, fmt.Sprintf(
		"SELECT toString(groupArray(t)) FROM (SELECT formatRow('JSONEachRow', *) AS t FROM %s ORDER BY t)", table))
}
