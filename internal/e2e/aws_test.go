package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
	const secret = "s3cretOfTheTests"
	server := awsServer()
	store, queue := newDoor(s.t, server.URL), newDoor(s.t, server.URL)
	name := "aws" + strconv.FormatInt(awsBuckets.Add(1), 10)
	client := sqs.NewFromConfig(aws.Config{Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider("key", secret, "")},
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
		endpoint: store.URL, bucket: name, key: "key", secretKey: secret,
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
		queue: addr, through: through, aws: &awsDoors{store, queue},
		bucketAway: store.outage(), queueAway: queue.outage(),
	}
}

type awsDoors struct{ store, queue *door }

// door leads to a server, unless it is shut.
type door struct {
	*httptest.Server
	shut   atomic.Bool
	denies atomic.Value // code of the error that each request gets; empty: it is let through
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
		if code, _ := d.denies.Load().(string); code != "" {
			deny(w, r, code)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(d.CloseClientConnections) // roles may still run; the server ends with the process
	return d
}

// deny answers as S3 and SQS do to credentials that they do not accept. (The emulator accepts all.)
func deny(w http.ResponseWriter, r *http.Request, code string) {
	if r.Header.Get("X-Amz-Target") != "" {
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"__type":"com.amazon.coral.service#%s","message":"The security token is not valid."}`, code)
		return
	}
	w.WriteHeader(http.StatusBadRequest)
	if r.Method != http.MethodHead {
		fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>The provided token is not valid.</Message></Error>`,
			code)
	}
}

func (d *door) outage() outage {
	return outage{
		begin: func() { d.shut.Store(true); d.CloseClientConnections() },
		end:   func() error { d.shut.Store(false); return nil },
	}
}

// Dead letters of a stack with SQS are in the load ledger. They are listed, shown, redriven and dropped as with NATS,
// and SQS keeps no message of them.
func TestLettersOnSQS(t *testing.T) {
	t.Parallel()
	s := newStackOn(t, onAWS)
	s.environ = append(s.environ, "PENSTOCK_ADMIN_TOKEN=operators")
	r := s.start("r1", "receive", "PENSTOCK_BATCHER_FORMAT=ndjson")
	var keys [2]string
	for i := range keys {
		_, a := post(t, r.URL+"/v1/events?durability=object", `[{"name":"a"},{"name":"b"}]`)
		keys[i] = a.Object
	}
	good, meta := s.get(keys[0])
	for _, key := range keys {
		s.put(key, []byte("no zstd"), meta)
	}
	l := s.start("l1", "load", "PENSTOCK_LOADER_MAX_ATTEMPTS=1")
	letters := func(want int) {
		t.Helper()
		eventually(t, time.Minute, "dead letters", func() error {
			if got := items[letter](s, "dlq", "list"); len(got) != want {
				return fmt.Errorf("got %+v, want %d", got, want)
			}
			return nil
		})
	}
	letters(2)
	s.waiting(0)
	if out := s.must("dlq", "show", keys[0]); !strings.Contains(out, keys[0]) || !strings.Contains(out, "damaged") {
		t.Errorf("dlq show: %s", out)
	}
	if out, err := s.run("dlq", "rebuild"); err == nil || !strings.Contains(out, "the load ledger alone has them") {
		t.Errorf("dlq rebuild: %v %s\nwant an error that says where the letters are", err, out)
	}
	var status struct {
		Pipelines []struct {
			Table struct {
				Dead int `json:"dead_letters"`
			}
		}
	}
	s.environ = append(s.environ, "PENSTOCK_STATUS_ADMINS=["+r.Admin+", "+l.Admin+"]")
	// A dead letter is no error of status's own: it prints its report and exits with 1.
	if out, _ := s.run("status", "--json"); json.NewDecoder(strings.NewReader(out)).Decode(&status) != nil ||
		len(status.Pipelines) == 0 || status.Pipelines[0].Table.Dead != 2 {
		t.Errorf("status: %s\nwant 2 dead letters of events", out)
	}
	if page := consolePage(t, l.Admin, "part/letters"); !strings.Contains(page, keys[0]) || !strings.Contains(page, keys[1]) {
		t.Errorf("the console's dead letters: %s\nwant both objects", page)
	}
	s.put(keys[0], good, meta)
	s.must("dlq", "redrive", keys[0])
	s.rows("events", 2)
	letters(1)
	s.must("dlq", "drop", keys[1], "--yes", "--why", "damaged for good")
	letters(0)
	if page := consolePage(t, l.Admin, "part/letters"); !strings.Contains(page, "There is no dead letter") {
		t.Errorf("the console's dead letters: %s\nwant none", page)
	}
	s.mustVerify()
	if out := s.must("setup", "--dry-run"); !strings.Contains(out, "no migration to apply") {
		t.Errorf("setup --dry-run: %s\nwant that the tables need no migration", out)
	}
}

// waiting waits until the queue has so many messages, delivered or not.
func (s *stack) waiting(want int) {
	s.t.Helper()
	eventually(s.t, 20*time.Second, "messages in the queue", func() error {
		if n, err := s.backend.waiting(); n != want || err != nil {
			return fmt.Errorf("%d messages, %v; want %d", n, err, want)
		}
		return nil
	})
}

// consolePage is a page of a role's console, without a browser.
func consolePage(t *testing.T, admin, page string) string {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, Timeout: 10 * time.Second}
	login, err := client.PostForm(admin+"/console/login", url.Values{"token": {"operators"}})
	if err != nil {
		t.Fatal(err)
	}
	login.Body.Close()
	resp, err := client.Get(admin + "/console/" + page)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the console's page %s: %s, %v", page, resp.Status, err)
	}
	return string(text)
}

// S3 and SQS stop accepting the credentials of a running stack. It is an outage that says so: events wait on disk,
// notifications wait in SQS, no object is at fault, and all is loaded when the credentials are right again.
func TestCredentialsExpire(t *testing.T) {
	t.Parallel()
	s := newStackOn(t, onAWS)
	const watch = "PENSTOCK_TEST_WATCH_MS=300"
	r := s.start("r1", "receive", watch)
	l := s.start("l1", "load", watch, "PENSTOCK_LOADER_MAX_ATTEMPTS=1") // one failure of an object would be its last
	s.send(r, "before", 200, 0)
	s.rows("events", 200)
	s.waiting(0)
	logs := func(r *role, words ...string) {
		t.Helper()
		eventually(t, 30*time.Second, fmt.Sprintf("a line of %s with %q", r.log, words), func() error {
			text, err := os.ReadFile(r.log)
			for line := range strings.Lines(string(text)) {
				all := true
				for _, w := range words {
					all = all && strings.Contains(line, w)
				}
				if all {
					return err
				}
			}
			return errors.Join(err, errors.New("there is none"))
		})
	}
	store, queue := s.backend.aws.store, s.backend.aws.queue
	queue.denies.Store("InvalidClientTokenId")
	queue.CloseClientConnections() // a poll under way
	s.send(r, "queue", 200, 0)
	logs(l, "queue unavailable; nothing is loaded", "storage.access_key",
		"AWS does not accept the key or its session token (InvalidClientTokenId)")
	s.waiting(1)
	store.denies.Store("ExpiredToken")
	s.send(r, "both", 200, 0)
	for _, role := range []*role{r, l} {
		logs(role, "bucket cannot be used", "the session token has expired (ExpiredToken)")
	}
	queue.denies.Store("") // the notification is delivered, and its object cannot be read
	eventually(t, 20*time.Second, "the loader pauses", func() error {
		if n := l.metric(`penstock_loader_paused{pipeline="events"`); n != 1 {
			return fmt.Errorf("paused is %v", n)
		}
		return nil
	})
	if n := l.metric(`penstock_loader_failures_total{pipeline="events"`); n != 0 {
		t.Errorf("%v failures are counted against objects, want 0", n)
	}
	if n := one[uint64](s, "SELECT count() FROM loads FINAL WHERE status != 'loaded' AND failures > 0"); n != 0 {
		t.Errorf("the ledger blames %d objects, want none", n)
	}
	store.denies.Store("")
	s.rows("events", 600)
	if got := items[letter](s, "dlq", "list"); len(got) != 0 {
		t.Errorf("got %+v, want no dead letter", got)
	}
	s.mustVerify()
}
