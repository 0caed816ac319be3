package clickhouse

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Check rejects a table whose partitions differ from a chunk's, because it could accept a part of an insert. It also
// rejects a table without a deduplication window: ClickHouse would silently ignore the tokens, and a repeated insert
// would count twice.
func (db *DB) Check(ctx context.Context, table string) error {
	what := fmt.Sprintf("check table %s.%s", db.database, table)
	var engine, create, partition string
	err := db.one(ctx, what, []any{&engine, &create, &partition}, "SELECT engine, create_table_query, partition_key"+
		" FROM system.tables WHERE database = ? AND name = ?", db.database, table)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("%s: it does not exist; run `penstock setup`", what)
	case err == nil && plainSQL.Replace(partition) != plainSQL.Replace(partitionKey):
		return fmt.Errorf("%s: it is partitioned by %q, as by an earlier version; run `penstock setup`, which copies it into"+
			" a table of this version", what, partition)
	case err != nil || hasWindow(engine, create):
		return err
	}
	return fmt.Errorf("%s: non_replicated_deduplication_window is not set, so a repeated insert would count twice; run:"+
		" ALTER TABLE %s.%s MODIFY SETTING non_replicated_deduplication_window = 10000",
		what, quoteName(db.database), quoteName(table))
}

// plainSQL removes what server versions print differently.
var plainSQL = strings.NewReplacer(" ", "", "(", "", ")", "", "`", "")

var windowSetting = regexp.MustCompile(`non_replicated_deduplication_window\s*=\s*(\d+)`)

// hasWindow reports whether a table recognises a repeated insert. Replicated
// tables have a window of 10000 blocks by default.
func hasWindow(engine, create string) bool {
	if strings.HasPrefix(engine, "Replicated") || strings.HasPrefix(engine, "Shared") {
		return true
	}
	m := windowSetting.FindStringSubmatch(create)
	if m == nil {
		return false
	}
	n, err := strconv.Atoi(m[1])
	return err == nil && n > 0
}
