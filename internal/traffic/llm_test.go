package traffic

import (
	"bytes"
	"compress/gzip"
	"regexp"
	"testing"
)

var times = regexp.MustCompile(`"timestamp":\d{13}`)

// Calls are events of 2 to 8 KB with their messages; the same run and seed make
// the same ones but for their times, others make others.
func TestLLM(t *testing.T) {
	make := func(run string, seed uint64) *Body {
		g := New(run, seed)
		g.Kind = LLM
		return NewBody(g, 3000)
	}
	body := make("run", 1)
	if again := make("run", 1); !bytes.Equal(times.ReplaceAll(body.text, nil), times.ReplaceAll(again.text, nil)) {
		t.Error("the same run and seed make other events")
	}
	if other := make("run", 2); bytes.Equal(times.ReplaceAll(body.text, nil), times.ReplaceAll(other.text, nil)) {
		t.Error("another seed makes the same events")
	}
	sizes, prompts, conversations, tools := 0, map[string]int{}, map[string]int{}, 0
	for line := range bytes.Lines(body.text) {
		if len(line) < 2000 || len(line) > 8192 {
			t.Errorf("an event of %d bytes", len(line))
		}
		sizes += len(line)
	}
	for _, e := range decode(t, body.text) {
		if e.Name != "llm_call" || len(e.ID) != 36 || e.Session[:4] != "run-" {
			t.Fatalf("event %+v", e)
		}
		for _, name := range []string{"request_id", "conversation_id", "model", "provider", "finish_reason"} {
			if s, _ := e.Properties[name].(string); s == "" {
				t.Fatalf("no %s in %v", name, e.Properties)
			}
		}
		for _, name := range []string{"input_tokens", "output_tokens", "latency_ms", "turn"} {
			if n, _ := e.Properties[name].(float64); n <= 0 {
				t.Fatalf("%s is %v", name, e.Properties[name])
			}
		}
		conversations[e.Properties["conversation_id"].(string)]++
		messages := e.Properties["messages"].([]any)
		system := messages[0].(map[string]any)
		last := messages[len(messages)-1].(map[string]any)
		if system["role"] != "system" || last["role"] != "assistant" || last["content"] == "" {
			t.Fatalf("messages %v", messages)
		}
		prompts[system["content"].(string)]++
		for _, m := range messages {
			if m.(map[string]any)["tool_calls"] != nil {
				tools++
			}
		}
	}
	if mean := sizes / 3000; mean < 4500 || mean > 6000 {
		t.Errorf("%d bytes an event", mean)
	}
	if len(prompts) != products || len(conversations) < 500 || len(conversations) > 2500 || tools < 100 {
		t.Errorf("%d prompts, %d conversations, %d calls of tools", len(prompts), len(conversations), tools)
	}
}

// The texts compress as those of natural languages do: gzip makes 2.4 to 3 of
// one, where the 21 words of the other calls give 5.8.
func TestTextIsLikeLanguage(t *testing.T) {
	l := newLLM()
	text := l.appendText(nil, New("run", 1).rnd, 1<<20)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	w.Write(text)
	w.Close()
	words := map[string]int{}
	for _, w := range bytes.Fields(text) {
		words[string(w)]++
	}
	if ratio := float64(len(text)) / float64(packed.Len()); ratio < 2.4 || ratio > 3 || len(words) < 4000 {
		t.Errorf("gzip makes 1 of %.2f, of %d different words", ratio, len(words))
	}
}

func TestParseKind(t *testing.T) {
	for _, k := range Kinds {
		if got, err := ParseKind(string(k)); err != nil || got != k {
			t.Errorf("%s: %q, %v", k, got, err)
		}
	}
	if _, err := ParseKind("chess"); err == nil {
		t.Error("chess is a kind")
	}
}
