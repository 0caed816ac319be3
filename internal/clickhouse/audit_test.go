package clickhouse

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// An action is one row, whatever is written of it and in whatever order.
func TestAudit(t *testing.T) {
	t.Parallel()
	db, _, _ := open(t)
	began := time.Date(2026, 11, 22, 3, 45, 0, 123e6, time.UTC)
	action := func(minute int, who, operation string) Action {
		return Action{ID: uuid.New(), Began: began.Add(time.Duration(minute) * time.Minute), Who: who, Role: "operator",
			Address: "10.0.0.1", Via: "api", Process: "r1", Operation: operation, Params: `{"a":"'\\"}`, Result: "begun"}
	}
	first, second := action(0, "ann", "dlq drop"), action(1, "bob", "keys rotate")
	done := first
	done.Ended, done.Result, done.Error, done.Items = began.Add(time.Second), "failed", "no", 3
	for _, all := range [][]Action{{done}, {first, second}, {done}} {
		if err := db.SaveActions(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name   string
		filter ActionFilter
		want   []Action
	}{
		{"all", ActionFilter{}, []Action{second, done}},
		{"the newest", ActionFilter{Limit: 1}, []Action{second}},
		{"by who", ActionFilter{Who: "ann"}, []Action{done}},
		{"by operation", ActionFilter{Operation: "keys rotate"}, []Action{second}},
		{"before", ActionFilter{To: second.Began}, []Action{done}},
		{"after", ActionFilter{From: second.Began}, []Action{second}},
	} {
		f := tt.filter
		if f.To.IsZero() {
			f.To = began.Add(time.Hour)
		}
		if f.From.IsZero() {
			f.From = began
		}
		var got []Action
		if err := db.Actions(t.Context(), f, func(a Action) error { got = append(got, a); return nil }); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
