// Package clickhouse holds the tables' definitions, the only DDL there is.
package clickhouse

import "embed"

// Files are the *.sql files, to be applied in the order of their names.
//
//go:embed *.sql
var Files embed.FS
