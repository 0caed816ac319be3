package app

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	sqlfiles "github.com/penstock/penstock/infra/clickhouse"
	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/provision"
	"github.com/penstock/penstock/internal/testing/servers"
)

// A dry run names columns and rollups of the configuration, and changes nothing: without a database, and with one.
func TestDryRunOfTables(t *testing.T) {
	c := servers.ClickHouse(t)
	cfg := config.Default()
	cfg.ClickHouse.Addresses, cfg.ClickHouse.Database = []string{c.Addr()}, "dry"
	cfg.ClickHouse.User, cfg.ClickHouse.Password = c.User(), c.Password()
	cfg.ClickHouse.Columns = []config.Column{{Name: "level", Type: "Int64"}}
	cfg.ClickHouse.Rollups = []config.Rollup{{Name: "mine", Key: "project",
		Select: "SELECT {day:Date} AS day, project, count() AS events FROM events GROUP BY project"}}
	dryRun := func() (lines []string) {
		t.Helper()
		plan := &provision.Plan{DryRun: true, Print: func(s provision.Step) {
			if !strings.Contains(s.Text, "001_events.sql") {
				lines = append(lines, s.Subject+" "+s.Text)
			}
		}}
		if err := planTables(t.Context(), cfg, plan); err != nil {
			t.Fatal(err)
		}
		return lines
	}
	want := []string{"columns dry run: would have added level to events", "rollups dry run: would have created mine"}
	if diff := cmp.Diff(want, dryRun()); diff != "" {
		t.Errorf("without a database (-want +got):\n%s", diff)
	}
	opts := TableOptions(cfg.ClickHouse, 1)
	if _, err := clickhouse.Migrate(t.Context(), opts, sqlfiles.Files, func(string) {}); err != nil {
		t.Fatal(err)
	}
	want = append([]string{"tables dry: no migration to apply"}, want...)
	for range 2 { // the first changes nothing
		if diff := cmp.Diff(want, dryRun()); diff != "" {
			t.Errorf("with new tables (-want +got):\n%s", diff)
		}
	}
	var out strings.Builder
	if err := setupTables(t.Context(), cfg, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	want = []string{"tables dry: no migration to apply", "columns events: columns and rollups are as configured"}
	if diff := cmp.Diff(want, dryRun()); diff != "" {
		t.Errorf("after setup (-want +got):\n%s", diff)
	}
}
