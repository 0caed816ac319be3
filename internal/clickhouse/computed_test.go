package clickhouse

import (
	"testing"
)

// A column of an earlier version is updated to this version's, also for existing rows.
func TestComputedColumnChanges(t *testing.T) {
	db, _, _ := open(t)
	insert(t, db, "before", event(0, `{"level":7}`))
	column := Computed{Name: "deep", Type: "UInt8", Expression: "properties.level.:Int64 > 8", Index: "minmax", Comment: "c"}
	for _, step := range []struct {
		expression string
		changed    int
		want       uint8
	}{
		{"properties.level.:Int64 > 8", 1, 0},
		{"properties.level.:Int64 > 8", 0, 0},
		{"properties.level.:Int64 > 6", 1, 1},
	} {
		column.Expression = step.expression
		changed, err := db.SetComputed(t.Context(), "events", []Computed{column})
		if err != nil || len(changed) != step.changed {
			t.Fatalf("%s: changed %v, %v", step.expression, changed, err)
		}
		if n := query[uint64](t, db,
			"SELECT count() FROM system.mutations WHERE database = currentDatabase() AND NOT is_done"); n != 0 {
			if err := db.conn.Exec(t.Context(), "OPTIMIZE TABLE events FINAL"); err != nil { // waits for mutations
				t.Fatal(err)
			}
		}
		if got := query[uint8](t, db, "SELECT deep FROM events"); got != step.want {
			t.Errorf("%s: got %d, want %d", step.expression, got, step.want)
		}
	}
}
