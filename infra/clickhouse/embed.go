// Package clickhouse holds the only DDL: a file for each table and view.
package clickhouse

import "embed"

// Files are the *.sql files. They are applied in the order of their names, after Expand.
//
//go:embed *.sql
var Files embed.FS

// rollups has the query of each rollup, by the name of its table.
//
//go:embed rollups/*.sql
var rollups embed.FS

// functions has each SQL function, by its name, as a lambda of v.
//
//go:embed functions/*.sql
var functions embed.FS
