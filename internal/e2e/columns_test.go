package e2e

import (
	"strings"
	"testing"
)

// A line of configuration gives a property a column: for existing rows, for new ones, and for re-ingested ones.
func TestColumns(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive")
	s.start("l1", "load")
	send := func(body string) {
		if status, a := post(t, r.URL+"/v1/events", body); status != 202 {
			t.Fatalf("%d, %+v", status, a)
		}
	}
	send(`[{"name":"before","properties":{"level":1}},{"name":"before","properties":{"level":"none"}}]`)
	s.rows("events", 2)
	s.config(`clickhouse: {columns: [{name: level, type: Int64}, {name: x, path: position.x, type: Float64}, {name: land, type: LowCardinality(String)}]}`)
	if out := s.must("setup"); !strings.Contains(out, "events: added level, x, land") ||
		!strings.Contains(out, "columns        ok  events: written into") {
		t.Errorf("setup: %s", out)
	}
	send(`[{"name":"after","properties":{"level":7,"position":{"x":2.5}}},{"name":"after","properties":{"level":{"odd":[1]},"position":3}},
		{"name":"odd","properties":{"level":true,"position":{"x":false},"land":["a"]}},{"name":"text","properties":{"level":"8","position":{"x":"1.5"},"land":5}}]`)
	s.rows("events", 6)
	s.config(`clickhouse: {columns: [{name: level, path: level, type: String}]}`)
	if out, err := s.run("setup"); err == nil ||
		!strings.Contains(out,
			"column level of events is properties.level as Int64, and now wanted as properties.level as String") {
		t.Errorf("setup with another type: %v, %s", err, out)
	}
	s.config(`clickhouse: {columns: []}`)
	s.must("setup")
	check := func() {
		t.Helper()
		if got := one[string](s,
			"SELECT toString(arraySort(groupArray((name, level, x, land)))) FROM events_once"); got != "[('after',7,2.5,NULL),('after',NULL,NULL,NULL),('before',1,NULL,NULL),('before',NULL,NULL,NULL),('odd',NULL,NULL,NULL),('text',8,1.5,'5')]" {
			t.Errorf("the rows are %s", got)
		}
	}
	check()
	s.must("reingest", "--since", "1h", "--replace")
	check()
	if v := s.mustVerify(); len(v.Differences) > 0 {
		t.Errorf("verify: %+v", v)
	}
}
