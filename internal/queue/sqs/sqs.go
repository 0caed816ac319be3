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

// Options describe the queues and how to connect.
type Options struct {
	AWS      awsclient.Options
	Endpoint string        // URL; empty: AWS
	Queue    string        // name or URL; {PIPELINE} stands for the pipeline's name
	AckWait  time.Duration // lease of a delivery, in whole seconds; after it the message is delivered again
	MaxAge   time.Duration // how long queues created by Setup keep messages
	Wait     time.Duration // how long Receive waits for the first message; 0: as long as SQS allows
}

// The limits of SQS.
const (
	maxWait  = 20 * time.Second // for the first message
	maxLease = 12 * time.Hour   // from the receive, including extensions
	maxBatch = 10               // messages in one request
	maxAge   = 14 * 24 * time.Hour
	countLag = 2 * time.Minute // AWS: counts are right about a minute after the last message
)

// Queue is a client of SQS.
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

// Connect returns a client without connecting.
func Connect(opts Options, log *slog.Logger) *Queue {
	if opts.Wait == 0 {
		opts.Wait = maxWait
	}
	client := sqs.NewFromConfig(opts.AWS.Config(), func(o *sqs.Options) {
		if opts.Endpoint != "" {
			o.BaseEndpoint = aws.String(opts.Endpoint)
		}
	})
	return &Queue{client: client, opts: opts, log: log, memory: queue.Memory{Lag: countLag},
		known: map[string]*server{}}
}

// Close does nothing: leases end without a request.
func (q *Queue) Close() {}

// Limits are the limits of a standard queue. SQS knows message ids only in FIFO queues, and no store writes to those.
func (q *Queue) Limits() queue.Limits { return queue.Limits{OwnMemory: true} }

// name is the name of a pipeline's queue.
func (q *Queue) name(s pipeline.Spec) string {
	name := q.text(s)
	return name[strings.LastIndexByte(name, '/')+1:] // last part of a URL
}

// text is the configured name or URL of a pipeline's queue.
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

// forget makes the next use look up the queue again.
func (q *Queue) forget(s pipeline.Spec) {
	q.mu.Lock()
	delete(q.known, s.Name)
	q.mu.Unlock()
}

// failed wraps an error with what failed. Errors of SQS are outages: no object is at fault.
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

// missing reports whether an error says that the queue does not exist.
func missing(err error) bool {
	_, ok := errors.AsType[*types.QueueDoesNotExist](err)
	return ok || strings.HasSuffix(awsclient.CodeOf(err), "NonExistentQueue")
}

// Ping looks up the queue of events. "Does not exist" also counts as an answer.
func (q *Queue) Ping(ctx context.Context) error {
	_, err := q.attributes(ctx, pipeline.Specs()[0])
	if missing(err) {
		return nil
	}
	return err
}

// attributes reads the attributes of a pipeline's queue.
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

// Enqueue adds a notification as a bucket's rule would.
func (q *Queue) Enqueue(ctx context.Context, s pipeline.Spec, n pipeline.Notification,
	again bool) (known bool, err error) {
	if !again && q.memory.Knows(ctx, s, n, q.Stats) {
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

// Stats are approximate and delayed by SQS.
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
