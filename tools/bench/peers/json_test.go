package peers

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/bytedance/sonic"
	"github.com/tidwall/gjson"
	"github.com/valyala/fastjson"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/traffic"
)

// reader reports whether an event is JSON, in the way its library offers. Ours also finds the members, and rejects what
// ClickHouse would reject.
type reader struct {
	name string
	ok   func(event []byte) bool
}

func readers() []reader {
	var scan jsonscan.Scanner
	scan.MaxDepth = 64
	var fast fastjson.Parser
	return []reader{
		{"penstock", func(b []byte) bool { _, n, err := scan.Object(b); return err == nil && n == len(b) }},
		{"encoding/json", json.Valid},
		{"gjson", gjson.ValidBytes},
		{"fastjson", func(b []byte) bool { return fastjson.ValidateBytes(b) == nil }},
		{"fastjson, parsed", func(b []byte) bool { _, err := fast.ParseBytes(b); return err == nil }},
		{"sonic", sonic.Valid},
	}
}

// The cost of JSON libraries for one event: `go test -run '^$' -bench JSON`.
func BenchmarkJSON(b *testing.B) {
	for _, kind := range []string{"game", "llm"} {
		g := traffic.New("json", 1)
		if kind == "llm" {
			g.Kind = traffic.LLM
		}
		var events [][]byte
		size := 0
		for range 512 {
			events = append(events, g.Append(nil))
			size += len(events[len(events)-1])
		}
		for _, r := range readers() {
			b.Run(kind+"/"+r.name, func(b *testing.B) {
				b.SetBytes(int64(size / len(events)))
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if !r.ok(events[i%len(events)]) {
						b.Fatal("refused")
					}
				}
			})
		}
	}
}

// poison are inputs that some parsers accept and others reject or read differently. None of them may reach an object.
var poison = []struct{ name, event string }{
	{"a key twice", `{"a":1,"a":2}`},
	{"bytes that are no UTF-8", "{\"a\":\"\xff\"}"},
	{"half a surrogate pair", `{"a":"\ud800"}`},
	{"NUL in a key", `{"a\u0000b":1}`},
	{"1e400", `{"a":1e400}`},
	{"an integer of 70 bits", `{"a":1180591620717411303424}`},
	{"a thousand arrays in each other", `{"a":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`},
	{"a control character", "{\"a\":\"\x01\"}"},
	{"something behind it", `{"a":1}}`},
	{"a comma too many", `{"a":1,}`},
}

// TestPoison shows which library accepts what: `go test -run Poison -v`. Ours accepts none.
func TestPoison(t *testing.T) {
	for _, p := range poison {
		var take []string
		for _, r := range readers() {
			if r.ok([]byte(p.event)) {
				take = append(take, r.name)
			}
		}
		t.Logf("%-32s %s", p.name, strings.Join(take, "; "))
		if len(take) > 0 && take[0] == "penstock" {
			t.Errorf("%s is taken", p.name)
		}
	}
}
