package codec

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

var modified = time.UnixMilli(1795319112345)

// decodeForeign reads all of a foreign object, as decode does.
func decodeForeign(object []byte, key string, limit Limit) (events []pipeline.Event, refused []Refused, cuts []int, err error) {
	dec, err := NewForeignDecoder(bytes.NewReader(object), int64(len(object)), pipeline.Object{Key: key, Modified: modified})
	if err != nil {
		return nil, nil, nil, err
	}
	defer dec.Close()
	var part []pipeline.Event
	for {
		part, err = dec.Decode(part[:0], limit)
		left := dec.(Refuser).Refused()
		if err == io.EOF && len(part)+len(left) > 0 {
			return nil, nil, nil, fmt.Errorf("%d events and %d refused with io.EOF", len(part), len(left))
		}
		refused = append(refused, left...)
		for _, e := range part {
			events = append(events, clone(e))
		}
		if err == io.EOF {
			return events, refused, cuts, nil
		}
		if err != nil {
			return events, refused, cuts, err
		}
		cuts = append(cuts, len(events))
	}
}

func gz(text []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(text)
	z.Close()
	return b.Bytes()
}

func zst(text []byte) []byte {
	z, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	return z.EncodeAll(text, nil)
}

func TestForeignMapping(t *testing.T) {
	const id = "00000000-0000-4000-8000-000000000001"
	derived := func(project, id string) string { return pipeline.UUIDv5([]byte(project), []byte(id)).String() }
	place := derived("", "in/a.ndjson#0")
	for _, c := range []struct{ line, id, name, timestamp, received, props, context string }{
		{line: `{}`},
		{line: `{"event_id":"` + id + `"}`, id: id, timestamp: "none"},
		{line: `{"event_id":null,"timestamp":null,"received_at":null,"properties":null,"context":null,"name":null,"seq":null}`},
		{line: `{"event_id":"","name":""}`},
		{line: `{"event_id":"abc"}`, id: derived("", "abc"), timestamp: "none", props: `{"event_id":"abc"}`},
		{line: `{"event_id":17,"project":"p"}`, id: derived("p", "17"), timestamp: "none", props: `{"event_id":17}`},
		{line: `{"project":7}`, id: derived("7", "in/a.ndjson#0")},
		{line: `{"name":"n","timestamp":"2026-11-22T05:45:12.345678+02:00"}`, name: "n", timestamp: "2026-11-22T03:45:12.345Z"},
		{line: `{"timestamp":"2026-11-22"}`, timestamp: "2026-11-22T00:00:00.000Z"},
		{line: `{"timestamp":"2026-11-22 03:45:12.345678"}`, timestamp: "2026-11-22T03:45:12.345Z"}, // ClickHouse, DuckDB
		{line: `{"timestamp":"2026-11-22T03:45:12.345:Z"}`, timestamp: "2026-11-22T03:45:12.345Z"},
		{line: `{"timestamp":"2026-11-22T03:45:12.345"}`, timestamp: "2026-11-22T03:45:12.345Z"},
		{line: `{"timestamp":"2026-11-22T03:45:12.345+0000"}`, timestamp: "2026-11-22T03:45:12.345Z"},
		{line: `{"timestamp":""}`},
		{line: `{"timestamp":"","event_id":"x"}`, id: derived("", "x"), timestamp: "none", props: `{"event_id":"x"}`},
		{line: `{"timestamp":1.7953191121e9}`, timestamp: "2026-11-22T03:45:12.100Z"},
		{line: `{"timestamp":"1795319112.345678901"}`, timestamp: "2026-11-22T03:45:12.346Z"},
		{line: `{"timestamp":1795319112}`, timestamp: "2026-11-22T03:45:12.000Z"},
		{line: `{"timestamp":1795319112.345}`, timestamp: "2026-11-22T03:45:12.345Z"},
		{line: `{"timestamp":"1795319112345"}`, timestamp: "2026-11-22T03:45:12.345Z"},
		{line: `{"timestamp":1795319112345678}`, timestamp: "2026-11-22T03:45:12.346Z"},
		{line: `{"timestamp":1795319112345678901}`, timestamp: "2026-11-22T03:45:12.346Z"},
		{line: `{"received_at":1795319112}`, timestamp: "2026-11-22T03:45:12.000Z", received: "2026-11-22T03:45:12.000Z"},
		{line: `{"properties":{"a":1},"context":{"ip":"::1"}}`, props: `{"a":1}`, context: `{"ip":"::1"}`},
		{line: `{"properties":" {\"a\":\"\\u00e9\"}","context":"{}"}`, props: `{"a":"\u00e9"}`},
		{line: `{"properties":"{\"a\":1,\"a\":2}","context":"x"}`, props: `{"properties":"{\"a\":1,\"a\":2}","context":"x"}`},
		{line: `{"properties":[1],"context":2}`, props: `{"properties":[1],"context":2}`},
		{line: `{"b":1,"properties":{ "a":2 },"c":null}`, props: `{"b":1,"c":null,"a":2}`},
		{line: `{"b":1,"properties":{}}`, props: `{"b":1}`},
		{line: `{"a":1,"_a":2,"properties":{"a":3}}`, props: `{"__a":1,"_a":2,"a":3}`},
		{line: `{"_a":2,"a":1,"properties":{"a":3,"__a":4,"_a":5}}`, props: `{"___a":2,"____a":1,"a":3,"__a":4,"_a":5}`},
		{line: `{"event_id":"x","properties":{"event_id":"y"}}`, id: derived("", "x"), timestamp: "none", props: `{"_event_id":"x","event_id":"y"}`},
		{line: `{"q\"":1}`, props: `{"q\"":1}`},
	} {
		events, refused, _, err := decodeForeign([]byte(c.line), "in/a.ndjson", noLimit)
		if err != nil || len(refused) > 0 || len(events) != 1 {
			t.Errorf("%s: got %d events, %v, %v", c.line, len(events), refused, err)
			continue
		}
		e := events[0]
		or := func(s, otherwise string) string {
			if s == "" {
				return otherwise
			}
			return s
		}
		show := func(ms int64) string {
			if ms == pipeline.NoTime {
				return "none"
			}
			return pipeline.Millis(ms).Format(pipeline.TimeFormat)
		}
		now := show(modified.UnixMilli())
		for _, f := range [][3]string{
			{"id", e.ID.String(), or(c.id, place)},
			{"name", string(e.Name), or(c.name, "imported")},
			{"timestamp", show(e.Timestamp), or(c.timestamp, now)},
			{"received_at", show(e.ReceivedAt), or(c.received, now)},
			{"properties", string(e.Properties), or(c.props, "{}")},
			{"context", string(e.Context), or(c.context, "{}")},
		} {
			if f[1] != f[2] {
				t.Errorf("%s: %s: got %s, want %s", c.line, f[0], f[1], f[2])
			}
		}
	}

	events, _, _, err := decodeForeign([]byte(`{"session_id":5,"user_id":"\u00e9","receiver":"r","seq":18446744073709551615}`), "a.jsonl", noLimit)
	if err != nil || len(events) != 1 {
		t.Fatal(len(events), err)
	}
	if e := events[0]; string(e.SessionID) != "5" || string(e.UserID) != "é" || string(e.Receiver) != "r" || e.Seq != 1<<64-1 {
		t.Errorf("got %v", e)
	}
}

func TestForeignRefused(t *testing.T) {
	bad := []struct{ line, code string }{
		{`{"a":`, "invalid_json"},
		{`x`, "invalid_json"},
		{`{} {}`, "invalid_json"},
		{`[1]`, "not_an_object"},
		{"{\"a\":\"\xff\"}", "invalid_utf8"},
		{`{"a":1,"a":2}`, "duplicate_key"},
		{`{"a":{"b":1,"b":2}}`, "duplicate_key"},
		{`{"a":"\ud800"}`, "lone_surrogate"},
		{`{"a":99999999999999999999}`, "number_out_of_range"},
		{strings.Repeat(`{"a":`, maxForeignDepth) + "[]" + strings.Repeat("}", maxForeignDepth), "too_deep"},
		{`{"event_id":true}`, "wrong_type"},
		{`{"name":[]}`, "wrong_type"},
		{`{"user_id":{}}`, "wrong_type"},
		{`{"timestamp":false}`, "wrong_type"},
		{`{"seq":-1}`, "wrong_type"},
		{`{"seq":"a"}`, "wrong_type"},
		{`{"timestamp":"yesterday"}`, "invalid_timestamp"},
		{`{"timestamp":"0x10"}`, "invalid_timestamp"},
		{`{"timestamp":"2026-11-22T3:45:12Z"}`, "invalid_timestamp"},
		{`{"timestamp":11000000000000}`, "invalid_timestamp"},
		{`{"received_at":"1899-12-31"}`, "invalid_timestamp"},
		{`{"received_at":"1969-12-31T23:59:59.999Z"}`, "invalid_timestamp"}, // no partition is before 1970,
		{`{"received_at":"2100-01-01"}`, "invalid_timestamp"},               // and days end in 2149
	}
	text := "\ufeff{}\n\n"
	for _, b := range bad {
		text += b.line + "\r\n{}\n \n"
	}
	for key, object := range map[string][]byte{
		"a.ndjson": []byte(text), "a.jsonl": []byte(text), "a.ndjson.gz": gz([]byte(text)), "a.jsonl.gz": gz([]byte(text)),
		"a.ndjson.zst": zst([]byte(text)), "a.jsonl.zst": zst([]byte(text)),
	} {
		events, refused, _, err := decodeForeign(object, key, Limit{Rows: 3, Bytes: 1 << 30})
		if err != nil || len(events) != len(bad)+1 || len(refused) != len(bad) {
			t.Fatalf("%s: got %d events, %d refused, %v", key, len(events), len(refused), err)
		}
		for i := range events {
			if events[i].Row != uint32(2*i) {
				t.Errorf("%s: event %d is of row %d", key, i, events[i].Row)
			}
		}
		for i, b := range bad {
			if r := refused[i]; r.Row != uint32(2*i+1) || r.Code != b.code || string(r.Raw) != b.line || r.Message == "" {
				t.Errorf("%s: got %+v, want %s", b.line, r, b.code)
			}
		}
	}
}

// What is refused is bounded, and told no later than by the Decode that ends with it.
func TestForeignRefusedBounds(t *testing.T) {
	decode := func(text string) Decoder {
		t.Helper()
		dec, err := NewForeignDecoder(strings.NewReader(text), int64(len(text)), pipeline.Object{Key: "a.ndjson"})
		if err != nil {
			t.Fatal(err)
		}
		return dec
	}
	next := func(dec Decoder, events, refused int, want error) {
		t.Helper()
		got, err := dec.Decode(nil, noLimit)
		if n := len(dec.(Refuser).Refused()); len(got) != events || n != refused || err != want {
			t.Errorf("got %d events, %d refused, %v; want %d, %d, %v", len(got), n, err, events, refused, want)
		}
		if n := len(dec.(Refuser).Refused()); n > 0 {
			t.Errorf("%d refused once more", n)
		}
	}
	dec := decode("{}\n" + strings.Repeat("x\n", 2500) + "{}\nx\n")
	next(dec, 1, 1000, nil)
	next(dec, 0, 1000, nil)
	next(dec, 1, 501, nil)
	next(dec, 0, 0, io.EOF)
	next(dec, 0, 0, io.EOF)

	dec = decode(strings.Repeat(strings.Repeat("x", 1<<20)+"\n", 6))
	next(dec, 0, 4, nil)
	next(dec, 0, 2, nil)
	next(dec, 0, 0, io.EOF)

	dec = decode("x\n{}\nx")
	if got, err := dec.Decode(nil, noLimit); len(got) != 1 || err != nil {
		t.Errorf("got %d events, %v", len(got), err)
	}
	next(dec, 0, 0, io.EOF) // nobody asked
	next(decode(""), 0, 0, io.EOF)
}

// A copy of our own object that lost its metadata is read to the same events.
func TestForeignOwn(t *testing.T) {
	for _, f := range formats {
		for _, events := range [][]pipeline.Event{oddEvents(), gameEvents(5000)} {
			object := encode(t, f, events, 700)
			got, refused, _, err := decodeForeign(object, "copy."+string(f), Limit{Rows: 1000, Bytes: 1 << 20})
			if err != nil || len(refused) > 0 {
				t.Fatalf("%s: %v, refused %v", f, err, refused)
			}
			same(t, got, events)
			for i := range got {
				if got[i].Row != uint32(i) {
					t.Fatalf("%s: event %d is of row %d", f, i, got[i].Row)
				}
			}
		}
	}
}

func TestForeignLimit(t *testing.T) {
	events := slices.Concat(gameEvents(2000), oddEvents()[:4], gameEvents(300))
	for _, f := range formats {
		object := encode(t, f, events, 640)
		for _, limit := range []Limit{{1, 1 << 40}, {64, 1 << 40}, {1 << 30, 5000}, {100, 30_000}, noLimit, {}} {
			got, _, cuts, err := decodeForeign(object, "a."+string(f), limit)
			if want := modelCuts(got, limit); err != nil || !slices.Equal(cuts, want) {
				t.Errorf("%s %v: cut at %v, want %v (%v)", f, limit, cuts, want, err)
			}
		}
	}
}

func TestForeignTruncated(t *testing.T) {
	for _, f := range []pipeline.Format{pipeline.Parquet, pipeline.NDJSON, pipeline.GzipNDJSON} {
		var object []byte
		if f == pipeline.GzipNDJSON {
			object = gz(bytes.Repeat([]byte("{\"name\":\"n\"}\n"), 50))
		} else {
			object = encode(t, f, gameEvents(8), 5)
		}
		for n := range object {
			if got, _, _, err := decodeForeign(object[:n], "a."+string(f), noLimit); err == nil {
				t.Fatalf("%s cut to %d of %d bytes: %d events and no error", f, n, len(object), len(got))
			}
		}
	}
	if _, err := NewForeignDecoder(strings.NewReader("x"), 1, pipeline.Object{Key: "a.csv"}); err == nil {
		t.Error("csv is taken")
	}
}

type deep struct {
	Name string   `parquet:"name"`
	Tags []string `parquet:"tags,list"`
	Num  *int32   `parquet:"num,optional"`
}

type foreignRow struct {
	EventID   [16]byte            `parquet:"event_id"`
	Timestamp int64               `parquet:"timestamp,timestamp(microsecond)"`
	UserID    float64             `parquet:"user_id"`
	Name      *string             `parquet:"name,optional"`
	Text      string              `parquet:"text,zstd"`
	Bytes     []byte              `parquet:"bytes"`
	Fixed     [3]byte             `parquet:"fixed"`
	UUID      [16]byte            `parquet:"uuid,uuid"`
	I8        int8                `parquet:"i8"`
	U32       uint32              `parquet:"u32"`
	U64       uint64              `parquet:"u64,delta"`
	F32       float32             `parquet:"f32,split"`
	F64       float64             `parquet:"f64,gzip"`
	Bool      bool                `parquet:"bool"`
	D32       int32               `parquet:"d32,decimal(2:9)"`
	D64       int64               `parquet:"d64,decimal(0:18)"`
	Date      int32               `parquet:"date,date"`
	Ms        int64               `parquet:"ms,timestamp(millisecond)"`
	Ns        int64               `parquet:"ns,timestamp(nanosecond)"`
	Old       deprecated.Int96    `parquet:"old"`
	Day       int64               `parquet:"day,time(microsecond)"`
	JSON      string              `parquet:"json,json"`
	Enum      string              `parquet:"enum,enum"`
	Null      *int64              `parquet:"null,optional"`
	Repeated  []int32             `parquet:"repeated,snappy"`
	List      []deep              `parquet:"list,list"`
	Group     deep                `parquet:"group"`
	Perhaps   *deep               `parquet:"perhaps,optional"`
	Map       map[string]int64    `parquet:"map"`
	Numbered  map[int32][]float64 `parquet:"numbered"`
	Props     map[string]string   `parquet:"properties"`
	Context   string              `parquet:"context"`
}

func foreignRows() []foreignRow {
	name, num := "n", int32(-7)
	return []foreignRow{
		{
			EventID: [16]byte{0: 1, 15: 2}, Timestamp: 1795319112345678, UserID: 12345678, Name: &name, Text: "é\"\n", Bytes: []byte{0xff, 0}, Fixed: [3]byte{1, 2, 3},
			UUID: [16]byte{15: 9}, I8: -8, U32: math.MaxUint32, U64: math.MaxUint64, F32: 0.1, F64: math.Inf(1), Bool: true,
			D32: -1234, D64: 5, Date: 20779, Ms: 1795319112345, Ns: 1795319112345678901,
			Old: deprecated.Int96{0: 12345, 2: 2440588 + 20779}, Day: 3723000001, JSON: ` {"a":[1]}`, Enum: "E",
			Repeated: []int32{1, 2}, List: []deep{{Name: "a", Tags: []string{"x", "y"}, Num: &num}, {Name: "b"}},
			Group: deep{Name: "g", Tags: []string{"z"}}, Perhaps: &deep{Num: &num},
			Map: map[string]int64{"k": 1}, Numbered: map[int32][]float64{-5: {1, math.NaN()}}, Props: map[string]string{"text": "inner"}, Context: `{"ip":"::1"}`,
		},
		{F64: 1e300, D32: 5, JSON: "{", Day: -1},
	}
}

func writeParquet[T any](t testing.TB, rows []T, options ...parquet.WriterOption) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := parquet.Write(&b, rows, options...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestForeignParquetTypes(t *testing.T) {
	want := []string{
		`{"_text":"é\"\n","bytes":"/wA=","fixed":"AQID","uuid":"00000000-0000-0000-0000-000000000009","i8":-8,"u32":4294967295,` +
			`"u64":18446744073709551615,"f32":0.1,"f64":null,"bool":true,"d32":"-12.34","d64":"5","date":"2026-11-22","ms":"2026-11-22T03:45:12.345Z",` +
			`"ns":"2026-11-22T03:45:12.345678901Z","old":"2026-11-22T00:00:00.000012345Z","day":"01:02:03.000001","json":{"a":[1]},"enum":"E",` +
			`"repeated":[1,2],"list":[{"name":"a","tags":["x","y"],"num":-7},{"name":"b","tags":[]}],"group":{"name":"g","tags":["z"]},` +
			`"perhaps":{"name":"","tags":[],"num":-7},"map":{"k":1},"numbered":{"-5":[1,null]},"text":"inner"}`,
		`{"text":"","bytes":"","fixed":"AAAA","uuid":"00000000-0000-0000-0000-000000000000","i8":0,"u32":0,"u64":0,"f32":0,"f64":1e+300,"bool":false,` +
			`"d32":"0.05","d64":"0","date":"1970-01-01","ms":"1970-01-01T00:00:00Z","ns":"1970-01-01T00:00:00Z","old":"-4713-11-24T00:00:00Z",` +
			`"day":"23:59:59.999999","json":"{","enum":"","repeated":[],"list":[],"group":{"name":"","tags":[]},"map":{},"numbered":{},"context":""}`,
	}
	// Rows go over pages, dictionaries and row groups in any way.
	for name, options := range map[string][]parquet.WriterOption{
		"v2": nil, "v1": {parquet.DataPageVersion(1)}, "small pages": {parquet.PageBufferSize(1), parquet.MaxRowsPerRowGroup(3)},
	} {
		var rows []foreignRow
		for range 50 {
			rows = append(rows, foreignRows()...)
		}
		events, refused, _, err := decodeForeign(writeParquet(t, rows, options...), "a.parquet", Limit{Rows: 7, Bytes: 1 << 30})
		if err != nil || len(refused) > 0 || len(events) != len(rows) {
			t.Fatalf("%s: got %d events, %v, %v", name, len(events), refused, err)
		}
		for i, e := range events {
			if string(e.Properties) != want[i%2] {
				t.Fatalf("%s: row %d:\n got %s\nwant %s", name, i, e.Properties, want[i%2])
			}
		}
		e := events[0]
		if e.ID != (pipeline.UUID{0: 1, 15: 2}) || e.Timestamp != 1795319112345 || e.ReceivedAt != modified.UnixMilli() || string(e.UserID) != "12345678" ||
			string(e.Name) != "n" || string(e.Context) != `{"ip":"::1"}` || string(events[1].Name) != "imported" {
			t.Errorf("%s: got %v", name, e)
		}
	}
}

func TestForeignParquetIDs(t *testing.T) {
	text, uuid := []byte("sixteen letters!"), pipeline.UUID{0: 0xff, 15: 1}
	events, _, _, err := decodeForeign(writeParquet(t, []struct {
		ID []byte `parquet:"event_id"`
	}{{text}, {uuid[:]}, {[]byte("00000000-0000-4000-8000-000000000001")}, {nil}}), "a.parquet", noLimit)
	if err != nil || len(events) != 4 {
		t.Fatalf("got %d events, %v", len(events), err)
	}
	for i, want := range []pipeline.UUID{pipeline.UUIDv5(nil, text), uuid, {6: 0x40, 8: 0x80, 15: 1}, pipeline.UUIDv5(nil, []byte("a.parquet#3"))} {
		if events[i].ID != want {
			t.Errorf("row %d: got %s, want %s", i, events[i].ID, want)
		}
	}
}

// A row that cannot be an event is left out, as a line is.
func TestForeignParquetRefused(t *testing.T) {
	type row struct {
		Timestamp string `parquet:"timestamp"`
	}
	events, refused, _, err := decodeForeign(writeParquet(t, []row{{"2026-11-22"}, {"x"}, {"2026-11-23"}}), "a.parquet", noLimit)
	if err != nil || len(events) != 2 || events[1].Row != 2 {
		t.Fatalf("got %v, %v", events, err)
	}
	if len(refused) != 1 || refused[0].Row != 1 || refused[0].Code != "invalid_timestamp" || string(refused[0].Raw) != `{"timestamp":"x"}` {
		t.Errorf("got %+v", refused)
	}
}

func TestForeignParquetUnsupported(t *testing.T) {
	variant := parquet.NewSchema("row", parquet.Group{"v": parquet.Variant()})
	var b bytes.Buffer
	w := parquet.NewGenericWriter[any](&b, variant)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for want, object := range map[string][]byte{
		`column "v": a group of type VARIANT is not supported`: b.Bytes(),
		`column "a": row group 0: compressed by BROTLI`: writeParquet(t, []struct {
			A int32 `parquet:"a,brotli"`
		}{{1}}),
		`column "m": a map whose keys`: writeParquet(t, []struct {
			M map[struct{ A, B int32 }]int32 `parquet:"m"`
		}{{}}),
		`deeper than`: deepSchema(t),
	} {
		if _, _, _, err := decodeForeign(object, "a.parquet", noLimit); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func deepSchema(t *testing.T) []byte {
	node := parquet.Node(parquet.Int(32))
	for range maxNesting {
		node = parquet.Group{"g": node}
	}
	var b bytes.Buffer
	if err := parquet.NewGenericWriter[any](&b, parquet.NewSchema("row", parquet.Group{"g": node})).Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A flipped bit may change what is read, for most pages have no checksum, but
// neither panics nor hangs.
func TestForeignParquetFlips(t *testing.T) {
	object := writeParquet(t, foreignRows(), parquet.DataPageVersion(1))
	failed := 0
	for i := range object {
		if i%9 > 0 && os.Getenv("PENSTOCK_TEST_ALL") == "" {
			continue // all of them take long
		}
		object[i] ^= 1 << (i % 8)
		if _, _, _, err := decodeForeign(object, "a.parquet", noLimit); err != nil {
			failed++
		}
		object[i] ^= 1 << (i % 8)
	}
	if t.Logf("%d of %d flips are errors", failed, len(object)); failed == 0 {
		t.Error("no flip is an error")
	}
}

// fuzzForeign is the property of foreign decoders: no panic, bounded memory, an end, and each row once.
func fuzzForeign(t *testing.T, object []byte, key string) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	events, refused, _, err := decodeForeign(object, key, Limit{Rows: 100, Bytes: 1 << 20})
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<30+uint64(len(object))*10_000 {
		t.Errorf("%d bytes allocated for %d", used, len(object))
	}
	if err != nil {
		return
	}
	rows := make([]bool, len(events)+len(refused))
	for i := range events {
		e := &events[i]
		rows[e.Row] = true
		scan := jsonscan.Scanner{MaxDepth: maxForeignDepth}
		for _, doc := range [][]byte{e.Properties, e.Context} {
			if _, n, err := scan.Object(doc); err != nil || n != len(doc) {
				t.Errorf("%q is no document: %v", doc, err)
			}
		}
		if len(e.Name) == 0 {
			t.Errorf("an event without a name: %v", e)
		}
	}
	for _, r := range refused {
		if rows[r.Row] = true; r.Code == "" || r.Message == "" {
			t.Errorf("refused without a reason: %+v", r)
		}
	}
	if slices.Contains(rows, false) {
		t.Errorf("of %d rows some are missing", len(rows))
	}
}

func FuzzForeignNDJSON(f *testing.F) {
	for _, s := range []string{
		"", "{}", "{}\nx\n{\"a\":1,\"a\":2}\n\n{\"b\":\"\xff\"}\n", `{"event_id":5,"timestamp":1795319112,"properties":"{\"a\":1}","a":2}`,
		`{"_a":2,"a":1,"properties":{"a":3,"_a":5},"context":[]}`, "\ufeff{\"seq\":-1}\r\n[1]\n{\"timestamp\":\"x\"}",
	} {
		f.Add([]byte(s))
	}
	for _, e := range oddEvents()[:4] {
		f.Add(appendLine(nil, &e, "r", new(clock)))
	}
	f.Fuzz(func(t *testing.T, b []byte) { fuzzForeign(t, b, "a.ndjson") })
}

func FuzzForeignParquet(f *testing.F) {
	f.Add(encode(f, pipeline.Parquet, gameEvents(2), 1))
	f.Add(writeParquet(f, foreignRows()))
	f.Add(writeParquet(f, []deep{{Name: "a", Tags: []string{"x", "y"}}, {}}, parquet.DataPageVersion(1)))
	f.Add(writeParquet(f, []struct {
		L []deep           `parquet:"l,list"`
		M map[string]int64 `parquet:"m"`
	}{{L: []deep{{Tags: []string{"x"}}, {}}, M: map[string]int64{"a": 1}}, {}}))
	f.Fuzz(func(t *testing.T, b []byte) { fuzzForeign(t, b, "a.parquet") })
}
