package operate

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/config"
)

// catalogued returns a world whose game sends prices as numbers and as text.
func catalogued() *world {
	w := newWorld()
	at, text, number := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC), "4.99", "9"
	w.properties = []clickhouse.Property{
		{Project: "chat", Name: "say", Path: "text", Events: 5, Share: 1, First: at, Last: at,
			Types: []clickhouse.PropertyType{{Type: "Array(Nullable(String))", Events: 5, Share: 1}}},
		{Project: "game", Name: "buy", Path: "price", Events: 2000, Share: 1, First: at, Last: at.Add(time.Hour),
			Types: []clickhouse.PropertyType{{Type: "Float64", Events: 1999, Share: 0.9995, Example: &number},
				{Type: "String", Events: 1, Share: 0.0005, Example: &text}}},
		{Project: "game", Name: "play", Path: "code", Events: 7, Share: 1, First: at, Last: at,
			Types: []clickhouse.PropertyType{{Type: "String", Events: 7, Share: 1, Example: &text}}},
	}
	w.suggestions = map[string][]clickhouse.Suggestion{"": {
		{Name: "price", Path: "price", Type: "Float64", Events: 2000, Why: "2000 events, 100 % of a\nb"},
		{Name: "city_name", Path: "geo.city name", Type: "String", Events: 3, Why: "3 events"},
		{Name: "level", Path: "level", Type: "Int64", Events: 2, Why: "2 events"}}}
	return w
}

func TestProperties(t *testing.T) {
	w := catalogued()
	got, err := command(t, w.operator(), "properties")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(got) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"PROJECT NAME PATH EVENTS TYPES FIRST LAST EXAMPLE WARNING",
		"chat say text 5 Array(Nullable(String)) 2026-11-22 03:00:00 2026-11-22 03:00:00 -",
		"game buy price 2000 Float64 >99.9 %, String <0.1 % 2026-11-22 03:00:00 2026-11-22 04:00:00 9 mixed types: number, text; " +
			"read it by num(properties.price)",
		`game play code 7 String 2026-11-22 03:00:00 2026-11-22 03:00:00 "4.99"`,
		"3 properties, 1 warning",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	w.properties = w.properties[:1]
	if got, err := command(t, w.operator(), "properties"); err != nil || !strings.Contains(got, "\n1 property, ") {
		t.Errorf("got\n%s%v, want 1 property", got, err)
	}
	w = catalogued()
	for way, ex := range w.ways(t) {
		items, err := do[propertyLine](t, ex, "properties", func(params any) {
			params.(*propertyFilter).Project, params.(*propertyFilter).Name = "game", "buy"
		})
		if err != nil || len(items) != 1 || !strings.HasPrefix(items[0].Warning, "mixed types") ||
			items[0].Types[1].Events != 1 || *items[0].Types[1].Example != "4.99" {
			t.Errorf("%s: %+v, %v", way, items, err)
		}
	}
}

// Suggested columns are YAML that the configuration accepts.
func TestSuggestColumns(t *testing.T) {
	o := catalogued().operator()
	o.Config.ClickHouse.Columns = []config.Column{{Name: "lvl", Path: "level", Type: "Int64"}}
	got, err := command(t, o, "columns suggest")
	if err != nil {
		t.Fatal(err)
	}
	want := `clickhouse:
  columns:
    - {name: price, type: Float64} # 2000 events, 100 % of a b
    - {name: city_name, path: "geo.city name", type: String} # 3 events
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	var cfg config.Config
	if err := yaml.Unmarshal([]byte(got), &cfg); err != nil {
		t.Fatal(err)
	}
	columns, err := cfg.TableColumns()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]clickhouse.Column{{Name: "price", Path: "price", Type: "Float64"},
		{Name: "city_name", Path: "geo.city name", Type: "String"}}, columns); diff != "" {
		t.Errorf("as configuration: -want +got\n%s", diff)
	}
	_, err = command(t, o, "columns suggest", "--project", "other")
	wantError(t, err, "the catalogue has no property that is frequent", "of a project without events")
}

// Status names a project with too many paths, and where they are.
func TestStatusWarnsOfExplosions(t *testing.T) {
	w := newWorld()
	w.explosions = []clickhouse.Explosion{{Project: "game", Paths: 3012, Limit: 1024,
		Most: []clickhouse.Keys{{Pattern: "exp.*", Keys: 2950}, {Pattern: "*", Keys: 1}}}}
	report := w.operator().status(t.Context())
	want := "project game has sent 3012 paths of properties in 7 days; a part of events keeps 1024 in columns, and queries " +
		"of the others are slow. Do not use ids as keys. Most paths: exp.* (2950 keys), * (1 key)"
	if diff := cmp.Diff([]string{want}, report.Warnings); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	var out bytes.Buffer
	ex := Local(w.operator())
	op := Find("status")
	_ = op.Show(t.Context(), ex, op.NewParams(), Output{Out: &out, Err: io.Discard})
	if !strings.Contains(out.String(), "warning: "+want) {
		t.Errorf("status prints\n%s", &out)
	}
}
