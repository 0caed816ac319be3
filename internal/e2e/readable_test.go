package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/traffic"
	"github.com/penstock/penstock/tools/devstack"
)

const duckdb = "@duckdb/node-api@1.5.6-r.1"

const duckScript = `
const { DuckDBInstance } = require('@duckdb/node-api');
(async () => {
  const c = await (await DuckDBInstance.create(':memory:')).connect();
  const r = await c.runAndReadAll(process.argv[1]);
  console.log(r.getRowsJson().map(row => row.join(' ')).join('\n'));
})().catch(e => { console.error(e); process.exit(1); });
`

// duckDB installs DuckDB once, by npm, beside what else the tests need.
func duckDB(t *testing.T) (dir string) {
	t.Helper()
	cache, err := devstack.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(cache, strings.NewReplacer("@", "", "/", "-").Replace(duckdb))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	temp, err := os.MkdirTemp(cache, "duckdb-*")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(temp)
	if out, err := exec.CommandContext(t.Context(), "npm", "install", "--no-fund", "--no-audit", "--prefix", temp,
		duckdb).CombinedOutput(); err != nil {
		t.Fatalf("npm install %s: %v\n%s", duckdb, err, out)
	}
	if err := os.Rename(temp, dir); err != nil && !os.IsExist(err) {
		if _, there := os.Stat(dir); there != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Objects are readable without Penstock: DuckDB reads the typed columns and the rest, and counts the table's rows.
func TestObjectsReadByDuckDB(t *testing.T) {
	t.Parallel()
	const total = 6000
	s := newStack(t)
	r := s.start("r", "receive", "PENSTOCK_BATCHER_ROLL_AGE=1h", "PENSTOCK_BATCHER_FORMAT=parquet")
	s.start("l", "load")
	var sent traffic.Sent
	if err := traffic.Run(t.Context(), traffic.NewClient(r.URL+"/v1/events", key, 2), "readable", total, 500, 2, 0,
		&sent); err != nil {
		t.Fatal(err)
	}
	r.term()
	s.rows("events", total)
	objectKey := one[string](s, "SELECT key FROM loads FINAL")
	sums := one[string](s,
		"SELECT concat(count(), ' ', sum(properties.score::Int64), ' ', round(sum(properties.position.x::Float64)), ' ', "+
			"countIf(properties.premium::Bool), ' ', countIf(name = 'llm_call')) FROM events")
	object, _ := s.get(objectKey)
	path := filepath.Join(t.TempDir(), "object.parquet")
	if err := os.WriteFile(path, object, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "-e", duckScript, "--", `SELECT concat(count(*), ' ', sum(typed.score), ' ', CAST(round(sum(typed."position.x")) AS BIGINT), ' ',
		sum(CASE WHEN typed.premium THEN 1 ELSE 0 END), ' ', sum(CASE WHEN CAST(properties AS VARCHAR) LIKE '%"role":"user"%' THEN 1 ELSE 0 END)) FROM '`+path+"'")
	cmd.Dir = duckDB(t)
	out, err := cmd.CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != sums {
		t.Errorf("DuckDB reads %s (%v), the table has %s", got, err, sums)
	}
}
