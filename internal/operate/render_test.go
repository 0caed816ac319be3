package operate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

type thing struct {
	Name string `json:"name"`
	N    int    `json:"n"`
}

// finds returns an executor that returns things, then fail.
func finds(fail error, things ...thing) Executor {
	return func(_ context.Context, _ Operation, _ any, out sink) error {
		for _, th := range things {
			if err := out.item(&th); err != nil {
				return err
			}
		}
		out.progress(progress{Objects: 1, Text: "\x1b[31m"})
		return fail
	}
}

// People get a table with a sum, programs a line for each item.
func TestShow(t *testing.T) {
	table := Operation{header: []string{"NAME", "N"}, row: func(item any) []string {
		return []string{item.(*thing).Name, fmt.Sprint(item.(*thing).N)}
	}, sum: func(w io.Writer, _ any, n map[string]int) { fmt.Fprintln(w, n[""], "things,", n["odd"], "odd") },
		kind: func(item any) string { return map[bool]string{true: "odd", false: "even"}[item.(*thing).N%2 == 1] }}
	printed := Operation{print: func(w io.Writer, item any) error {
		_, err := fmt.Fprintf(w, "<%s>", item.(*thing).Name)
		return err
	}}
	things := []thing{{"a\nb", 1}, {"<long name>", 22}}
	for _, tt := range []struct {
		name string
		op   Operation
		json bool
		fail error
		want string
	}{
		{"a table", table, false, nil, "NAME         N\na b          1\n<long name>  22\n2 things, 1 odd\n"},
		{"a table, cut off", table, false, errors.New("no"), "NAME         N\na b          1\n<long name>  22\n"},
		{"a table as JSON", table, true, nil, `{"name":"a\nb","n":1}` + "\n" + `{"name":"<long name>","n":22}` + "\n"},
		{"printed", printed, false, nil, "<a\nb><<long name>>"},
		{"printed as JSON", printed, true, nil, `{"name":"a\nb","n":1}` + "\n" + `{"name":"<long name>","n":22}` + "\n"},
	} {
		var out bytes.Buffer
		err := tt.op.Show(t.Context(), finds(tt.fail, things...), nil, Output{Out: &out, Err: io.Discard, JSON: tt.json})
		if !errors.Is(err, tt.fail) || out.String() != tt.want {
			t.Errorf("%s: got %v\n%swant %v\n%s", tt.name, err, &out, tt.fail, tt.want)
		}
	}
	// A long list streams: its header is repeated with each block.
	var out bytes.Buffer
	if err := table.Show(t.Context(), finds(nil, make([]thing, 2500)...), nil,
		Output{Out: &out, Err: io.Discard}); err != nil ||
		strings.Count(out.String(), "NAME") != 3 {
		t.Errorf("%d headers of 2500 rows, %v; want 3", strings.Count(out.String(), "NAME"), err)
	}
	// JSON in an object is passed through unchanged.
	out.Reset()
	raw := func(_ context.Context, _ Operation, _ any, to sink) error {
		line := json.RawMessage(`{"a": 1e3}`)
		return to.item(&line)
	}
	if err := (Operation{}).Show(t.Context(), raw, nil, Output{Out: &out, Err: io.Discard}); err != nil ||
		out.String() != "{\"a\": 1e3}\n" {
		t.Errorf("got %q, %v", &out, err)
	}
	full := errors.New("disk full")
	if err := table.Show(t.Context(), finds(nil, things...), nil,
		Output{Out: failing{full}, Err: io.Discard}); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestProgress(t *testing.T) {
	for _, tt := range []struct {
		p    progress
		want string
	}{
		{progress{}, ""},
		{progress{Text: "waiting"}, "waiting"},
		{progress{Objects: 3}, "3 objects"},
		{progress{Objects: 1, TotalObjects: 4, Rows: 100, Seconds: 2, Text: "x"}, "1 of 4 objects, 100 rows, 50 rows/s; x"},
		{progress{Objects: 1, TotalObjects: 4, Bytes: 25, TotalBytes: 100, Rows: 10, Seconds: 5},
			"[#####...............] 1 of 4 objects, 10 rows, 2 rows/s, 15s left"},
		{progress{Bytes: 200, TotalBytes: 100, TotalObjects: 1, Objects: 1, Seconds: 1},
			"[####################] 1 of 1 object, 0 rows, -500ms left"},
	} {
		if got := tt.p.String(); !strings.HasPrefix(got, strings.TrimSuffix(tt.want, ", -500ms left")) {
			t.Errorf("%+v: got %q, want %q", tt.p, got, tt.want)
		}
	}
}

// A field accepts the values of its type.
func TestSetField(t *testing.T) {
	p := &struct {
		Text string   `param:"text" usage:"u" arg:"TEXT"`
		Yes  bool     `param:"yes"`
		N    int      `param:"n" default:"7"`
		List []string `param:"list"`
		None string
	}{}
	for i, tt := range []struct{ text, err string }{
		{"a", ""}, {"true", ""}, {"12", ""}, {"x", ""},
	} {
		wantError(t, Fields(p)[i].Set(tt.text), tt.err, "field %d", i)
	}
	wantError(t, Fields(p)[3].Set("y"), "", "list")
	if p.Text != "a" || !p.Yes || p.N != 12 || strings.Join(p.List, " ") != "x y" {
		t.Errorf("got %+v", p)
	}
	wantError(t, Fields(p)[1].Set("perhaps"), `yes: "perhaps" is neither true nor false`, "a bool")
	wantError(t, Fields(p)[2].Set("many"), `n: "many" is not a number`, "a number")
	if f := Fields(p)[0]; len(Fields(p)) != 4 || f.Name != "text" || f.Usage != "u" || f.Arg != "TEXT" ||
		Fields(p)[2].Default != "7" {
		t.Errorf("got %+v", Fields(p))
	}
}
