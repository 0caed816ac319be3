package codec

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"

	"github.com/penstock/penstock/internal/pipeline"
)

var formats = []pipeline.Format{pipeline.Parquet, pipeline.NDJSON}

var noLimit = Limit{Rows: 1 << 30, Bytes: 1 << 40}

// gameEvents returns n events as the receiver hands them on. As sent, each has about 366 bytes.
func gameEvents(n int) []pipeline.Event {
	r := rand.New(rand.NewPCG(1, 2))
	names := []string{"level_completed", "item_purchased", "session_started", "enemy_killed", "tutorial_step"}
	weapons := []string{"plasma_rifle", "bow", "short sword", "grenade", "épée"}
	events := make([]pipeline.Event, n)
	for i := range events {
		e := &events[i]
		e.ID = pipeline.UUID{byte(r.Uint32()), byte(r.Uint32()), byte(i >> 16), byte(i >> 8), byte(i), 5: 1,
			15: byte(r.Uint32())}
		e.Project, e.Name = []byte("game"), []byte(names[r.IntN(len(names))])
		e.SessionID, e.UserID = fmt.Appendf(nil, "s-%08x", r.Uint32()), fmt.Appendf(nil, "player_%d", r.IntN(5_000_000))
		e.ReceivedAt = 1764000000000 + int64(i/100)
		e.Timestamp = e.ReceivedAt - int64(r.IntN(5000))
		e.Seq = 1764000000000000 + uint64(i)
		e.Properties = fmt.Appendf(nil,
			`{"level":%d,"score":%d,"health":%.2f,"position_x":%.3f,"position_y":%.3f,"weapon":%q,"platform":"windows","is_premium":%t,"build":"1.24.0-rc1.24.0-rc1.24.0-rc1.24.0-rc"}`,
			r.IntN(100), r.IntN(1_000_000), 100*r.Float64(), 2000*r.Float64()-1000, 2000*r.Float64(),
			weapons[r.IntN(len(weapons))], r.IntN(2) == 0)
		e.Context = fmt.Appendf(nil,
			`{"ip":"203.0.113.%d","user_agent":"UnityPlayer/2022.3.10f1 (UnityWebRequest/1.0, libcurl/7.84.0-DEV)"}`,
			r.IntN(200))
	}
	return events
}

// manyEvents repeats a few thousand events with new ids and seqs, which is faster than making all of them.
func manyEvents(n int) []pipeline.Event {
	few := gameEvents(min(n, 5000))
	events := make([]pipeline.Event, n)
	for i := range events {
		events[i] = few[i%len(few)]
		events[i].Seq, events[i].ID[7], events[i].ID[8] = uint64(i), byte(i>>16), byte(i>>8)
	}
	return events
}

// oddEvents are edge cases of each field.
func oddEvents() []pipeline.Event {
	event := func(i int, props string) pipeline.Event {
		return pipeline.Event{ID: pipeline.UUID{15: byte(i)}, Project: []byte("p"), Name: []byte("n"), Seq: uint64(i),
			ReceivedAt: 1764000000000,
			Timestamp:  1764000000001, Properties: []byte(props), Context: []byte("{}")}
	}
	all := event(1, `{"a":[1,2.50,1e3,{"b":null}],"é":"\u00e9\"\\ \ud83d\ude00"}`)
	all.SessionID, all.UserID, all.Context = []byte("s"), []byte("u"), []byte(`{"ip":"::1"}`)
	noTime := event(2, `{}`)
	noTime.Timestamp = pipeline.NoTime
	unicode := event(3, `{"x":"日本語"}`)
	unicode.Name, unicode.UserID = []byte("naïve \"quoted\" \\ 😀\n\t\x00\x7f"), []byte("пользователь")
	early := event(4, `{"t":0}`)
	early.Timestamp, early.ReceivedAt, early.Seq = -1, 0, 1<<63
	big := event(5, `{"text":"`+strings.Repeat("0123456789abcdef", 5<<16)+`"}`)
	return []pipeline.Event{all, noTime, unicode, early, big, event(6, `{"after":"big"}`)}
}

func encode(t testing.TB, format pipeline.Format, events []pipeline.Event, batch int) []byte {
	t.Helper()
	var b bytes.Buffer
	enc, err := NewEncoders().New(&b, format, "recv-1")
	if err != nil {
		t.Fatal(err)
	}
	for part := range slices.Chunk(events, batch) {
		if err := enc.Encode(part); err != nil {
			t.Fatal(err)
		}
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func clone(e pipeline.Event) pipeline.Event {
	for _, f := range []*[]byte{&e.Project, &e.Name, &e.SessionID, &e.UserID, &e.Receiver, &e.Properties, &e.Context} {
		*f = append([]byte(nil), *f...) // nil where empty
	}
	return e
}

// decode reads a whole object, cut by limit. It copies each event before the next Decode, as the contract requires.
func decode(object []byte, format pipeline.Format, limit Limit) (events []pipeline.Event, cuts []int, err error) {
	dec, err := newDecoder(bytes.NewReader(object), int64(len(object)), format)
	if err != nil {
		return nil, nil, err
	}
	defer dec.Close()
	var part []pipeline.Event
	for {
		part, err = dec.Decode(part[:0], limit)
		if errors.Is(err, io.EOF) {
			if len(part) > 0 {
				return nil, nil, fmt.Errorf("%d events with io.EOF", len(part))
			}
			return events, cuts, nil
		}
		if err != nil {
			return events, cuts, err
		}
		for _, e := range part {
			events = append(events, clone(e))
		}
		cuts = append(cuts, len(events))
	}
}

// equal compares field by field. With the race detector, reflect.DeepEqual takes a minute for 300,000 events.
func equal(a, b *pipeline.Event) bool {
	return a.ID == b.ID && a.Seq == b.Seq && a.Timestamp == b.Timestamp && a.ReceivedAt == b.ReceivedAt &&
		bytes.Equal(a.Project, b.Project) && bytes.Equal(a.Name, b.Name) && bytes.Equal(a.SessionID, b.SessionID) &&
		bytes.Equal(a.UserID, b.UserID) && bytes.Equal(a.Properties, b.Properties) && bytes.Equal(a.Context, b.Context)
}

// canonical normalizes what Parquet objects do not preserve: the order of members, 1.50 or 1.5, escapes. A float stays
// different from a whole number.
func canonical(doc []byte) string {
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return "no JSON: " + string(doc)
	}
	var walk func(v any) any
	walk = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			for k := range v {
				v[k] = walk(v[k])
			}
		case []any:
			for i := range v {
				v[i] = walk(v[i])
			}
		case json.Number:
			if strings.ContainsAny(v.String(), ".eE") {
				f, _ := v.Float64()
				return fmt.Sprint("float ", math.Float64bits(f))
			}
			return "number " + v.String()
		case string:
			return "string " + v
		}
		return v
	}
	b, _ := json.Marshal(walk(v))
	return string(b)
}

// same compares events regardless of order, because Parquet objects sort them.
func same(t testing.TB, got, want []pipeline.Event) {
	t.Helper()
	got, want = inOrder(got), inOrder(want)
	if len(got) != len(want) {
		t.Fatalf("got %d events, want %d", len(got), len(want))
	}
	for i := range want {
		g := got[i]
		// Parsing all documents of many events takes minutes with the race detector.
		if !bytes.Equal(g.Properties, want[i].Properties) &&
			(i >= 3000 && i%100 > 0 || canonical(g.Properties) == canonical(want[i].Properties)) {
			g.Properties = want[i].Properties
		}
		if !equal(&g, &want[i]) || string(g.Receiver) != "recv-1" {
			t.Fatalf("event %d:\n got %s %.300q\nwant %s %.300q", i, g.Name, g.Properties, want[i].Name, want[i].Properties)
		}
	}
}

// inOrder returns events sorted by key and seq.
func inOrder(events []pipeline.Event) []pipeline.Event {
	var s pipeline.Sorter
	for i := range events {
		s.Add(&events[i])
	}
	var sorted []pipeline.Event
	for _, i := range s.Order() {
		sorted = append(sorted, events[i])
	}
	slices.SortStableFunc(sorted, func(a, b pipeline.Event) int {
		return cmp.Or(bytes.Compare(a.Name, b.Name), bytes.Compare(a.ID[:], b.ID[:]), cmp.Compare(a.Seq, b.Seq))
	})
	return sorted
}

func TestRoundTrip(t *testing.T) {
	for _, f := range formats {
		many := groupRows + 20_000 // for two row groups
		if f != pipeline.Parquet {
			many = 30_000
		}
		for _, c := range []struct {
			name   string
			events []pipeline.Event
			batch  int
		}{
			{"odd", oddEvents(), 100},
			{"odd one by one", oddEvents(), 1},
			{"one", gameEvents(1), 1},
			{"one by one", gameEvents(3000), 1},
			{"row groups", manyEvents(many), 70_001},
		} {
			t.Run(string(f)+"/"+c.name, func(t *testing.T) {
				object := encode(t, f, c.events, c.batch)
				got, _, err := decode(object, f, Limit{Rows: 10_000, Bytes: 8 << 20})
				if err != nil {
					t.Fatal(err)
				}
				same(t, got, c.events)
				if f == pipeline.Parquet && len(c.events) > groupRows {
					file, err := parquet.OpenFile(bytes.NewReader(object), int64(len(object)))
					if err != nil {
						t.Fatal(err)
					}
					if n, want := len(file.RowGroups()), (len(c.events)+groupRows-1)/groupRows; n < want {
						t.Errorf("%d row groups, want at least %d", n, want)
					}
				}
			})
		}
	}
}

// The same events give the same bytes, however they are split into calls. After a crash between PUT and release, the
// checksum shows that.
func TestDeterministic(t *testing.T) {
	for _, f := range formats {
		a, b := encode(t, f, gameEvents(5000), 100), encode(t, f, gameEvents(5000), 100)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: two objects of the same events differ", f)
		}
	}
}

// The caller reuses its memory as soon as Encode returns.
func TestEncodeKeepsNothing(t *testing.T) {
	for _, f := range formats {
		want := gameEvents(20_000)
		var b bytes.Buffer
		enc, err := NewEncoders().New(&b, f, "recv-1")
		if err != nil {
			t.Fatal(err)
		}
		for part := range slices.Chunk(gameEvents(20_000), 777) {
			if err := enc.Encode(part); err != nil {
				t.Fatal(err)
			}
			for i := range part {
				for _, field := range [][]byte{part[i].Name, part[i].SessionID, part[i].UserID, part[i].Properties, part[i].Context,
					part[i].ID[:]} {
					for j := range field {
						field[j] = '#'
					}
				}
			}
		}
		if err := enc.Close(); err != nil {
			t.Fatal(err)
		}
		got, _, err := decode(b.Bytes(), f, noLimit)
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, want)
	}
}

func TestMissingDocuments(t *testing.T) {
	for _, f := range formats {
		e := pipeline.Event{Name: []byte("n"), ReceivedAt: 1, Timestamp: 1}
		got, _, err := decode(encode(t, f, []pipeline.Event{e}, 1), f, noLimit)
		if err != nil || len(got) != 1 || string(got[0].Properties) != "{}" || string(got[0].Context) != "{}" {
			t.Errorf("%s: got %v %v, want {} and {}", f, got, err)
		}
	}
}

// A pretty-printed document must stay on its line.
func TestNewlineInDocument(t *testing.T) {
	e := pipeline.Event{Name: []byte("n"), ReceivedAt: 1, Timestamp: 1, Properties: []byte("{\n\"a\": 1,\r\n\"b\":2}"),
		Context: []byte("{}")}
	got, _, err := decode(encode(t, pipeline.NDJSON, []pipeline.Event{e, e}, 2), pipeline.NDJSON, noLimit)
	if want := "{ \"a\": 1,\r \"b\":2}"; err != nil || len(got) != 2 || string(got[1].Properties) != want {
		t.Errorf("got %v, %v; want %q", got, err, want)
	}
}

// modelCuts is the simplest implementation of Limit's contract.
func modelCuts(events []pipeline.Event, limit Limit) (cuts []int) {
	for at := 0; at < len(events); {
		for rows, size := 0, 0; at < len(events); {
			size += events[at].Size()
			rows++
			at++
			if rows >= limit.Rows || size >= limit.Bytes {
				break
			}
		}
		cuts = append(cuts, at)
	}
	return cuts
}

func TestLimit(t *testing.T) {
	events := slices.Concat(gameEvents(3000), oddEvents()[:4], gameEvents(700))
	for _, f := range formats {
		for _, batch := range []int{1, 64, 10_000} {
			object := encode(t, f, events, batch)
			for _, limit := range []Limit{{1, 1 << 40}, {64, 1 << 40}, {1000, 1 << 40}, {1 << 30, 1}, {1 << 30, 5000},
				{100, 30_000}, {1 << 30, 1 << 20}, noLimit, {}} {
				got, cuts, err := decode(object, f, limit)
				if err != nil {
					t.Fatalf("%s %v: %v", f, limit, err)
				}
				if want := modelCuts(got, limit); !slices.Equal(cuts, want) {
					t.Errorf("%s in batches of %d, %v: cut at %v, want %v", f, batch, limit, cuts, want)
				}
				if len(got) != len(events) {
					t.Errorf("%s %v: got %d events, want %d", f, limit, len(got), len(events))
				}
			}
		}
	}
}

// Events stay unchanged until the next Decode, even if more were read ahead.
func TestAliasing(t *testing.T) {
	events := gameEvents(5000)
	for _, f := range formats {
		object := encode(t, f, events, 5000)
		want, _, err := decode(object, f, noLimit)
		if err != nil {
			t.Fatal(err)
		}
		same(t, want, events)
		dec, err := newDecoder(bytes.NewReader(object), int64(len(object)), f)
		if err != nil {
			t.Fatal(err)
		}
		var at int
		for {
			part, err := dec.Decode(nil, Limit{Rows: 37, Bytes: 1 << 30})
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			runtime.Gosched()
			var kept []pipeline.Event
			for _, e := range part {
				kept = append(kept, clone(e))
			}
			same(t, kept, want[at:at+len(part)])
			// Changes that a caller makes to its events must not affect later ones.
			for i := range part {
				clear(part[i].Properties)
			}
			at += len(part)
		}
		if at != len(want) {
			t.Errorf("%s: %d events, want %d", f, at, len(want))
		}
		dec.Close()
	}
}

func TestTruncated(t *testing.T) {
	for _, f := range formats {
		object := encode(t, f, gameEvents(8), 5)
		for n := range object {
			if got, _, err := decode(object[:n], f, noLimit); err == nil {
				t.Fatalf("%s cut to %d of %d bytes: %d events and no error", f, n, len(object), len(got))
			}
		}
	}
}

// A flipped bit gives an error or changes nothing, also in Parquet, whose footer and page headers have no checksum.
// PENSTOCK_TEST_ALL=1 flips every bit of every byte.
func TestBitFlips(t *testing.T) {
	want := gameEvents(8)
	for _, f := range formats {
		object := encode(t, f, want, 5)
		want, _, err := decode(object, f, noLimit)
		if err != nil {
			t.Fatal(err)
		}
		changed, refused := 0, 0
		step, all := 1, os.Getenv("PENSTOCK_TEST_ALL") != "" // all bits take minutes
		if f == pipeline.Parquet && !all {
			step = 2
		}
		for i := 0; i < len(object); i += step {
			for bit := range 8 {
				if bit != i/step%8 && !all {
					continue
				}
				object[i] ^= 1 << bit
				got, _, err := decode(object, f, noLimit)
				object[i] ^= 1 << bit
				if err != nil {
					refused++
					continue
				}
				if len(got) != len(want) {
					t.Fatalf("%s: bit %d of byte %d of %d: %d events, want %d or an error", f, bit, i, len(object), len(got),
						len(want))
				}
				for j := range want {
					if !equal(&got[j], &want[j]) || string(got[j].Receiver) != "recv-1" {
						changed++
						break
					}
				}
			}
		}
		t.Logf("%s: %d bytes, refused %d, read differently %d", f, len(object), refused, changed)
		if changed > 0 {
			t.Errorf("%s: %d flips were read as other events", f, changed)
		}
	}
}

func TestForeignNDJSON(t *testing.T) {
	line := func(members string) string {
		return `{"event_id":"00000000-0000-4000-8000-000000000001","name":"n","received_at":"2026-11-22T03:04:05.678Z",` +
			members + `"properties":{},"context":{}}`
	}
	for _, c := range []struct{ name, text, want string }{
		{"ours", line(""), ""},
		{"blank lines", "\n \r\n" + line("") + "\r\n\n", ""},
		{"unknown member", line(`"more":[1],`), ""},
		{"null session", line(`"session_id":null,`), ""},
		{"no event_id", `{"name":"n","received_at":"2026-11-22T03:04:05.678Z","properties":{},"context":{}}`, "no event_id"},
		{"number for a string", line(`"session_id":5,`), "line 1: member \"session_id\": is a number, want a string"},
		{"array for properties", `{"event_id":"00000000-0000-4000-8000-000000000001","name":"n","properties":[]}`,
			"is a array, want an object"},
		{"negative seq", line(`"seq":-1,`), `member "seq"`},
		{"cut line", line("") + "\n" + `{"event_id":"0000`, "line 2"},
		{"two on a line", line("") + line(""), "something follows"},
		{"no JSON", "PAR1", "line 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			z, _ := zstd.NewWriter(&b)
			io.WriteString(z, c.text)
			z.Close()
			got, _, err := decode(b.Bytes(), pipeline.NDJSON, noLimit)
			if c.want == "" && (err != nil || len(got) != 1) {
				t.Errorf("got %d events, %v; want one", len(got), err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestForeignParquet(t *testing.T) {
	var b bytes.Buffer
	type row struct {
		Name string `parquet:"name"`
	}
	if err := parquet.Write(&b, []row{{"x"}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := decode(b.Bytes(), pipeline.Parquet, noLimit); err == nil ||
		!strings.Contains(err.Error(), "no column") {
		t.Errorf("got %v, want that a column is missing", err)
	}
}

// Documents must not appear as statistics in page headers and footer.
func TestNoStatisticsOfDocuments(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = 'a' + byte(r.IntN(26))
	}
	e := gameEvents(1)
	e[0].Properties = fmt.Appendf(nil, `{"x":%q}`, noise)
	if n := len(encode(t, pipeline.Parquet, e, 1)); n > 3<<19 {
		t.Errorf("an event of 1 MB makes an object of %d bytes", n)
	}
}

// fuzzDecode checks a property of both decoders: no panic, bounded memory, and termination.
func fuzzDecode(t *testing.T, object []byte, format pipeline.Format) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	events, _, err := decode(object, format, Limit{Rows: 1000, Bytes: 1 << 20})
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<30+uint64(len(object))*1000 {
		t.Errorf("%d bytes allocated for %d", used, len(object))
	}
	if err == nil && format == pipeline.NDJSON {
		for _, e := range events {
			if len(e.Name) == 0 || len(e.Properties) == 0 {
				t.Errorf("an event without name or properties: %v", e)
			}
		}
	}
}

func FuzzParquet(f *testing.F) {
	f.Add(encode(f, pipeline.Parquet, gameEvents(1), 1))
	f.Add(encode(f, pipeline.Parquet, gameEvents(30), 10))
	f.Add([]byte("PAR1PAR1"))
	f.Fuzz(func(t *testing.T, b []byte) { fuzzDecode(t, b, pipeline.Parquet) })
}

// FuzzNDJSON uses raw bytes, and text that it compresses: otherwise the fuzzer would rarely get past zstd.
func FuzzNDJSON(f *testing.F) {
	f.Add(encode(f, pipeline.NDJSON, gameEvents(3), 10), false)
	for _, e := range oddEvents()[:4] {
		f.Add(appendLine(nil, &e, "r", new(clock)), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, compress bool) {
		if compress {
			z, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
			b = z.EncodeAll(b, nil)
		}
		fuzzDecode(t, b, pipeline.NDJSON)
	})
}

// The clock formats as time.Time does, whatever it formatted before.
func TestClock(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var c clock
	at := []int64{0, -1, 1, dayMillis, dayMillis - 1, -dayMillis, -dayMillis - 1, 951782400000, 1795319112345}
	for range 10_000 {
		ms := -2208988800000 + r.Int64N(10413791999999+2208988800000)
		at = append(at, ms, ms+r.Int64N(2*dayMillis))
	}
	for _, ms := range at {
		want := `"` + pipeline.Millis(ms).Format(pipeline.TimeFormat) + `"`
		if got := string(c.append(nil, ms)); got != want {
			t.Fatalf("%d: got %s, want %s", ms, got, want)
		}
	}
	if got := string(c.append(nil, pipeline.NoTime)); got != "null" {
		t.Errorf("no time: got %s", got)
	}
}
