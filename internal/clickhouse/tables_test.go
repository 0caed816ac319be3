package clickhouse

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestHasWindow(t *testing.T) {
	const window = "SETTINGS non_replicated_deduplication_window = "
	for _, tt := range []struct {
		engine, create string
		want           bool
	}{
		{"ReplacingMergeTree", window + "10000, index_granularity = 8192", true},
		{"ReplacingMergeTree", "SETTINGS non_replicated_deduplication_window=1", true},
		{"ReplacingMergeTree", window + "0", false},
		{"ReplacingMergeTree", window + "99999999999999999999", false},
		{"ReplacingMergeTree", "SETTINGS index_granularity = 8192", false},
		{"ReplicatedReplacingMergeTree", "", true},
		{"SharedReplacingMergeTree", "", true},
	} {
		if got := hasWindow(tt.engine, tt.create); got != tt.want {
			t.Errorf("%s %s: got %v, want %v", tt.engine, tt.create, got, tt.want)
		}
	}
}

func TestColumnCheck(t *testing.T) {
	for _, tt := range []struct {
		column Column
		want   string // empty: valid
	}{
		{Column{"level", "level", "Int64"}, ""},
		{Column{"_x9", "a.b.c", "LowCardinality(String)"}, ""},
		{Column{"9x", "a", "Int64"}, `name "9x": want letters`},
		{Column{strings.Repeat("x", 65), "a", "Int64"}, "64 at most"},
		{Column{"user_id", "a", "String"}, `name "user_id": the table has that column already`},
		{Column{"x", "a..b", "String"}, `path "a..b" of x: want keys joined by dots`},
		{Column{"x", "", "String"}, `path "" of x`},
		{Column{"x", "a", "Int8"}, `type "Int8" of x: want String, `},
	} {
		err := tt.column.Check()
		if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.column, err, tt.want)
		}
	}
}

func TestMissingColumns(t *testing.T) {
	level, score := Column{"level", "level", "Int64"}, Column{"score", "a.score", "Float64"}
	for name, tt := range map[string]struct {
		notes map[string]string
		want  []Column
		err   string
	}{
		"none exists":     {nil, []Column{level, score}, ""},
		"one exists":      {map[string]string{"level": level.note()}, []Column{score}, ""},
		"all exist":       {map[string]string{"level": level.note(), "score": score.note(), "seq": ""}, nil, ""},
		"somebody else's": {map[string]string{"level": "mine"}, nil, "column level of events was not made by setup"},
		"another definition": {map[string]string{"score": "penstock: properties.score as Int64"}, nil, "column score of events is" +
			" properties.score as Int64, and now wanted as properties.a.score as Float64: choose another name, or, if nobody" +
			" needs it as it is, run ALTER TABLE `d`.`events` DROP COLUMN `score`, and setup again"},
	} {
		got, err := missingColumns([]Column{level, score}, tt.notes, "d", "events")
		if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got %v, want %q", name, err, tt.err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

// Keys are quoted, whatever they contain.
func TestColumnDefinition(t *testing.T) {
	for path, want := range map[string]string{
		"level": "properties.`level`", "a.b": "properties.`a`.`b`", "x`y": "properties.`x\\`y`", `x\y`: "properties.`x\\\\y`",
	} {
		got, err := Column{"c", path, "UUID"}.definition("")
		if err != nil {
			t.Fatal(err)
		}
		whole := "`c` Nullable(UUID) MATERIALIZED accurateCastOrNull(" + want + ", 'UUID') COMMENT "
		if !strings.HasPrefix(got, whole) {
			t.Errorf("%s: got %s, want %s…", path, got, whole)
		}
	}
}

func TestPriceEqual(t *testing.T) {
	one, two, same := 1.0, 2.0, 1.0
	a := Price{"m", "p", 1, &one, 2}
	for _, tt := range []struct {
		b    Price
		want bool
	}{
		{Price{"m", "p", 1, &same, 2}, true}, {Price{"m", "p", 1, &two, 2}, false}, {Price{"m", "p", 1, nil, 2}, false},
		{Price{"m", "p", 1, &one, 3}, false}, {Price{"m", "", 1, &one, 2}, false},
	} {
		if a.equal(tt.b) != tt.want || tt.b.equal(a) != tt.want {
			t.Errorf("%+v and %+v: want %v", a, tt.b, tt.want)
		}
	}
}

func TestAbandoned(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for name, want := range map[string]bool{
		fmt.Sprintf("%s%d_ab", trialPrefix, now.Unix()):      false,
		fmt.Sprintf("%s%d_ab", trialPrefix, now.Unix()-3599): false,
		fmt.Sprintf("%s%d_ab", trialPrefix, now.Unix()-3601): true,
		trialPrefix + "x_ab": false, trialPrefix: false,
	} {
		if got := abandoned(name, now); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

func TestQuote(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{quoteName("a`b\\"), "`a\\`b\\\\`"}, {quoteText(`it's \`), `'it\'s \\'`},
	} {
		if tt.got != tt.want {
			t.Errorf("got %s, want %s", tt.got, tt.want)
		}
	}
}

// A view is replaced only if its query has changed.
func TestSetView(t *testing.T) {
	db, _, _ := open(t)
	for i, tt := range []struct {
		query   string
		changed bool
		want    uint64
	}{{"SELECT 1::UInt64 AS x", true, 1}, {"SELECT 1::UInt64 AS x", false, 1}, {"SELECT 2::UInt64 AS x, 'it''s' AS y", true, 2}} {
		changed, err := db.SetView(t.Context(), View{"a_view", tt.query, "It's", map[string]string{"x": "x's"}})
		if err != nil || changed != tt.changed {
			t.Errorf("%d: changed %v, %v, want %v", i, changed, err, tt.changed)
		}
		if got := query[uint64](t, db, "SELECT x FROM a_view"); got != tt.want {
			t.Errorf("%d: the view says %d, want %d", i, got, tt.want)
		}
	}
	if _, err := db.SetView(t.Context(), View{Name: "a_view", Query: "SELECT nothing"}); err == nil {
		t.Error("a query that does not work: no error")
	}
}
