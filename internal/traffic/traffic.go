// Package traffic makes events as games and LLM products send them, and sends
// them as a well-behaved client does. It serves `penstock dev`, the benchmarks
// and the tests.
package traffic

import (
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"time"
)

// Generator makes events. It is for one goroutine.
type Generator struct {
	// Properties is how many properties each event has; 0: as many as those of
	// games and LLM calls do.
	Properties int
	// Paths is how many keys the properties of all events together have; at
	// least Properties. Set both or none.
	Paths int
	// Kind is what events they are; empty: Game.
	Kind Kind

	llm  *llm // nil until the first of Kind LLM
	rnd  *rand.Rand
	run  string // begins every session_id, so that a run's rows can be found again
	made int
}

// New makes a generator; the same run and seed make the same events but for
// their times.
func New(run string, seed uint64) *Generator {
	rnd := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)) // #nosec G404 -- events that can be made again
	return &Generator{rnd: rnd, run: run}
}

// One event in llmEvery is an LLM call, 1 to 4 KB long; the others are a game's,
// about 366 bytes.
const llmEvery = 50

// An event begins with its id and its time, so that a Body can change both in
// place.
const (
	eventHead = `{"event_id":"`
	idLen     = 36
	eventTime = `","timestamp":`
	maxLag    = 3000 // ms from an event to its request, less one
)

var (
	actions = []string{"level_start", "level_complete", "purchase", "enemy_killed", "session_start",
		"achievement_unlocked", "match_joined", "tutorial_step"}
	platforms = []string{"ios", "android", "windows", "macos", "linux", "switch"}
	countries = []string{"DE", "US", "JP", "BR", "FR", "KR", "GB", "IN", "PL", "MX"}
	items     = []string{"sword_of_dawn", "health_potion", "gem_pack_small", "gem_pack_large", "season_pass",
		"shield_iron"}
	models = []string{"small-2", "medium-2", "large-2", "embed-1"}
	words  = []string{"the", "player", "asked", "for", "a", "story", "about", "dragons", "and", "we", "answered",
		"with", "seven", "lines", "of", "dialogue", "über", "naïve", "quests", "in", "winter"}
)

// Append writes the next event, one JSON object on one line, behind dst.
func (g *Generator) Append(dst []byte) []byte {
	g.made++
	r := g.rnd
	dst = append(dst, eventHead...)
	dst = g.appendID(dst)
	dst = append(dst, eventTime...)
	dst = strconv.AppendInt(dst, time.Now().UnixMilli()-int64(r.IntN(maxLag)), 10)
	dst = append(dst, `,"session_id":"`...)
	dst = append(dst, g.run...)
	dst = append(dst, '-')
	if g.Kind == LLM {
		return g.appendLLM(dst)
	}
	user := r.IntN(50_000)
	dst = strconv.AppendInt(dst, int64(user), 36)
	dst = append(dst, `","user_id":"u`...)
	dst = strconv.AppendInt(dst, int64(user), 10)
	if g.Properties > 0 {
		return g.appendWide(dst)
	}
	if g.made%llmEvery == 0 {
		return g.appendCall(dst)
	}
	dst = append(dst, `","name":"`...)
	dst = append(dst, pick(r, actions)...)
	dst = append(dst, `","properties":{"level":`...)
	dst = strconv.AppendInt(dst, int64(r.IntN(80)), 10)
	dst = append(dst, `,"score":`...)
	dst = strconv.AppendInt(dst, int64(r.IntN(1_000_000)), 10)
	dst = append(dst, `,"duration_ms":`...)
	dst = strconv.AppendInt(dst, int64(r.IntN(600_000)), 10)
	dst = append(dst, `,"platform":"`...)
	dst = append(dst, pick(r, platforms)...)
	dst = append(dst, `","country":"`...)
	dst = append(dst, pick(r, countries)...)
	dst = append(dst, `","app_version":"1.`...)
	dst = strconv.AppendInt(dst, int64(r.IntN(12)), 10)
	dst = append(dst, `.0","item":"`...)
	dst = append(dst, pick(r, items)...)
	dst = append(dst, `","price":`...)
	dst = strconv.AppendFloat(dst, float64(r.IntN(5000))/100, 'f', 2, 64)
	dst = append(dst, `,"premium":`...)
	dst = strconv.AppendBool(dst, r.IntN(10) == 0)
	dst = append(dst, `,"fps":`...)
	dst = strconv.AppendFloat(dst, 30+r.Float64()*90, 'f', 1, 64)
	dst = append(dst, `,"ping_ms":`...)
	dst = strconv.AppendInt(dst, int64(5+r.IntN(200)), 10)
	dst = append(dst, `,"party":`...)
	dst = strconv.AppendInt(dst, int64(1+r.IntN(4)), 10)
	dst = append(dst, `,"position":{"x":`...)
	dst = strconv.AppendFloat(dst, r.Float64()*1000, 'f', 2, 64)
	dst = append(dst, `,"y":`...)
	dst = strconv.AppendFloat(dst, r.Float64()*1000, 'f', 2, 64)
	return append(dst, `}}}`...)
}

func (g *Generator) appendCall(dst []byte) []byte {
	r := g.rnd
	in, out := 100+r.IntN(700), 20+r.IntN(300)
	dst = append(dst, `","name":"llm_call","properties":{"model":"`...)
	dst = append(dst, pick(r, models)...)
	dst = append(dst, `","provider":"acme","input_tokens":`...)
	dst = strconv.AppendInt(dst, int64(in), 10)
	dst = append(dst, `,"output_tokens":`...)
	dst = strconv.AppendInt(dst, int64(out), 10)
	dst = append(dst, `,"latency_ms":`...)
	dst = strconv.AppendInt(dst, int64(80+r.IntN(9000)), 10)
	dst = append(dst, `,"stream":true,"messages":[{"role":"user","content":"`...)
	dst = appendWords(dst, r, in/4)
	dst = append(dst, `"},{"role":"assistant","content":"`...)
	dst = appendWords(dst, r, out)
	return append(dst, `"}]}}`...)
}

// appendWide writes Properties properties out of Paths keys: neighbours of a key
// that is drawn, so that none comes twice. A key's values are all of one type.
func (g *Generator) appendWide(dst []byte) []byte {
	r := g.rnd
	dst = append(dst, `","name":"`...)
	dst = append(dst, pick(r, actions)...)
	dst = append(dst, `","properties":{`...)
	first := 0
	if g.Paths > g.Properties {
		first = r.IntN(g.Paths)
	}
	for i := range g.Properties {
		if i > 0 {
			dst = append(dst, ',')
		}
		key := (first + i) % max(g.Paths, g.Properties)
		dst = append(dst, `"p`...)
		dst = strconv.AppendInt(dst, int64(key), 10)
		dst = append(dst, `":`...)
		switch key % 4 {
		case 0:
			dst = strconv.AppendInt(dst, int64(r.IntN(1_000_000)), 10)
		case 1:
			dst = append(dst, '"')
			dst = append(dst, pick(r, items)...)
			dst = append(dst, '"')
		case 2:
			dst = strconv.AppendFloat(dst, r.Float64()*1000, 'f', 2, 64)
		case 3:
			dst = strconv.AppendBool(dst, r.IntN(2) == 0)
		}
	}
	return append(dst, `}}`...)
}

func appendWords(dst []byte, r *rand.Rand, n int) []byte {
	for i := range n {
		if i > 0 {
			dst = append(dst, ' ')
		}
		dst = append(dst, pick(r, words)...)
	}
	return dst
}

// appendID writes a UUIDv4.
func (g *Generator) appendID(dst []byte) []byte {
	var u [16]byte
	hi, lo := g.rnd.Uint64(), g.rnd.Uint64()
	for i := range 8 {
		u[i], u[8+i] = byte(hi>>(8*i)), byte(lo>>(8*i))
	}
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	for i, n := range [...]int{4, 2, 2, 2, 6} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, u[:n])
		copy(u[:], u[n:])
	}
	return dst
}

func pick(r *rand.Rand, from []string) string { return from[r.IntN(len(from))] }
