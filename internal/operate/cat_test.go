package operate

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/codec/foreign"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/loader/audit"
)

// oneFile is a source. Its objects have two valid rows, and an invalid one between them.
type oneFile struct{ audit.Source }

func (oneFile) ReadRows(_ context.Context, key string, each func(*pipeline.Event) error,
	rejected func(foreign.Rejected) error) (pipeline.Object, error) {
	for _, row := range []uint32{0, 2} {
		e := pipeline.Event{Row: row, Name: []byte("n"), Properties: []byte("{}"), Context: []byte("{}")}
		if err := each(&e); err != nil {
			return pipeline.Object{}, err
		}
	}
	return pipeline.Object{Key: key}, rejected(foreign.Rejected{Row: 1, Code: "invalid_json", Message: "no JSON"})
}

// Invalid rows are not silently dropped.
func TestCatNamesRejectedRows(t *testing.T) {
	for _, c := range []struct {
		name   string
		p      catParams
		events int
		err    string // part of the error; empty: none
	}{
		{"all rows of two objects", catParams{Keys: []string{"events/a", "events/b"}, Row: -1}, 4,
			"1 row left out of events/a: not a valid event; the first is row 1: no JSON\n1 row left out of events/b"},
		{"a valid row", catParams{Keys: []string{"events/a"}, Row: 2}, 1, ""},
		{"a row that is not valid", catParams{Keys: []string{"events/a"}, Row: 1}, 0, "row 1: no JSON"},
		{"a row that is not there", catParams{Keys: []string{"events/a"}, Row: 3}, 0, "events/a has no row 3"},
		{"as many as were asked for", catParams{Keys: []string{"events/a"}, Row: -1, Limit: 1}, 1, ""},
		{"nothing", catParams{}, 0, "KEY is missing"},
	} {
		o := &Operator{Source: oneFile{}}
		events := 0
		err := catObjects(t.Context(), o, &c.p, sink{item: func(item any) error {
			var e struct{ Name string }
			if err := json.Unmarshal(item.(json.RawMessage), &e); err != nil || e.Name != "n" {
				t.Errorf("%s: item %s: %v", c.name, item, err)
			}
			events++
			return nil
		}})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if events != c.events || !strings.Contains(got, c.err) || (got == "") != (c.err == "") {
			t.Errorf("%s: %d events, error %q, want %d, %q", c.name, events, got, c.events, c.err)
		}
	}
}
