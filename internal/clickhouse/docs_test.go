package clickhouse

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/docs"
)

// sample returns a month of a game's and a chat's events, as the documents assume.
func sample() (all []pipeline.Event) {
	now := time.Now().UTC().Add(-10 * time.Minute)
	add := func(project, name, user, session string, at time.Time, properties string) {
		i := len(all)
		all = append(all, pipeline.Event{ID: pipeline.UUIDv5([]byte(project), fmt.Append(nil, i)), Project: []byte(project),
			Name: []byte(name), Timestamp: at.UnixMilli(), ReceivedAt: at.UnixMilli() + 2000, UserID: []byte(user),
			SessionID: []byte(session), Receiver: []byte("r"), Seq: uint64(i), Row: uint32(i), Properties: []byte(properties),
			Context: []byte(`{}`)})
	}
	for _, day := range []int{0, 1, 2, 7, 8, 28} {
		at := now.AddDate(0, 0, -day)
		for u := range 6 {
			if day%7 > u && day > 0 {
				continue
			}
			user, session := fmt.Sprintf("u%d", u), fmt.Sprintf("s%d-%d", u, day)
			country := []string{"DE", "IN", "US"}[u%3]
			step := func(minutes int, name, more string) {
				add("game", name, user, session, at.Add(time.Duration(minutes)*time.Minute-2*time.Hour),
					fmt.Sprintf(`{"country":%q,"platform":"ios","app_version":"1.%d","level":%d%s}`, country, u, u+day, more))
			}
			step(0, "session_start", "")
			step(1, "level_start", "")
			step(5, "level_complete", `,"score":1200`)
			if u < 3 {
				step(9, "purchase", []string{`,"price":9.99`, `,"price":"7.49"`, `,"price":20`}[u])
			}
			for call := range 2 {
				add("chat", "llm_call", user, fmt.Sprintf("c-%d", u), at.Add(-time.Duration(10+call)*time.Minute),
					fmt.Sprintf(`{"model":%q,"provider":"openai","input_tokens":100,"cached_tokens":%d,"output_tokens":50,`+
						`"latency_ms":900,"first_token_ms":90,"input":"hi","output":"ho"%s}`, []string{"gpt-4o", "other"}[call], 10*u,
						[]string{`,"cost_usd":0.01`, `,"status":"error","error":"too long"`}[call]))
			}
		}
	}
	return all
}

// documented returns a database with the sample, rollups and catalogue.
func documented(t *testing.T) *DB {
	t.Helper()
	_, _, opts := open(t)
	opts.Database = "penstock"
	db, _ := setUp(t, opts)
	if _, _, err := db.SetFunctions(t.Context(), Functions); err != nil {
		t.Fatal(err)
	}
	events := sample()
	for day, these := range byDay(events) {
		insert(t, db, "sample "+day, these...)
		insert(t, db, "resend "+day, these[:min(5, len(these))]...)
	}
	failure := event(1, `{"stage":"receiver","message":"no name"}`)
	failure.Project, failure.Name, failure.Timestamp = []byte("game"), []byte("missing_name"), time.Now().UnixMilli()
	if err := insertEvents(t.Context(), db, "errors", "e", "errors/o", 0, []pipeline.Event{failure}); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		// Counts as a loader writes them.
		`INSERT INTO property_counts (project, name, path, type, events, first_seen, last_seen, example) VALUES
			('game', 'purchase', 'price', 'Float64', 20, now(), now(), '9.99'),
			('game', 'purchase', 'price', 'String', 10, now(), now(), '"7.49"')`,
	} {
		if err := db.conn.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"daily_users", "daily_sessions", "llm_daily"} {
		refreshDue(t, db, shipped(t, name))
	}
	return db
}

// byDay splits events by day, because an insert has one partition.
func byDay(events []pipeline.Event) map[string][]pipeline.Event {
	days := map[string][]pipeline.Event{}
	for _, e := range events {
		day := pipeline.Millis(e.Timestamp).Format(time.DateOnly)
		days[day] = append(days[day], e)
	}
	return days
}

// Each SQL statement of the pages runs. Those in the guides return rows.
func TestStatementsOfPages(t *testing.T) {
	db := documented(t)
	found := map[string]int{}
	err := filepath.WalkDir("../../docs", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".md" {
			return err
		}
		for _, b := range docs.Blocks(t, path) {
			if b.Language != "sql" || b.NotRun != "" {
				continue
			}
			for _, s := range statements(b.Text) {
				page := filepath.Base(path)
				found[page]++
				rows, err := db.rowsOf(t, s)
				if err != nil {
					t.Errorf("%s:%d: %v\n%s", page, b.Line, err, s)
				} else if rows == 0 && (page == "analytics.md" || page == "llm.md") && !mayBeEmpty(s) {
					t.Errorf("%s:%d: no rows\n%s", page, b.Line, s)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if found["analytics.md"] < 10 || found["llm.md"] < 10 || len(found) < 8 {
		t.Errorf("statements of pages: %v", found)
	}
}

// mayBeEmpty reports whether a statement checks that work is finished.
func mayBeEmpty(statement string) bool { return strings.Contains(statement, "system.mutations") }

// onlyParsed matches statements that need a bucket, or change tables or rights.
var onlyParsed = regexp.MustCompile(`s3\(|^\s*(ALTER|CREATE USER|GRANT) `)

// rowsOf counts the rows that a statement returns.
func (db *DB) rowsOf(t *testing.T, statement string) (n int, err error) {
	if onlyParsed.MatchString(statement) {
		statement = "EXPLAIN AST " + statement
	}
	rows, err := db.conn.Query(t.Context(), statement)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	if len(rows.Columns()) == 0 {
		return 0, fmt.Errorf("it returns no columns")
	}
	for rows.Next() {
		n++
	}
	return n, rows.Err()
}
