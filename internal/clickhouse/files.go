package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
)

// Files lets the server decode files in the bucket: Parquet, ORC, Avro and Arrow in all versions and compressions.
type Files struct {
	DB        *DB
	Endpoint  string // URL of the S3 API as the server sees it; empty: AWS
	Region    string // of AWS
	Bucket    string
	AccessKey string // both empty: the server's own credentials
	SecretKey string
	PathStyle bool
	MaxRow    int // longest line of JSON, in bytes; 0: no limit
}

// fileError returns an error that counts against the object, because others can be loaded meanwhile.
func fileError(code string, final bool, format string, args ...any) error {
	return &pipeline.FileError{Code: code, Final: final, Err: retry.As(retry.Permanent, fmt.Errorf(format, args...))}
}

// Lines calls each with every row of a file as a line of JSON, in the order of the file. format is the server's name of
// the format. Values keep their types:
//
//   - Floats have a point or an exponent.
//   - Decimals and integers beyond 64 bits become text with all digits.
//   - Dates and times become text by ISO 8601, in any year.
//   - Bytes that are not UTF-8 become base64.
//   - NaN and the infinities become null, because JSON has neither.
//
// The same file gives the same lines as long as Version is the same.
func (f Files) Lines(ctx context.Context, key, format string, each func(line []byte) error) error {
	source, err := f.source(key, format)
	if err != nil {
		return err
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(fileSettings))
	columns, err := f.columns(ctx, source, format)
	if err != nil {
		return f.classFile(key, err)
	}
	line := "formatRow('JSONEachRow', *)"
	if f.MaxRow > 0 { // the server cuts longer lines, so they never arrive whole
		line = fmt.Sprintf("substring(%s, 1, %d)", line, f.MaxRow+1)
	}
	rows, err := f.DB.conn.Query(ctx,
		"SELECT "+line+" FROM s3("+source+", "+quoteText(columns.structure(format))+", 'none')")
	if err != nil {
		return f.classFile(key, err)
	}
	defer rows.Close()
	var text string
	var made []byte
	for rows.Next() {
		if err := rows.Scan(&text); err != nil {
			return f.classFile(key, err)
		}
		if f.MaxRow > 0 && len(text) > f.MaxRow {
			return fileError("unreadable_object", true, "decode %s: a row is longer than %d bytes of JSON (receiver.max_event)",
				key, f.MaxRow)
		}
		if made, err = columns.rewrite(made[:0], text); err != nil {
			return fileError("unreadable_object", false, "decode %s: %w", key, err)
		}
		if err := each(made); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return f.classFile(key, err)
	}
	return nil
}

// Version returns the server's version. Another version may print values differently.
func (f Files) Version(ctx context.Context) (version string, err error) {
	err = f.DB.one(ctx, "ask for the version", []any{&version}, "SELECT version()")
	return version, err
}

// fileMemory is the server's memory limit for decoding one file, in bytes. No block that it sends can be larger.
const fileMemory = 2 << 30

// fileSettings are sent with every query of a file.
var fileSettings = clickhouse.Settings{
	"max_threads":                         1, // keeps the order of the file
	"input_format_parquet_preserve_order": 1,

	"output_format_json_quote_64bit_integers":    0,
	"output_format_json_quote_denormals":         0,
	"output_format_json_quote_decimals":          1,
	"output_format_decimal_trailing_zeros":       1,
	"output_format_json_named_tuples_as_objects": 1,
	"output_format_json_escape_forward_slashes":  0,
	"output_format_json_validate_utf8":           0, // keeps the bytes
	"date_time_output_format":                    "iso",

	// Allow types that a table should not have: here they are only passed on.
	"input_format_orc_dictionary_as_low_cardinality": 0, // otherwise a map cannot be read
	"allow_suspicious_low_cardinality_types":         1,
	"allow_suspicious_variant_types":                 1,

	"use_hive_partitioning":             0, // it would add columns for the whole path
	"allow_archive_path_syntax":         0,
	"schema_inference_use_cache_for_s3": 0, // the file may have been replaced
	"use_cache_for_count_from_files":    0,

	"s3_retry_attempts":                       5, // the loader retries later
	"max_execution_time":                      0,
	"max_block_size":                          1024,
	"input_format_orc_row_batch_size":         1024,
	"max_memory_usage":                        fileMemory,
	"input_format_parquet_prefer_block_bytes": 4 << 20,
}

// source returns the arguments of s3() without structure and compression. Callers must set the compression to 'none':
// they have seen the bytes, and the server would guess by the file's name.
func (f Files) source(key, format string) (string, error) {
	// The server reads these characters as patterns, versions, or parts of a URL.
	if strings.ContainsAny(key, "*?{}#%") {
		return "", fileError("unsupported_key", true,
			"ClickHouse cannot be asked for a key with one of * ? { } # %% in it; store the file under another key than %q", key)
	}
	args := []string{quoteText(f.url(key))}
	if f.AccessKey != "" {
		args = append(args, quoteText(f.AccessKey), quoteText(f.SecretKey))
	}
	return strings.Join(append(args, quoteText(format)), ", "), nil
}

func (f Files) url(key string) string {
	endpoint := f.Endpoint
	if endpoint == "" {
		endpoint = "https://s3." + f.Region + ".amazonaws.com"
	}
	u, err := url.Parse(strings.TrimSuffix(endpoint, "/"))
	if err != nil { // the configuration was checked
		return endpoint
	}
	if f.PathStyle {
		u.Path += "/" + f.Bucket
	} else {
		u.Host = f.Bucket + "." + u.Host
	}
	u.Path += "/" + key
	return u.String()
}

// columns returns the file's columns with their types.
func (f Files) columns(ctx context.Context, source, format string) (fileColumns, error) {
	rows, err := f.DB.conn.Query(ctx, "DESCRIBE TABLE s3("+source+", 'auto', 'none')")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all fileColumns
	for rows.Next() {
		var name, kind, skip string
		into := []any{&name, &kind}
		for len(into) < len(rows.Columns()) {
			into = append(into, &skip)
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		t, err := parseType(kind)
		if err != nil {
			return nil, fileError("unreadable_object", true, "column %q: %w", name, err)
		}
		if kind == "Nothing" || kind == "Nullable(Nothing)" {
			continue // always null; formatRow does not know the type
		}
		all = append(all, fileColumn{name, t})
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for _, c := range all {
		for _, t := range c.kind.leaves(nil) {
			if t.name == "DateTime" {
				return nil, fileError("unreadable_object", true, "column %q is of Arrow's type date64, of which ClickHouse"+
					" keeps 32 bits of seconds: other years than 1970 to 2106 would be wrong; store it as date32 or timestamp", c.name)
			}
		}
	}
	if format == "Parquet" {
		if err := f.refine(ctx, source, all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// refine reads details from a Parquet file's footer that the server's types lack: which columns are times of day, JSON,
// or INT96. The server reads INT96 times only in the range of its own type.
func (f Files) refine(ctx context.Context, source string, all fileColumns) error {
	source = strings.TrimSuffix(source, quoteText("Parquet")) + quoteText("ParquetMetadata")
	rows, err := f.DB.conn.Query(ctx,
		"SELECT concat(tupleElement(c, 'physical_type'), ' ', tupleElement(c, 'logical_type'))"+
			" FROM (SELECT arrayJoin(columns) AS c FROM s3("+source+", 'auto', 'none'))")
	if err != nil {
		return err
	}
	defer rows.Close()
	var leaves []*fileType
	for _, c := range all {
		leaves = c.kind.leaves(leaves)
	}
	var stored [][2]string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return err
		}
		physical, logical, _ := strings.Cut(text, " ")
		stored = append(stored, [2]string{physical, logical})
	}
	if err := rows.Err(); err != nil || len(stored) != len(leaves) {
		return err // without the footer, times of day would become times of 1970
	}
	for i, t := range leaves {
		physical, logical := stored[i][0], stored[i][1]
		switch {
		case physical == "INT96" && t.role == momentRole:
			t.role = int96Role
		case strings.HasPrefix(logical, "Time("):
			t.role = clockRole
		case strings.HasPrefix(logical, "JSON") || strings.HasPrefix(logical, "Json"):
			t.role = documentRole
		}
	}
	return nil
}

// classFile distinguishes an outage from a file that the server cannot read.
func (f Files) classFile(key string, err error) error {
	if file, ok := errors.AsType[*pipeline.FileError](err); ok {
		return fileError(file.Code, file.Final, "decode %s: %w", key, err)
	}
	code, said := codeOf(err)
	if !said {
		if errors.Is(err, context.Canceled) {
			return err
		}
		return fmt.Errorf("decode %s: %w", key, retry.As(retry.Outage, err))
	}
	// An error may quote the query, which contains the bucket's secret key.
	text := show.Hide(err.Error(), f.SecretKey)
	err = retry.AsCode(retry.Permanent, int(code), errors.New(text))
	if fileSays(unreachable, code, text) {
		return fileError("store_unreachable", false,
			"ClickHouse cannot read %s at %s: set clickhouse.storage_endpoint to the address"+
				" at which ClickHouse reaches the bucket, or grant its user S3 (GRANT S3 ON *.* TO USER): %w", key,
			show.URL(f.url(key)), err)
	}
	if code == memoryLimit && (strings.Contains(text, "Query memory limit") || strings.Contains(text, "(for query)")) {
		return fileError("unreadable_object", false, "ClickHouse needs more than %d bytes of memory to decode %s: %w",
			int64(fileMemory), key, err)
	}
	switch {
	case code == memoryLimit: // perhaps only this file needs that much, so load others meanwhile
		return fileError("unreadable_object", false, "ClickHouse has not the memory to decode %s:"+
			" store it with smaller row groups, or give ClickHouse more: %w", key, err)
	case fileSays(fileOutage, code, ""):
		return fmt.Errorf("decode %s: %w", key, retry.AsCode(retry.Outage, int(code), errors.New(text)))
	}
	return fileError("unreadable_object", fileSays(fileContent, code, text), "ClickHouse cannot decode %s: %w", key, err)
}
