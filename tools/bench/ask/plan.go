// Package ask generates events like those of an analyst's project, keeps the truth about them, and asks an analyst's
// questions. bench ask sends the events through Penstock; README.md describes the command.
package ask

import (
	"math/rand/v2"
	"time"
)

// Projects of the plan's events.
const (
	Game = "game"
	Chat = "chat" // calls of language models and messages
)

const (
	days = 30
	// One request in chatEvery belongs to the project chat.
	chatEvery = 40
	// One request in resendEvery is sent again, as by clients that get no answer.
	resendEvery = 100
	// mostDelay is the largest number of requests between a request and its resend.
	mostDelay = 2000
	// eventsAUser is the mean number of events of a user.
	eventsAUser = 50
)

// Plan is a reproducible set of requests.
type Plan struct {
	Events int       // without resends
	Batch  int       // events in a request
	End    time.Time // of the 30 days
	Seed   uint64
}

// Request is one POST.
type Request struct {
	Project string
	Rows    []Row
	Body    []byte // NDJSON
}

// Send is one step of the plan: a request's number, and whether it is a resend.
type Send struct {
	Request int
	Again   bool
}

// Requests is the number of requests without resends.
func (p Plan) Requests() int { return p.Events / p.Batch }

// Sends returns all requests in the order in which a client sends them.
func (p Plan) Sends() []Send {
	n := p.Requests()
	r := rand.New(rand.NewPCG(p.Seed, 1)) // #nosec G404 -- the plan must be reproducible
	due := map[int][]int{}
	for i := resendEvery / 2; i < n; i += resendEvery {
		at := min(n-1, i+1+r.IntN(min(mostDelay, n)))
		due[at] = append(due[at], i)
	}
	var all []Send
	for i := range n {
		all = append(all, Send{Request: i})
		for _, j := range due[i] {
			all = append(all, Send{Request: j, Again: true})
		}
	}
	return all
}

// Users is the number of distinct users.
func (p Plan) Users() int { return max(100, p.Events/eventsAUser) }

// Make creates the request with a number.
func (p Plan) Make(number int) Request {
	m := p.maker(number)
	m.project = Game
	if number%chatEvery == chatEvery/2 {
		m.project = Chat
	}
	at := p.End.Add(-days * 24 * time.Hour)
	at = at.Add(time.Duration(float64(p.End.Sub(at)) * float64(number) / float64(p.Requests())))
	m.fill(at.UnixMilli(), p.End.UnixMilli()-1)
	return m.request()
}

// Live creates one more request for the project game. Its events happen now.
func (p Plan) Live(now time.Time) Request {
	m := p.maker(p.Requests())
	m.project, m.live = Game, true
	m.fill(now.UnixMilli(), now.UnixMilli())
	for i := range m.rows {
		m.rows[i].Time = now.UnixMilli()
	}
	return m.request()
}

func (p Plan) maker(number int) *maker {
	return &maker{
		rnd:   rand.New(rand.NewPCG(p.Seed, 2+uint64(number))), // #nosec G404 -- as above
		users: p.Users(), want: p.Batch,
		rows: make([]Row, 0, p.Batch),
	}
}
