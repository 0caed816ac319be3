package ask

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

var testPlan = Plan{Events: 40_000, Batch: 100, Seed: 7, End: time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)}

// The truth matches the request's body, and the same request is always the same.
func TestPlan(t *testing.T) {
	sends := testPlan.Sends()
	again := 0
	for _, s := range sends {
		if s.Again {
			again++
		}
	}
	if len(sends) != 404 || again != 4 {
		t.Errorf("%d requests, %d of them resends, want 404 and 4", len(sends), again)
	}
	kinds := map[string]int{}
	for i := range 100 {
		r := testPlan.Make(i)
		if !bytes.Equal(r.Body, testPlan.Make(i).Body) {
			t.Fatalf("request %d differs when it is made again", i)
		}
		if len(r.Rows) != testPlan.Batch {
			t.Fatalf("request %d has %d rows, want %d", i, len(r.Rows), testPlan.Batch)
		}
		for j, line := range slices.Collect(bytes.Lines(r.Body)) {
			kinds[checkRow(t, r.Rows[j], line)]++
		}
	}
	for _, kind := range []string{"price as text", "whole price", "price", "call", "rare", "message", "score"} {
		if kinds[kind] == 0 {
			t.Errorf("no event has a %s; there are %v", kind, kinds)
		}
	}
}

// checkRow compares a row with the event as sent, and returns what is special about it.
func checkRow(t *testing.T, row Row, line []byte) (kind string) {
	t.Helper()
	var e struct {
		ID         uuid.UUID      `json:"event_id"`
		Time       int64          `json:"timestamp"`
		Session    string         `json:"session_id"`
		User       string         `json:"user_id"`
		Name       string         `json:"name"`
		Properties map[string]any `json:"properties"`
	}
	if err := json.Unmarshal(line, &e); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if e.ID != row.ID || e.Time != row.Time || e.Session != row.Session || e.User != row.User || e.Name != row.Name ||
		e.Time >= testPlan.End.UnixMilli() {
		t.Errorf("the row is %+v, the event %s", row, line)
	}
	var paths []string
	for key, v := range e.Properties {
		if object, ok := v.(map[string]any); ok {
			for member := range object {
				paths = append(paths, key+"."+member)
			}
		} else {
			paths = append(paths, key)
		}
	}
	if !slices.Equal(slices.Sorted(slices.Values(paths)), slices.Sorted(slices.Values(row.Paths))) {
		t.Errorf("paths %q, want those of %s", row.Paths, line)
	}
	switch price := e.Properties["price"].(type) {
	case string:
		if f, err := strconv.ParseFloat(price, 64); err != nil || f != *row.Price {
			t.Errorf("price %q, want %v", price, *row.Price)
		}
		return "price as text"
	case float64:
		if price != *row.Price {
			t.Errorf("price %v, want %v", price, *row.Price)
		}
		if price == math.Trunc(price) {
			return "whole price"
		}
		return "price"
	}
	switch {
	case row.Call != nil:
		if e.Properties["input"] != row.Call.Prompt || e.Properties["input_tokens"] != float64(row.Call.Input) {
			t.Errorf("call %+v, want that of %s", row.Call, line)
		}
		return "call"
	case row.Rare != nil:
		return "rare"
	case row.Message != "":
		return "message"
	case row.Score != nil:
		return "score"
	}
	return ""
}

// The live request's events happen now, and later than all others.
func TestPlanLive(t *testing.T) {
	now := testPlan.End.Add(time.Minute)
	for _, r := range testPlan.Live(now).Rows {
		if r.Time != now.UnixMilli() || !r.Live {
			t.Fatalf("event of %s, live %v", time.UnixMilli(r.Time).UTC(), r.Live)
		}
	}
}

func TestQuestions(t *testing.T) {
	all, err := Questions()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, q := range all {
		if seen[q.Name] {
			t.Errorf("%s comes twice", q.Name)
		}
		seen[q.Name] = true
		if !strings.Contains(q.Truth, "truth.") || strings.Contains(q.Before+q.After, "truth.") {
			t.Errorf("%s asks the wrong tables: %+v", q.Name, q)
		}
	}
	if len(all) < 30 {
		t.Errorf("%d questions", len(all))
	}
	for _, text := range []string{"q\n-- before\nSELECT 1\n", "q\n-- fast\n", "q\n-- most x\n", "q\n-- truth\nSELECT 1\n"} {
		if q, err := parseQuestion(text); err == nil {
			t.Errorf("%q is %+v, want an error", text, q)
		}
	}
}

func TestDifference(t *testing.T) {
	rows := func(text string) [][]any {
		rows, err := decode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	for _, c := range []struct {
		name, got, want string
		tolerance       float64
		equal           bool
	}{
		{name: "the same", got: `[1, "a", null]`, want: `[1, "a", null]`, equal: true},
		{name: "another order", got: "[1]\n[2]", want: "[2]\n[1]", equal: true},
		{name: "another order of sums", got: "[1.0000000000001, 5]\n[1, 4]", want: "[1, 4]\n[1, 5]", equal: true},
		{name: "another number", got: `[1.001]`, want: `[1]`},
		{name: "an estimate", got: `[1.001]`, want: `[1]`, tolerance: 0.01, equal: true},
		{name: "text in place of a number", got: `["1"]`, want: `[1]`},
		{name: "null in place of 0", got: `[null]`, want: `[0]`},
		{name: "a row twice", got: "[1]\n[1]", want: "[1]\n[2]"},
		{name: "a row less", got: "[1]", want: "[1]\n[2]"},
		{name: "an object", got: `[{"a":{"b":9},"c":true}]`, want: `["{\"c\":true,\"a\":{\"b\":9.00}}"]`, equal: true},
		{name: "another type in an object", got: `[{"a":9}]`, want: `["{\"a\":\"9\"}"]`},
		{name: "a member more", got: `[{"a":9,"b":1}]`, want: `["{\"a\":9}"]`},
		{name: "lists", got: `[[1,2]]`, want: `[[1,3]]`},
	} {
		if d := difference(rows(c.got), rows(c.want), c.tolerance); (d == "") != c.equal {
			t.Errorf("%s: difference %q, want equal %v", c.name, d, c.equal)
		}
	}
}

func TestReportTable(t *testing.T) {
	result := Result{Question: "all events", Ms: 1234.4, CPU: 9.94, Rows: 1_234_567, Bytes: 12_345_678, Most: 500, Equal: true}
	r := Report{Sides: []Side{{Name: "before", Results: []Result{{Question: "all events", Error: "refused", Most: 500}}},
		{Name: "after", Results: []Result{result}}}}
	var b strings.Builder
	if err := r.Write(&b, ""); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"|    1,234 |          9.9 |       1,234,567 |     12.3 |         yes |", "! before, all events: refused"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
