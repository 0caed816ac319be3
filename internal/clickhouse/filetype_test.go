package clickhouse

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// columnsOf creates columns a, b, … of types.
func columnsOf(t testing.TB, types ...string) fileColumns {
	t.Helper()
	var all fileColumns
	for i, text := range types {
		kind, err := parseType(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fileColumn{string(rune('a' + i)), kind})
	}
	return all
}

// Dates and times are requested as numbers, other types unchanged.
func TestFileStructure(t *testing.T) {
	for _, c := range []struct{ kind, parquet, avro string }{
		{"Nullable(Int32)", "Nullable(Int32)", ""},
		{"Nullable(DateTime64(6, 'UTC'))", "Nullable(Decimal(38, 6))", "Nullable(Int64)"},
		{"DateTime64(9)", "Decimal(38, 9)", "Int64"},
		{"Map(String, Array(Nullable(Date32)))", "Map(String, Array(Nullable(Int32)))", ""},
		{"Tuple(\n    x Nullable(Date),\n    `a b` Tuple(\n        z Decimal(10, 2)))",
			"Tuple(`x` Nullable(Int32), `a b` Tuple(`z` Decimal(10, 2)))", ""},
		{"Tuple(`q\\`r` Int8)", "Tuple(`q\\`r` Int8)", ""},
		{"Array(Tuple())", "Array(Tuple())", ""},
		{"Tuple(Int32, Array(String))", "Tuple(Int32, Array(String))", ""},
		{"Enum8('a)' = 1, 'b\\'' = 2)", "Enum8('a)' = 1, 'b\\'' = 2)", ""},
		{"LowCardinality(Nullable(String))", "LowCardinality(Nullable(String))", ""},
	} {
		all := columnsOf(t, c.kind)
		if got, want := all.structure("Parquet"), "`a` "+c.parquet; got != want {
			t.Errorf("%s: got %s, want %s", c.kind, got, want)
		}
		if c.avro == "" {
			c.avro = c.parquet
		}
		if got, want := all.structure("Avro"), "`a` "+c.avro; got != want {
			t.Errorf("%s in Avro: got %s, want %s", c.kind, got, want)
		}
	}
	for _, bad := range []string{"", "Array(", "Array(Int8", "Tuple(a Int8", "Int8)", "DateTime64(x)", "Enum8('a"} {
		if _, err := parseType(bad); err == nil {
			t.Errorf("%q is taken for a type", bad)
		}
	}
}

func TestFileRewrite(t *testing.T) {
	for _, c := range []struct{ kind, printed, want string }{
		{"Float64", "1", "1.0"},
		{"Float64", "-100000000000000000000", "-100000000000000000000.0"},
		{"Nullable(Float32)", "0.5", "0.5"},
		{"Float64", "1e21", "1e21"},
		{"Nullable(Float64)", "null", ""},
		{"Array(Nullable(Float64))", "[1,null,2.5]", "[1.0,null,2.5]"},
		{"UInt64", "18446744073709551615", "18446744073709551615"},
		{"Int128", "170141183460469231731687303715884105727", `"170141183460469231731687303715884105727"`},
		{"Decimal(10, 2)", `"12.30"`, `"12.30"`},
		{"Date32", "-171664", `"1500-01-01"`},
		{"Nullable(Date32)", "2932896", `"9999-12-31"`},
		{"DateTime64(6, 'UTC')", `"1795601472.123456"`, `"2026-11-25T10:11:12.123456Z"`},
		{"DateTime64(9, 'UTC')", `"1795601472.123456789"`, `"2026-11-25T10:11:12.123456789Z"`},
		{"DateTime64(3)", `"-0.001"`, `"1969-12-31T23:59:59.999Z"`},
		{"DateTime64(0)", `"253402300799"`, `"9999-12-31T23:59:59Z"`},
		{"DateTime64(6)", "1795601472123456", `"2026-11-25T10:11:12.123456Z"`}, // ticks, from Avro
		{"Map(String, Float64)", `{"k":1}`, `{"k":1.0}`},
		{"Map(Date32, Float64)", `{"18262":1}`, `{"2020-01-01":1.0}`},
		{"Map(LowCardinality(DateTime64(3)), Int8)", `{"-0.001":1}`, `{"1969-12-31T23:59:59.999Z":1}`},
		{"Map(DateTime64(0), Int8)", `{"253402300799":1}`, `{"9999-12-31T23:59:59Z":1}`},
		{"Map(Float64, Int8)", `{"1":1}`, `{"1":1}`},
		{"Tuple(x Int32, y Tuple(z Float64))", `{"x":1,"y":{"z":2}}`, `{"x":1,"y":{"z":2.0}}`},
		{"Tuple(Int32, Float64)", "[1,2]", "[1,2.0]"},
		{"Array(Tuple(k Int32))", `[]`, `[]`},
		{"String", `"a\"b\\"`, `"a\"b\\"`},
		{"String", "\"\xff\xfe\"", `"//4="`},
		{"FixedString(2)", `"a\u0000"`, `"YQA="`},
		{"Bool", "true", "true"},
		{"Variant(Int8, String)", `{"x":[1]}`, `{"x":[1]}`},
	} {
		all := columnsOf(t, c.kind)
		got, err := all.rewrite(nil, `{"a":`+c.printed+`}`)
		want := `{"a":` + c.want + `}`
		if c.want == "" {
			want = "{}"
		}
		if err != nil || string(got) != want {
			t.Errorf("%s %s: got %s, %v; want %s", c.kind, c.printed, got, err, want)
		}
	}
	all := columnsOf(t, "Nullable(Int8)", "Int8", "Nullable(Int8)", "Int8")
	if got, err := all.rewrite(nil, `{"a":null,"b":1,"c":null,"d":2}`); err != nil || string(got) != `{"b":1,"d":2}` {
		t.Errorf("absent columns: %s, %v", got, err)
	}
	for _, bad := range []string{"", "{}", `{"a":1,"b":2,"c":3}`, `{"a":1,"b":2,"c":3,"d":4`,
		`{"a":1,"b":2,"c":3,"d":"x}`} {
		if got, err := all.rewrite(nil, bad); err == nil {
			t.Errorf("%s: got %s", bad, got)
		}
	}
}

// Columns that the footer marks as times of day or JSON.
func TestFileRoles(t *testing.T) {
	all := columnsOf(t, "DateTime64(6, 'UTC')", "String", "String")
	all[0].kind.role, all[1].kind.role, all[2].kind.role = clockRole, documentRole, documentRole
	got, err := all.rewrite(nil, `{"a":"36672.123456","b":"{\"j\":\n[1]}","c":"no {json"}`)
	if want := `{"a":"10:11:12.123456","b":{"j": [1]},"c":"no {json"}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

// Spark's INT96 exceeds the range of the server's times, so it is requested in another type.
func TestFileInt96(t *testing.T) {
	all := columnsOf(t, "Nullable(DateTime64(9, 'UTC'))")
	all[0].kind.inner[0].role = int96Role
	if got, want := all.structure("Parquet"), "`a` Nullable(FixedString(12))"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, c := range []struct {
		nanos int64
		day   uint32
		want  string
	}{
		{1, 2440588, "1970-01-01T00:00:00.000000001Z"}, {0, 5373484, "9999-12-31T00:00:00Z"},
		{86399e9, 2440587, "1969-12-31T23:59:59Z"}, {0, 2269935, "1502-10-09T00:00:00Z"},
	} {
		data := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint64(nil, uint64(c.nanos)), c.day)
		printed := strings.NewReplacer("\x00", `\u0000`, `"`, `\"`).Replace(string(data))
		if got, err := all.rewrite(nil, `{"a":"`+printed+`"}`); err != nil || string(got) != `{"a":"`+c.want+`"}` {
			t.Errorf("%q: got %s, %v; want %s", printed, got, err, c.want)
		}
	}
	if got, err := all.rewrite(nil, `{"a":"short"}`); err == nil {
		t.Errorf("five bytes are the time %s", got)
	}
}

// One file's fault must not delay others, and what the server says about its bytes is final.
func TestFileErrors(t *testing.T) {
	f := Files{Endpoint: "http://127.0.0.1:9000", Bucket: "b", PathStyle: true}
	_, unknown := parseType("Array(")
	for _, c := range []struct {
		err   error
		code  string // empty: an outage
		final bool
	}{
		{&clickhouse.Exception{Code: 241, Message: "(total) memory limit exceeded"}, "unreadable_object", false},
		{&clickhouse.Exception{Code: 117, Message: "Page CRC checksum verification failed"}, "unreadable_object", true},
		{&clickhouse.Exception{Code: 636, Message: "Error: Code: 50. DB::Exception: uniontype"}, "unreadable_object", true},
		{&clickhouse.Exception{Code: 33, Message: "Cannot read all data"}, "unreadable_object", false},
		{&clickhouse.Exception{Code: 636, Message: "Error: Code: 499. DB::Exception"}, "store_unreachable", false},
		{&clickhouse.Exception{Code: 1001, Message: "apache::thrift::protocol::TProtocolException: Invalid data"},
			"unreadable_object", true},
		{&clickhouse.Exception{Code: 636, Message: "std::exception. Code: 1001, type: apache::thrift::transport::" +
			"TTransportException, e.what() = No more data to read."}, "unreadable_object", true},
		{&clickhouse.Exception{Code: 1001, Message: "std::exception"}, "unreadable_object", false},
		{&clickhouse.Exception{Code: 33, Message: "Cannot read all data of events/apache::thrift::protocol::TException.csv"},
			"unreadable_object", false},
		{&clickhouse.Exception{Code: 1001, Message: "std::exception: events/apache::thrift::.csv"}, "unreadable_object", false},
		{fileError("unreadable_object", true, "column %q: %w", "x", unknown), "unreadable_object", true},
		{&clickhouse.Exception{Code: 202, Message: "Too many simultaneous queries"}, "", false},
		{io.ErrUnexpectedEOF, "", false},
	} {
		err := f.classFile("events/a", c.err)
		file, is := errors.AsType[*pipeline.FileError](err)
		if c.code == "" {
			if is || retry.ClassOf(err) != retry.Outage {
				t.Errorf("%v: got %v, want an outage", c.err, err)
			}
		} else if !is || file.Code != c.code || file.Final != c.final || retry.ClassOf(err) != retry.Permanent {
			t.Errorf("%v: got %v (%+v), want %s, final %t", c.err, err, file, c.code, c.final)
		}
	}
}

func TestFileSource(t *testing.T) {
	f := Files{Endpoint: "http://127.0.0.1:9000/", Bucket: "b", AccessKey: "k'", SecretKey: `s\`, PathStyle: true}
	if got, err := f.source("events/a b.parquet", "Parquet"); err != nil ||
		got != `'http://127.0.0.1:9000/b/events/a%20b.parquet', 'k\'', 's\\', 'Parquet'` {
		t.Errorf("got %s, %v", got, err)
	}
	f = Files{Region: "eu-west-1", Bucket: "b"}
	if got, err := f.source("events/a.orc", "ORC"); err != nil ||
		got != `'https://b.s3.eu-west-1.amazonaws.com/events/a.orc', 'ORC'` {
		t.Errorf("got %s, %v", got, err)
	}
	for _, key := range []string{"events/*.parquet", "events/{a,b}", "events/a?"} {
		if got, err := f.source(key, "Parquet"); err == nil || !strings.Contains(err.Error(), "another key") {
			t.Errorf("%s: got %s, %v", key, got, err)
		}
	}
}

// FuzzRewrite: whatever the server prints, the result is JSON or an error.
func FuzzRewrite(f *testing.F) {
	f.Add("Tuple(x Float64, y Array(String))", `{"a":{"x":1,"y":["a","b"]}}`)
	f.Add("Map(String, DateTime64(6))", `{"a":{"k":"1.5"}}`)
	f.Fuzz(func(t *testing.T, kind, line string) {
		parsed, err := parseType(kind)
		if err != nil {
			return
		}
		out, err := fileColumns{{"a", parsed}}.rewrite(nil, line)
		if err == nil && json.Valid([]byte(line)) && !json.Valid(out) {
			t.Errorf("%s of %s became %s", kind, line, out)
		}
	})
}

// Some of the server's errors quote the query, which contains the bucket's keys.
func TestFileErrorsHideTheSecretKey(t *testing.T) {
	f := Files{Endpoint: "http://svc:" + "S3cretPw@127.0.0.1:9000", Bucket: "b", AccessKey: "key",
		SecretKey: "it's/secret", PathStyle: true}
	for _, code := range []int32{117, 241, 499, 636} {
		err := f.classFile("events/x.parquet",
			&clickhouse.Exception{Code: code, Message: `cannot read (in query: SELECT * FROM s3('u', 'key', 'it\'s/secret')` +
				` and https://host/?secret=it%27s%2Fsecret)`})
		for _, secret := range []string{"s/secret", "s%2Fsecret", "S3cretPw"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("code %d: %q is in %v", code, secret, err)
			}
		}
		if !strings.Contains(err.Error(), "cannot read") {
			t.Errorf("code %d: the server's words are not in %v", code, err)
		}
	}
}
