package ask

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
)

// nearly is the largest relative difference of two equal sums: floats are added in different orders.
const nearly = 1e-9

// difference describes the first difference of two answers; empty: none. Rows may differ in order only if the question
// does not decide it.
func difference(got, want [][]any, tolerance float64) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d rows, want %d", len(got), len(want))
	}
	first := firstDifference(got, want, tolerance)
	if first == "" {
		return ""
	}
	byText := func(rows [][]any) [][]any {
		sorted := slices.Clone(rows)
		slices.SortStableFunc(sorted, func(a, b []any) int { return strings.Compare(sortKey(a), sortKey(b)) })
		return sorted
	}
	if firstDifference(byText(got), byText(want), tolerance) == "" {
		return ""
	}
	return first
}

// sortKey sorts rows equally in both answers. It omits digits in which sums may differ.
func sortKey(row []any) string {
	var b strings.Builder
	for _, v := range row {
		switch v := normal(v).(type) {
		case float64:
			fmt.Fprintf(&b, "%.6g|", v)
		case string:
			b.WriteString(v + "|")
		default:
			text, _ := json.Marshal(v) // v came from JSON
			b.Write(append(text, '|'))
		}
	}
	return b.String()
}

func firstDifference(got, want [][]any, tolerance float64) string {
	for i := range got {
		if len(got[i]) != len(want[i]) {
			return fmt.Sprintf("row %d has %d columns, want %d", i, len(got[i]), len(want[i]))
		}
		for j := range got[i] {
			if g, w := normal(got[i][j]), normal(want[i][j]); !same(g, w, tolerance) {
				return fmt.Sprintf("row %d, column %d is %.200s, want %.200s", i, j, fmt.Sprint(g), fmt.Sprint(w))
			}
		}
	}
	return ""
}

// normal converts numbers to float64, and text of a JSON object to that object.
func normal(v any) any {
	switch v := v.(type) {
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return f
	case bool:
		if v {
			return 1.0
		}
		return 0.0
	case string:
		var object map[string]any
		if strings.HasPrefix(v, "{") && json.Unmarshal([]byte(v), &object) == nil {
			return normal(object)
		}
	case map[string]any:
		all := make(map[string]any, len(v))
		for k, member := range v {
			all[k] = normal(member)
		}
		return all
	case []any:
		all := make([]any, len(v))
		for i, element := range v {
			all[i] = normal(element)
		}
		return all
	}
	return v
}

func same(got, want any, tolerance float64) bool {
	switch w := want.(type) {
	case float64:
		g, ok := got.(float64)
		return ok && math.Abs(g-w) <= max(nearly, tolerance)*max(math.Abs(g), math.Abs(w))
	case []any:
		g, ok := got.([]any)
		return ok && slices.EqualFunc(g, w, func(a, b any) bool { return same(a, b, tolerance) })
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for k := range w {
			if !same(g[k], w[k], tolerance) {
				return false
			}
		}
		return true
	}
	return got == want
}
