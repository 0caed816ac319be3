package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/traffic"
)

// clients send the traffic of three projects, which rises and falls.
type clients struct {
	*stack
	began   time.Time
	release atomic.Bool // a bad release of the game is out: some events have no name
}

// sender is a project's traffic.
type sender struct {
	project, path string
	perSecond     float64 // events, on average
	requests      float64 // a second
	period        time.Duration
	body          func(n int) []byte
}

// send sends until ctx ends.
func (c *clients) send(ctx context.Context, s sender) {
	for i := 0; ; i++ {
		wait := time.Duration(rand.ExpFloat64() / s.requests * float64(time.Second)) // #nosec G404 -- traffic
		if retry.Sleep(ctx, wait) != nil {
			return
		}
		wave := 1 + 0.35*math.Sin(2*math.Pi*time.Since(c.began).Seconds()/s.period.Seconds())
		n := max(1, int(wave*s.perSecond/s.requests))
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.receivers[i%len(c.receivers)]+s.path,
			bytes.NewReader(s.body(n)))
		if err != nil {
			panic(err) // the URL is ours
		}
		req.SetBasicAuth(c.keys[s.project], "") // as Segment's clients do
		if s.path == "/v1/events" {
			req.Header.Set("Authorization", "Bearer "+c.keys[s.project])
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
}

// native makes NDJSON of games' or LLM products' events.
func (c *clients) native(kind traffic.Kind) func(n int) []byte {
	g := traffic.New("pictures", uint64(c.began.UnixNano()))
	g.Kind = kind
	return func(n int) []byte {
		var b []byte
		for i := range n {
			from := len(b)
			b = append(g.Append(b), '\n')
			if kind == traffic.Game && c.release.Load() && i%5 == 0 {
				b = append(b[:from], bytes.Replace(b[from:], []byte(`"name"`), []byte(`"nme"`), 1)...)
			}
		}
		return b
	}
}

// segment makes a batch as Segment's clients do. Some calls have no event's name, and are rejected.
func segment(n int) []byte {
	r := rand.New(rand.NewPCG(rand.Uint64(), 0)) // #nosec G404 -- traffic
	names := []string{"Product Viewed", "Product Viewed", "Product Added", "Order Completed"}
	var b strings.Builder
	b.WriteString(`{"batch":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		name := names[r.IntN(len(names))]
		if r.IntN(60) == 0 {
			name = ""
		}
		fmt.Fprintf(&b, `{"type":"track","event":%q,"userId":"u%d","messageId":"m-%d","timestamp":%q,`, name, r.IntN(5000),
			r.Int64(), time.Now().UTC().Format(time.RFC3339Nano))
		fmt.Fprintf(&b, `"properties":{"email":"a@example.com","price":%d.5,"currency":"EUR","sku":"sku-%d"}}`, r.IntN(90),
			r.IntN(300))
	}
	b.WriteString("]}")
	return []byte(b.String())
}
