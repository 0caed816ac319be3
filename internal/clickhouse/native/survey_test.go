package native

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/clickhouse/native/nativetest"
	"github.com/penstock/penstock/internal/pipeline"
)

func surveyed(i int, project, name, properties string) pipeline.Event {
	return pipeline.Event{Project: []byte(project), Name: []byte(name), Properties: []byte(properties), Context: []byte(`{}`),
		ReceivedAt: int64(1000 + i)}
}

// counts surveys a block and returns a sorted line for each count.
func counts(b *Block, isFloat func(project, path string) bool) (lines []string) {
	b.Survey(isFloat, func(c Count) {
		example, _ := c.Example()
		lines = append(lines, fmt.Sprintf("%s %s %s %s %d %q", c.Group.Project, c.Group.Name, c.Path, c.Type, c.Rows, example))
	})
	slices.Sort(lines)
	return lines
}

func never(string, string) bool { return false }

func block(t *testing.T, events ...pipeline.Event) *Block {
	t.Helper()
	b := NewBlock(plain)
	if err := b.Append(events, nil, nil); err != nil {
		t.Fatal(err)
	}
	return b
}

// Every value is counted at its path, for any documents.
func TestSurveyCounts(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		var events []pipeline.Event
		want := map[string]int{} // by project, name and path
		for i := range 1 + rnd.IntN(60) {
			project, name := fmt.Sprint("p", rnd.IntN(3)), fmt.Sprint("n", rnd.IntN(3))
			doc := nativetest.Random(rnd)
			e := surveyed(i, project, name, doc)
			if NewBlock(plain).Append([]pipeline.Event{e}, nil, nil) != nil {
				continue
			}
			events = append(events, e)
			var v map[string]any
			if err := json.Unmarshal([]byte(doc), &v); err != nil {
				t.Fatal(err)
			}
			leaves(v, "", func(path string) { want[project+" "+name+" "+path]++ })
		}
		b := NewBlock(plain)
		if b.Append(events, nil, nil) != nil {
			continue // the documents have too many types together
		}
		got := map[string]int{}
		groups := b.Survey(never, func(c Count) { got[c.Group.Project+" "+c.Group.Name+" "+c.Path] += c.Rows })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("-want +got\n%s", diff)
		}
		rows := 0
		for _, g := range groups {
			rows += g.Rows
			if g.First > g.Last || g.First < 1000 {
				t.Errorf("a group of %d rows was received from %d to %d", g.Rows, g.First, g.Last)
			}
		}
		if rows != len(events) {
			t.Errorf("the groups have %d rows, want %d", rows, len(events))
		}
	}
}

// leaves calls each with the path of every stored value.
func leaves(v map[string]any, before string, each func(path string)) {
	for key, value := range v {
		switch value := value.(type) {
		case nil:
		case map[string]any:
			leaves(value, before+key+".", each)
		default:
			each(before + key)
		}
	}
}

// A number becomes a float if its path has a float in its project, and if its value stays the same.
func TestSurveyUnifiesNumbers(t *testing.T) {
	events := []pipeline.Event{
		surveyed(0, "a", "x", `{"v":9}`), surveyed(1, "a", "y", `{"v":2.5}`), surveyed(2, "b", "x", `{"v":9}`),
		surveyed(3, "a", "x", `{"v":9007199254740993}`), surveyed(4, "a", "x", `{"v":"9"}`), surveyed(5, "b", "x", `{"v":[1]}`),
		surveyed(6, "a", "x", `{"v":18446744073709551615}`), surveyed(7, "a", "y", `{"v":-9007199254740992}`),
		surveyed(8, "b", "x", `{"known":3}`), surveyed(9, "a", "x", `{"known":3}`), surveyed(10, "a", "x", `{"v":true}`),
	}
	known := func(project, path string) bool { return project == "b" && path == "known" }
	want := []string{
		`a x known Int64 1 "3"`, `a x v Bool 1 "true"`, `a x v Float64 1 "9"`, `a x v Int64 1 "9007199254740993"`,
		`a x v String 1 "9"`, `a x v UInt64 1 "18446744073709551615"`, `a y v Float64 2 "2.5"`,
		`b x known Float64 1 "3"`, `b x v Array(Nullable(Int64)) 1 ""`, `b x v Int64 1 "9"`,
	}
	b := block(t, events...)
	for _, when := range []string{"first", "again"} {
		if diff := cmp.Diff(want, counts(b, known)); diff != "" {
			t.Errorf("%s: -want +got\n%s", when, diff)
		}
	}
	// Reused memory leaves no trace.
	b.Reset()
	if err := b.Append(events[:1], nil, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`a x v Int64 1 "9"`}, counts(b, known)); diff != "" {
		t.Errorf("after a reset: -want +got\n%s", diff)
	}
}

// A block that cannot be sent in columns is counted as far as it was built, and not changed.
func TestSurveyOfUnusableBlock(t *testing.T) {
	var doc strings.Builder
	for i := range maxPaths {
		fmt.Fprintf(&doc, `,"k%d":1`, i)
	}
	b := NewBlock(plain)
	err := b.Append([]pipeline.Event{surveyed(0, "a", "x", `{"v":1}`), surveyed(1, "a", "x", `{"v":1.5}`),
		surveyed(2, "a", "y", "{"+doc.String()[1:]+"}"), surveyed(3, "a", "y", `{"v":1}`)}, nil, nil)
	if err == nil {
		t.Fatal("so many paths are columns: want ErrNotColumnar")
	}
	n := 0
	b.Survey(nil, func(c Count) {
		if n += c.Rows; c.Path == "v" && c.Rows != 1 {
			t.Errorf("%d values of %s", c.Rows, c.Type)
		}
	})
	if n != maxPaths+1 {
		t.Errorf("%d values were counted, want %d", n, maxPaths+1)
	}
}

// An example is short, does not split a character, and is only searched nearby.
func TestExample(t *testing.T) {
	long := strings.Repeat("ü", exampleBytes)
	events := []pipeline.Event{surveyed(0, "a", "x", `{"v":"a\"`+long+`"}`)}
	for i := range examplePassed {
		events = append(events, surveyed(i, "a", "x", `{"v":"b","w":1}`))
	}
	events = append(events, surveyed(0, "a", "late", `{"v":"c","w":7}`))
	want := []string{`a late v String 1 ""`, `a late w Int64 1 "7"`,
		fmt.Sprintf("a x v String %d %q", examplePassed+1, `a"`+long[:exampleBytes-2]+"…"), fmt.Sprintf("a x w Int64 %d \"1\"", examplePassed)}
	if diff := cmp.Diff(want, counts(block(t, events...), never)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// There may be many projects and names.
func TestSurveyOfManyNames(t *testing.T) {
	var events []pipeline.Event
	for i := range 1 << 9 {
		events = append(events, surveyed(i, fmt.Sprint("p", i), fmt.Sprint("n", i), `{"v":1}`))
	}
	if got := counts(block(t, events...), never); len(got) != len(events) || got[0] != `p0 n0 v Int64 1 "1"` {
		t.Errorf("%d counts, the first %q; want %d", len(got), got[0], len(events))
	}
}
