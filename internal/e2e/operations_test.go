package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/parquet-go/parquet-go"

	"github.com/penstock/penstock/internal/traffic"
)

// s3 is the store as anybody can use it.
func (s *stack) s3() *s3.Client {
	return storeAt(s.backend.endpoint, s.backend.key, s.backend.secretKey)
}

func storeAt(endpoint, accessKey, secretKey string) *s3.Client {
	return s3.NewFromConfig(aws.Config{Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, "")},
		func(o *s3.Options) { o.BaseEndpoint, o.UsePathStyle = &endpoint, true })
}

func (s *stack) get(key string) ([]byte, map[string]string) {
	s.t.Helper()
	out, err := s.s3().GetObject(s.t.Context(), &s3.GetObjectInput{Bucket: &s.backend.bucket, Key: &key})
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Body.Close()
	b, err := io.ReadAll(out.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return b, out.Metadata
}

func (s *stack) put(key string, body []byte, meta map[string]string) {
	s.t.Helper()
	if _, err := s.s3().PutObject(s.t.Context(),
		&s3.PutObjectInput{Bucket: &s.backend.bucket, Key: &key, Body: bytes.NewReader(body),
			Metadata: meta}); err != nil {
		s.t.Fatal(err)
	}
}

// must runs a command that has to succeed.
func (s *stack) must(args ...string) string {
	s.t.Helper()
	out, err := s.run(args...)
	if err != nil {
		s.t.Fatalf("penstock %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// items are a command's lines of JSON.
func items[T any](s *stack, args ...string) []T {
	s.t.Helper()
	var all []T
	for line := range strings.Lines(s.must(append(args, "--json")...)) {
		var v T
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			s.t.Fatalf("penstock %s: %q: %v", strings.Join(args, " "), line, err)
		}
		all = append(all, v)
	}
	return all
}

type objectLine struct {
	Key, State string
	Rows       int64
}

type letter struct {
	Key, Code, Reason, Token string
	Failures                 int
}

// The receiver accepts a row that the table rejects because of an added column. The others are loaded at once. The row
// is in errors with the server's message. After the column is fixed and the failure redriven, it is in the table.
func TestRefusedRowIsLeftOut(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	if err := s.db.Exec(t.Context(),
		"ALTER TABLE events ADD COLUMN level UInt8 MATERIALIZED accurateCast(ifNull(properties.level.:Int64, 0), 'UInt8')"); err != nil {
		t.Fatal(err)
	}
	r := s.start("r1", "receive")
	s.start("l1", "load")
	var body strings.Builder
	for i := range 1000 {
		level := i % 100
		if i == 333 || i == 800 {
			level = 300
		}
		fmt.Fprintf(&body, `{"name":"n","event_id":"e%d","level":%d}`+"\n", i, level)
	}
	if code, a := post(t, r.URL+"/v1/events?durability=object", body.String(), "Content-Type",
		"application/x-ndjson"); code != 200 || a.Accepted != 1000 {
		t.Fatalf("%d %+v", code, a)
	}
	s.rows("events", 998)
	s.rows("errors", 2)
	if got := one[string](s,
		"SELECT toString(groupArray((code, stage, project, server_code))) FROM errors"); got != "[('refused_row','loader','test',70),('refused_row','loader','test',70)]" {
		t.Errorf("errors: %s", got)
	}
	refused := one[string](s, "SELECT toString(arraySort(groupArray(source_row))) FROM errors")
	if missing := one[string](s, "SELECT toString(arrayFilter(x -> NOT has(groupArray(object_row), x), range(1000))) FROM events"); missing != refused {
		t.Errorf("rows %s are refused, rows %s are missing", refused, missing)
	}
	if message := one[string](s, "SELECT message FROM errors LIMIT 1"); !strings.Contains(message,
		"cannot be safely converted into type UInt8") {
		t.Errorf("message %q", message)
	}
	if n := one[uint64](s,
		"SELECT count() FROM loads FINAL WHERE status = 'loaded' AND pipeline = 'events' AND rows = 998 AND "+
			"length(refused) = 2 AND attempts = 1"); n != 1 {
		t.Errorf("the ledger: %s", s.must("objects", "list"))
	}
	s.mustVerify()
	if err := s.db.Exec(t.Context(), "ALTER TABLE events DROP COLUMN level"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{2, 0} { // once
		var accepted int
		for _, r := range items[struct{ Accepted int }](s, "errors", "redrive", "--code", "refused_row") {
			accepted += r.Accepted
		}
		if accepted != want {
			t.Errorf("redriven %d, want %d", accepted, want)
		}
	}
	s.rows("events", 1000)
	if n := one[uint64](s, "SELECT uniqExact(event_id) FROM events"); n != 1000 {
		t.Errorf("%d distinct events", n)
	}
	s.mustVerify()
}

// An object whose bytes are damaged is given up at once, with the
// reason; put right and redriven, its rows are there once. The queue's stream
// of dead letters is deleted meanwhile.
func TestDeadLetterIsRedriven(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive", "PENSTOCK_BATCHER_FORMAT=ndjson")
	var keys []string
	for i := range 3 {
		_, a := post(t, r.URL+"/v1/events?durability=object", fmt.Sprintf(`[{"name":"a","i":%d},{"name":"b"}]`, i))
		keys = append(keys, a.Object)
	}
	good, meta := s.get(keys[1])
	bad := bytes.Clone(good)
	bad[len(bad)/2] ^= 0x40
	s.put(keys[1], bad, meta)
	s.start("l1", "load")
	s.rows("events", 4)
	var letters []letter
	eventually(t, time.Minute, "dead letter", func() error {
		if letters = items[letter](s, "dlq", "list"); len(letters) != 1 {
			return fmt.Errorf("%d letters", len(letters))
		}
		return nil
	})
	if d := letters[0]; d.Key != keys[1] || d.Code != "object_damaged" || d.Failures != 1 || d.Token == "" {
		t.Errorf("letter %+v", d)
	}
	if v, err := s.verify(); err == nil || len(v.Differences) != 1 {
		t.Errorf("verify: %v %+v", err, v.Differences)
	}
	eventually(t, time.Minute, "failures", func() error {
		if n := one[uint64](s, "SELECT count() FROM load_failures WHERE object = {key:String} AND class = 'permanent'",
			named("key", keys[1])); n < 1 {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
	// A sweep leaves it alone.
	if out := s.must("sweep", "--json"); !strings.Contains(out, `"dead_letters":1`) {
		t.Errorf("sweep: %s", out)
	}
	if err := s.jetstream().DeleteStream(t.Context(), "PENSTOCK_dlq"); err != nil {
		t.Fatal(err)
	}
	if got := items[letter](s, "dlq", "list"); len(got) != 1 {
		t.Errorf("without its stream: %d letters", len(got))
	}
	s.must("dlq", "rebuild")
	if info, err := s.jetstream().Stream(t.Context(), "PENSTOCK_dlq"); err != nil || info.CachedInfo().State.Msgs != 1 {
		t.Errorf("rebuilt stream: %v %+v", err, info)
	}
	if out := s.must("dlq", "show", keys[1]); !strings.Contains(out, "damaged") {
		t.Errorf("show: %s", out)
	}
	if _, err := s.run("dlq", "redrive", "events/none"); err == nil {
		t.Error("a letter that is not there was redriven")
	}
	s.put(keys[1], good, meta)
	s.must("dlq", "redrive", "--code", letters[0].Code)
	s.rows("events", 6)
	if got := items[letter](s, "dlq", "list"); len(got) != 0 {
		t.Errorf("%d letters are left", len(got))
	}
	s.mustVerify()
}

// A dropped object stays out, is no difference, and can still be re-ingested by key.
func TestDropLetters(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.start("l1", "load", "PENSTOCK_LOADER_MAX_ATTEMPTS=1")
	s.put("events/broken.parquet", []byte("this is no Parquet file"), nil)
	s.put("events/broken.txt.ndjson.zst", []byte("this is no zstd"), nil)
	eventually(t, time.Minute, "dead letters", func() error {
		if n := len(items[letter](s, "dlq", "list")); n != 2 {
			return fmt.Errorf("%d letters", n)
		}
		return nil
	})
	if out, err := s.run("dlq", "drop", "--all"); err == nil || !strings.Contains(out, "nothing was dropped") {
		t.Errorf("dropped without a yes: %v %s", err, out)
	}
	s.must("dlq", "drop", "--all", "--yes", "--why", "no data of ours")
	if n := len(items[letter](s, "dlq", "list")); n != 0 {
		t.Errorf("%d letters are left", n)
	}
	if n := one[uint64](s,
		"SELECT count() FROM loads FINAL WHERE status = 'dropped' AND position(error, 'no data of ours') > 0"); n != 2 {
		t.Errorf("the ledger has %d dropped", n)
	}
	s.put("events/broken.parquet", parquetFile(t), nil)
	time.Sleep(500 * time.Millisecond) // for a load that is not to be
	if n := one[uint64](s, "SELECT count() FROM events"); n != 0 {
		t.Errorf("%d rows of what was dropped", n)
	}
	s.must("reingest", "events/broken.parquet")
	s.rows("events", 2)
}

func parquetFile(t *testing.T) []byte {
	t.Helper()
	type row struct {
		Name    string    `parquet:"name"`
		Player  string    `parquet:"user_id"`
		When    time.Time `parquet:"timestamp,timestamp(microsecond)"`
		Score   float64   `parquet:"score"`
		Friends []string  `parquet:"friends,list"`
	}
	var b bytes.Buffer
	w := parquet.NewGenericWriter[row](&b)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if _, err := w.Write([]row{{"win", "ann", at, 1.5, []string{"bob"}}, {"lose", "bob", at, 2, nil}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Files that somebody put into the bucket are loaded by their notification or by reingest, with names mapped. Lines
// that are not events are in errors.
func TestForeignFiles(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.start("l1", "load")
	s.put("events/import/old.ndjson", []byte(`{"event_id":"o1","name":"old","timestamp":"2025-05-05T05:05:05Z","user_id":7,"color":"red","properties":{"n":1}}
{"event_id":"o2","name":
{"event":"login","ts":5}
`), nil)
	s.put("events/import/scores.parquet", parquetFile(t), nil)
	s.rows("events", 4)
	s.rows("errors", 1)
	if got := one[string](s,
		"SELECT toString((user_id, toString(timestamp), toString(properties))) FROM events WHERE name = 'old'"); got != `('7','2025-05-05 05:05:05.000','{"color":"red","event_id":"o1","n":1}')` {
		t.Errorf("old: %s", got)
	}
	if got := one[string](s,
		"SELECT toString((user_id, toString(timestamp), toString(properties))) FROM events WHERE name = 'win'"); got != `('ann','2026-01-02 03:04:05.000','{"friends":["bob"],"score":1.5}')` {
		t.Errorf("win: %s", got)
	}
	if got := one[string](s,
		"SELECT toString((source_object, source_row, trim(raw))) FROM errors"); got != `('events/import/old.ndjson',1,'{"event_id":"o2","name":')` {
		t.Errorf("errors: %s", got)
	}
	// Again under a new generation: the same rows.
	s.must("reingest", "--prefix", "events/import/", "--replace")
	s.rows("events", 4)
	if n := one[uint64](s, "SELECT uniqExact(event_id) FROM events WHERE generation = 1"); n != 4 {
		t.Errorf("%d events of the new generation", n)
	}
	if got := items[objectLine](s, "objects", "list"); len(got) != 2 || got[0].State != "loaded" || got[0].Rows != 3 {
		t.Errorf("ls: %+v", got)
	}
}

// Kill -9 of a replacing re-ingest at random moments, with traffic meanwhile,
// and begun again each time: every event is there once at the end.
func TestReplaceKilled(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	const objects = 25
	r := s.start("r1", "receive", "PENSTOCK_BATCHER_OBJECT_WAIT=1ms")
	s.start("l1", "load")
	for range objects {
		var b strings.Builder
		for i := range 200 {
			fmt.Fprintf(&b, `{"name":"n","i":%d}`+"\n", i)
		}
		if code, _ := post(t, r.URL+"/v1/events?durability=object", b.String(), "Content-Type",
			"application/x-ndjson"); code != 200 {
			t.Fatal(code)
		}
	}
	s.rows("events", objects*200)
	ctx, stop := context.WithCancel(t.Context())
	var sent traffic.Sent
	var live sync.WaitGroup
	live.Go(func() {
		traffic.Run(ctx, traffic.NewClient(r.URL+"/v1/events", key, 2), "live", 0, 20, 2, 1000, &sent)
	})
	path, err := penstock()
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	kills := 0
	for ; ; kills++ {
		patience := time.Minute
		if kills < 10 {
			patience = time.Duration(300+rnd.IntN(1200)) * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience) // its end is kill -9
		cmd := exec.CommandContext(ctx, path, "reingest", "--prefix", "events/", "--replace", "--parallel", "3")
		cmd.Env, cmd.Dir = s.env(), s.dir
		out, err := cmd.CombinedOutput()
		cancel()
		if err == nil {
			break
		}
		// The test's ClickHouse may itself be starting again after a client was cut off.
		if kills >= 20 {
			t.Fatalf("reingest: %v\n%s", err, out)
		}
	}
	t.Logf("killed %d times", kills)
	stop()
	live.Wait()
	want := uint64(objects*200) + uint64(sent.Accepted.Load())
	eventually(t, time.Minute, "rows", func() error {
		// Accepted by requests that the end cut off are rows too.
		if got := one[uint64](s, "SELECT count() FROM events FINAL"); got < want {
			return fmt.Errorf("%d rows, want %d", got, want)
		}
		return nil
	})
	eventually(t, 30*time.Second, "verify", func() error {
		v, err := s.verify()
		if err == nil && v.Waiting > 0 {
			err = fmt.Errorf("%d objects wait", v.Waiting)
		}
		return err
	})
	if n := one[int64](s, "SELECT count() - uniqExact(object, object_row) FROM events"); n != 0 {
		t.Errorf("%d rows are there twice", n)
	}
	if n := one[uint64](s, "SELECT uniqExact(object) FROM events WHERE generation > 0"); n < objects {
		t.Errorf("%d objects were replaced, want %d at least", n, objects)
	}
}

// The table is dropped and recreated. One command restores all rows, and leaves existing ones alone.
func TestTableIsLost(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive", "PENSTOCK_BATCHER_OBJECT_WAIT=1ms")
	l := s.start("l1", "load")
	for i := range 20 {
		post(t, r.URL+"/v1/events?durability=object", fmt.Sprintf(`[{"name":"a","i":%d},{"name":"b"},{"name":"c"}]`, i))
	}
	s.loadedRows("events", 60) // a loader asks the table until it has written that to the ledger
	if err := s.db.Exec(t.Context(), "DROP TABLE events SYNC"); err != nil {
		t.Fatal(err)
	}
	l.term()
	s.must("setup")
	if out := s.must("reingest", "--since", "1h", "--dry-run"); !strings.Contains(out, "20 objects") ||
		!strings.Contains(out, "60 rows") || !strings.Contains(out, "without a row in the table") {
		t.Errorf("dry run: %s", out)
	}
	if n := one[uint64](s, "SELECT count() FROM events"); n != 0 {
		t.Errorf("a dry run brought %d rows", n)
	}
	s.must("reingest", "--since", "1h")
	s.rows("events", 60)
	s.mustVerify()
	if out := s.must("reingest", "--since", "1h"); !strings.Contains(out, "20 objects") ||
		!strings.Contains(out, "left alone") || !strings.Contains(out, "loaded 0 objects") {
		t.Errorf("again: %s", out)
	}
}

// The commands ask a server where one is named, and the server wants its token.
func TestAdminAPI(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive")
	// Two loaders and the commands share one configuration, folder and all.
	shared := "PENSTOCK_BATCHER_DIR=" + filepath.Join(s.dir, "shared")
	l := s.start("l1", "load", "PENSTOCK_ADMIN_TOKEN=secret", shared)
	s.start("l2", "load", shared)
	_, a := post(t, r.URL+"/v1/events?durability=object",
		`[{"name":"a","event_id":"0190c5a0-0000-7000-8000-000000000001","properties":{"price":4.99}},{"name":"b"}]`)
	post(t, r.URL+"/v1/events", "{bad")
	s.rows("events", 2)
	s.rows("errors", 1)
	for _, tt := range []struct {
		server, token string
		status        int
	}{{r.Admin, "secret", 403}, {l.Admin, "wrong", 401}, {l.Admin, "", 401}, {l.Admin, "secret", 200}} {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", tt.server+"/v1/objects", nil)
		req.Header.Set("Authorization", "Bearer "+tt.token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tt.status || tt.status == 200 && !strings.HasSuffix(string(text), `{"done":true}`+"\n") {
			t.Errorf("%s with %q: %s %s", tt.server, tt.token, resp.Status, text)
		}
	}
	// The command has no configuration but server and token.
	path, err := penstock()
	if err != nil {
		t.Fatal(err)
	}
	remote := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), path, append(args, "--server", l.Admin)...)
		cmd.Env, cmd.Dir = append(os.Environ(), "PENSTOCK_ADMIN_TOKEN=secret"), t.TempDir()
		text, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("penstock %v: %v\n%s", args, err, text)
		}
		return string(text)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"objects", "list"}, a.Object},
		{[]string{"objects", "show", a.Object}, `"name":"b"`},
		{[]string{"objects", "find", "0190c5a0-0000-7000-8000-000000000001"}, "row     0"},
		{[]string{"objects", "find", a.Object, "1"}, `"name":"b"`},
		{[]string{"errors", "list"}, "invalid_json"},
		{[]string{"errors", "show", "--code", "invalid_json"}, "{bad"},
		{[]string{"errors", "redrive", "--all", "--through", `echo '{"name":"mended"}'`}, "accepted"},
		{[]string{"dlq", "list"}, "0 dead letters"},
		{[]string{"dlq", "rebuild"}, "0 dead letters in the stream"},
		{[]string{"reingest", a.Object, "--replace"}, "loaded 1 object, 2 rows"},
	} {
		if out := remote(tt.args...); !strings.Contains(out, tt.want) {
			t.Errorf("penstock %v: %s\nwant %q", tt.args, out, tt.want)
		}
	}
	s.rows("events", 3)
	eventually(t, 30*time.Second, "the property catalogue", func() error { // loaders write it every few seconds
		if out := remote("properties"); !strings.Contains(out, "price") || !strings.Contains(out, "Float64") {
			return errors.New(out)
		}
		return nil
	})
	if out, want := remote("columns", "suggest"), "- {name: price, type: Float64}"; !strings.Contains(out, want) {
		t.Errorf("penstock columns suggest: %s\nwant %q", out, want)
	}
	// After a server's redrive another one begins as before, here and there.
	post(t, r.URL+"/v1/events", "{worse")
	s.rows("errors", 2)
	if out := remote("errors", "redrive", "--code", "invalid_json", "--through",
		`echo '{"name":"mended"}'`); !strings.Contains(out, "1 accepted") {
		t.Errorf("the second redrive: %s", out)
	}
	post(t, r.URL+"/v1/events", "{worst")
	s.rows("errors", 3)
	if out := s.must("errors", "redrive", "--code", "invalid_json", "--through",
		`echo '{"name":"mended"}'`); !strings.Contains(out, "1 accepted") {
		t.Errorf("the redrive from here: %s", out)
	}
	s.rows("events", 5)
	// One at a time: another one that runs, or was just killed, keeps this one away.
	if _, held, err := s.bucket().Claim(t.Context(), "redrive", "another", time.Minute); !held || err != nil {
		t.Fatal(held, err)
	}
	if out, err := s.run("errors", "redrive", "--all"); err == nil ||
		!strings.Contains(out, "another redrive is running") {
		t.Errorf("beside another: %v %s", err, out)
	}
	// Bytes damaged in the bucket are not returned as the original ones.
	post(t, r.URL+"/v1/events", "{"+strings.Repeat("x", 2<<20))
	s.rows("errors", 4)
	blob := one[string](s, "SELECT raw_object FROM errors WHERE raw_object != ''")
	if out := s.must("errors", "show", "--raw",
		one[string](s, "SELECT toString(event_id) FROM errors WHERE raw_object != ''")); len(out) != 1+2<<20 {
		t.Errorf("%d raw bytes, want %d", len(out), 1+2<<20)
	}
	whole, _ := s.get(blob)
	s.put(blob, make([]byte, len(whole)), nil)
	if out, err := s.run("errors", "show", "--code", "invalid_json"); err == nil || !strings.Contains(out, "is damaged") {
		t.Errorf("a damaged blob: %v %.300s", err, out)
	}
	s.mustVerify()
}

// A materialized view that throws, and an unknown error code.
func TestViewAndUnknownCode(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for _, q := range []string{
		"CREATE TABLE levels (level UInt8) ENGINE = MergeTree ORDER BY level",
		"CREATE MATERIALIZED VIEW to_levels TO levels AS SELECT accurateCast(ifNull(properties.level.:Int64, 0), 'UInt8') " +
			"AS level FROM events",
	} {
		if err := s.db.Exec(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	r := s.start("r1", "receive")
	s.start("l1", "load")
	post(t, r.URL+"/v1/events?durability=object", `[{"name":"a","level":300},{"name":"b","level":3}]`)
	s.rows("events", 2)
	eventually(t, time.Minute, "the view's failure", func() error {
		if n := one[uint64](s, "SELECT count() FROM load_failures WHERE code = 'view_failed' AND server_code = 70"); n != 1 {
			return fmt.Errorf("%d failures", n)
		}
		return nil
	})
	for _, q := range []string{"DROP TABLE to_levels",
		"ALTER TABLE events ADD COLUMN high UInt8 MATERIALIZED ifNull(CAST(properties.score > 3 AS Nullable(UInt8)), 0)"} {
		if err := s.db.Exec(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	post(t, r.URL+"/v1/events?durability=object", `[{"name":"a","score":5},{"name":"b","score":"many"},{"name":"c"}]`)
	s.rows("events", 4)
	s.rows("errors", 2)
	if code := one[int64](s, "SELECT server_code FROM errors WHERE code = 'refused_row'"); code != 386 {
		t.Errorf("refused with code %d", code)
	}
	s.mustVerify()
}
