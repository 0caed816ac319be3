package clickhouse

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/llm"
	"github.com/penstock/penstock/internal/pipeline"
)

// insertObject inserts an object's events.
func insertObject(t *testing.T, db *DB, object string, events ...pipeline.Event) {
	t.Helper()
	for i := range events {
		events[i].Row = uint32(i)
	}
	if err := insertEvents(t.Context(), db, "events", object, object, 0, events); err != nil {
		t.Fatal(err)
	}
}

// The loader sends what the server would have computed.
func TestOmittedColumns(t *testing.T) {
	db, _, _ := open(t)
	var columns []Computed
	for _, c := range llm.Columns() {
		columns = append(columns, Computed(c))
	}
	if _, err := db.SetComputed(t.Context(), "events", columns); err != nil {
		t.Fatal(err)
	}
	insertObject(t, db, "computed", event(0, `{"level":7,"model":"m","x":{"y":[1]}}`), event(1, `{}`))
	names, paths := llm.Marks()
	db.Omit(Omission{Table: "events", Columns: columns, Names: names, Paths: paths})
	insertObject(t, db, "sent", event(0, `{"level":7,"model":"m","x":{"y":[1]}}`), event(1, `{}`))
	const read = "SELECT groupArray(toString((is_llm, llm_trace, llm_conversation, llm))) FROM events WHERE object = '%s'"
	want := query[[]string](t, db, fmt.Sprintf(read, "computed"))
	if diff := cmp.Diff(want, query[[]string](t, db, fmt.Sprintf(read, "sent"))); diff != "" || len(want) != 2 {
		t.Errorf("columns of the same events (-computed +sent):\n%s", diff)
	}
	insertObject(t, db, "marked", event(0, `{"trace_id":"t","gen_ai.operation.name":"chat"}`), event(1, `{}`))
	if got := query[[]string](t, db, "SELECT arraySort(groupArray(llm_trace)) FROM events WHERE object = 'marked' AND is_llm"); len(
		got) != 1 || got[0] != "t" {
		t.Errorf("events with a mark have the traces %q", got)
	}
}

// Default values are sent only for rows without a mark, and only while the table has this version's columns.
func TestOmissionIsExact(t *testing.T) {
	db, _, _ := open(t)
	column := Computed{Name: "one", Type: "UInt8", Expression: "1", Comment: "c"}
	if _, err := db.SetComputed(t.Context(), "events", []Computed{column}); err != nil {
		t.Fatal(err)
	}
	db.Omit(Omission{Table: "events", Columns: []Computed{column}, Names: []string{"mark"}, Paths: []string{"a.b"}})
	marked := event(1, `{}`)
	marked.Name = []byte("mark")
	check := func(object string, want uint8) {
		t.Helper()
		if got := query[uint8](t, db, "SELECT max(one) FROM events WHERE object = '"+object+"'"); got != want {
			t.Errorf("%s: %d, want %d", object, got, want)
		}
	}
	insertObject(t, db, "sent", event(0, `{"a":1,"b":2}`))
	check("sent", 0)
	insertObject(t, db, "a name", event(0, `{"a":1}`), marked)
	check("a name", 1)
	insertObject(t, db, "a path", event(0, `{"a":{"b":"x"}}`))
	check("a path", 1)
	if err := db.exec(t.Context(), "change", "ALTER TABLE events MODIFY COLUMN one UInt8 MATERIALIZED 2 COMMENT 'other'"); err != nil {
		t.Fatal(err)
	}
	insertObject(t, db, "another version", event(0, `{"a":1}`))
	check("another version", 2)
}
