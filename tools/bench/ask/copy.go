package ask

import (
	"context"
	"fmt"
	"strings"
)

// Copy inserts all rows of events again with times number × 30 days earlier. The copies have other ids and sessions.
func Copy(ctx context.Context, s Server, number int) error {
	columns, err := s.Query(ctx, "SELECT name FROM system.columns WHERE database = currentDatabase() "+
		"AND table = 'events' AND default_kind NOT IN ('MATERIALIZED', 'ALIAS') ORDER BY position")
	if err != nil {
		return err
	}
	var names, values []string
	for _, row := range columns.Rows {
		name := fmt.Sprint(row[0])
		value := name
		switch name {
		case "timestamp", "identity_time", "received_at":
			value = fmt.Sprintf("%s - INTERVAL %d DAY", name, days*number)
		case "event_id":
			value = fmt.Sprintf("reinterpretAsUUID(bitXor(reinterpretAsUInt128(event_id), %d))", number)
		case "session_id":
			value = fmt.Sprintf("concat(session_id, '-%d')", number)
		case "object":
			value = fmt.Sprintf("concat(object, '-%d')", number)
		}
		names, values = append(names, name), append(values, value)
	}
	_, err = s.Query(ctx, fmt.Sprintf("INSERT INTO events (%s) SELECT %s FROM events "+
		"WHERE NOT match(object, '-[0-9]+$') SETTINGS max_partitions_per_insert_block = 1000, "+
		"max_insert_threads = 2", strings.Join(names, ", "),
		strings.Join(values, ", ")))
	return err
}
