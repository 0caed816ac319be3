package traffic

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock/penstock/internal/retry"
)

// Client sends requests and repeats those that were not answered, or answered
// with 408, 429 or 5xx: the events carry ids, so a repeat counts once.
type Client struct {
	URL  string // of POST /v1/events
	Key  string
	HTTP *http.Client
}

// NewClient makes a client for conns connections.
func NewClient(url, key string, conns int) *Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost, t.MaxIdleConns = conns, conns
	return &Client{URL: url, Key: key, HTTP: &http.Client{Transport: t, Timeout: time.Minute}}
}

// Answer is what the receiver said.
type Answer struct {
	Accepted int `json:"accepted"`
	Rejected int `json:"rejected"`
}

// Send sends one NDJSON body until it is answered for good or ctx ends.
func (c *Client) Send(ctx context.Context, body []byte) (Answer, error) {
	for attempt := 1; ; attempt++ {
		a, wait, err := c.post(ctx, body)
		if err == nil || wait < 0 {
			return a, err
		}
		if wait == 0 {
			wait = retry.Backoff{Min: 50 * time.Millisecond, Max: 2 * time.Second}.Delay(attempt)
		}
		if retry.Sleep(ctx, wait) != nil {
			return a, err
		}
	}
}

// post sends once. wait is the time until the next attempt: 0 soon, negative never.
func (c *Client) post(ctx context.Context, body []byte) (a Answer, wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, bytes.NewReader(body))
	if err != nil {
		return a, -1, err
	}
	req.Header.Set("Authorization", "Bearer "+c.Key)
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return a, 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return a, 0, err
	}
	if resp.StatusCode/100 == 2 || resp.StatusCode == http.StatusBadRequest {
		if err := json.Unmarshal(text, &a); err != nil {
			return a, -1, fmt.Errorf("answer %s: %w", resp.Status, err)
		}
		if resp.StatusCode == http.StatusBadRequest {
			return a, -1, fmt.Errorf("answer %s: %s", resp.Status, bytes.TrimSpace(text))
		}
		return a, -1, nil
	}
	err = fmt.Errorf("answer %s: %s", resp.Status, bytes.TrimSpace(text))
	switch {
	case resp.StatusCode == http.StatusRequestTimeout, resp.StatusCode == http.StatusTooManyRequests,
		resp.StatusCode >= 500:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return a, min(time.Duration(seconds)*time.Second, time.Second), err
	}
	return a, -1, err
}

// Sent counts what a Sender has done so far.
type Sent struct{ Events, Accepted, Rejected atomic.Int64 }

// Run sends total events (0: until ctx ends) in requests of batch, over workers
// connections at once, at rate events a second (0: as fast as it goes).
func Run(ctx context.Context, c *Client, run string, total, batch, workers, rate int, sent *Sent) error {
	var begun atomic.Int64
	start := time.Now()
	errs := make(chan error, workers)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			g := New(run, uint64(start.UnixNano())+uint64(w))
			var body []byte
			for ctx.Err() == nil {
				n := int64(batch)
				end := begun.Add(n)
				if total > 0 && end > int64(total) {
					n -= min(n, end-int64(total))
				}
				if n == 0 {
					return
				}
				if rate > 0 {
					due := start.Add(time.Duration(float64(end-n) / float64(rate) * float64(time.Second)))
					if retry.Sleep(ctx, time.Until(due)) != nil {
						return
					}
				}
				body = body[:0]
				for range n {
					body = append(g.Append(body), '\n')
				}
				a, err := c.Send(ctx, body)
				sent.Events.Add(n)
				sent.Accepted.Add(int64(a.Accepted))
				sent.Rejected.Add(int64(a.Rejected))
				if err != nil && ctx.Err() == nil {
					errs <- err
					cancel()
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}
