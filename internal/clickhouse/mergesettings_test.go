package clickhouse

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A table gets missing settings, and keeps those that an operator has set.
func TestMergeSettings(t *testing.T) {
	db, _, _ := open(t)
	if err := db.exec(t.Context(), "set", "ALTER TABLE events MODIFY SETTING merge_selector_base = 7"); err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]string{{"min_level_for_wide_part", "min_bytes_for_wide_part", "packed_skip_index_max_bytes",
		"object_shared_data_serialization_version", "merge_max_block_size", "finished_mutations_to_keep"}, nil} {
		set, err := db.SetMerges(t.Context(), "events")
		if diff := cmp.Diff(want, set); err != nil || diff != "" {
			t.Errorf("%v, -want +got\n%s", err, diff)
		}
	}
	engine := query[string](t, db,
		"SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = 'events'")
	for _, want := range []string{"merge_selector_base = 7", "min_level_for_wide_part = 1",
		"object_shared_data_serialization_version = 'map_with_buckets'"} {
		if !strings.Contains(engine, want) {
			t.Errorf("%s lacks %s", engine, want)
		}
	}
	insert(t, db, "packed", event(0, `{"level":7}`))
	if got := query[string](t, db,
		"SELECT any(part_type) FROM system.parts WHERE database = currentDatabase() AND table = 'events' AND active"); got !=
		"Compact" {
		t.Errorf("an insert made a part of type %s", got)
	}
}
