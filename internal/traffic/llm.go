package traffic

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
)

// Kind is what events a Generator makes.
type Kind string

// Kinds of events.
const (
	Game Kind = "game" // a game's, about 366 bytes, and an LLM call among 50
	LLM  Kind = "llm"  // LLM calls only, 2 to 8 KB, as gateways log them
)

// Kinds are all of them.
var Kinds = []Kind{Game, LLM}

// ParseKind reads a kind's name.
func ParseKind(name string) (Kind, error) {
	if !slices.Contains(Kinds, Kind(name)) {
		return "", fmt.Errorf("%q: game or llm", name)
	}
	return Kind(name), nil
}

const (
	vocabularyWords = 6000
	products        = 24
	openTalks       = 500  // conversations that go on at once
	mostMessages    = 7500 // bytes of a call's messages; what was before is cut first
)

var (
	gatewayModels = []string{"small-2", "small-2-mini", "medium-2", "large-2", "large-2-reasoning"}
	providers     = []string{"acme", "globex", "initech", "selfhosted"}
	finishes      = []string{"stop", "stop", "stop", "stop", "stop", "length", "tool_calls", "content_filter"}
	toolNames     = []string{"search_documents", "get_order", "create_ticket", "lookup_user", "run_query", "send_mail"}
	endings       = []string{".", ".", ".", ".", "?", "!", ":"}
)

// llm is what LLM calls are made of: texts of words whose frequencies are those
// of a natural language, products whose system prompts come with every call, and
// conversations whose last exchange does. Words and prompts are always the same.
type llm struct {
	words   []string  // the most frequent first
	below   []float64 // the share of the words up to each
	prompts [products][]byte
	talks   [openTalks]talk
	scratch []byte
}

// talk is a conversation.
type talk struct {
	product, turn int
	id            uint64
	user          int
	before        []byte // its last exchange, as messages of the next call
}

func newLLM() *llm {
	r := rand.New(rand.NewPCG(1, 2)) // #nosec G404 -- words for events
	l := &llm{}
	seen := map[string]bool{}
	for len(l.words) < vocabularyWords {
		// Frequent words are short, as those of languages are.
		syllables := 1 + int(math.Log2(float64(len(l.words)+4))*(0.1+r.Float64()*0.2))
		if w := makeWord(r, syllables); !seen[w] {
			seen[w] = true
			l.words = append(l.words, w)
		}
	}
	sum := 0.0
	for rank := range l.words { // Zipf's law, as refined by Mandelbrot
		sum += 1 / (float64(rank) + 2.7)
		l.below = append(l.below, sum)
	}
	for i := range l.below {
		l.below[i] /= sum
	}
	for i := range l.prompts {
		l.prompts[i] = l.appendText(nil, r, 2000+r.IntN(2000))
	}
	return l
}

func makeWord(r *rand.Rand, syllables int) string {
	onsets := []string{"", "b", "br", "c", "ch", "d", "dr", "f", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "pl", "qu",
		"r", "s", "sh", "st", "t", "th", "tr", "v", "w"}
	vowels := []string{"a", "a", "e", "e", "e", "i", "i", "o", "o", "u", "ai", "ea", "ou", "é", "ü"}
	codas := []string{"", "", "", "n", "r", "s", "t", "l", "m", "nd", "ck", "st", "ng"}
	var w []byte
	for range syllables {
		w = append(w, pick(r, onsets)...)
		w = append(w, pick(r, vowels)...)
		w = append(w, pick(r, codas)...)
	}
	return string(w)
}

// appendText writes sentences and paragraphs of about n bytes, as they are in
// a JSON string.
func (l *llm) appendText(dst []byte, r *rand.Rand, n int) []byte {
	for end := len(dst) + n; len(dst) < end; {
		for i := range 4 + r.IntN(20) {
			if i > 0 {
				if r.IntN(12) == 0 {
					dst = append(dst, ',')
				}
				dst = append(dst, ' ')
			}
			if r.IntN(60) == 0 {
				dst = strconv.AppendInt(dst, int64(r.IntN(3000)), 10)
				continue
			}
			at := len(dst)
			rank, _ := slices.BinarySearch(l.below, r.Float64())
			dst = append(dst, l.words[min(rank, len(l.words)-1)]...)
			if c := dst[at]; i == 0 && c >= 'a' && c <= 'z' {
				dst[at] = c - 'a' + 'A'
			}
		}
		dst = append(dst, pick(r, endings)...)
		switch r.IntN(9) {
		case 0:
			dst = append(dst, `\n\n`...)
		case 1:
			dst = append(dst, `\n- `...)
		default:
			dst = append(dst, ' ')
		}
	}
	return dst
}

// length draws how long a text is: most are short, and few take up most bytes.
func length(r *rand.Rand, middle, most int) int {
	return min(most, int(float64(middle)*math.Exp(0.8*r.NormFloat64())))
}

// appendLLM writes one call behind an event's envelope up to its session_id.
func (g *Generator) appendLLM(dst []byte) []byte {
	if g.llm == nil {
		g.llm = newLLM()
	}
	l, r := g.llm, g.rnd
	t := &l.talks[r.IntN(openTalks)]
	if t.turn == 0 || r.IntN(4) == 0 {
		*t = talk{product: r.IntN(products), id: r.Uint64(), user: r.IntN(50_000), before: t.before[:0]}
	}
	t.turn++
	dst = strconv.AppendUint(dst, t.id, 36)
	dst = append(dst, `","user_id":"u`...)
	dst = strconv.AppendInt(dst, int64(t.user), 10)
	dst = append(dst, `","name":"llm_call","properties":{"request_id":"req_`...)
	dst = strconv.AppendUint(dst, r.Uint64(), 36)
	dst = strconv.AppendUint(dst, r.Uint64(), 36)
	dst = append(dst, `","conversation_id":"conv_`...)
	dst = strconv.AppendUint(dst, t.id, 36)
	dst = append(dst, `","turn":`...)
	dst = strconv.AppendInt(dst, int64(t.turn), 10)
	dst = append(dst, `,"product":"product-`...)
	dst = strconv.AppendInt(dst, int64(t.product), 10)
	dst = append(dst, `","provider":"`...)
	dst = append(dst, providers[t.product%len(providers)]...)
	dst = append(dst, `","model":"`...)
	dst = append(dst, pick(r, gatewayModels)...)
	finish := pick(r, finishes)
	dst = append(dst, `","finish_reason":"`...)
	dst = append(dst, finish...)
	dst = append(dst, `","stream":`...)
	dst = strconv.AppendBool(dst, r.IntN(3) > 0)
	dst = append(dst, `,"temperature":0.`...)
	dst = strconv.AppendInt(dst, int64(t.product%8), 10)

	l.scratch = l.appendExchange(l.scratch[:0], r, finish == "tool_calls")
	if len(l.prompts[t.product])+len(t.before)+len(l.scratch) > mostMessages {
		t.before = t.before[:0]
	}
	in, out := (len(l.prompts[t.product])+len(t.before))/4+r.IntN(60), len(l.scratch)/5+r.IntN(30)
	first := 80 + r.IntN(900)
	dst = append(dst, `,"input_tokens":`...)
	dst = strconv.AppendInt(dst, int64(in), 10)
	dst = append(dst, `,"cached_tokens":`...)
	dst = strconv.AppendInt(dst, int64(len(l.prompts[t.product])/4*r.IntN(2)), 10)
	dst = append(dst, `,"output_tokens":`...)
	dst = strconv.AppendInt(dst, int64(out), 10)
	dst = append(dst, `,"first_token_ms":`...)
	dst = strconv.AppendInt(dst, int64(first), 10)
	dst = append(dst, `,"latency_ms":`...)
	dst = strconv.AppendInt(dst, int64(first+out*(8+r.IntN(30))), 10)
	dst = append(dst, `,"cost_usd":`...)
	dst = strconv.AppendFloat(dst, float64(in+4*out)/1e6, 'f', -1, 64)
	dst = append(dst, `,"messages":[{"role":"system","content":"`...)
	dst = append(dst, l.prompts[t.product]...)
	dst = append(dst, `"}`...)
	dst = append(dst, t.before...)
	dst = append(dst, l.scratch...)
	t.before = append(t.before[:0], l.scratch...)
	return append(dst, `]}}`...)
}

// appendExchange writes a question and its answer, each message behind a comma.
func (l *llm) appendExchange(dst []byte, r *rand.Rand, tool bool) []byte {
	dst = append(dst, `,{"role":"user","content":"`...)
	dst = l.appendText(dst, r, length(r, 200, 700))
	if tool {
		dst = append(dst, `"},{"role":"assistant","content":"","tool_calls":[{"id":"call_`...)
		call := r.Uint64()
		dst = strconv.AppendUint(dst, call, 36)
		dst = append(dst, `","type":"function","function":{"name":"`...)
		dst = append(dst, pick(r, toolNames)...)
		dst = append(dst, `","arguments":"{\"id\":`...)
		dst = strconv.AppendInt(dst, int64(r.IntN(1_000_000)), 10)
		dst = append(dst, `,\"query\":\"`...)
		dst = append(dst, l.words[r.IntN(len(l.words))]...)
		dst = append(dst, `\"}"}}]},{"role":"tool","tool_call_id":"call_`...)
		dst = strconv.AppendUint(dst, call, 36)
		dst = append(dst, `","content":"`...)
		dst = l.appendText(dst, r, length(r, 200, 600))
	}
	dst = append(dst, `"},{"role":"assistant","content":"`...)
	dst = l.appendText(dst, r, length(r, 500, 900))
	return append(dst, `"}`...)
}
