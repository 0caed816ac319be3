package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// mergeSettings make inserts and merges cheap. Half of their cost was creating files: a wide part has 240 to 900, two
// for each path of properties and each skip index. docs/reference/benchmarks.md has the figures.
func mergeSettings() []struct{ name, value string } {
	return []struct{ name, value string }{
		// Parts of inserts have one file for all columns, whatever their size: they are merged soon.
		{"min_level_for_wide_part", "1"},
		{"min_bytes_for_wide_part", "134217728"},
		// A part's skip indexes share one file.
		{"packed_skip_index_max_bytes", "1048576"},
		// Merged parts keep rare paths of properties in 32 maps by their hash, not each path of each granule separately.
		// Merges of wide events cost less, down to a third, and parts are smaller. Asking for a rare path costs the same.
		{"object_shared_data_serialization_version", "'map_with_buckets'"},
		// Merge more parts at a time, so that each row is merged fewer times.
		{"merge_selector_base", "12"},
		// Merges handle more rows at a time, and still at most 10 MiB of a part: a block of a JSON column costs by its paths.
		{"merge_max_block_size", "32768"},
		// Rollups read in system.mutations that somebody has deleted events. The server keeps 100 entries, and each
		// replaced object is one.
		{"finished_mutations_to_keep", "10000"},
	}
}

// SetMerges adds those settings to a table that its definition lacks and the server knows, and returns their names.
func (db *DB) SetMerges(ctx context.Context, table string) (set []string, err error) {
	var engine string
	if err := db.one(ctx, "read settings of "+table, []any{&engine},
		"SELECT engine_full FROM system.tables WHERE database = ? AND name = ?", db.database, table); err != nil {
		return nil, err
	}
	var known []string
	if err := db.one(ctx, "read settings of merges", []any{&known},
		"SELECT groupArray(name) FROM system.merge_tree_settings WHERE NOT readonly"); err != nil {
		return nil, err
	}
	var changes []string
	for _, s := range mergeSettings() {
		if slices.Contains(known, s.name) && !strings.Contains(engine, s.name+" = ") {
			set = append(set, s.name)
			changes = append(changes, s.name+" = "+s.value)
		}
	}
	if len(set) == 0 {
		return nil, nil
	}
	return set, db.exec(ctx, "set merges of "+table,
		fmt.Sprintf("ALTER TABLE %s MODIFY SETTING %s", quoteName(table), strings.Join(changes, ", ")))
}
