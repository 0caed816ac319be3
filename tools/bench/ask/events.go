package ask

import (
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
)

// Row is the truth about one event. Missing numbers are nil, missing texts empty.
type Row struct {
	Project, Name, Session, User string
	Time                         int64 // ms
	ID                           [16]byte
	Live                         bool // sent after all other requests
	Properties                   string
	Paths                        []string // of the properties

	Country, Platform, Version, Difficulty, Message string
	Level, Score, Rare                              *int64
	Price                                           *float64
	Call                                            *Call
}

// Call is the truth about a call of a language model.
type Call struct {
	Model, Conversation, Error, Prompt string
	Input, Output                      int64 // tokens
	Latency                            int64 // ms
	Cost                               *float64
}

var (
	countries = []string{"DE", "US", "JP", "BR", "FR", "KR", "GB", "IN", "PL", "MX", "ES", "IT"}
	platforms = []string{"ios", "android", "windows", "macos", "switch"}
	versions  = []string{"1.2.0", "1.3.0", "1.3.1", "1.4.0", "1.5.0"}
	devices   = []string{"Pixel 9", "Galaxy S25", "iPhone 17", "iPad Air", "Deck", "Switch 2"}
	levels    = []string{"easy", "normal", "hard"}
	enemies   = []string{"slime", "bat", "ogre", "wraith", "dragon"}
	items     = []string{"sword_of_dawn", "health_potion", "gem_pack_small", "gem_pack_large", "season_pass"}
	faults    = []string{"texture not found", "socket closed", "out of memory", "save failed", "shader failed",
		"timeout", "login expired", "asset corrupt", "audio device lost", "permission denied"}
	prices = []float64{0.99, 1.99, 4.99, 9, 9.99, 19.99, 49}
	models = []string{"small-2", "medium-2", "large-2", "tuned-1", "local-8b"}
	words  = strings.Fields("the player asked for a story about dragons and we answered with seven lines of " +
		"dialogue quests in winter while nobody could find where that old merchant had put her best lantern")
)

// textVersion is the game's version that sends prices as text.
const textVersion = "1.4.0"

// Tariff is a model's price, in USD per million tokens.
type Tariff struct{ Input, Output float64 }

// Tariffs are the prices that the configuration must have. For other models, the client sends the cost.
var Tariffs = map[string]Tariff{"small-2": {0.25, 2}, "medium-2": {1.25, 10}, "large-2": {5, 25}}

// frequent are names of the game's events after session_start, and their share in thousandths.
var frequent = []struct {
	name  string
	share int
}{
	{"level_start", 360}, {"level_complete", 230}, {"enemy_killed", 170}, {"item_used", 80}, {"level_fail", 60},
	{"ad_view", 40}, {"achievement", 22}, {"shop_open", 22}, {"purchase", 9}, {"error", 7},
}

// maker creates one request.
type maker struct {
	rnd     *rand.Rand
	project string
	live    bool
	users   int
	want    int
	rows    []Row
	props   properties
}

// fill adds sessions that end near a moment, in ms, until the request is full. No event is later than last.
func (m *maker) fill(at, last int64) {
	for len(m.rows) < m.want {
		began := at - int64(m.rnd.IntN(10*60_000))
		switch n := m.rnd.IntN(1000); {
		case n == 0: // the queue of a client that was offline
			began -= int64(m.rnd.IntN(10 * 24 * 3600_000))
		case n < 10:
			began -= int64(m.rnd.IntN(2 * 24 * 3600_000))
		}
		// Some users play much more than others.
		user := "u" + strconv.Itoa(int(float64(m.users)*math.Pow(m.rnd.Float64(), 1.6)))
		session := fmt.Sprintf("%016x", m.rnd.Uint64())
		if m.project == Game {
			m.play(user, session, began, last)
		} else {
			m.talk(user, session, began, last)
		}
	}
	m.rows = m.rows[:m.want]
}

// add starts an event. Its properties are in m.props until finish.
func (m *maker) add(name, user, session string, at int64) *Row {
	m.rows = append(m.rows, Row{Project: m.project, Name: name, User: user, Session: session, Time: at, Live: m.live})
	r := &m.rows[len(m.rows)-1]
	hi, lo := m.rnd.Uint64(), m.rnd.Uint64()
	for i := range 8 {
		r.ID[i], r.ID[8+i] = byte(hi>>(8*i)), byte(lo>>(8*i))
	}
	r.ID[6], r.ID[8] = r.ID[6]&0x0f|0x40, r.ID[8]&0x3f|0x80
	m.props.begin()
	return r
}

func (m *maker) finish(r *Row) { r.Properties, r.Paths = m.props.end() }

// play adds one session of the game.
func (m *maker) play(user, session string, at, last int64) {
	r := m.rnd
	country, platform, device := pick(r, countries), pick(r, platforms), pick(r, devices)
	version, number, level := pick(r, versions), int64(r.IntN(400)), int64(1+r.IntN(60))
	for i := range 2 + r.IntN(13) {
		name := "session_start"
		if i > 0 {
			name = drawn(r)
		}
		e := m.add(name, user, session, min(at, last))
		at += int64(500 + r.IntN(60_000))
		e.Country, e.Platform, e.Version = country, platform, version
		p := &m.props
		p.text("country", country)
		p.text("platform", platform)
		p.text("app_version", version)
		p.integer("session_number", number)
		p.integer("build", 4100+number%40)
		p.open("device")
		p.text("model", device)
		p.integer("memory_mb", 1024*(2+number%7))
		p.text("os_version", strconv.Itoa(12+int(number%6)))
		p.shut()
		if r.IntN(25) == 0 {
			k, v := r.IntN(40), int64(r.IntN(3))
			p.open("exp")
			p.integer("k"+strconv.Itoa(k), v)
			p.shut()
			if k == 7 {
				e.Rare = &v
			}
		}
		if strings.HasPrefix(name, "level_") {
			e.Level, e.Difficulty = new(level), levels[level%3]
		}
		m.detail(e)
		m.finish(e)
		if name == "level_complete" {
			level++
		}
	}
}

// detail adds the properties of the event's name.
func (m *maker) detail(e *Row) {
	r, p := m.rnd, &m.props
	if e.Level != nil {
		p.integer("level", *e.Level)
		p.text("difficulty", e.Difficulty)
	}
	switch e.Name {
	case "session_start":
		p.text("entry", pick(r, []string{"icon", "push", "link"}))
		p.boolean("first", r.IntN(20) == 0)
	case "level_complete":
		e.Score = new(int64(r.IntN(100_000)))
		p.integer("score", *e.Score)
		p.integer("duration_ms", int64(r.IntN(600_000)))
		p.integer("stars", int64(1+r.IntN(3)))
	case "level_fail":
		p.text("reason", pick(r, []string{"time", "health", "quit"}))
	case "enemy_killed":
		p.text("enemy", pick(r, enemies))
		p.float("x", float64(r.IntN(100_000))/100+0.005)
		p.float("y", float64(r.IntN(100_000))/100+0.005)
	case "item_used":
		p.text("item", pick(r, items))
		p.integer("count", int64(1+r.IntN(5)))
	case "ad_view":
		p.text("network", pick(r, []string{"alpha", "beta", "gamma"}))
		p.float("revenue", float64(1+r.IntN(400))/10_000)
		p.integer("watched_ms", int64(r.IntN(30_000)))
	case "achievement":
		p.text("achievement", "a"+strconv.Itoa(r.IntN(90)))
	case "shop_open":
		p.text("offer", pick(r, items))
	case "purchase":
		e.Price = new(pick(r, prices))
		p.text("item", pick(r, items))
		p.text("currency", "USD")
		p.price("price", *e.Price, e.Version == textVersion, r.IntN(2) == 0)
	case "error":
		e.Message = pick(r, faults)
		p.text("message", e.Message)
		p.integer("code", int64(100+r.IntN(50)))
		p.boolean("fatal", r.IntN(10) == 0)
	}
}

// talk adds the calls of one conversation, and a few messages.
func (m *maker) talk(user, session string, at, last int64) {
	r := m.rnd
	conversation := ""
	if r.IntN(2) == 0 {
		conversation = "conv_" + session
	}
	for range 1 + r.IntN(8) {
		at += int64(1000 + r.IntN(90_000))
		if r.IntN(10) == 0 {
			e := m.add("message_sent", user, session, min(at, last))
			m.props.integer("length", int64(r.IntN(400)))
			m.finish(e)
		}
		m.call(m.add("llm_call", user, session, min(at, last)), conversation)
	}
}

func (m *maker) call(e *Row, conversation string) {
	r, p := m.rnd, &m.props
	c := &Call{Model: pick(r, models), Conversation: conversation, Input: int64(100 + r.IntN(3000)),
		Output: int64(20 + r.IntN(700)), Latency: int64(80 + r.IntN(9000)), Prompt: m.sentence(60 + r.IntN(80))}
	e.Call = c
	if r.IntN(400) == 0 {
		c.Prompt += " refund password " + pick(r, words)
	}
	p.text("model", c.Model)
	p.text("provider", "acme")
	p.integer("input_tokens", c.Input)
	p.integer("output_tokens", c.Output)
	p.integer("latency_ms", c.Latency)
	p.integer("first_token_ms", c.Latency/4)
	p.text("input", c.Prompt)
	p.text("output", m.sentence(20+r.IntN(60)))
	if conversation != "" {
		p.text("conversation_id", conversation)
	} else {
		c.Conversation = e.Session
	}
	if r.IntN(50) == 0 {
		c.Error = pick(r, []string{"rate limited", "context too long", "upstream timeout"})
		p.text("status", "error")
		p.text("error", c.Error)
	} else {
		p.text("finish_reason", "stop")
	}
	if t, ok := Tariffs[c.Model]; ok {
		c.Cost = new((float64(c.Input)*t.Input + float64(c.Output)*t.Output) / 1e6)
	} else if c.Model == "tuned-1" {
		c.Cost = new(float64(c.Input+4*c.Output) / 1e6)
		p.float("cost_usd", *c.Cost)
	}
	m.finish(e)
}

func (m *maker) sentence(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(pick(m.rnd, words))
	}
	return b.String()
}

// request encodes the rows.
func (m *maker) request() Request {
	body := make([]byte, 0, 480*len(m.rows))
	var id [36]byte
	for i := range m.rows {
		r := &m.rows[i]
		appendID(id[:0], r.ID)
		body = append(append(append(body, `{"event_id":"`...), id[:]...), `","timestamp":`...)
		body = strconv.AppendInt(body, r.Time, 10)
		for _, member := range [...][2]string{{"session_id", r.Session}, {"user_id", r.User}, {"name", r.Name}} {
			body = append(append(append(body, `,"`...), member[0]...), `":"`...)
			body = append(append(body, member[1]...), '"')
		}
		body = append(append(append(body, `,"properties":`...), r.Properties...), "}\n"...)
	}
	return Request{Project: m.project, Rows: m.rows, Body: body}
}

func appendID(dst []byte, id [16]byte) []byte {
	from := 0
	for i, n := range [...]int{4, 2, 2, 2, 6} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, id[from:from+n])
		from += n
	}
	return dst
}

func drawn(r *rand.Rand) string {
	n := r.IntN(1000)
	for _, f := range frequent {
		if n -= f.share; n < 0 {
			return f.name
		}
	}
	return frequent[0].name
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }
