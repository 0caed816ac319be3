// Package cloudflare is the adapter to Cloudflare Queues. Loaders pull from them over HTTP. R2 buckets write to them.
//
// A lease cannot be extended, so an object that loads for longer than the lease is delivered twice. The load ledger
// makes it count once. Cloudflare deletes a message after its retries; a sweep finds its object.
package cloudflare

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/show"
)

// Endpoint is the URL of Cloudflare's API.
const Endpoint = "https://api.cloudflare.com/client/v4"

// Options describe the queues and how to connect.
type Options struct {
	Endpoint     string // URL of the API
	Account      string
	Token        func() string
	Queue        string        // name of the queues; {PIPELINE} stands for events or errors
	Jurisdiction string        // of the R2 bucket: eu or fedramp; empty: none
	Lease        time.Duration // of a delivery, after which it is delivered again; 12 hours at most
	Poll         time.Duration // longest wait between two pulls from an empty queue
}

// Queue is one account's queues. Calls are independent, so there is no connection to keep.
type Queue struct {
	api    api
	opts   Options
	log    *slog.Logger
	memory queue.Memory

	mu  sync.Mutex
	ids map[string]string // of queues, by name
}

// Connect returns a client without connecting.
func Connect(opts Options, log *slog.Logger) *Queue {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 16 // several loads acknowledge at once
	return &Queue{opts: opts, log: log, ids: map[string]string{}, memory: queue.Memory{Lag: countLag},
		api: api{endpoint: strings.TrimSuffix(opts.Endpoint, "/"), account: url.PathEscape(opts.Account), token: opts.Token,
			client: &http.Client{Transport: transport}}}
}

// Limits are those of HTTP pull consumers.
func (q *Queue) Limits() queue.Limits {
	return queue.Limits{FixedLease: true, OwnMemory: true, InFlightUnknown: true, MaxDeliveries: maxRetries + 1}
}

// Close closes idle connections.
func (q *Queue) Close() { q.api.client.CloseIdleConnections() }

// name is the name of a pipeline's queue.
func (q *Queue) name(s pipeline.Spec) string {
	return strings.ReplaceAll(q.opts.Queue, "{PIPELINE}", s.Name)
}

// Ping lists the queues of that name, which checks the token and the account.
func (q *Queue) Ping(ctx context.Context) error {
	_, _, err := q.find(ctx, q.opts.Queue)
	if err != nil {
		return fmt.Errorf("reach Cloudflare Queues at %s: %w", show.URL(q.opts.Endpoint), err)
	}
	return nil
}

// queueInfo is a queue in the API.
type queueInfo struct {
	ID   string `json:"queue_id"`
	Name string `json:"queue_name"`
}

// pageSize is the number of queues in one answer.
const pageSize = 100

// find looks a queue up by its name.
func (q *Queue) find(ctx context.Context, name string) (info queueInfo, found bool, err error) {
	for page := 1; ; page++ {
		var all []queueInfo
		// The API's description does not mention the filter by name. If it is ignored, all pages are read.
		path := fmt.Sprintf("/queues?page=%d&per_page=%d&name=%s", page, pageSize, url.QueryEscape(name))
		if err := q.api.call(ctx, http.MethodGet, path, nil, &all); err != nil {
			return queueInfo{}, false, err
		}
		for _, info := range all {
			if info.Name == name {
				return info, true, nil
			}
		}
		if len(all) < pageSize {
			return queueInfo{}, false, nil
		}
	}
}

// path returns the API path of a pipeline's queue. A missing queue is created.
func (q *Queue) path(ctx context.Context, s pipeline.Spec) (string, error) {
	name := q.name(s)
	q.mu.Lock()
	id := q.ids[name]
	q.mu.Unlock()
	if id == "" {
		info, found, err := q.find(ctx, name)
		if err != nil {
			return "", fmt.Errorf("find queue %s: %w", name, err)
		}
		if !found {
			q.log.Warn(`queue is missing and is created; run "penstock setup" for the notification rules of the bucket`,
				"queue", name)
			if err := q.Setup(ctx, []pipeline.Spec{s}, nil); err != nil {
				return "", err
			}
			return q.path(ctx, s)
		}
		id = info.ID
		q.remember(name, id)
	}
	return "/queues/" + url.PathEscape(id), nil
}

func (q *Queue) remember(name, id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ids[name] = id
}

// forget makes the next call look up the queue again if this one did not find it.
func (q *Queue) forget(s pipeline.Spec, err error) {
	if as(err).missing() {
		q.remember(q.name(s), "")
	}
}

// Enqueue adds a notification as a store would send it.
func (q *Queue) Enqueue(ctx context.Context, s pipeline.Spec, n pipeline.Notification,
	again bool) (known bool, err error) {
	if !again && q.memory.Knows(ctx, s, n, q.Stats) {
		return true, nil
	}
	path, err := q.path(ctx, s)
	if err == nil {
		in := map[string]string{"body": string(queue.Format(n)), "content_type": "text"}
		err = q.api.call(ctx, http.MethodPost, path+"/messages", in, nil)
		q.forget(s, err)
	}
	if err != nil {
		return false, fmt.Errorf("enqueue %s: %w", n.Key, err)
	}
	q.memory.Add(n)
	return false, nil
}

// Stats counts the messages that are not acknowledged. Cloudflare's counts are approximate.
func (q *Queue) Stats(ctx context.Context, s pipeline.Spec) (queue.Stats, error) {
	var out struct {
		Backlog float64 `json:"backlog_count"`
	}
	path, err := q.path(ctx, s)
	if err == nil {
		err = q.api.call(ctx, http.MethodGet, path+"/metrics", nil, &out)
		q.forget(s, err)
	}
	if err != nil {
		return queue.Stats{}, fmt.Errorf("read queue %s: %w", q.name(s), err)
	}
	return queue.Stats{Pending: uint64(max(out.Backlog, 0))}, nil
}
