package clickhouse

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/clickhouse/native"
	"github.com/penstock/penstock/internal/llm"
	"github.com/penstock/penstock/internal/pipeline"
)

// Columns of properties accept any value, from blocks and from text, in the table and in a trial. Values that do not
// fit become NULL.
func TestColumns(t *testing.T) {
	db, _, _ := open(t)
	insert(t, db, "before", event(0, `{"level":1,"at":"2026-11-22T03:45:12.345Z"}`))
	columns := []Column{
		{"level", "level", "Int64"}, {"speed", "car.speed", "Float64"}, {"paid", "paid", "Bool"},
		{"odd", "odd`'\\ key", "String"},
		{"country", "geo.country", "LowCardinality(String)"}, {"at", "at", "DateTime64(3)"}, {"item", "item", "UUID"},
	}
	if added, changed, err := db.AddColumns(t.Context(), "events", columns); err != nil || len(added) != len(columns) ||
		len(changed) != 0 {
		t.Fatalf("added %v, changed %v, %v", added, changed, err)
	}
	if added, changed, err := db.AddColumns(t.Context(), "events", columns); err != nil || len(added)+len(changed) != 0 {
		t.Errorf("again: added %v, changed %v, %v", added, changed, err)
	}
	if _, _, err := db.AddColumns(t.Context(), "events",
		[]Column{{"level", "level", "String"}, {"new", "new", "String"}}); err == nil ||
		!strings.Contains(err.Error(),
			"column level of events is properties.level as Int64, and now wanted as properties.level as String") {
		t.Errorf("another type: %v", err)
	}
	if n := query[uint64](t, db,
		"SELECT count() FROM system.columns WHERE database = currentDatabase() AND table = 'events' AND name = 'new'"); n != 0 {
		t.Error("a column was added beside one that was refused")
	}
	if _, _, err := db.AddColumns(t.Context(), "events", []Column{{"seq", "a", "Int64"}}); err == nil ||
		!strings.Contains(err.Error(), "column seq of events was not made by setup") {
		t.Errorf("the table's own: %v", err)
	}
	rows := []struct{ properties, want string }{
		{`{}`, "(NULL,NULL,NULL,NULL,NULL,NULL,NULL)"},
		{`{"level":9,"car":{"speed":2},"paid":false,"odd` + "`" +
			`'\\ key":"x","geo.country":"DE","at":1795319112.345,"item":"00000000-0000-0000-0000-000000000001"}`,
			"(9,2,false,'x','DE','2026-11-22 03:45:12.345','00000000-0000-0000-0000-000000000001')"},
		{`{"level":"10","car":{"speed":"x"},"paid":"maybe","geo.country":7,"at":1795319112345,"item":"x"}`,
			"(10,NULL,NULL,NULL,'7','2026-11-22 03:45:12.345',NULL)"},
		{`{"level":2.5,"car":3,"paid":[true],"geo":{"country":{"a":1}},"at":"rubbish","item":5}`,
			"(NULL,NULL,NULL,NULL,NULL,NULL,NULL)"},
		{`{"level":18446744073709551615,"car":[{"speed":3}],"paid":{"a":1},"geo":["country"],"at":1e18,"item":[{}]}`,
			"(NULL,NULL,NULL,NULL,NULL,NULL,NULL)"},
		{`{"level":[[1],["a"]],"car.speed":true,"paid":"true","geo.country":null,"at":-1e17,"item":true}`,
			"(NULL,NULL,true,NULL,NULL,NULL,NULL)"},
		{`{"level":true,"car":{"speed":false},"paid":5,"odd` + "`" +
			`'\\ key":["a"],"geo":{"country":[[1],"a",{"b":2}]},"item":["00000000-0000-0000-0000-000000000001"]}`,
			"(NULL,NULL,true,NULL,NULL,NULL,NULL)"},
		{`{"level":-0.0,"car":{"speed":"1e3"},"paid":0,"odd` + "`" + `'\\ key":true,"geo":{"country":[]}}`,
			"(0,1000,false,'true',NULL,NULL,NULL)"},
		{`{"level":3.0,"paid":2.5,"odd` + "`" + `'\\ key":2.5,"geo":{"country":[null]},"at":true}`,
			"(3,NULL,true,'2.5',NULL,NULL,NULL)"},
	}
	trial, err := db.Try(t.Context(), "events")
	if err != nil {
		t.Fatal(err)
	}
	var events []pipeline.Event
	for i, r := range rows {
		e := event(i+1, r.properties)
		as := e
		as.ID[0] ^= 0xff // or a merge would make one row of the two
		events = append(events, as)
		if err := trial.Insert(t.Context(), "o", []pipeline.Event{e}); err != nil {
			t.Errorf("a trial refuses %s: %v", r.properties, err)
		}
		b, err := db.NewBlock(t.Context(), "events", "columns", 0)
		if err != nil {
			t.Fatal(err)
		}
		b.Append([]pipeline.Event{e}, nil, nil)
		if b.text {
			t.Errorf("%s goes as text", r.properties)
		}
		if err := db.send(t.Context(), "events", "", fmt.Sprint("columns", i),
			native.One(b.columns.Columns("columns", 0)...)); err != nil {
			t.Errorf("%s: %v", r.properties, err)
		}
	}
	if err := trial.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := insertText(t, db, "events", "text", "text", events...); err != nil {
		t.Error(err)
	}
	for _, object := range []string{"columns", "text"} {
		for i, r := range rows {
			got := query[string](t, db, fmt.Sprintf(
				"SELECT replace(toString((level, speed, paid, odd, country, at, item)), 'UTC', '') FROM events WHERE object = "+
					"'%s' AND seq = %d", object, i+1))
			if got != r.want {
				t.Errorf("%s: %s gives %s, want %s", object, r.properties, got, r.want)
			}
		}
	}
	if got := query[string](t, db,
		"SELECT toString((level, at)) FROM events WHERE seq = 0"); got != "(1,'2026-11-22 03:45:12.345')" {
		t.Errorf("a row that was there before: %s", got)
	}
}

// setCalls makes the view llm_calls, as setup does.
func setCalls(t *testing.T, db *DB) {
	t.Helper()
	setCallColumns(t, db)
	if changed, err := db.SetView(t.Context(), View(llm.CallsView())); err != nil || !changed {
		t.Fatalf("the view was not replaced: %v", err)
	}
	if changed, err := db.SetView(t.Context(), View(llm.CallsView())); err != nil || changed {
		t.Errorf("the second time: %v, %v", changed, err)
	}
}

// callColumns are those that the view reads.
func callColumns() (columns []Computed) {
	for _, c := range llm.Columns() {
		columns = append(columns, Computed(c))
	}
	return columns
}

func setCallColumns(t *testing.T, db *DB) {
	t.Helper()
	if changed, err := db.SetComputed(t.Context(), "events", callColumns()); err != nil || len(changed) != len(callColumns()) {
		t.Fatalf("columns of events: set %v, %v", changed, err)
	}
	if changed, err := db.SetComputed(t.Context(), "events", callColumns()); err != nil || len(changed) != 0 {
		t.Errorf("the second time: set %v, %v", changed, err)
	}
}

// What no call can have is not told, and spoils no sum.
func TestAbsurdCalls(t *testing.T) {
	db, _, _ := open(t)
	setCalls(t, db)
	for i, tt := range []struct{ name, properties, want string }{ // input, output, total; cost, latency, first token
		{"llm_call", `{"input_tokens":9223372036854775807,"output_tokens":3,"cost_usd":-1,"latency_ms":-5,"first_token_ms":-1}`, "(0,3,3,NULL,NULL,NULL)"},
		{"llm_call", `{"input_tokens":-7,"output_tokens":"-7","total_tokens":-14,"cost_usd":"-0.5","latency_ms":"nan"}`,
			"(0,0,0,NULL,NULL,NULL)"},
		{"llm_call", `{"input_tokens":true,"output_tokens":"true","total_tokens":[5],"cost_usd":true,"latency_ms":true,"first_token_ms":{"a":1}}`, "(0,0,0,NULL,NULL,NULL)"},
		{"llm_call", `{"input_tokens":1000.5,"output_tokens":1e30,"total_tokens":"1e30","cost_usd":1e300,"latency_ms":"inf"}`,
			"(0,0,0,NULL,NULL,NULL)"},
		{"llm_call", `{"input_tokens":1000000001,"output_tokens":1000000000,"cost_usd":0,"latency_ms":0,"first_token_ms":0}`,
			"(0,1000000000,1000000000,0,0,0)"},
		{"llm_call", `{"input_tokens":"1000","output_tokens":1000.0,"total_tokens":2e3,"cost_usd":"0.5","latency_ms":12.5}`,
			"(1000,1000,2000,0.5,12.5,NULL)"},
		{"llm_call", `{"input_tokens":"1000.0","output_tokens":0,"usage":{"output_tokens":5}}`,
			"(1000,0,1000,NULL,NULL,NULL)"},
		{"llm_call", `{"input_tokens":-1,"usage":{"prompt_tokens":8},"gen_ai":{"usage":{"output_tokens":"x"}},"output_tokens":9,"gen_ai.response.time_to_first_chunk":0.25}`, "(8,9,17,NULL,NULL,250)"},
		{"generation-create",
			`{"id":"a","usageDetails":{"input":1e30,"input_cached_tokens":-4,"output":5},"costDetails":{"total":-1}}`,
			"(0,5,5,NULL,NULL,NULL)"},
		{"generation-create", `{"id":"b","usage":{"input":7,"output":true,"total":9223372036854775807,"totalCost":0.25}}`,
			"(7,0,7,0.25,NULL,NULL)"},
	} {
		e := event(i+1, tt.properties)
		e.Name = []byte(tt.name)
		insert(t, db, fmt.Sprint("call", i), e)
		if got := query[string](t, db,
			fmt.Sprintf("SELECT toString((input_tokens, output_tokens, total_tokens, cost_usd, latency_ms, first_token_ms)) "+
				"FROM llm_calls WHERE event_id = '%s'", e.ID)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.properties, got, tt.want)
		}
	}
	if got := query[string](t, db,
		"SELECT toString((toTypeName(input_tokens), toTypeName(total_tokens), toTypeName(cost_usd), "+
			"toTypeName(latency_ms))) FROM llm_calls LIMIT 1"); got != "('Int64','Int64','Nullable(Float64)','Nullable(Float64)')" {
		t.Errorf("types are %s", got)
	}
}

func TestPrices(t *testing.T) {
	db, _, _ := open(t)
	setCalls(t, db)
	half := 0.5
	for _, tt := range []struct {
		prices  []Price
		changed bool
	}{
		{nil, false},
		{[]Price{{"a", "", 1, nil, 2}, {"b*", "p", 1, &half, 2}}, true},
		{[]Price{{"a", "", 1, nil, 2}, {"b*", "p", 1, &half, 2}}, false},
		{[]Price{{"a", "", 1, &half, 2}, {"b*", "p", 1, &half, 2}}, true},
		{[]Price{{"b*", "p", 1, &half, 2}, {"a", "", 1, &half, 2}}, true},
		{nil, true},
	} {
		if changed, err := db.SetPrices(t.Context(), tt.prices); err != nil || changed != tt.changed {
			t.Errorf("%v: changed %t, %v", tt.prices, changed, err)
		}
		if n := query[uint64](t, db, "SELECT count() FROM llm_prices"); n != uint64(len(tt.prices)) {
			t.Errorf("%d prices, want %d", n, len(tt.prices))
		}
	}
	// Which price holds: the longest model, then the one with the provider.
	if _, err := db.SetPrices(t.Context(),
		[]Price{{"*", "", 1, nil, 0}, {"gpt-4o*", "", 2, nil, 0}, {"gpt-4o*", "openai", 3, nil, 0},
			{"*/llama.3", "x.y", 4, nil, 0}, {"gpt-4o-mini", "azure", 5, nil, 0}}); err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct {
		provider, model string
		want            float64
	}{{"", "a", 1}, {"mistral", "gpt-4o", 2}, {"OpenAI", "gpt-4o-2024", 3}, {"openai", "gpt-4o-mini", 3},
		{"azure", "gpt-4o-mini", 5}, {"x.y", "meta/llama.3", 4}, {"xzy", "meta/llama.3", 1}, {"x.y", "meta/llama-3", 1},
		{"", "", 1}, {"", "a\nb", 1}} {
		e := event(i+1, fmt.Sprintf(`{"model":%q,"provider":%q,"input_tokens":1000000}`, tt.model, tt.provider))
		e.Name = []byte("llm_call")
		insert(t, db, fmt.Sprint("price", i), e)
		if got := query[*float64](t, db,
			fmt.Sprintf("SELECT cost_usd FROM llm_calls WHERE event_id = '%s'", e.ID)); !reflect.DeepEqual(got, &tt.want) {
			t.Errorf("%+v costs %v", tt, got)
		}
	}
}
