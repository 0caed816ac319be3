// Package clickhouse holds the only DDL: a file for each table and view.
package clickhouse

import "embed"

// Files are the *.sql files. They are applied in the order of their names.
//
//go:embed *.sql
var Files embed.FS
