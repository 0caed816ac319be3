package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Readable are the views for people. Each has a column project.
var Readable = []string{
	"events_once", "errors_once", "user_timeline", "session_events", "sessions", "users_by_day", "purchases",
	"error_overview", "freshness", "duplicates", "llm_calls", "llm_by_day", "property_catalogue",
}

// Analyst is a read-only role.
type Analyst struct {
	Role     string
	Projects []string // whose rows it may see; empty: all
}

// Limits of an analyst's query. Analysts cannot raise them.
const (
	analystSeconds = 60
	analystMemory  = 4 << 30
)

// Check rejects an invalid role name, and an empty project.
func (a Analyst) Check() error {
	if !columnName.MatchString(a.Role) {
		return fmt.Errorf("role %q: want letters, digits and underscores, no digit first, 64 at most", a.Role)
	}
	if slices.Contains(a.Projects, "") {
		return fmt.Errorf("role %s: a project is empty", a.Role)
	}
	return nil
}

// settings are the role's settings. readonly = 2 lets BI tools set what they need. final makes FROM events mean FROM
// events FINAL.
func (a Analyst) settings() string {
	return fmt.Sprintf("readonly = 2, final = 1, max_execution_time = %d MIN 1 MAX %[1]d, "+
		"max_memory_usage = %d MIN 1 MAX %[2]d", analystSeconds, int64(analystMemory))
}

// grants returns what the role may read. A role for some projects may read only views: the table function
// mergeTreeIndex shows keys of all projects to anyone who can read a table, whatever its row policies say.
func (a Analyst) grants(own []string) []string {
	if len(a.Projects) > 0 {
		return Readable
	}
	return slices.Concat(Readable, []string{"events", "daily_users", "daily_sessions", "llm_daily"}, own)
}

// statements bring the role to its wanted state from any earlier one.
func (a Analyst) statements(database string, own []string) []string {
	role := quoteName(a.Role)
	on := func(table string) string { return quoteName(database) + "." + quoteName(table) }
	all := []string{
		"CREATE ROLE IF NOT EXISTS " + role,
		"ALTER ROLE " + role + " SETTINGS " + a.settings(),
		"REVOKE ALL ON " + quoteName(database) + ".* FROM " + role,
	}
	projects := make([]string, len(a.Projects))
	for i, p := range a.Projects {
		projects[i] = quoteText(p)
	}
	for _, table := range a.grants(own) {
		all = append(all, "GRANT SELECT ON "+on(table)+" TO "+role)
		if len(projects) == 0 {
			all = append(all, "DROP ROW POLICY IF EXISTS "+role+" ON "+on(table))
			continue
		}
		all = append(all, "CREATE ROW POLICY OR REPLACE "+role+" ON "+on(table)+" FOR SELECT USING project IN ("+
			strings.Join(projects, ", ")+") TO "+role)
	}
	return all
}

// SetAnalyst creates or updates the role, and returns the statements that it ran. own are further tables for a role of
// all projects.
func (db *DB) SetAnalyst(ctx context.Context, a Analyst, own []string) ([]string, error) {
	if err := db.storesRoles(ctx); err != nil {
		return nil, fmt.Errorf("make role %s: %w", a.Role, err)
	}
	statements := a.statements(db.database, own)
	for _, s := range statements {
		err := db.exec(ctx, "make role "+a.Role, s)
		if code, said := codeOf(err); said && code == accessDenied {
			return nil, fmt.Errorf("%w; grant the user %s ROLE ADMIN, CREATE ROLE, ALTER ROLE and CREATE ROW POLICY ON *.*, "+
				"and SELECT ON %s.* WITH GRANT OPTION", err, db.opts.User, quoteName(db.database))
		}
		if err != nil {
			return nil, err
		}
	}
	return statements, nil
}

const accessDenied = 497 // ACCESS_DENIED

// storesRoles returns an error if the server has only users from a file. The server says so only to users who may
// create roles.
func (db *DB) storesRoles(ctx context.Context) error {
	var directories uint64
	err := db.one(ctx, "read system.user_directories", []any{&directories},
		"SELECT count() FROM system.user_directories WHERE type NOT IN ('users_xml', 'ldap')")
	if code, said := codeOf(err); said && code == accessDenied {
		return nil // the statements will show
	}
	if err == nil && directories == 0 {
		return errors.New("this ClickHouse stores no roles: user_directories of its configuration has users_xml alone. " +
			"Add <local_directory><path>/var/lib/clickhouse/access/</path></local_directory> there, and restart it. " +
			"The ClickHouse of `penstock dev` cannot store roles: use another server")
	}
	return err
}

// SetDefiner lets the views read with the rights of their creator, so that a grant on the view is enough.
func (db *DB) SetDefiner(ctx context.Context, views []string) error {
	created, err := db.pairs(ctx, "read views",
		"SELECT name, create_table_query FROM system.tables WHERE database = ? AND engine = 'View'", db.database)
	if err != nil {
		return err
	}
	for _, view := range views {
		if query, exists := created[view]; exists && !strings.Contains(query, "SQL SECURITY DEFINER") {
			if err := db.exec(ctx, "set the definer of view "+view, "ALTER TABLE "+quoteName(view)+
				" MODIFY DEFINER = CURRENT_USER SQL SECURITY DEFINER"); err != nil {
				return err
			}
		}
	}
	return nil
}
