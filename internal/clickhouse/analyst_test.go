package clickhouse

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/servers"
	"github.com/penstock/penstock/tools/devstack"
)

func TestAnalystStatements(t *testing.T) {
	got := Analyst{"chat", []string{"a", "b'"}}.statements("d", []string{"own"})
	want := []string{
		"CREATE ROLE IF NOT EXISTS `chat`",
		"ALTER ROLE `chat` SETTINGS readonly = 2, final = 1, max_execution_time = 60 MIN 1 MAX 60, " +
			"max_memory_usage = 4294967296 MIN 1 MAX 4294967296",
		"REVOKE ALL ON `d`.* FROM `chat`",
		"GRANT SELECT ON `d`.`events_once` TO `chat`",
		"CREATE ROW POLICY OR REPLACE `chat` ON `d`.`events_once` FOR SELECT USING project IN ('a', 'b\\'') TO `chat`",
	}
	if diff := cmp.Diff(want, got[:len(want)]); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, table := range []string{"`d`.`events`", "`d`.`daily_users`", "`d`.`own`"} {
		if strings.Contains(strings.Join(got, "\n"), table) {
			t.Errorf("a role of some projects reads the table %s", table)
		}
	}
	all := strings.Join(Analyst{Role: "all"}.statements("d", []string{"own"}), "\n")
	for _, want := range []string{"GRANT SELECT ON `d`.`events` TO `all`", "GRANT SELECT ON `d`.`own` TO `all`",
		"DROP ROW POLICY IF EXISTS `all` ON `d`.`sessions`"} {
		if !strings.Contains(all, want) {
			t.Errorf("of all projects: no %s in\n%s", want, all)
		}
	}
	for _, wrong := range []Analyst{{Role: ""}, {Role: "a b"}, {Role: "a", Projects: []string{""}}} {
		if wrong.Check() == nil {
			t.Errorf("%+v was accepted", wrong)
		}
	}
}

// analystUser returns a user with an analyst's rights, for a server that stores no roles: the grants and policies of
// statements in the format of users.xml.
func analystUser(database string, statements []string) string {
	var grants, filters strings.Builder
	for _, s := range statements {
		words := strings.NewReplacer("`", "").Replace(s)
		if grant, ok := strings.CutPrefix(words, "GRANT SELECT ON "); ok {
			fmt.Fprintf(&grants, "<query>GRANT SELECT ON %s</query>", strings.TrimSuffix(grant, " TO ann"))
		}
		if policy, ok := strings.CutPrefix(words, "CREATE ROW POLICY OR REPLACE ann ON "+database+"."); ok {
			table, condition, _ := strings.Cut(policy, " FOR SELECT USING ")
			fmt.Fprintf(&filters, "<%s><filter>%s</filter></%[1]s>", table, strings.TrimSuffix(condition, " TO ann"))
		}
	}
	return "<ann><password>ann-secret</password><networks><ip>127.0.0.1</ip></networks><profile>ann</profile>" +
		"<quota>default</quota><grants>" + grants.String() + "</grants><databases><" + database + ">" + filters.String() +
		"</" + database + "></databases></ann>"
}

const analystProfile = "<ann><readonly>2</readonly><final>1</final><max_execution_time>60</max_execution_time>" +
	"<constraints><max_execution_time><min>1</min><max>60</max></max_execution_time></constraints></ann>"

// An analyst of the project chat sees chat alone, through everything that it may read, and reaches nothing else.
func TestAnalystSeesItsProject(t *testing.T) {
	a := Analyst{Role: "ann", Projects: []string{"chat"}}
	c := servers.ClickHouseWith(t, devstack.ClickHouseOptions{Users: analystUser("penstock", a.statements("penstock", nil)),
		Profiles: analystProfile})
	opts := Options{Addresses: []string{c.Addr()}, Database: "penstock", User: c.User(), Password: c.Password(),
		Timeout: 30 * time.Second, Conns: 2}
	db, _ := setUp(t, opts)
	for i, project := range []string{"chat", "game", "chat", "game"} {
		e := event(i, `{"price":2,"model":"m","input_tokens":5}`)
		e.Project, e.Name = []byte(project), []byte([]string{"llm_call", "purchase"}[i/2])
		insert(t, db, fmt.Sprint("a", i), e)
		e.Properties = []byte(`{"stage":"receiver","message":"m"}`)
		if err := insertEvents(t.Context(), db, "errors", fmt.Sprint("e", i), "errors/o", 0, []pipeline.Event{e}); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.SetDefiner(t.Context(), Readable); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"daily_users", "daily_sessions", "llm_daily"} {
		refreshDue(t, db, shipped(t, name))
	}
	opts.User, opts.Password = "ann", "ann-secret"
	ann, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ann.Close() })
	for _, name := range Readable {
		from := name
		switch name {
		case "user_timeline":
			from += "(project = 'chat', user = 'u')"
		case "session_events":
			from += "(project = 'chat', session = 's')"
		case "property_catalogue", "freshness": // filled in by loaders; of this week
			from = "(SELECT project FROM " + name + " UNION ALL SELECT 'chat')"
		}
		if got := query[string](t, ann, "SELECT arrayStringConcat(arraySort(groupUniqArray(toString(project))), ' ') FROM "+from); got != "chat" {
			t.Errorf("%s shows the projects %q, want chat", name, got)
		}
		if name == "user_timeline" || name == "session_events" {
			continue
		}
		if n := query[uint64](t, ann, "SELECT count() FROM merge('penstock', '^"+name+"$') WHERE project != 'chat'"); n != 0 {
			t.Errorf("merge() shows %d rows of other projects of %s", n, name)
		}
	}
	for _, sql := range []string{
		"SELECT count() FROM user_timeline(project = 'game', user = 'u')",
		"SELECT count() FROM session_events(project = 'game', session = 's')",
		"SELECT count() FROM events_once WHERE project = 'game'",
	} {
		if n := query[uint64](t, ann, sql); n != 0 {
			t.Errorf("%s: %d rows", sql, n)
		}
	}
	for _, sql := range []string{
		"SELECT count() FROM events", "SELECT count() FROM errors", "SELECT count() FROM loads", "SELECT count() FROM llm_prices",
		"SELECT count() FROM changed_days", "SELECT count() FROM rollup_days", "SELECT count() FROM migrations",
		"SELECT count() FROM property_counts", "SELECT count() FROM mergeTreeIndex('penstock', 'events')",
		"SELECT count() FROM mergeTreeIndex('penstock', 'daily_users')", "SELECT count() FROM daily_users",
		"INSERT INTO events (name) VALUES ('x')", "ALTER TABLE daily_users DELETE WHERE 1", "DROP VIEW sessions",
		"TRUNCATE TABLE daily_users", "CREATE TABLE x (a UInt8) ENGINE = Memory", "CREATE VIEW x AS SELECT 1",
		"SELECT * FROM file('/etc/passwd', 'LineAsString')", "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
		"SELECT * FROM s3('http://127.0.0.1:1/b/k', 'LineAsString')", "SELECT * FROM remote('127.0.0.1', 'penstock', 'events')",
		"SYSTEM SHUTDOWN", "SET max_execution_time = 0", "SELECT 1 SETTINGS max_execution_time = 0", "SET readonly = 0",
	} {
		if err := ann.conn.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s: it was allowed", sql)
		}
	}
}

// The server knows each statement, also where it cannot store roles.
func TestAnalystStatementsAreSQL(t *testing.T) {
	db, _, _ := open(t)
	statements := append(Analyst{"ann", []string{"chat"}}.statements("penstock-test", []string{"daily_users"}),
		Analyst{Role: "ann"}.statements("penstock-test", []string{"daily_users"})...)
	for _, s := range statements {
		if _, err := db.conn.Query(t.Context(), "EXPLAIN AST "+s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, part := range []string{"make role ann: ", "stores no roles", "<local_directory>", "use another server"} {
		if _, err := db.SetAnalyst(t.Context(), Analyst{Role: "ann"}, nil); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("a server without access storage: error %v, want %q", err, part)
		}
	}
}
