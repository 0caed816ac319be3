package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
)

// counted opens a database that counts its blocks' properties.
func counted(t *testing.T, examples bool) (*DB, Options) {
	t.Helper()
	db, _, opts := open(t)
	return count(t, db, examples), opts
}

func count(t *testing.T, db *DB, examples bool) *DB {
	db.Catalogue(CatalogueOptions{Table: "events", Examples: examples, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Metrics: prometheus.NewRegistry()})
	return db
}

// metric returns the value of a counter or gauge.
func metric(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	m := families[0].GetMetric()[0]
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

// named returns an event of a project and name.
func named(i int, project, name, properties string) pipeline.Event {
	e := event(i, properties)
	e.Project, e.Name, e.ReceivedAt = []byte(project), []byte(name), noon+int64(i)*1000
	return e
}

func insertAs(t *testing.T, db *DB, token string, events ...pipeline.Event) {
	t.Helper()
	for i := range events {
		events[i].Row = uint32(i)
	}
	if err := insertEvents(t.Context(), db, "events", token, "events/"+token, 0, events); err != nil {
		t.Fatal(err)
	}
}

func flushed(t *testing.T, db *DB) {
	t.Helper()
	if err := db.catalogue.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// listed returns the catalogue as text, a line for each property.
func listed(t *testing.T, db *DB, project, name string) (lines []string) {
	t.Helper()
	if err := db.Properties(t.Context(), project, name, func(p Property) error {
		line := fmt.Sprintf("%s %s %s %d %.2f [%d-%d]", p.Project, p.Name, p.Path, p.Events, p.Share,
			(p.First.UnixMilli()-noon)/1000, (p.Last.UnixMilli()-noon)/1000)
		for _, kind := range p.Types {
			example := "-"
			if kind.Example != nil {
				example = *kind.Example
			}
			line += fmt.Sprintf(" %s:%d:%.2f:%s", kind.Type, kind.Events, kind.Share, example)
		}
		lines = append(lines, line)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return lines
}

// Loaded events are in the catalogue: by project, name, path and type.
func TestCatalogue(t *testing.T) {
	db, _ := counted(t, true)
	insertAs(t, db, "a",
		named(1, "game", "buy", `{"price":"4.99","item":{"id":7},"tags":["a"],"big":18446744073709551615}`),
		named(2, "game", "buy", `{"price":true,"item":"sword","list":[{"a":1}],"none":null}`),
		named(3, "game", "start", `{"level":1}`),
		named(4, "chat", "buy", `{"price":2.5}`),
		named(5, "game", "buy", `{}`))
	insertAs(t, db, "b", named(9, "game", "buy", `{"price":"`+strings.Repeat("ü", 40)+`"}`))
	flushed(t, db)
	want := []string{
		"chat buy price 1 1.00 [4-4] Float64:1:1.00:2.5",
		"game buy big 1 0.25 [1-5] UInt64:1:1.00:18446744073709551615",
		"game buy item 1 0.25 [1-5] String:1:1.00:sword",
		"game buy item.id 1 0.25 [1-5] Int64:1:1.00:7",
		"game buy list 1 0.25 [1-5] Array(JSON):1:1.00:-",
		"game buy price 3 0.75 [1-9] String:2:0.67:4.99 Bool:1:0.33:true",
		"game buy tags 1 0.25 [1-5] Array(Nullable(String)):1:1.00:-",
		"game start level 1 1.00 [3-3] Int64:1:1.00:1",
	}
	if diff := cmp.Diff(want, listed(t, db, "", "")); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if diff := cmp.Diff(want[7:], listed(t, db, "game", "start")); diff != "" {
		t.Errorf("one name: -want +got\n%s", diff)
	}
	// Further counts of the same properties are added.
	insertAs(t, db, "c", named(20, "chat", "buy", `{"price":2.5}`))
	flushed(t, db)
	if diff := cmp.Diff([]string{"chat buy price 2 1.00 [4-20] Float64:2:1.00:2.5"}, listed(t, db, "chat", "")); diff != "" {
		t.Errorf("counted twice: -want +got\n%s", diff)
	}
	if got := query[string](t, db, "SELECT toString(groupArray((name, path, type, events, round(share, 2)))) FROM "+
		"(SELECT * FROM property_catalogue WHERE project = 'game' AND path = 'price' ORDER BY type)"); got !=
		"[('buy','price','Bool',1,0.33),('buy','price','String',2,0.67)]" {
		t.Errorf("the view has %s", got)
	}
	if err := db.DropExamples(t.Context()); err != nil {
		t.Fatal(err)
	}
	for {
		if query[uint64](t, db, "SELECT count() FROM system.mutations WHERE database = currentDatabase() AND NOT is_done") == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := query[uint64](t, db, "SELECT count(example) FROM property_counts"); n != 0 {
		t.Errorf("%d examples are left", n)
	}
}

// Two loaders count the same properties concurrently. One is killed before it writes its counts; the other finds its
// block in the table.
func TestCatalogueOfTwoLoaders(t *testing.T) {
	first, opts := counted(t, true)
	second, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { second.Close() })
	count(t, second, true)
	for i := range 6 {
		insertAs(t, []*DB{first, second}[i%2], fmt.Sprint("o", i), named(i, "game", "buy", `{"price":1.5}`))
	}
	var both sync.WaitGroup
	for _, db := range []*DB{first, second} {
		both.Go(func() {
			if err := db.catalogue.flush(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	lost := named(7, "game", "buy", `{"only":"here"}`)
	insertAs(t, first, "lost", lost)
	b, err := second.NewBlock(t.Context(), "events", "events/lost", 0)
	if err != nil {
		t.Fatal(err)
	}
	b.Append([]pipeline.Event{lost}, nil, nil)
	b.Found()
	flushed(t, second) // first never writes
	if diff := cmp.Diff([]string{"game buy only 1 0.14 [7-7] String:1:1.00:here", "game buy price 6 0.86 [0-5] Float64:6:1.00:1.5"},
		listed(t, second, "game", "")); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestCatalogueWithoutExamples(t *testing.T) {
	db, _ := counted(t, false)
	insertAs(t, db, "a", named(1, "game", "buy", `{"price":4.99}`))
	flushed(t, db)
	if diff := cmp.Diff([]string{"game buy price 1 1.00 [1-1] Float64:1:1.00:-"}, listed(t, db, "", "")); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// If the catalogue cannot be written, no load fails and no count is lost.
func TestCatalogueAway(t *testing.T) {
	db, _ := counted(t, false)
	exec := func(sql string) {
		t.Helper()
		if err := db.conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("RENAME TABLE property_counts TO hidden")
	insertAs(t, db, "a", named(1, "game", "buy", `{"price":4.99}`))
	db.catalogue.tick()
	if got := metric(t, db.catalogue.metrics.failures); got != 2 { // the first read, and the write
		t.Errorf("%v failures were counted, want 2", got)
	}
	exec("RENAME TABLE hidden TO property_counts")
	db.catalogue.close()
	if diff := cmp.Diff([]string{"game buy price 1 1.00 [1-1] Float64:1:1.00:-"}, listed(t, db, "", "")); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	db.catalogue.tick()
	if db.catalogue.timer != nil {
		t.Error("a closed catalogue wants to write again")
	}
}

// Numbers of a path have one type within a project: Float64 from the first float on, for every loader. Integers that a
// float cannot hold stay unchanged.
func TestNumbersHaveOneType(t *testing.T) {
	db, opts := counted(t, false)
	kinds := func(project string) string {
		return query[string](t, db, "SELECT toString(groupArray((seq, dynamicType(properties.v) AS kind, "+
			"toString(properties.v)))) FROM (SELECT * FROM events WHERE project = '"+project+"' ORDER BY seq)")
	}
	insertAs(t, db, "a", named(1, "game", "n", `{"v":1}`), named(2, "other", "n", `{"v":2}`))
	insertAs(t, db, "b", named(3, "game", "n", `{"v":9}`), named(4, "game", "m", `{"v":4.99}`),
		named(5, "game", "n", `{"v":9007199254740993}`), named(6, "game", "n", `{"v":-9007199254740992}`),
		named(7, "game", "n", `{"v":"8"}`), named(8, "other", "n", `{"v":8}`), named(9, "game", "n", `{"v":-0}`))
	insertAs(t, db, "c", named(10, "game", "n", `{"v":10}`), named(11, "other", "n", `{"v":11}`))
	flushed(t, db)
	second, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	insertAs(t, count(t, second, false), "d", named(12, "game", "n", `{"v":12}`), named(13, "other", "n", `{"v":13}`))
	if got, want := kinds("game"), "[(1,'Int64','1'),(3,'Float64','9'),(4,'Float64','4.99'),(5,'Int64',"+
		"'9007199254740993'),(6,'Float64','-9007199254740992'),(7,'String','8'),(9,'Float64','0'),(10,'Float64','10'),"+
		"(12,'Float64','12')]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := kinds("other"), "[(2,'Int64','2'),(8,'Int64','8'),(11,'Int64','11'),(13,'Int64','13')]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if diff := cmp.Diff([]string{
		"game m v 1 1.00 [4-4] Float64:1:1.00:-",
		"game n v 7 1.00 [1-10] Float64:4:0.57:- Int64:2:0.29:- String:1:0.14:-"},
		listed(t, db, "game", "")); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// If a project uses ids as keys, the catalogue names these keys. Memory and table stay small.
func TestExplosion(t *testing.T) {
	db, _ := counted(t, true)
	insertAs(t, db, "start", named(0, "calm", "n", `{"v":1}`))
	for _, tt := range []struct {
		token      string
		from, keys int
	}{{"a", 0, 3000}, {"b", 2000, 3000}, {"c", 0, 20_000}} { // the last one is sent as text
		doc := `{"exp":{`
		for i := range tt.keys {
			doc += fmt.Sprintf(`"k%d":%d,`, tt.from+i, i)
		}
		insertAs(t, db, tt.token, named(len(tt.token), "game", "n", doc[:len(doc)-1]+`},"level":1}`))
	}
	flushed(t, db)
	if n := query[uint64](t, db, "SELECT uniqExact(path) FROM property_counts WHERE project = 'game' AND path != ''"); n !=
		maxProjectPaths+1 {
		t.Errorf("%d paths are in the catalogue, want %d and one for all others", n, maxProjectPaths)
	}
	got, err := db.Explosions(t.Context(), "events")
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i].Limit = 0 // the table type's
	}
	want := []Explosion{{Project: "game", Paths: maxProjectPaths + 1,
		Most: []Keys{{"exp.*", maxProjectPaths}, {"*", 2}}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if err := db.catalogue.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := metric(t, db.catalogue.metrics.exploding); n != 1 {
		t.Errorf("%v projects explode, want 1", n)
	}
	if n := metric(t, db.catalogue.metrics.paths); n != maxProjectPaths+1 {
		t.Errorf("%v new paths, want %d", n, maxProjectPaths+1)
	}
}

func TestFold(t *testing.T) {
	f := fan{}
	for i := range foldFrom {
		f.add(fmt.Sprintf("a.b.k%d.score", i))
		f.add("few.k" + fmt.Sprint(i%3))
	}
	for path, want := range map[string]string{"a.b.new.score": "a.b.*", "a.b.k1": "a.b.*", "a.c": "*", "few.k9": "*", "x": "*"} {
		if got := f.fold(path); got != want {
			t.Errorf("%s is counted as %s, want %s", path, got, want)
		}
	}
	for i := range foldFrom {
		f.add(fmt.Sprintf("top%d", i))
	}
	if got := f.fold("a.b.new.score"); got != "*" {
		t.Errorf("with many keys at the top: %s, want *", got)
	}
}

func TestPropertyWarning(t *testing.T) {
	for _, tt := range []struct {
		types []string
		want  string
	}{
		{[]string{"Int64"}, ""},
		{[]string{"Float64", "Int64"}, "numbers of 2 types; read it by num(properties.`a b`.c)"},
		{[]string{"Float64", "String"}, "mixed types: number, text; read it by num(properties.`a b`.c)"},
		{[]string{"String", "Int64", "UInt64"}, "mixed types: text, number; read it by text(properties.`a b`.c)"},
		{[]string{"Array(Nullable(String))", "Array(JSON)"}, ""},
		{[]string{"Bool", "JSON"}, "mixed types: bool, object; read it by text(properties.`a b`.c)"},
	} {
		p := Property{Path: "a b.c"}
		for _, kind := range tt.types {
			p.Types = append(p.Types, PropertyType{Type: kind})
		}
		if got := p.Warning(); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.types, got, tt.want)
		}
	}
}

// num and text read values that were sent as several types, and never throw.
func TestFunctions(t *testing.T) {
	db, _, _ := open(t)
	created, others, err := db.SetFunctions(t.Context(), Functions)
	if err != nil || !slices.Equal(created, []string{"num", "text"}) || len(others) > 0 {
		t.Fatalf("created %v, others %v, %v", created, others, err)
	}
	if created, others, err = db.SetFunctions(t.Context(), Functions); err != nil || len(created)+len(others) > 0 {
		t.Errorf("again: created %v, others %v, %v", created, others, err)
	}
	// 3,500 prices: 9 as a whole number, 4.99 as a float, and 9.19 as text. With one more, their sum is 31,232.20.
	var events []pipeline.Event
	for i := range 3500 {
		price := []string{"9", "4.99", `"9.19"`}[i%3]
		events = append(events, event(i, fmt.Sprintf(`{"price":%s,"country":%q,"level":%d}`, price,
			[]string{"DE", "IN"}[i%2], i%50)))
	}
	events = append(events, event(3500, `{"price":4190.33}`), event(3501, `{"price":"much","country":7}`),
		event(3502, `{"price":true,"country":true}`), event(3503, `{"price":[1],"country":["DE"]}`))
	insert(t, db, "prices", events...)
	const from = " FROM events FINAL"
	for sql, want := range map[string]string{
		"SELECT toString(round(sum(num(properties.price)), 2))" + from: "31232.2",
		"SELECT toString(groupArray((c, n))) FROM (SELECT text(properties.country) AS c, count() AS n" + from +
			" GROUP BY c ORDER BY c)": "[('7',1),('DE',1750),('IN',1750),('[\\'DE\\']',1),('true',1),(NULL,1)]",
		"SELECT toString(count())" + from + " WHERE text(properties.country) IN ('DE', '7')":                                    "1751",
		"SELECT toString(count())" + " FROM events AS e FINAL JOIN (SELECT 'DE' AS c) AS j ON text(e.properties.country) = j.c": "1750",
		"SELECT toString(count())" + from + " WHERE num(properties.price) > 5 AND num(properties.level) = 7":                    "46",
		"SELECT toString(seq)" + from + " ORDER BY num(properties.price) DESC NULLS LAST LIMIT 1":                               "3500",
		"SELECT toString((avg(num(properties.level)), quantile(0.5)(num(properties.level))))" + from:                            "(24.5,24.5)",
		"SELECT toTypeName(num(properties.price))" + from + " LIMIT 1":                                                          "Nullable(Float64)",
		"SELECT toTypeName(text(properties.price))" + from + " LIMIT 1":                                                         "Nullable(String)",
	} {
		if got := query[string](t, db, sql); got != want {
			t.Errorf("%s\ngives %s, want %s", sql, got, want)
		}
	}
	for value, want := range map[string]string{ // num, text
		`9`: "(9,'9')", `-4.5e3`: "(-4500,'-4500')", `"4.99"`: "(4.99,'4.99')", `true`: "(NULL,'true')",
		`9007199254740993`: "(9007199254740992,'9007199254740993')", `18446744073709551615`: "(18446744073709552000,'18446744073709551615')",
		`"nan"`: "(NULL,'nan')", `"1e999"`: "(NULL,'1e999')", `""`: "(NULL,'')", `" 5"`: "(NULL,' 5')", `null`: "(NULL,NULL)",
		`{"a":1}`: "(NULL,NULL)", `[[1],"x"]`: `(NULL,'[[1],\'x\']')`, `[{"a":1}]`: `(NULL,'[\'{"a":1}\']')`,
	} {
		if got := query[string](t, db, "SELECT toString((num(j.v), text(j.v))) FROM (SELECT CAST("+
			quoteText(`{"v":`+value+`}`)+", 'JSON') AS j)"); got != want {
			t.Errorf("%s gives %s, want %s", value, got, want)
		}
	}
	// They also accept columns of any other type.
	if got := query[string](t, db, "SELECT toString((num(toNullable(5)), num('4.5'), num([1]), num(generateUUIDv4()), "+
		"text(toDate('2026-11-22')), text(toLowCardinality('x')), num(NULL)))"); got != "(5,4.5,NULL,NULL,'2026-11-22','x',NULL)" {
		t.Errorf("other types give %s", got)
	}
	if err := db.conn.Exec(t.Context(), "CREATE OR REPLACE FUNCTION num AS x -> x + 1"); err != nil {
		t.Fatal(err)
	}
	if created, others, err = db.SetFunctions(t.Context(), Functions); err != nil || len(created) > 0 ||
		!slices.Equal(others, []string{"num"}) {
		t.Errorf("with another num: created %v, others %v, %v", created, others, err)
	}
	if n := query[uint16](t, db, "SELECT num(1)"); n != 2 {
		t.Errorf("the other num gives %d, want 2", n)
	}
}

// Columns are suggested for frequent properties of one kind.
func TestSuggestColumns(t *testing.T) {
	db, _ := counted(t, true)
	var events []pipeline.Event
	for i := range 1000 {
		properties := fmt.Sprintf(`{"country":%q,"note":"n%d","score":%d,"won":%t,"mixed":%s,"geo":{"city name":"c%d"},
			"level":%d}`, []string{"DE", "IN"}[i%2], i, i, i%2 == 0, []string{"1", `"a"`}[i%2], i%7, i)
		events = append(events, named(i, "game", "play", properties))
	}
	for i := range 5 { // 0.5 % of the events
		events = append(events, named(1000+i, "game", "purchase", fmt.Sprintf(`{"price":%s,"name":"gold"}`,
			[]string{"9", "4.99", `"5.99"`, "9", "9"}[i])))
	}
	events = append(events, named(2000, "game", "play", `{"rare":1}`), named(2001, "other", "n", `{"theirs":1}`))
	insertAs(t, db, "a", events...)
	flushed(t, db)
	got, err := db.SuggestColumns(t.Context(), "events", "game", []Column{{"lvl", "level", "Int64"}, {"won", "x", "Bool"}})
	if err != nil {
		t.Fatal(err)
	}
	want := []Suggestion{
		{"country", "country", "LowCardinality(String)", 1000, "1000 events, 99 % of all"},
		{"geo_city_name", "geo.city name", "LowCardinality(String)", 1000, "1000 events, 99 % of all"},
		{"note", "note", "String", 1000, "1000 events, 99 % of all"},
		{"score", "score", "Int64", 1000, "1000 events, 99 % of all"},
		{"p_won", "won", "Bool", 1000, "1000 events, 99 % of all"},
		{"p_name", "name", "String", 5, "5 events, 100 % of purchase"},
		{"price", "price", "Float64", 5, "5 events, 100 % of purchase; number 80.0 %; text 20.0 %"},
	}
	want[5].Type = "LowCardinality(String)"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	// Suggested columns can be added, and older rows have their values.
	var columns []Column
	for _, s := range got {
		columns = append(columns, Column{s.Name, s.Path, s.Type})
	}
	if _, _, err := db.AddColumns(t.Context(), "events", columns); err != nil {
		t.Fatal(err)
	}
	if n := query[float64](t, db, "SELECT round(sum(price), 2) FROM events WHERE project = 'game'"); n != 37.98 {
		t.Errorf("prices sum to %v, want 37.98", n)
	}
}

// Parts that are older than a column get its values, once.
func TestMaterializeColumns(t *testing.T) {
	db, _, _ := open(t)
	insert(t, db, "a", event(1, `{"level":7}`))
	insert(t, db, "b", event(2, `{"level":8}`))
	columns := []Column{{"level", "level", "Int64"}, {"odd", "o`d", "String"}}
	if _, _, err := db.AddColumns(t.Context(), "events", columns); err != nil {
		t.Fatal(err)
	}
	insert(t, db, "c", event(3, `{"level":9}`))
	lacking := func() uint64 {
		return query[uint64](t, db, `SELECT countIf(NOT has(columns, 'level')) FROM (SELECT groupArray(column) AS columns FROM
			system.parts_columns WHERE active AND database = currentDatabase() AND table = 'events' GROUP BY name)`)
	}
	want := lacking()
	if want == 0 {
		t.Fatal("no part lacks the column")
	}
	before, left, err := db.MaterializeColumns(t.Context(), "events", columns, 20*time.Second)
	if err != nil || before != want || left != 0 {
		t.Errorf("%d parts before, %d left, %v; want %d and 0", before, left, err, want)
	}
	if n := lacking(); n != 0 {
		t.Errorf("%d parts lack the column still", n)
	}
	mutations := "SELECT count() FROM system.mutations WHERE database = currentDatabase()"
	was := query[uint64](t, db, mutations)
	if before, left, err := db.MaterializeColumns(t.Context(), "events", columns, time.Second); err != nil || before+left != 0 {
		t.Errorf("again: %d parts before, %d left, %v", before, left, err)
	}
	if n := query[uint64](t, db, mutations); n != was {
		t.Errorf("%d mutations, want the %d of the first time", n, was)
	}
	if got := query[int64](t, db, "SELECT sum(level) FROM events"); got != 24 {
		t.Errorf("levels sum to %d, want 24", got)
	}
}

// A failing insert counts nothing.
func TestCatalogueCountsWhatIsLoaded(t *testing.T) {
	db, _ := counted(t, false)
	ctx, cancel := context.WithCancel(t.Context())
	b, err := db.NewBlock(ctx, "events", "o", 0)
	if err != nil {
		t.Fatal(err)
	}
	b.Append([]pipeline.Event{event(1, `{"a":1}`)}, nil, nil)
	cancel()
	if err := b.Insert(ctx, "t", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a cancelled insert", err)
	}
	trial, err := db.Try(t.Context(), "events")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(trial.Insert(t.Context(), "o", []pipeline.Event{event(1, `{"a":1}`)}),
		trial.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	flushed(t, db)
	if got := listed(t, db, "", ""); len(got) > 0 {
		t.Errorf("counted %v, want nothing", got)
	}
}
