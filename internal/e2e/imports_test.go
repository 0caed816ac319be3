package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/queue/jetstream"

	"github.com/penstock/penstock/internal/pipeline"
)

const importConfig = `
imports:
  - {prefix: events/imports/amplitude/, profile: amplitude, project: game}
  - {prefix: events/imports/mixpanel/, profile: mixpanel}
  - {prefix: events/imports/segment/, profile: segment}
  - {prefix: events/imports/ga4/, profile: ga4}
  - {prefix: events/imports/posthog/, profile: posthog}
  - {prefix: events/imports/litellm/, profile: litellm, project: game}
  - {prefix: events/imports/langfuse/, profile: langfuse}
`

// alike are bodies of which a POST and a file accept and reject the same values.
var alike = []string{
	`{"name":"n"}`, "{\"name\":\"a\"}\n{\"name\":\"b\"}\n", "{\"name\":\"a\"}\r{\"name\":\"b\"}\r",
	"\ufeff{\"name\":\"a\"}",
	`{"name":"a"} {"name":"b"}{"name":"c"}`, "[\n{\"name\":\"a\"},\n{\"name\":\"b\"}\n]\n",
	"{\n  \"name\": \"a\",\n  \"x\": {\n  }\n}\n{\"name\":\"b\"}",
	"{\"name\":\"a\"}\n[{\"name\":\"b\"},{\"name\":\"c\"}]\n{\"name\":\"d\"}",
	`[{"name":"a"},{"name":"b","v":NaN},{"name":"c","v":1e400},{"name":"d","v":-Infinity},{"name":"e"}]`,
	"{\"name\":\"a\"}\nnot json\n{\"name\":\"b\"}",
	"{\"name\":\"a\",\"v\":\"cut \\ud83d\"}\n{\"name\":\"b\",\"v\":\"\\udc00\\ud83d\"}",
	"{\"name\":\"a\",\"v\":\"x\n{\"name\":\"b\"}\n",
	"{\"name\":\"a\"\n{\"name\":\"b\"}\n{\"name\":\"c\"}", `{"name":"a","v":100000000000000000000}{"name":"b"}`,
	"{\"name\":\"a\",\"x\":1,\"x\":2}\n{\"name\":\"b\"}", `[[{"name":"a"}],{"name":"b"}]`,
}

// A file and a POST accept the same JSON.
func TestPostsAndFilesAreReadAlike(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive", "PENSTOCK_BATCHER_OBJECT_WAIT=1ms")
	s.start("l1", "load")
	for i, text := range alike {
		for _, contentType := range []string{"application/json", "application/x-ndjson"} {
			_, a := post(t, r.URL+"/v1/events", text, "Content-Type", contentType)
			key := fmt.Sprintf("events/alike/%d.json", i)
			s.put(key, []byte(text), nil)
			l := s.state(key)
			if int(l.Rows) != a.Accepted || len(l.Refused) != a.Rejected {
				t.Errorf("%q: a POST of %s accepts %d and rejects %d, a file %d and %d", text, contentType, a.Accepted, a.Rejected,
					l.Rows, len(l.Refused))
			}
		}
	}
}

// startImporter starts a loader with the mappings of importConfig, which
// commands of this test find as well.
func startImporter(t *testing.T, s *stack, env ...string) *role {
	t.Helper()
	path := filepath.Join(s.dir, "penstock.yaml")
	if err := os.WriteFile(path, []byte(importConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	l := s.prepare("l1", "load", env...)
	l.args = append(l.args, "--config", path)
	l.spawn()
	l.awaitReady()
	return l
}

func caseFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../codec/foreign/testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// state waits until the ledger has an object in a final state.
func (s *stack) state(key string) pipeline.Load {
	s.t.Helper()
	var l pipeline.Load
	eventually(s.t, time.Minute, key+" in the ledger", func() error {
		var status string
		row := s.db.QueryRow(s.t.Context(),
			"SELECT toString(status), rows, length(refused), attempts, failures, code, error FROM loads FINAL WHERE key = ?",
			key)
		var refused uint64
		if err := row.Scan(&status, &l.Rows, &refused, &l.Attempts, &l.Failures, &l.Code, &l.Error); err != nil {
			return err
		}
		l.Refused = make([]uint32, refused)
		var err error
		if l.State, err = pipeline.ParseLoadState(status); err != nil {
			return err
		}
		if l.State == pipeline.Loading || l.State == pipeline.Failed {
			return fmt.Errorf("%s: %s", status, l.Error)
		}
		return nil
	})
	return l
}

// loaded waits until an object is loaded with that many rows.
func (s *stack) loaded(key string, rows, rejected int) {
	s.t.Helper()
	if l := s.state(key); l.State != pipeline.Loaded || int(l.Rows) != rows || len(l.Refused) != rejected {
		s.t.Errorf("%s: %s with %d rows and %d rejected, want %d and %d (%s)", key, l.State, l.Rows, len(l.Refused), rows,
			rejected, l.Error)
	}
}

// dead waits until an object is given up, at its first attempt.
func (s *stack) dead(key, code string) {
	s.t.Helper()
	if l := s.state(key); l.State != pipeline.Dead || l.Code != code || l.Failures != 1 {
		s.t.Errorf("%s: %s after %d failures, %s: %s; want dead after one, %s", key, l.State, l.Failures, l.Code, l.Error,
			code)
	}
}

func (s *stack) queryRows(query string) []string {
	s.t.Helper()
	rows, err := s.db.Query(s.t.Context(), query)
	if err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			s.t.Fatal(err)
		}
		all = append(all, text)
	}
	if err := rows.Err(); err != nil {
		s.t.Fatal(err)
	}
	return all
}

// today is the folder of this day, which `verify` looks into.
func today() string { return "events/dt=" + time.Now().UTC().Format("2006-01-02") + "/hr=00/" }

// Files of columns are decoded by ClickHouse: every codec, and types as the file has them.
func TestImportColumns(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	startImporter(t, s)
	for _, name := range []string{"brotli", "lz4raw", "interval-nan"} {
		key := today() + name + " é+.parquet.gz" // a key that has to be escaped, and that lies about compression
		s.put(key, caseFile(t, name+".parquet"), nil)
		s.loaded(key, 20, 0)
		got := s.queryRows(
			"SELECT concat(toString(properties.dt), ' ', toString(properties.dt9), ' ', toString(properties.tm), ' ', " +
				"toString(properties.tstz), ' ', toString(properties.tsn), ' '," +
				"toString(properties.dec10), ' ', dynamicType(properties.d), ' ', toString(properties.ubmax), ' ', " +
				"dynamicType(properties.h), ' ', toString(properties.b2), ' ', dynamicType(properties.bo))" +
				" FROM events WHERE object = '" + key + "' AND object_row = 2")
		want := "1500-01-01 9999-12-31 10:11:12.123456 2026-11-25T10:11:12.123456Z 2026-11-25T10:11:12.123456789Z 0.02 " +
			"Float64 18446744073709551615 Float64 /wA= Bool"
		if len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
		if n := one[uint64](s, "SELECT countIf(properties.nanc IS NOT NULL) FROM events WHERE object = '"+key+"'"); n == 0 ||
			n == 20 {
			t.Errorf("%s: %d of 20 rows have a number where half are NaN", name, n)
		}
	}

	// ClickHouse itself writes one table in each format.
	s.db.Exec(t.Context(), "SELECT 1")
	source := func(key, format string) string {
		return fmt.Sprintf("s3('%s/penstock/%s', '%s', '%s', '%s')", s.minio.Endpoint(), key, s.minio.AccessKey(),
			s.minio.SecretKey(), format)
	}
	for _, format := range []string{"Parquet", "ORC", "Arrow", "ArrowStream", "Avro", "CSVWithNames", "TSVWithNames",
		"JSONEachRow"} {
		ending := map[string]string{"CSVWithNames": ".csv", "TSVWithNames": ".tsv.gz", "JSONEachRow": ".json"}[format]
		key := today() + "table-" + format + ending
		if err := s.db.Exec(t.Context(), "INSERT INTO FUNCTION "+source(key, format)+
			" SELECT 'win' AS name, toString(number) AS user_id, toDateTime64('2026-11-20 10:00:00.125', 3, 'UTC') AS "+
			"timestamp, number AS level, number / 4 AS score,"+
			" if(number % 2 = 0, 'a,\"b\"', 'tab\tline\nend') AS note FROM numbers(1000) SETTINGS "+
			"output_format_json_quote_64bit_integers=0"); err != nil {
			t.Fatal(format, err)
		}
		s.loaded(key, 1000, 0)
		got := s.queryRows(
			"SELECT toString((count(), uniqExact(user_id), sum(properties.level::Int64), sum(properties.score::Float64), " +
				"any(toString(timestamp)), uniqExact(toString(properties.note)), " +
				"groupUniqArray(dynamicType(properties.score)))) FROM events WHERE object = '" + key + "' AND name = 'win'")
		if want := "(1000,1000,499500,124875,'2026-11-20 10:00:00.125',2,['Float64'])"; format != "JSONEachRow" &&
			(len(got) != 1 || got[0] != want) {
			t.Errorf("%s: got %q, want %q", format, got, want)
		}
	}

	// A double is a double, however large and however whole.
	key := today() + "doubles.parquet"
	if err := s.db.Exec(t.Context(), "INSERT INTO FUNCTION "+source(key, "Parquet")+
		" SELECT arrayJoin([1.0,0.5,1e18,9223372036854775808.0,1e19,-1e19,1e20,-1e20,18446744073709551616.0,1e21]) AS v, "+
		"'fl' AS name"); err != nil {
		t.Fatal(err)
	}
	s.loaded(key, 10, 0)
	if got := s.queryRows(
		"SELECT toString(groupUniqArray(dynamicType(properties.v))) FROM events WHERE name = 'fl'"); got[0] != "['Float64']" {
		t.Errorf("doubles: %s", got)
	}

	// Avro's own types, one of which is null in every row.
	key = today() + "logical-types"
	s.put(key, caseFile(t, "logical-types.avro"), nil)
	s.loaded(key, 2, 0)
	got := s.queryRows(
		"SELECT toString((properties.d, properties.ts, properties.tsu, properties.dec, properties.m.k, properties.un))" +
			" FROM events WHERE object = '" + key + "' AND object_row = 0")
	if want := "('9999-12-31','0001-01-01T00:00:00Z','2026-11-25T10:11:12.123456Z','-1.23','9999-12-31','s')"; len(
		got) != 1 || got[0] != want {
		t.Errorf("Avro: got %q, want %q", got, want)
	}

	// Keys of maps are of any type, and keep it.
	key = today() + "maps.parquet"
	if err := s.db.Exec(t.Context(), "INSERT INTO FUNCTION "+source(key, "Parquet")+
		" SELECT map(toDate32('2020-01-01'), 1.0) AS m"); err != nil {
		t.Fatal(err)
	}
	s.loaded(key, 1, 0)
	got = s.queryRows("SELECT toString(properties) FROM events WHERE object = '" + key + "'")
	if len(got) != 1 || got[0] != `{"m":{"2020-01-01":1}}` {
		t.Errorf("map: got %q", got)
	}

	// Folders as DuckDB writes them.
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "node", "-e", duckScript, "--",
		"COPY (SELECT 'duck' AS name, i AS n, CASE WHEN i % 2 = 0 THEN 'fi' ELSE 'se' END AS country FROM range(100) "+
			"t(i)) TO '"+dir+"/hive' (FORMAT parquet, PARTITION_BY (country), COMPRESSION brotli)")
	cmd.Dir = duckDB(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files, _ := filepath.Glob(dir + "/hive/*/*.parquet")
	if len(files) != 2 {
		t.Fatalf("DuckDB wrote %q", files)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		key := today() + strings.TrimPrefix(file, dir+"/")
		s.put(key, b, nil)
		s.loaded(key, 50, 0)
	}
	if got := s.queryRows(
		"SELECT concat(properties.country::String, ' ', count()) FROM events WHERE name = 'duck' GROUP BY " +
			"properties.country::String ORDER BY 1"); strings.Join(got, ",") != "fi 50,se 50" {
		t.Errorf("of the folders: %q", got)
	}

	// A second delivery of everything adds nothing.
	before := one[uint64](s, "SELECT count() FROM events")
	js := s.jetstream()
	keys := s.queryRows("SELECT key FROM loads FINAL WHERE pipeline = 'events'")
	for _, key := range keys {
		if _, err := js.Publish(t.Context(), jetstream.Subject(pipeline.Events),
			queue.Format(pipeline.Notification{Key: key})); err != nil {
			t.Fatal(err)
		}
	}
	s.must("reingest", "--prefix", today())
	s.rows("events", before)
	s.mustVerify()

	// Replaced under a new generation, they are the same events.
	s.must("reingest", "--prefix", today(), "--replace")
	s.rows("events", before)
	s.mustVerify()
	if out := s.must("objects", "show", today()+"doubles.parquet", "--limit", "1"); !strings.Contains(out, `"v":1.0`) {
		t.Errorf("cat: %s", out)
	}
}

// A file that ClickHouse cannot reach says what to do, and holds up no other.
func TestImportUnreachable(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	startImporter(t, s, "PENSTOCK_CLICKHOUSE_STORAGE_ENDPOINT=http://127.0.0.1:9", "PENSTOCK_LOADER_MAX_ATTEMPTS=2")
	key := today() + "a.parquet"
	s.put(key, caseFile(t, "brotli.parquet"), nil)
	s.put(today()+"b.ndjson", []byte(`{"name":"n"}`), nil)
	s.loaded(today()+"b.ndjson", 1, 0)
	if l := s.state(key); l.State != pipeline.Dead || l.Code != "store_unreachable" ||
		!strings.Contains(l.Error, "clickhouse.storage_endpoint") {
		t.Errorf("%s %s: %s", l.State, l.Code, l.Error)
	}
}

// Text files: their bytes decide the format. A line that is not an event is rejected alone, files without data are
// ignored, and unreadable ones are given up at once.
func TestImportText(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	l := startImporter(t, s)
	gz := func(text []byte) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(text)
		z.Close()
		return b.Bytes()
	}
	many := bytes.Repeat([]byte(`{"name":"firehose","n":1}`), 60_000)
	for _, f := range []struct {
		key            string
		data           []byte
		rows, rejected int
	}{
		{"firehose-1-2026", many, 60_000, 0},
		{"zero-pad.ndjson.gz", caseFile(t, "zero-pad.ndjson.gz"), 1, 0},
		{"not-gz.ndjson.gz", caseFile(t, "not-gz.ndjson.gz"), 1, 0},
		{"pretty-array.ndjson", caseFile(t, "pretty-array.ndjson"), 2, 0},
		{"gitlab.json", caseFile(t, "gitlab-hooks.ndjson"), 2, 0},
		{"kinesis.LOG.GZ", gz(caseFile(t, "kinesis-seq.ndjson")), 5, 0},
		{"amplitude.ndjson", caseFile(t, "amplitude-export.ndjson"), 3, 0},
		{"odd-lines.ndjson", caseFile(t, "odd-lines.ndjson"), 7, 7},
		{"empty.ndjson", nil, 0, 0},
	} {
		s.put(today()+f.key, f.data, nil)
		s.loaded(today()+f.key, f.rows, f.rejected)
	}
	key, encoding := today()+"compressed.ndjson", "gzip"
	if _, err := s.s3().PutObject(t.Context(),
		&s3.PutObjectInput{Bucket: aws.String("penstock"), Key: &key, ContentEncoding: &encoding,
			Body: bytes.NewReader(gz(bytes.Repeat([]byte("{\"k\":1}\n"), 5000)))}); err != nil {
		t.Fatal(err)
	}
	s.loaded(key, 5000, 0)

	// Profiles: name, time, user and id as the product has them, once however often it is exported.
	for _, name := range []string{"first", "second"} {
		for file, profile := range map[string]string{"amplitude-export.ndjson": "amplitude", "mixpanel.ndjson": "mixpanel",
			"segment-archive.jsonl.gz": "segment", "ga4.ndjson": "ga4", "litellm.ndjson": "litellm",
			"langfuse-blob.jsonl": "langfuse"} {
			key := "events/imports/" + profile + "/" + name
			s.put(key, caseFile(t, file), nil)
			s.state(key)
		}
	}
	for profile, want := range map[string]string{
		"amplitude": "[('game','purchase','u-b'),('game','purchase','u-c'),('game','session_start','u-a')]",
		"mixpanel":  "[('','Signup','d1')]",
		"segment":   "[('','Order','a'),('','page','u')]",
		"ga4":       "[('','level_up','111.222'),('','level_up','u9')]",
	} {
		got := s.queryRows(
			"SELECT toString(arraySort(groupArray((project, toString(name), user_id)))) FROM events FINAL WHERE " +
				"startsWith(object, 'events/imports/" + profile + "/')")
		if got[0] != want {
			t.Errorf("%s: got %s, want %s", profile, got[0], want)
		}
	}

	if got := s.queryRows(
		"SELECT toString((model, toString(time), input_tokens, output_tokens, cost_usd)) FROM llm_calls ORDER BY model, time"); len(got) != 2 ||
		got[0] != "('gpt-4o','2026-11-24 10:00:00.000',10,2,NULL)" ||
		got[1] != "('gpt-4o','2026-11-24 10:00:00.120',100,20,0.0005)" {
		t.Errorf("calls of models: %q", got)
	}

	// Not data.
	for _, name := range []string{"_temporary/0/part-0.ndjson", ".hidden", "_SUCCESS", "x_$folder$", "folder/"} {
		s.put(today()+name, []byte(`{"name":"no"}`), nil)
	}
	eventually(t, 20*time.Second, "ignored", func() error {
		if n := l.metric(`penstock_loader_ignored_total{pipeline="events",reason="not_data"}`); n != 5 {
			return fmt.Errorf("%v are ignored", n)
		}
		return nil
	})
	s.mustVerify()
	if out := s.must("sweep", "--since", "24h"); !strings.Contains(out, "0 ") ||
		one[uint64](s, "SELECT count() FROM events WHERE name = 'no'") != 0 {
		t.Errorf("sweep: %s", out)
	}

	// Given up at once, each with its reason and no record of each line.
	for key, f := range map[string]struct {
		data []byte
		code string
	}{
		"notes.txt":     {[]byte("hello, world\n"), "unknown_format"},
		"binary.ndjson": {[]byte("\x00\x01\x02"), "unknown_format"},
		"words.ndjson":  {bytes.Repeat([]byte("not json\n"), 300), "no_valid_rows"},
		"a.zip":         {[]byte("PK\x03\x04...."), "unsupported_compression"},
		"bad*.parquet":  {caseFile(t, "brotli.parquet"), "unsupported_key"},
	} {
		s.put("events/bad/"+key, f.data, nil)
		s.dead("events/bad/"+key, f.code)
	}
	s.rows("errors", 7+5)

	// A rejected row that an operator fixed becomes the row of its file.
	var ids []string
	for _, e := range items[struct {
		ID   string `json:"event_id"`
		Code string `json:"code"`
	}](s, "errors", "list", "--stage", "loader", "--code", "invalid_json") {
		ids = append(ids, e.ID)
	}
	args := append([]string{"errors", "redrive", "--as", "test", "--through",
		"sed 's/NaN/0/; s/not json at all/{\"k\":20}/; s/1e400/1/'", "--json"}, ids...)
	accepted := 0
	for line := range strings.Lines(s.must(args...)) {
		var r struct {
			Accepted int    `json:"accepted"`
			Message  string `json:"message"`
		}
		if json.Unmarshal([]byte(line), &r) == nil {
			accepted += r.Accepted
		}
	}
	eventually(t, 30*time.Second, "redriven rows", func() error {
		got := s.queryRows(
			"SELECT toString((event_id, name, properties.k::Int64)) FROM events WHERE project = 'test' ORDER BY " +
				"properties.k::Int64")
		if len(got) != accepted || accepted < 2 {
			return fmt.Errorf("%d rows of %d accepted: %s", len(got), accepted, got)
		}
		want := pipeline.UUIDv5(nil, fmt.Appendf(nil, "%sodd-lines.ndjson#2", today())).String()
		if !strings.HasPrefix(got[0], "('"+want+"','imported',2)") {
			return fmt.Errorf("got %s, want the id %s", got[0], want)
		}
		return nil
	})
}
