package jsonscan

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// gameEvents returns n events of about 366 bytes with 14 members each. They differ, so that the branch predictor cannot
// learn one.
func gameEvents(n int) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	names := []string{"level_completed", "item_purchased", "session_started", "enemy_killed", "tutorial_step"}
	weapons := []string{"plasma_rifle", "bow", "short sword", "grenade", "épée"}
	events := make([][]byte, n)
	for i := range events {
		b := fmt.Appendf(nil,
			`{"event_id":"%08x-%04x-4%03x-a%03x-%012x","name":%q,"timestamp":%d,"session_id":"s-%08x","user_id":"player_%d",`,
			r.Uint32(), r.IntN(1<<16), r.IntN(1<<12), r.IntN(1<<12), r.Uint64()>>16, names[r.IntN(len(names))],
			1764000000000+r.IntN(1e9), r.Uint32(), r.IntN(5_000_000))
		b = fmt.Appendf(b,
			`"level":%d,"score":%d,"health":%.2f,"position_x":%.3f,"position_y":%.3f,"weapon":%q,"platform":"windows","is_premium":%t,`,
			r.IntN(100), r.IntN(1_000_000), 100*r.Float64(), 2000*r.Float64()-1000, 2000*r.Float64(),
			weapons[r.IntN(len(weapons))],
			r.IntN(2) == 0)
		pad := max(0, 366-len(b)-len(`"build":""}`))
		events[i] = fmt.Appendf(b, `"build":"%s"}`, strings.Repeat("1.24.0-rc", 20)[:pad])
	}
	return events
}

// llmEvent returns an event of about 4 KB, most of which is one text with newlines, quotes and a few letters beyond
// ASCII.
func llmEvent() []byte {
	text := strings.Repeat(
		"The quick brown fox jumps over the lazy dog, and it says \"no\" – naïvely.\nThen it goes on for a while without "+
			"anything to escape, as texts do.\n", 26)
	quoted, _ := json.Marshal(text)
	return fmt.Appendf(nil,
		`{"event_id":"0192d4b0-7c1e-7a55-9d0e-0242ac120002","name":"completion","timestamp":1764000000123,"model":"large-3","usage":{"prompt_tokens":812,"completion_tokens":731},"temperature":0.7,"completion":%s}`, quoted)
}

func wideEvent(n int) []byte {
	b := []byte("{")
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `"property_%d":%d`, i, i*7)
	}
	return append(b, '}')
}

func BenchmarkScan(b *testing.B) {
	game := gameEvents(256)
	total := 0
	for _, e := range game {
		total += len(e)
	}
	b.Logf("game event: %d bytes on average", total/len(game))
	for _, c := range []struct {
		name   string
		events [][]byte
	}{
		{"game", game},
		{"llm", [][]byte{llmEvent()}},
		{"wide1000", [][]byte{wideEvent(1000)}},
		{"wide100000", [][]byte{wideEvent(100_000)}},
	} {
		size := 0
		for _, e := range c.events {
			size += len(e)
		}
		b.Run(c.name+"/Object", func(b *testing.B) {
			var s Scanner
			for _, e := range c.events { // so that its buffers have grown
				s.Object(e)
			}
			b.SetBytes(int64(size / len(c.events)))
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, _, err := s.Object(c.events[i]); err != nil {
					b.Fatal(err)
				}
				if i++; i == len(c.events) {
					i = 0
				}
			}
		})
		b.Run(c.name+"/jsonValid", func(b *testing.B) {
			b.SetBytes(int64(size / len(c.events)))
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if !json.Valid(c.events[i]) {
					b.Fatal("invalid")
				}
				if i++; i == len(c.events) {
					i = 0
				}
			}
		})
	}
}
