package clickhouse

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// Text in several parts becomes one block in one part, or nothing.
func TestTextIsAllOrNothing(t *testing.T) {
	db, _, _ := open(t)
	large := strings.Repeat("x", textBytes/2)
	parts := func(end error) func(func([]pipeline.Event, error) bool) {
		return func(yield func([]pipeline.Event, error) bool) {
			for i := range 5 {
				if !yield([]pipeline.Event{event(i, fmt.Sprintf(`{"i":%d,"text":%q}`, i, large))}, nil) {
					return
				}
			}
			if end != nil {
				yield(nil, end)
			}
		}
	}
	insert := func(token string, end error) error {
		b, err := db.NewBlock(t.Context(), "events", "events/o", 3)
		if err != nil {
			t.Fatal(err)
		}
		b.text = true
		return b.Insert(t.Context(), token, parts(end))
	}
	broken := retry.As(retry.Permanent, errors.New("the object ends early"))
	began := time.Now()
	if err := insert("a", broken); !errors.Is(err, broken) || retry.ClassOf(err) != retry.Permanent {
		t.Errorf("got %v (%s), want the source's error as it is", err, retry.ClassOf(err))
	}
	if n := query[uint64](t, db, "SELECT count() FROM events"); n != 0 {
		t.Errorf("%d rows of a source that failed", n)
	}
	if took := time.Since(began); took > db.opts.Timeout/2 {
		t.Errorf("it took %s to give up: the answer of a server that gets no more blocks is waited for", took)
	}
	for range 2 { // the token makes the second insert a no-op
		if err := insert("a", nil); err != nil {
			t.Fatal(err)
		}
	}
	got := query[string](t, db, `SELECT toString((count(), uniqExact(_part), sum(properties.i.:Int64),
		sum(length(properties.text.:String)), any(object), any(generation))) FROM events`)
	if want := fmt.Sprintf("(5,1,10,%d,'events/o',3)", 5*len(large)); got != want {
		t.Errorf("rows, parts, sum, bytes, object, generation: got %s, want %s", got, want)
	}
}

// A table whose column types somebody changed still gets its rows.
func TestTablesOfOtherTypes(t *testing.T) {
	for name, statements := range map[string][]string{
		"text":           {"MODIFY COLUMN context String"},
		"nullable":       {"MODIFY COLUMN user_id Nullable(String)"},
		"dictionary":     {"MODIFY COLUMN session_id LowCardinality(String)", "MODIFY COLUMN receiver String"},
		"typed paths":    {"MODIFY COLUMN context JSON(ip String)"},
		"more precision": {"MODIFY COLUMN timestamp DateTime64(6, 'UTC')"},
	} {
		t.Run(name, func(t *testing.T) {
			db, _, _ := open(t)
			for _, s := range statements {
				if err := db.exec(t.Context(), s, "ALTER TABLE events "+s); err != nil {
					t.Fatal(err)
				}
			}
			e := event(1, `{"level":3}`)
			if err := insertEvents(t.Context(), db, "events", "a", "o", 0, []pipeline.Event{e}); err != nil {
				t.Error(err)
			}
			e.Project = []byte("text")
			if err := insertText(t, db, "events", "b", "o", e); err != nil {
				t.Error(err)
			}
			want := "[('p','s','u','r','1795348800000','3','{\"ip\":\"1.2.3.4\"}'),('text','s','u','r','1795348800000','3','{\"ip\":\"1.2.3.4\"}')]"
			got := query[string](t, db, `SELECT toString(arraySort(groupArray((toString(project), toString(session_id), assumeNotNull(toString(user_id)),
				toString(receiver), toString(toUnixTimestamp64Milli(timestamp)), toString(properties.level), toString(context))))) FROM events`)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestChunkRows(t *testing.T) {
	db := new(DB)
	var many strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&many, `,"k%d":1`, i)
	}
	for _, tt := range []struct {
		name, properties string
		most, want       int
	}{
		{"few paths", `{"a":1}`, 1 << 20, 1 << 20},
		{"many paths", `{"a":1` + many.String() + `}`, 1 << 20, MinChunk},
		{"100 paths", `{"a":1` + many.String()[:strings.Index(many.String(), `,"k98"`)] + `}`, 1 << 20, chunkCells / 100},
		{"broken JSON", `{`, 1 << 20, 1 << 20},
		{"a small limit", `{"a":1}`, 100, 100},
	} {
		if got := db.ChunkRows([]pipeline.Event{event(0, tt.properties)}, tt.most); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}
