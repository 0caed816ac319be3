// Package sqs is the adapter to Amazon SQS: one standard queue for each pipeline. A bucket's notification rules write
// to it, directly or through SNS or EventBridge.
package sqs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/penstock/penstock/internal/awsclient"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/retry"
)

// Options are how to reach the queues.
type Options struct {
	AWS      awsclient.Options
	Endpoint string        // URL; empty: AWS
	Queue    string        // name or URL; {PIPELINE} becomes a pipeline's name
	AckWait  time.Duration // a delivery that is silent for so long comes again; in whole seconds
	MaxAge   time.Duration // of a notification nobody took, for queues that Setup creates
	Wait     time.Duration // that Receive waits for a first message; 0: as long as SQS allows
}

// The limits of SQS.
const (
	maxWait  = 20 * time.Second // for a first message
	maxLease = 12 * time.Hour   // from the receive, with all extensions
	maxBatch = 10               // messages of a request
	maxAge   = 14 * 24 * time.Hour
)

// Queue is a client.
type Queue struct {
	client *sqs.Client
	opts   Options
	log    *slog.Logger
	memory queue.Memory

	mu    sync.Mutex
	known map[string]*server // by pipeline
}

// server is a pipeline's queue on the server.
type server struct {
	url     string
	deletes *deletes
}

// Connect makes a client; it does not connect.
func Connect(opts Options, log *slog.Logger) *Queue {
	if opts.Wait == 0 {
		opts.Wait = maxWait
	}
	client := sqs.NewFromConfig(opts.AWS.Config(), func(o *sqs.Options) {
		if opts.Endpoint != "" {
			o.BaseEndpoint = aws.String(opts.Endpoint)
		}
	})
	return &Queue{client: client, opts: opts, log: log, known: map[string]*server{}}
}

// Close is no request: leases end without one.
func (q *Queue) Close() {}

// Limits are those of a standard queue: SQS knows message ids only in FIFO queues, to which no store writes.
func (q *Queue) Limits() queue.Limits { return queue.Limits{OwnMemory: true} }

// name of a pipeline's queue.
func (q *Queue) name(s pipeline.Spec) string {
	name := q.text(s)
	return name[strings.LastIndexByte(name, '/')+1:] // of a URL
}

// text is the name or URL of a pipeline's queue.
func (q *Queue) text(s pipeline.Spec) string {
	return strings.ReplaceAll(q.opts.Queue, "{PIPELINE}", s.Name)
}

// open finds a pipeline's queue.
func (q *Queue) open(ctx context.Context, s pipeline.Spec) (*server, error) {
	q.mu.Lock()
	found := q.known[s.Name]
	q.mu.Unlock()
	if found != nil {
		return found, nil
	}
	url := q.text(s)
	if !strings.Contains(url, "://") {
		out, err := q.client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: aws.String(url)})
		if err != nil {
			return nil, q.failed("find queue "+url, err)
		}
		url = aws.ToString(out.QueueUrl)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.known[s.Name] == nil {
		q.known[s.Name] = &server{url: url, deletes: &deletes{queue: q, url: url, name: q.name(s)}}
	}
	return q.known[s.Name], nil
}

// forget lets the next use look for the queue again.
func (q *Queue) forget(s pipeline.Spec) {
	q.mu.Lock()
	delete(q.known, s.Name)
	q.mu.Unlock()
}

// failed names what failed. Nothing that SQS says is the fault of an object.
func (q *Queue) failed(what string, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	short := awsclient.Brief{Err: err}
	if awsclient.CodeOf(err) == "OverLimit" {
		return fmt.Errorf("%s: %w", what, retry.As(retry.Outage, fmt.Errorf("SQS has 120000 messages in flight and delivers "+
			"no more until some are settled: look for loads that fail, and for other consumers of this queue: %w", short)))
	}
	return fmt.Errorf("%s: %w", what, retry.As(retry.Outage, short))
}

// missing tells whether an error says that the queue does not exist.
func missing(err error) bool {
	_, ok := errors.AsType[*types.QueueDoesNotExist](err)
	return ok || strings.HasSuffix(awsclient.CodeOf(err), "NonExistentQueue")
}

// Ping asks for the queue of events. That it does not exist is an answer.
func (q *Queue) Ping(ctx context.Context) error {
	_, err := q.attributes(ctx, pipeline.Specs()[0])
	if missing(err) {
		return nil
	}
	return err
}

// attributes of a pipeline's queue.
func (q *Queue) attributes(ctx context.Context, s pipeline.Spec) (map[string]string, error) {
	found, err := q.open(ctx, s)
	if err != nil {
		return nil, err
	}
	out, err := q.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &found.url,
		AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll}})
	if err != nil {
		q.forget(s)
		return nil, q.failed("read attributes of queue "+q.name(s), err)
	}
	return out.Attributes, nil
}

// Enqueue adds a notification as a bucket's rule does.
func (q *Queue) Enqueue(ctx context.Context, s pipeline.Spec, n pipeline.Notification,
	again bool) (known bool, err error) {
	if !again && q.memory.Knows(n) {
		return true, nil
	}
	found, err := q.open(ctx, s)
	if err != nil {
		return false, err
	}
	body := string(queue.Format(n))
	if _, err := q.client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &found.url, MessageBody: &body}); err != nil {
		q.forget(s)
		return false, q.failed("enqueue "+n.Key, err)
	}
	q.memory.Add(n)
	return false, nil
}

// Stats are approximate: SQS counts with a delay.
func (q *Queue) Stats(ctx context.Context, s pipeline.Spec) (queue.Stats, error) {
	a, err := q.attributes(ctx, s)
	if err != nil {
		return queue.Stats{}, err
	}
	count := func(name types.QueueAttributeName) int {
		n, _ := strconv.Atoi(a[string(name)])
		return n
	}
	return queue.Stats{
		Pending: uint64(count(types.QueueAttributeNameApproximateNumberOfMessages) +
			count(types.QueueAttributeNameApproximateNumberOfMessagesDelayed)),
		InFlight: count(types.QueueAttributeNameApproximateNumberOfMessagesNotVisible)}, nil
}
