package clickhouse

import "testing"

// A suggestion says how many events have the path.
func TestWhy(t *testing.T) {
	for events, want := range map[uint64]string{1: "1 event, 25 % of all", 3: "3 events, 75 % of all"} {
		if got := (&pathUse{events: events}).why(4); got != want {
			t.Errorf("%d: got %q, want %q", events, got, want)
		}
	}
}
