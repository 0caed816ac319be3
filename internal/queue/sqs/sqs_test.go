package sqs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/provision"
	"github.com/penstock/penstock/internal/retry"
)

// steps returns what setup and subscribe report, as "MARK SUBJECT TEXT".
func steps(t *testing.T, q *Queue, b *objstore.Bucket, dry bool) (all []string, err error) {
	t.Helper()
	plan := &provision.Plan{DryRun: dry, Print: func(s provision.Step) {
		all = append(all, fmt.Sprintf("%s %s %s", s.Mark, s.Subject, s.Text))
	}}
	if err = q.Setup(t.Context(), pipeline.Specs(), plan); err == nil {
		if err = b.Setup(t.Context(), plan); err == nil {
			err = q.Subscribe(t.Context(), b, pipeline.Specs(), plan)
		}
	}
	if err == nil {
		err = plan.Err()
	}
	return all, err
}

func bucket(url, name string) *objstore.Bucket {
	return objstore.Open(objstore.Options{Endpoint: url, Region: "us-east-1", Bucket: name, AccessKey: "key",
		SecretKey: "secret", PathStyle: true})
}

// Setup from nothing, up to a notification of an object whose key S3 encodes. A second setup changes nothing.
func TestSetup(t *testing.T) {
	url := serve(t)
	q := open(t, url, func(o *Options) { o.Queue = "setup-{PIPELINE}" })
	b := bucket(url, "setup")
	dry, err := steps(t, q, b, true)
	if err != nil || len(dry) != 6 {
		t.Errorf("dry run: got %q, %v; want six steps", dry, err)
	}
	for _, s := range dry {
		if !strings.HasPrefix(s, "-- ") {
			t.Errorf("dry run: got %q, want only what would be changed", s)
		}
	}
	first, err := steps(t, q, b, false)
	if err != nil {
		t.Fatalf("setup: %q, %v", first, err)
	}
	const arn = "arn:aws:sqs:us-east-1:000000000000:setup-"
	want := []string{"ok queue created setup-events", "ok queue created setup-errors", "ok bucket created setup",
		"ok queue policy let bucket setup send to setup-events", "ok queue policy let bucket setup send to setup-errors",
		"ok notifications set rules of bucket setup: errors/ -> " + arn + "errors, events/ -> " + arn + "events"}
	if !slices.Equal(first, want) {
		t.Errorf("setup: got\n%s\nwant\n%s", strings.Join(first, "\n"), strings.Join(want, "\n"))
	}
	second, err := steps(t, q, b, false)
	want = []string{"ok queue setup-events", "ok queue setup-errors", "ok bucket setup",
		"ok queue policy bucket setup may send to setup-events", "ok queue policy bucket setup may send to setup-errors",
		"ok notifications errors/ -> " + arn + "errors, events/ -> " + arn + "events"}
	if err != nil || !slices.Equal(second, want) {
		t.Errorf("a second setup: got\n%s\n%v\nwant\n%s", strings.Join(second, "\n"), err, strings.Join(want, "\n"))
	}

	const key = "events/imports/a b+c%2F€.parquet"
	if _, err := b.Put(t.Context(), "blobs/events/x", strings.NewReader("x"), 1, pipeline.Meta{}); err != nil {
		t.Fatal(err)
	}
	o, err := b.Put(t.Context(), key, strings.NewReader("x"), 1, pipeline.Meta{})
	if err != nil {
		t.Fatal(err)
	}
	c := q.Consumer(pipeline.Events)
	for end := time.Now().Add(patience); ; {
		all, err := c.Receive(t.Context(), 1)
		if err != nil || time.Now().After(end) {
			t.Fatalf("no notification of %s: %v", key, err)
		}
		if len(all) == 0 {
			continue
		}
		got, err := all[0].Notifications()
		if err := all[0].Ack(t.Context()); err != nil {
			t.Error(err)
		}
		if err == nil && len(got) == 0 {
			continue // s3:TestEvent
		}
		if want := []pipeline.Notification{{Key: key, ETag: o.ETag, Size: 1}}; err != nil || !slices.Equal(got, want) {
			t.Errorf("got %v, %v; want %v", got, err, want)
		}
		return
	}
}

// Setup explains a redrive policy, and so does a loader when it starts.
func TestRedrivePolicyIsExplained(t *testing.T) {
	url := serve(t)
	var log bytes.Buffer
	q := open(t, url, func(o *Options) { o.Queue = "redrive-{PIPELINE}" })
	q.log = slog.New(slog.NewTextHandler(&log, nil))
	if err := q.Setup(t.Context(), pipeline.Specs(), nil); err != nil {
		t.Fatal(err)
	}
	set := func(attributes map[string]string) {
		to, err := q.open(t.Context(), pipeline.Events)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := q.client.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &to.url,
			Attributes: attributes}); err != nil {
			t.Fatal(err)
		}
	}
	set(map[string]string{
		"RedrivePolicy":     `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:redrive-errors","maxReceiveCount":3}`,
		"VisibilityTimeout": "77"})
	var said []string
	plan := &provision.Plan{Print: func(s provision.Step) { said = append(said, string(s.Mark)+" "+s.Text) }}
	if err := q.Setup(t.Context(), pipeline.Specs(), plan); err != nil {
		t.Fatal(err)
	}
	want := []string{"ok set attributes of redrive-events: VisibilityTimeout=1",
		"!! redrive-events: it has a redrive policy: after 3 deliveries"}
	for i, w := range want {
		if len(said) != 3 || !strings.HasPrefix(said[i], w) {
			t.Errorf("setup: got %q, want %q", said, want)
			break
		}
	}
	if _, err := q.Consumer(pipeline.Events).Receive(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if text := log.String(); !strings.Contains(text, "level=WARN") || !strings.Contains(text, "redrive policy: after 3 deliveries") ||
		!strings.Contains(text, "penstock dlq list") {
		t.Errorf("the loader logs %q", text)
	}
}

// Which attributes of a queue are harmful.
func TestWarnings(t *testing.T) {
	for _, tt := range []struct {
		have map[string]string
		want string
	}{
		{map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"arn:x","maxReceiveCount":"5"}`}, "after 5 deliveries SQS moves"},
		{map[string]string{"KmsMasterKeyId": "alias/aws/sqs"}, "S3 may not use"},
		{map[string]string{"KmsMasterKeyId": "arn:aws:kms:eu-central-1:1:key/x"}, ""},
		{map[string]string{"FifoQueue": "true"}, "FIFO"},
		{map[string]string{"DelaySeconds": "30"}, "by 30 s"},
		{map[string]string{"DelaySeconds": "0", "RedrivePolicy": ""}, ""},
	} {
		got := strings.Join(warnings(tt.have), "\n")
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%v: got %q, want %q", tt.have, got, tt.want)
		}
	}
}

// Our statement is added once, and replaced if it differs; other statements stay.
func TestPolicy(t *testing.T) {
	const arn = "arn:aws-cn:sqs:cn-north-1:42:q"
	first, ok, err := allowed("", "b", arn)
	if err != nil || ok || !strings.Contains(first, `"aws:SourceArn":"arn:aws-cn:s3:::b"`) ||
		!strings.Contains(first, `"aws:SourceAccount":"42"`) {
		t.Fatalf("got %s, %t, %v", first, ok, err)
	}
	if again, ok, err := allowed(first, "b", arn); err != nil || !ok || again != first {
		t.Errorf("again: got %s, %t, %v; want it unchanged", again, ok, err)
	}
	theirs := `{"Version":"2012-10-17","Id":"x","Statement":{"Sid":"theirs","Effect":"Deny","Principal":"*","Action":"sqs:*"}}`
	merged, ok, err := allowed(theirs, "b", arn)
	if err != nil || ok {
		t.Fatalf("got %t, %v", ok, err)
	}
	other, ok, err := allowed(merged, "other", arn)
	var doc struct {
		ID        string `json:"Id"`
		Statement []struct{ Sid string }
	}
	if err := json.Unmarshal([]byte(other), &doc); err != nil {
		t.Fatal(err)
	}
	if err != nil || ok || doc.ID != "x" || len(doc.Statement) != 2 || doc.Statement[0].Sid != "theirs" ||
		strings.Contains(other, ":::b\"") {
		t.Errorf("for another bucket: got %s, %t, %v; want one statement of each", other, ok, err)
	}
	if _, _, err := allowed("{", "b", arn); err == nil {
		t.Error("a policy that is no JSON is replaced")
	}
}

// sqsFake answers each action by a function. Other actions get an empty answer.
func sqsFake(t *testing.T, answer map[string]func(body string) (status int, text string)) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		action := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS.")
		status, text := 200, "{}"
		if f := answer[action]; f != nil {
			status, text = f(string(body))
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.WriteHeader(status)
		io.WriteString(w, text)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func refuse(code string) func(string) (int, string) {
	return func(string) (int, string) {
		return 400, fmt.Sprintf(`{"__type":"com.amazonaws.sqs#%s","message":"no"}`, code)
	}
}

// If setup lacks the rights for a change, it explains the change, continues, and fails at the end.
func TestSetupIsDenied(t *testing.T) {
	arn := `{"Attributes":{"QueueArn":"arn:aws:sqs:us-east-1:42:penstock-x","VisibilityTimeout":"9"}}`
	for _, tt := range []struct {
		name   string
		answer map[string]func(string) (int, string)
		want   []string
	}{
		{"no queue", map[string]func(string) (int, string){"GetQueueUrl": refuse("QueueDoesNotExist"),
			"CreateQueue": refuse("AccessDeniedException")},
			[]string{"aws sqs create-queue --queue-name penstock-events --attributes", "MessageRetentionPeriod=3600", "may not change queue, queue:", "run \"penstock setup\" again"}},
		{"no rights", map[string]func(string) (int, string){
			"GetQueueUrl":        func(string) (int, string) { return 200, `{"QueueUrl":"http://x/42/penstock-x"}` },
			"GetQueueAttributes": func(string) (int, string) { return 200, arn },
			"SetQueueAttributes": refuse("AccessDeniedException")},
			[]string{"aws sqs set-queue-attributes", `PenstockNotifications`, "may not change queue, queue, queue policy"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := open(t, sqsFake(t, tt.answer))
			b := bucket(serve(t), "denied-"+strings.ReplaceAll(tt.name, " ", "-"))
			all, err := steps(t, q, b, false)
			if err == nil {
				t.Fatalf("no error after %q", all)
			}
			text := strings.Join(all, "\n") + "\n" + err.Error()
			for _, want := range append(tt.want, "not allowed") {
				if !strings.Contains(text, want) {
					t.Errorf("got\n%s\nwant %q", text, want)
				}
			}
		})
	}
}

// Deletions that arrive during a request share the next one. If SQS rejects one, only that one fails.
func TestDeletesShareRequests(t *testing.T) {
	const n = 25
	var mu sync.Mutex
	requests := 0
	url := sqsFake(t, map[string]func(string) (int, string){"DeleteMessageBatch": func(body string) (int, string) {
		mu.Lock()
		requests++
		mu.Unlock()
		time.Sleep(50 * time.Millisecond)
		var in struct {
			Entries []struct{ Id, ReceiptHandle string }
		}
		if err := json.Unmarshal([]byte(body), &in); err != nil || len(in.Entries) > maxBatch {
			t.Errorf("got %s, %v; want %d entries at most", body, err, maxBatch)
		}
		for _, e := range in.Entries {
			if e.ReceiptHandle == "r7" {
				return 200, fmt.Sprintf(`{"Failed":[{"Id":%q,"Code":"ReceiptHandleIsInvalid","SenderFault":true}]}`, e.Id)
			}
		}
		return 200, "{}"
	}})
	d := &deletes{queue: open(t, url), url: "http://x/1/q", name: "q"}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			err := d.delete(t.Context(), fmt.Sprint("r", i))
			if (err != nil) != (i == 7) || err != nil && !strings.Contains(err.Error(), "ReceiptHandleIsInvalid") {
				t.Errorf("delete r%d: got %v", i, err)
			}
		})
	}
	wg.Wait()
	if requests > 6 {
		t.Errorf("%d requests for %d deletions at once, want 4 or so", requests, n)
	}
}

// The limit of messages in flight and an expired token are outages. The error says what to do.
func TestRefusedByTheService(t *testing.T) {
	for code, want := range map[string]string{"OverLimit": "120000 messages in flight",
		"ExpiredTokenException": "ExpiredTokenException (status 400): no"} {
		q := open(t, sqsFake(t, map[string]func(string) (int, string){"ReceiveMessage": refuse(code),
			"GetQueueUrl": func(string) (int, string) { return 200, `{"QueueUrl":"http://x/42/penstock-x"}` }}))
		_, err := q.Consumer(pipeline.Events).Receive(t.Context(), 1)
		if err == nil || !strings.Contains(err.Error(), want) || retry.ClassOf(err) != retry.Outage {
			t.Errorf("%s: got %v of class %s, want an outage with %q", code, err, retry.ClassOf(err), want)
		}
	}
}
