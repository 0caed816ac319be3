package clickhouse

import (
	"context"
	"fmt"
)

// Function is an SQL function. ClickHouse has them for all databases of a server.
type Function struct{ Name, Text string }

// Functions turn a value of any type into one type, and never throw: a property's
// value is Dynamic, which no aggregate, GROUP BY, IN or JOIN takes.
//
// num is NULL for a bool, as typed columns of numbers are, and for text that is no
// finite number. The inner cast is exact, so it is NULL for integers beyond 2^53;
// the cast by way of Int128 rounds these.
var Functions = []Function{
	{"num", `v -> if(isNull(dynamicElement(CAST(v, 'Dynamic'), 'Bool')), ` +
		`if(isFinite(accurateCastOrNull(CAST(v, 'Dynamic'), 'Float64')), ` +
		`accurateCastOrNull(CAST(v, 'Dynamic'), 'Float64'), ` +
		`toFloat64(accurateCastOrNull(CAST(v, 'Dynamic'), 'Int128'))), NULL)`},
	{"text", `v -> accurateCastOrNull(CAST(v, 'Dynamic'), 'String')`},
}

// SetFunctions creates the functions that the server lacks, and returns their
// names. A function of the same name with another body is somebody else's: it stays as it is, and its name is
// returned in others.
func (db *DB) SetFunctions(ctx context.Context, functions []Function) (created, others []string, err error) {
	for _, f := range functions {
		statement := "CREATE FUNCTION " + quoteName(f.Name) + " AS " + f.Text
		var exists, same bool
		if err := db.one(ctx, "read function "+f.Name, []any{&exists, &same},
			`SELECT count() > 0, countIf(create_query = formatQuerySingleLine(?)) > 0 FROM system.functions
			WHERE name = ? AND origin = 'SQLUserDefined'`, statement, f.Name); err != nil {
			return created, others, err
		}
		switch {
		case exists && !same:
			others = append(others, f.Name)
		case !exists:
			if err := db.exec(ctx, "create function "+f.Name, "CREATE OR REPLACE FUNCTION "+quoteName(f.Name)+" AS "+
				f.Text); err != nil {
				return created, others, fmt.Errorf("%w (the user needs CREATE FUNCTION)", err)
			}
			created = append(created, f.Name)
		}
	}
	return created, others, nil
}
