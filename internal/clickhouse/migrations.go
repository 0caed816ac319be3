package clickhouse

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	sqlfiles "github.com/penstock/penstock/infra/clickhouse"
)

// migration is a file of statements. Each can be repeated.
type migration struct{ name, text, hash string }

// Migrate creates the database if it does not exist. It applies the files that are not recorded yet in the order of
// their names, and returns their names. The first file creates the record and is always applied.
//
// A recorded file that has changed is an error if it creates a table. If it creates a view, it is applied, because a
// view has no rows to lose. If a file's table or view is missing, that file and all later ones are applied again.
// Tables of versions before 0.1.0 are copied; progress gets a line for each step.
func Migrate(ctx context.Context, opts Options, files fs.FS, progress func(text string)) ([]string, error) {
	all, err := readMigrations(files)
	if err != nil {
		return nil, err
	}
	if err := createDatabase(ctx, opts); err != nil {
		return nil, err
	}
	db, err := Open(opts)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if err := db.apply(ctx, all[0]); err != nil {
		return nil, err
	}
	todo, err := db.pending(ctx, all, opts.Database)
	if err != nil {
		return nil, err
	}
	var applied []string
	for _, m := range todo {
		if err := db.renew(ctx, m, progress); err != nil {
			return applied, err
		}
		if err := db.conn.Exec(ctx, "INSERT INTO migrations (name, sha256) VALUES (?, ?)", m.name, m.hash); err != nil {
			return applied, fmt.Errorf("record %s: %w", m.name, class(err))
		}
		applied = append(applied, m.name)
	}
	return applied, nil
}

// Pending returns the names of the files that Migrate would apply. It changes nothing.
func Pending(ctx context.Context, opts Options, files fs.FS) (names []string, err error) {
	all, err := readMigrations(files)
	if err != nil {
		return nil, err
	}
	name := opts.Database
	opts.Database = "default" // the other may not exist yet
	db, err := Open(opts)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	todo, err := db.pending(ctx, all, name)
	for _, m := range todo {
		names = append(names, m.name)
	}
	return names, err
}

// pending are those of all that must be applied to a database, except the first.
func (db *DB) pending(ctx context.Context, all []migration, database string) ([]migration, error) {
	tables, err := db.pairs(ctx, "read tables", "SELECT name, engine FROM system.tables WHERE database = ?", database)
	if err != nil {
		return nil, err
	}
	recorded := map[string]string{}
	if _, ok := tables["migrations"]; ok {
		recorded, err = db.pairs(ctx, "read migrations", "SELECT name, toString(sha256) FROM "+quoteName(database)+
			".migrations FINAL")
		if err != nil {
			return nil, err
		}
	}
	todo, err := pending(all[1:], recorded, tables)
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", database, err)
	}
	return todo, nil
}

// HasDatabase reports whether the options' database exists.
func HasDatabase(ctx context.Context, opts Options) (bool, error) {
	name := opts.Database
	opts.Database = "default"
	db, err := Open(opts)
	if err != nil {
		return false, err
	}
	defer db.Close()
	var n uint64
	err = db.one(ctx, "look for database "+name, []any{&n}, "SELECT count() FROM system.databases WHERE name = ?", name)
	return n > 0, err
}

func createDatabase(ctx context.Context, opts Options) error {
	outside := opts
	outside.Database = "default"
	db, err := Open(outside)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+quoteName(opts.Database)); err != nil {
		return fmt.Errorf("create database %s: %w", opts.Database, class(err))
	}
	return nil
}

func readMigrations(files fs.FS) ([]migration, error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var all []migration
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		expanded, err := sqlfiles.Expand(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		sum := sha256.Sum256([]byte(expanded))
		all = append(all, migration{name, expanded, hex.EncodeToString(sum[:])})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no *.sql files to apply")
	}
	return all, nil
}

// Before 0.1.0, a table was the result of up to 13 files with four-digit names. After the last of them the tables match
// the first files with three digits.
var (
	unreleased     = regexp.MustCompile(`^\d{4}_`)
	lastUnreleased = "0020_unfinished.sql"
)

// pending returns the files to apply. recorded are hashes by file names; tables has the names of existing tables and
// views.
func pending(all []migration, recorded, tables map[string]string) ([]migration, error) {
	for name := range recorded {
		if _, ok := recorded[lastUnreleased]; !ok && unreleased.MatchString(name) {
			return nil, fmt.Errorf("it was set up by a version before 0.1.0 that lacks %s; run `penstock setup` of the last"+
				" version before 0.1.0 first, or set clickhouse.database to a new one and load the objects again", lastUnreleased)
		}
	}
	var todo []migration
	again := false
	for _, m := range all {
		was, known := recorded[m.name]
		if known && was != m.hash && (isEarlier(m.name, was) || m.isView()) {
			known = false
		}
		if known && was != m.hash {
			return nil, fmt.Errorf("%s was changed after it was applied (recorded sha256 %.12s, now %.12s); put the change"+
				" into a new file", m.name, was, m.hash)
		}
		again = again || known && !m.whole(tables)
		if !known || again {
			todo = append(todo, m)
		}
	}
	return todo, nil
}

var created = regexp.MustCompile(`CREATE (?:TABLE IF NOT EXISTS|(OR REPLACE VIEW)) (\w+)`)

// creates returns the name of the first table or view of a file.
func (m migration) creates() string {
	if found := created.FindStringSubmatch(m.text); found != nil {
		return found[2]
	}
	return ""
}

// isView reports whether a file creates a view.
func (m migration) isView() bool {
	found := created.FindStringSubmatch(m.text)
	return found != nil && found[1] != ""
}

// whole reports whether all tables and views of a file exist.
func (m migration) whole(tables map[string]string) bool {
	return !slices.ContainsFunc(created.FindAllStringSubmatch(m.text, -1), func(found []string) bool {
		_, ok := tables[found[2]]
		return !ok
	})
}

// pairs reads a query of two text columns; the first is the key.
func (db *DB) pairs(ctx context.Context, what, sql string, args ...any) (map[string]string, error) {
	all := map[string]string{}
	var key, value string
	err := db.each(ctx, what, []any{&key, &value}, func() error {
		all[key] = value
		return nil
	}, sql, args...)
	return all, err
}

func (db *DB) apply(ctx context.Context, m migration) error {
	for n, statement := range statements(m.text) {
		if err := db.conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s, statement %d: %w", m.name, n+1, class(err))
		}
	}
	return nil
}

var semicolon = regexp.MustCompile(`;[ \t]*(\n|$)`)

// statements splits a file after each semicolon at a line's end.
func statements(text string) []string {
	return slices.DeleteFunc(semicolon.Split(text, -1), func(s string) bool {
		for line := range strings.Lines(s) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "--") {
				return false
			}
		}
		return true
	})
}
