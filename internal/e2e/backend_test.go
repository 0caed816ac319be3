package e2e

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue/jetstream"
	"github.com/penstock/penstock/internal/testing/cloudflaretest"
	"github.com/penstock/penstock/internal/testing/servers"
	"github.com/penstock/penstock/tools/devstack"
)

// backend is a bucket and a queue, as a provider has them.
type backend struct {
	endpoint       string   // of the bucket's S3 API
	bucket         string   // its name
	key, secretKey string   // to the bucket
	env            []string // for the queue, in every process
	lease          string   // variable of the time after which a silent loader loses its delivery

	publish func(body string) error // adds a message to the queue of events
	waiting func() (int, error)     // messages in it
	purge   func() error            // deletes these messages
	remove  func(whole bool)        // deletes the queue of events, or only its consumer; it may be away

	queue   string                     // host and port of the queue
	through func(addr string) []string // variables that reach the queue at another address

	bucketAway, queueAway outage

	cloudflare *cloudflaretest.API // nil: another backend
	aws        *awsDoors           // nil: another backend
}

// outage ends a server, and starts it again.
type outage struct {
	begin func()
	end   func() error
}

// backends are the queues for tests of the promises about queues.
var backends = []struct {
	name string
	open func(*stack) *backend
}{{"nats", onNATS}, {"cloudflare", onCloudflare}, {"sqs", onAWS}}

// onEach runs a test with each backend.
func onEach(t *testing.T, test func(t *testing.T, s *stack)) {
	t.Helper()
	t.Parallel()
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			test(t, newStackOn(t, b.open))
		})
	}
}

// onNATS is MinIO, which notifies NATS.
func onNATS(s *stack) *backend {
	s.t.Helper()
	s.nats = servers.NATS(s.t)
	q, err := jetstream.Connect(jetstream.Options{URL: s.nats.URL(), AckWait: 5 * time.Second, MaxAge: time.Hour,
		MaxBytes: 1 << 28, Replicas: 1}, "e2e", slog.New(slog.DiscardHandler))
	if err != nil {
		s.t.Fatal(err)
	}
	defer q.Close()
	if err := q.Setup(s.t.Context(), pipeline.Specs(), nil); err != nil { // MinIO needs the streams when it starts
		s.t.Fatal(err)
	}
	targets, _ := servers.Targets(pipeline.Specs(), jetstream.Subject)
	s.minio = servers.MinIO(s.t, devstack.MinIOOptions{Targets: targets, NATSAddress: s.nats.Addr()})
	stream := func() (natsjs.Stream, error) { return s.jetstream().Stream(s.t.Context(), "PENSTOCK_events") }
	return &backend{
		endpoint: s.minio.Endpoint(), bucket: "penstock", key: s.minio.AccessKey(), secretKey: s.minio.SecretKey(),
		env:   []string{"PENSTOCK_QUEUE_URL=" + s.nats.URL()},
		lease: "PENSTOCK_QUEUE_ACK_WAIT",
		publish: func(body string) error {
			_, err := s.jetstream().Publish(s.t.Context(), "penstock.events", []byte(body))
			return err
		},
		waiting: func() (int, error) {
			st, err := stream()
			if err != nil {
				return 0, err
			}
			return int(st.CachedInfo().State.Msgs), nil
		},
		purge: func() error {
			st, err := stream()
			if err != nil {
				return err
			}
			return st.Purge(s.t.Context())
		},
		remove: func(whole bool) { removeStream(s, whole) },
		queue:  s.nats.Addr(),
		through: func(addr string) []string {
			return []string{"PENSTOCK_QUEUE_URL=" + strings.ReplaceAll(s.nats.URL(), s.nats.Addr(), addr)}
		},
		bucketAway: minioAway(s),
		queueAway:  outage{s.nats.Kill, func() error { return s.nats.Restart(s.t.Context()) }},
	}
}

func minioAway(s *stack) outage {
	return outage{s.minio.Kill, func() error { return s.minio.Restart(s.t.Context()) }}
}

func removeStream(s *stack, whole bool) {
	nc, err := nats.Connect(s.nats.URL())
	if err != nil {
		return
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Second)
	defer cancel()
	if whole {
		js.DeleteStream(ctx, "PENSTOCK_events")
	} else {
		js.DeleteConsumer(ctx, "PENSTOCK_events", "loader")
	}
}

// onCloudflare is MinIO in the place of R2, and a stand-in for Cloudflare's API, which this process serves.
func onCloudflare(s *stack) *backend {
	s.t.Helper()
	const account, token = "023e105f4ecef8ad9ca31a8372d0c353", "token-of-the-tests"
	s.minio = servers.MinIO(s.t, devstack.MinIOOptions{})
	store, err := url.Parse(s.minio.Endpoint())
	if err != nil {
		s.t.Fatal(err)
	}
	api := cloudflaretest.New(account, token)
	queue, bucket := httptest.NewServer(api), httptest.NewServer(api.Bucket(store))
	s.t.Cleanup(queue.CloseClientConnections) // roles may still run; the server ends with the process
	s.t.Cleanup(bucket.CloseClientConnections)
	addr := strings.TrimPrefix(queue.URL, "http://")
	through := func(addr string) []string { return []string{"PENSTOCK_QUEUE_CLOUDFLARE_ENDPOINT=http://" + addr} }
	return &backend{
		endpoint: bucket.URL, bucket: "penstock", key: s.minio.AccessKey(), secretKey: s.minio.SecretKey(),
		env: append(through(addr), "PENSTOCK_QUEUE_TYPE=cloudflare", "PENSTOCK_QUEUE_CLOUDFLARE_ACCOUNT="+account,
			"PENSTOCK_QUEUE_CLOUDFLARE_API_TOKEN="+token, "PENSTOCK_QUEUE_CLOUDFLARE_POLL=500ms"),
		lease:   "PENSTOCK_QUEUE_CLOUDFLARE_LEASE",
		publish: func(body string) error { return api.Send("penstock-events", "json", body) },
		waiting: func() (int, error) {
			waiting, leased := api.Backlog("penstock-events")
			return waiting + leased, nil
		},
		purge: func() error { api.Purge("penstock-events"); return nil },
		remove: func(whole bool) {
			if whole {
				api.Delete("penstock-events")
			} else {
				api.Purge("penstock-events")
			}
		},
		queue: addr, through: through, cloudflare: api,
		bucketAway: minioAway(s),
		queueAway:  outage{func() { api.SetDown(true) }, func() error { api.SetDown(false); return nil }},
	}
}
