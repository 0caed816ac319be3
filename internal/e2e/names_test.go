package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// duckRows runs a query in DuckDB and returns its rows.
func duckRows(t *testing.T, query string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", "-e", duckScript, "--", query)
	cmd.Dir = duckDB(t)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%v\n%s", query, err, out)
	}
	return strings.TrimSpace(string(out))
}

// Readers that ignore case get the values of the path that they name, within an object and across objects.
func TestPathsThatDifferInCase(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r", "receive", "PENSTOCK_BATCHER_ROLL_AGE=1h", "PENSTOCK_BATCHER_FORMAT=parquet",
		"PENSTOCK_BATCHER_OBJECT_WAIT=1ms")
	s.start("l", "load")
	lines := func(n int, format string) string {
		var all []string
		for i := 1; i <= n; i++ {
			all = append(all, fmt.Sprintf(format, i, i, 100*i))
		}
		return strings.Join(all, "\n")
	}
	total := 0
	for _, body := range []string{
		lines(40, `{"name":"cs","i":%d,"level":%d,"Level":%d}`), // case-keys.ndjson
		lines(3, `{"name":"cs","i":%d,"userName":"camel %d","Level":%d}`),
		lines(5, `{"name":"cs","i":%d,"username":"lower %d","LEVEL":%d}`),
		lines(7, `{"name":"cs","i":%d,"level":%d,"pos":{"x":%d}}`),
		lines(7, `{"name":"cs","i":%d,"Уровень":%d,"уровень":%d}`),
		lines(2, `{"name":"cs","i":%d,"POS":{"X":%d},"x^2":%d}`),
	} {
		if status, a := post(t, r.URL+"/v1/events?durability=object", body); status != 200 {
			t.Fatalf("answer %d %+v", status, a)
		}
		total += strings.Count(body, "\n") + 1
	}
	s.rows("events", uint64(total))
	dir := t.TempDir()
	for i, k := range strings.Fields(one[string](s,
		"SELECT arrayStringConcat(groupArray(key), ' ') FROM loads FINAL WHERE pipeline = 'events'")) {
		object, _ := s.get(k)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.parquet", i)), object, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	columns := []struct{ path, name, kind string }{
		{"level", "level", "Int64"}, {"Level", "^Level", "Int64"}, {"LEVEL", "^L^E^V^E^L", "Int64"},
		{"userName", "user^Name", "String"}, {"username", "username", "String"},
		{"pos.x", "pos.x", "Int64"}, {"POS.X", "^P^O^S.^X", "Int64"},
		{"Уровень", "^Уровень", "Int64"}, {"уровень", "уровень", "Int64"}, {"x^2", "x^^2", "Int64"},
	}
	bucket := fmt.Sprintf("s3('%s/penstock/events/dt=*/hr=*/*.parquet', '%s', '%s', 'Parquet', 'typed Tuple(",
		s.minio.Endpoint(), s.minio.AccessKey(), s.minio.SecretKey())
	for i, c := range columns {
		if i > 0 {
			bucket += ", "
		}
		bucket += fmt.Sprintf("`%s` Nullable(%s)", c.name, c.kind)
	}
	bucket += ")')"
	for _, c := range columns {
		want := one[string](s, fmt.Sprintf(
			"SELECT toString(arraySort(groupArray(toString(v)))) FROM (SELECT properties.`%s`.:%s AS v "+
				"FROM events WHERE v IS NOT NULL)", strings.ReplaceAll(c.path, ".", "`.`"), c.kind))
		got := one[string](s, fmt.Sprintf(
			"SELECT toString(arraySort(groupArray(toString(typed.`%s`)))) FROM %s WHERE typed.`%s` IS NOT NULL",
			c.name, bucket, c.name))
		if got != want || want == "[]" {
			t.Errorf("ClickHouse reads %s of %s, the table has %s", got, c.name, want)
		}
		got = duckRows(t, fmt.Sprintf(`SELECT '[' || string_agg('''' || v || '''', ',' ORDER BY v) || ']'
			FROM (SELECT CAST(typed."%s" AS VARCHAR) AS v FROM read_parquet('%s/*.parquet', union_by_name = true)) WHERE v IS NOT NULL`,
			c.name, dir))
		if got != want {
			t.Errorf("DuckDB reads %s of %s, the table has %s", got, c.name, want)
		}
	}
}
