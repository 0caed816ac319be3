package cloudflare

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/queue/queuetest"
	"github.com/penstock/penstock/internal/testing/cloudflaretest"
)

const (
	account  = "023e105f4ecef8ad9ca31a8372d0c353"
	token    = "a-token-of-the-tests"
	silence  = time.Second
	patience = 20 * time.Second
)

// fake starts a fake account.
func fake(t *testing.T, buckets ...string) (*cloudflaretest.API, Options) {
	t.Helper()
	api := cloudflaretest.New(account, token, buckets...)
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	return api, Options{Endpoint: server.URL, Account: account, Token: func() string { return token },
		Queue: "penstock-{PIPELINE}", Lease: silence, Poll: 300 * time.Millisecond}
}

func open(t *testing.T, opts Options) *Queue {
	t.Helper()
	q := Connect(opts, slog.New(slog.NewTextHandler(t.Output(), nil)))
	t.Cleanup(q.Close)
	return q
}

// setUp connects and runs setup.
func setUp(t *testing.T, opts Options) *Queue {
	t.Helper()
	q := open(t, opts)
	if err := q.Setup(t.Context(), pipeline.Specs(), nil); err != nil {
		t.Fatal(err)
	}
	return q
}

func TestConformance(t *testing.T) {
	queuetest.Test(t, nil, func(t *testing.T) queuetest.Queue {
		api, opts := fake(t)
		q := setUp(t, opts)
		return queuetest.Queue{
			Silence:  silence,
			Patience: patience,
			Limits:   q.Limits(),
			Consumer: func() queue.Consumer { return open(t, opts).Consumer(pipeline.Events) },
			AddBody:  func(body string) error { return api.Send("penstock-events", "bytes", body) },
			Add: func(key string) error {
				body, err := json.Marshal(map[string]any{"account": account, "action": "PutObject", "bucket": "b",
					"object": cloudflaretest.Object{Key: key, Size: 5, ETag: "e"}})
				if err != nil {
					return err
				}
				return api.Send("penstock-events", "json", string(body))
			},
		}
	})
}

func TestServerConformance(t *testing.T) {
	queuetest.TestServer(t, func(t *testing.T) queuetest.Server {
		_, opts := fake(t)
		away := opts
		away.Endpoint = "http://127.0.0.1:1"
		return queuetest.Server{
			Silence:  silence,
			Patience: patience,
			Connect:  func() queue.Queue { return open(t, opts) },
			Away:     func() queue.Queue { return open(t, away) },
		}
	})
}

// More than a hundred messages are sent in batches that Cloudflare accepts.
func TestBatches(t *testing.T) {
	t.Parallel()
	api, opts := fake(t)
	q := setUp(t, opts)
	const n = 150
	for i := range n {
		if err := api.Send("penstock-events", "text",
			string(queue.Format(pipeline.Notification{Key: fmt.Sprint("events/", i)}))); err != nil {
			t.Fatal(err)
		}
	}
	c := q.Consumer(pipeline.Events)
	for _, want := range []int{100, 50, 0} {
		got, err := c.Receive(t.Context(), 1000)
		if err != nil || len(got) != want {
			t.Errorf("received %d, %v; want %d", len(got), err, want)
		}
		for _, d := range got {
			if err := d.Ack(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if waiting, leased := api.Backlog("penstock-events"); waiting+leased > 0 {
		t.Errorf("%d wait, %d are leased; want none", waiting, leased)
	}
}

func TestPurged(t *testing.T) {
	t.Parallel()
	api, opts := fake(t)
	opts.Lease = time.Minute
	q := open(t, opts)
	q.memory.Lag = 0
	queuetest.TestPurged(t, queuetest.Server{Silence: silence, Patience: patience}, q, func() error {
		api.Purge("penstock-events")
		return nil
	})
}
