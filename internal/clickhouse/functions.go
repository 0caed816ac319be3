package clickhouse

import (
	"context"
	"fmt"

	sqlfiles "github.com/penstock/penstock/infra/clickhouse"
)

// Functions are the SQL functions that setup creates, for all databases of a server. They convert a value of any type
// into one type and never throw. A property's value is Dynamic, which no aggregate, GROUP BY, IN or JOIN accepts.
var Functions = []string{"num", "text"}

// SetFunctions creates the missing functions and returns their names. A function of the same name with another body
// belongs to somebody else: it stays unchanged, and others has its name.
func (db *DB) SetFunctions(ctx context.Context, functions []string) (created, others []string, err error) {
	for _, name := range functions {
		text, err := sqlfiles.Function(name)
		if err != nil {
			return created, others, err
		}
		statement := "CREATE FUNCTION " + quoteName(name) + " AS " + text
		var exists, same bool
		if err := db.one(ctx, "read function "+name, []any{&exists, &same},
			`SELECT count() > 0, countIf(create_query = formatQuerySingleLine(?)) > 0 FROM system.functions
			WHERE name = ? AND origin = 'SQLUserDefined'`, statement, name); err != nil {
			return created, others, err
		}
		switch {
		case exists && !same:
			others = append(others, name)
		case !exists:
			if err := db.exec(ctx, "create function "+name, "CREATE OR REPLACE FUNCTION "+quoteName(name)+" AS "+
				text); err != nil {
				return created, others, fmt.Errorf("%w (the user needs CREATE FUNCTION)", err)
			}
			created = append(created, name)
		}
	}
	return created, others, nil
}
