// Package nativetest has JSON documents for tests of native blocks.
package nativetest

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/jsonscan"
)

//go:embed documents.ndjson
var documents string

// Documents returns documents of every shape that the server could read differently.
func Documents() []string { return strings.Split(strings.TrimSuffix(documents, "\n"), "\n") }

// Random returns a document with few keys and many shapes.
func Random(r *rand.Rand) string { return string(object(r, 0)) }

func object(r *rand.Rand, depth int) []byte {
	b := []byte{'{'}
	used := map[string]bool{}
	for range r.IntN(6) {
		key := []string{"a", "b", "level", "x y", "ü", "deep", "list"}[r.IntN(7)]
		if used[key] {
			continue
		}
		used[key] = true
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = jsonscan.AppendQuoted(b, []byte(key))
		b = append(b, ':')
		b = append(b, value(r, depth+1)...)
	}
	return append(b, '}')
}

func value(r *rand.Rand, depth int) []byte {
	n := 9
	if depth > 3 {
		n = 6
	}
	switch r.IntN(n) {
	case 0:
		return []byte("null")
	case 1:
		return fmt.Append(nil, r.IntN(2) == 0)
	case 2:
		return fmt.Append(nil, r.Int64N(1000)-500)
	case 3:
		return fmt.Append(nil, r.Uint64())
	case 4:
		return fmt.Appendf(nil, "%g", r.NormFloat64()*100)
	case 5:
		return jsonscan.AppendQuoted(nil, []byte(strings.Repeat("sü\"\n", r.IntN(4))))
	case 6:
		return object(r, depth)
	}
	b := []byte{'['}
	same := r.IntN(3) > 0
	var first []byte
	for i := range r.IntN(5) {
		if i > 0 {
			b = append(b, ',')
		}
		v := value(r, depth+1)
		if same && first != nil {
			v = first
		}
		first = v
		b = append(b, v...)
	}
	return append(b, ']')
}

// Canonical returns a document as a JSON column stores it, without nulls and empty objects, in one spelling.
func Canonical(t testing.TB, doc string) string {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(doc))
	dec.UseNumber()
	var v map[string]any
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%s: %v", doc, err)
	}
	text, err := json.Marshal(normal(v))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func normal(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, m := range v {
			m = normal(m)
			if inner, ok := m.(map[string]any); m == nil || ok && len(inner) == 0 {
				continue
			}
			into := out
			for {
				head, rest, dotted := strings.Cut(k, ".")
				if !dotted || rest == "" {
					break
				}
				if into[head] == nil {
					into[head] = map[string]any{}
				}
				into, k = into[head].(map[string]any), rest
			}
			into[k] = m
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = normal(v[i])
		}
		return out
	case json.Number:
		if i, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return i
		}
		if u, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
			return u
		}
		f, _ := v.Float64()
		if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			return int64(f) // the server writes 1.0 as 1
		}
		return f
	}
	return v
}
