// Package clickhouse holds the only DDL: a file for each table and view.
package clickhouse

import "embed"

// Files are the *.sql files. They are applied in the order of their names.
//
//go:embed *.sql
var Files embed.FS

// Rollups has the query of each rollup, by the name of its table.
//
//go:embed rollups/*.sql
var Rollups embed.FS
