package sqs

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/sivchari/kumo"

	"github.com/penstock/penstock/internal/awsclient"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/queue/queuetest"
)

const (
	silence  = time.Second // the shortest lease of SQS
	patience = 20 * time.Second
)

// fakeAWS is an SQS for all tests. Its servers share their state, and a second one writes to it without a lock.
var fakeAWS = sync.OnceValue(kumo.NewServer)

func serve(t *testing.T) string {
	t.Helper()
	return fakeAWS().URL
}

func open(t *testing.T, url string, change ...func(*Options)) *Queue {
	t.Helper()
	opts := Options{AWS: awsclient.Options{Region: "us-east-1", AccessKey: "key", SecretKey: "secret"}, Endpoint: url,
		Queue: "penstock-{PIPELINE}", AckWait: silence, MaxAge: time.Hour, Wait: time.Second}
	for _, c := range change {
		c(&opts)
	}
	q := Connect(opts, slog.New(slog.DiscardHandler))
	t.Cleanup(q.Close)
	return q
}

func TestConformance(t *testing.T) {
	url := serve(t)
	var n atomic.Int64
	queuetest.Test(t, nil, func(t *testing.T) queuetest.Queue {
		q, spec := open(t, url), pipeline.Spec{Name: fmt.Sprint("suite", n.Add(1))}
		if err := q.Setup(t.Context(), []pipeline.Spec{spec}, nil); err != nil {
			t.Fatal(err)
		}
		add := func(body string) error {
			if body == "" || strings.Contains(body, "\x00") {
				return queuetest.ErrBody // SQS accepts only characters of XML, and no empty body
			}
			to, err := q.open(t.Context(), spec)
			if err != nil {
				return err
			}
			_, err = q.client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &to.url, MessageBody: &body})
			return err
		}
		return queuetest.Queue{
			Silence: silence, Patience: patience, Limits: q.Limits(),
			Add:      func(key string) error { return add(string(queue.Format(pipeline.Notification{Key: key}))) },
			Consumer: func() queue.Consumer { return q.Consumer(spec) },
			AddBody:  add,
		}
	})
}

func TestServerConformance(t *testing.T) {
	url := serve(t)
	var n atomic.Int64
	queuetest.TestServer(t, func(t *testing.T) queuetest.Server {
		names := fmt.Sprint("server", n.Add(1), "-{PIPELINE}") // all servers in a process share their queues
		named := func(o *Options) { o.Queue = names }
		return queuetest.Server{
			Silence: silence, Patience: patience,
			Connect: func() queue.Queue { return open(t, url, named) },
			Away:    func() queue.Queue { return open(t, "http://127.0.0.1:1") },
		}
	})
}

func TestPurged(t *testing.T) {
	t.Parallel()
	q := open(t, serve(t), func(o *Options) { o.Queue, o.AckWait = "purged-{PIPELINE}", time.Minute })
	q.memory.Lag = 0
	queuetest.TestPurged(t, queuetest.Server{Silence: silence, Patience: patience}, q, func() error {
		from, err := q.open(t.Context(), pipeline.Events)
		if err != nil {
			return err
		}
		_, err = q.client.PurgeQueue(t.Context(), &sqs.PurgeQueueInput{QueueUrl: &from.url})
		return err
	})
}
