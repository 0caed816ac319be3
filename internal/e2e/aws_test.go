package e2e

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/sivchari/kumo"
)

// awsServer is there once: kumo's servers share their state, and a second one writes to it without a lock.
var awsServer = sync.OnceValue(kumo.NewServer)

// awsBuckets counts the users of this process's AWS.
var awsBuckets atomic.Int64

// onAWS is S3 that notifies SQS, both emulated in this process. They have separate addresses, so that each can be
// unreachable alone.
func onAWS(s *stack) *backend {
	s.t.Helper()
	server := awsServer()
	store, queue := newDoor(s.t, server.URL), newDoor(s.t, server.URL)
	name := "aws" + strconv.FormatInt(awsBuckets.Add(1), 10)
	client := sqs.NewFromConfig(aws.Config{Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider("key", "secret", "")},
		func(o *sqs.Options) { o.BaseEndpoint = aws.String(server.URL) })
	events := func() (*string, error) {
		out, err := client.GetQueueUrl(s.t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String(name + "-events")})
		if err != nil {
			return nil, err
		}
		return out.QueueUrl, nil
	}
	purge := func() error {
		to, err := events()
		if err != nil {
			return err
		}
		_, err = client.PurgeQueue(s.t.Context(), &sqs.PurgeQueueInput{QueueUrl: to})
		return err
	}
	through := func(addr string) []string { return []string{"PENSTOCK_QUEUE_SQS_ENDPOINT=http://" + addr} }
	addr := strings.TrimPrefix(queue.URL, "http://")
	return &backend{
		endpoint: store.URL, bucket: name, key: "key", secretKey: "secret",
		env: append(through(addr), "PENSTOCK_QUEUE_TYPE=sqs", "PENSTOCK_STORAGE_BUCKET="+name,
			"PENSTOCK_QUEUE_SQS_QUEUE="+name+"-{PIPELINE}"),
		lease: "PENSTOCK_QUEUE_ACK_WAIT",
		publish: func(body string) error {
			to, err := events()
			if err != nil {
				return err
			}
			_, err = client.SendMessage(s.t.Context(), &sqs.SendMessageInput{QueueUrl: to, MessageBody: &body})
			return err
		},
		waiting: func() (int, error) {
			to, err := events()
			if err != nil {
				return 0, err
			}
			out, err := client.GetQueueAttributes(s.t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: to,
				AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll}})
			if err != nil {
				return 0, err
			}
			visible, err := strconv.Atoi(out.Attributes["ApproximateNumberOfMessages"])
			hidden, err2 := strconv.Atoi(out.Attributes["ApproximateNumberOfMessagesNotVisible"])
			return visible + hidden, errors.Join(err, err2)
		},
		purge: purge,
		remove: func(whole bool) {
			if !whole {
				purge()
			} else if to, err := events(); err == nil {
				client.DeleteQueue(s.t.Context(), &sqs.DeleteQueueInput{QueueUrl: to})
			}
		},
		queue: addr, through: through,
		bucketAway: store.outage(), queueAway: queue.outage(),
	}
}

// door leads to a server, unless it is shut.
type door struct {
	*httptest.Server
	shut atomic.Bool
}

func newDoor(t testing.TB, to string) *door {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }} // as a lost connection
	d := &door{}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.shut.Load() {
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(d.CloseClientConnections) // roles may still run; the server ends with the process
	return d
}

func (d *door) outage() outage {
	return outage{
		begin: func() { d.shut.Store(true); d.CloseClientConnections() },
		end:   func() error { d.shut.Store(false); return nil },
	}
}
