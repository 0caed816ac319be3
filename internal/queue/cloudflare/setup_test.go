package cloudflare

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/provision"
	"github.com/penstock/penstock/internal/testing/cloudflaretest"
)

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// bucket is a store with this name.
type bucket string

func (b bucket) Name() string { return string(b) }

func (b bucket) Notify(context.Context, []pipeline.Spec, map[string]string, *provision.Plan) error {
	return fmt.Errorf("R2 has no notification rules in its S3 API")
}

// provisioned runs setup and returns its output lines.
func provisioned(t *testing.T, q *Queue, dry bool) (lines []string, err error) {
	t.Helper()
	plan := &provision.Plan{DryRun: dry, Print: func(s provision.Step) {
		lines = append(lines, fmt.Sprint(s.Subject, " ", s.Mark, " ", s.Text))
	}}
	if err := q.Setup(t.Context(), pipeline.Specs(), plan); err != nil {
		return lines, err
	}
	if err := q.Subscribe(t.Context(), bucket("b"), pipeline.Specs(), plan); err != nil {
		return lines, err
	}
	return lines, plan.Err()
}

func wantLines(t *testing.T, q *Queue, dry bool, want ...string) {
	t.Helper()
	got, err := provisioned(t, q, dry)
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("setup, dry run %t (-want +got):\n%s", dry, diff)
	}
}

// Setup reports its changes, makes them, and finds them done the next time.
func TestSetup(t *testing.T) {
	t.Parallel()
	api, opts := fake(t, "b")
	q := open(t, opts)
	const rule = "PutObject, CopyObject, CompleteMultipartUpload of "
	changes := []string{
		"created penstock-events",
		"added the HTTP pull consumer of penstock-events: 100 retries, a lease of 1s",
		"created penstock-errors",
		"added the HTTP pull consumer of penstock-errors: 100 retries, a lease of 1s",
		"created rule of bucket b: " + rule + "events/ -> queue penstock-events",
		"created rule of bucket b: " + rule + "errors/ -> queue penstock-errors",
	}
	marked := func(mark string) (lines []string) {
		for i, c := range changes {
			lines = append(lines, []string{"queue", "notifications"}[i/4]+" "+mark+c)
		}
		return lines
	}
	wantLines(t, q, true, marked("-- dry run: would have ")...)
	if n := api.Usage().Others; n != 3 { // lookups of two queues and of the rules
		t.Errorf("%d calls in a dry run, want 3", n)
	}
	wantLines(t, q, false, marked("ok ")...)
	found := []string{"queue ok penstock-events", "queue ok penstock-events: HTTP pull consumer",
		"queue ok penstock-errors", "queue ok penstock-errors: HTTP pull consumer",
		"notifications ok bucket b, events/ -> queue penstock-events",
		"notifications ok bucket b, errors/ -> queue penstock-errors"}
	wantLines(t, q, false, found...)
	wantLines(t, open(t, opts), true, found...)

	opts.Lease *= 2 // queue.ack_wait has changed
	found[1] = "queue ok changed the HTTP pull consumer of penstock-events: 100 retries, a lease of 2s"
	found[3] = "queue ok changed the HTTP pull consumer of penstock-errors: 100 retries, a lease of 2s"
	wantLines(t, open(t, opts), false, found...)
	if n := api.Notify("b", "CompleteMultipartUpload", cloudflaretest.Object{Key: "events/x"}); n != 1 {
		t.Errorf("%d notifications of an object, want 1", n)
	}
}

// Another rule for the same objects stays. R2 would reject ours, so setup says what to do.
func TestOtherRule(t *testing.T) {
	t.Parallel()
	api, opts := fake(t, "b")
	q := setUp(t, opts)
	call := func(method, path string, in any) {
		t.Helper()
		if err := q.api.call(t.Context(), method, path, in, nil); err != nil {
			t.Fatal(err)
		}
	}
	call("POST", "/queues", map[string]string{"queue_name": "other"})
	other, _, err := q.find(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	call("PUT", "/event_notifications/r2/b/configuration/queues/"+other.ID,
		map[string]any{"rules": []bucketRule{{Actions: []string{"PutObject"}, Prefix: "ev"}}})
	lines, err := provisioned(t, q, false)
	if err == nil || !strings.Contains(err.Error(), "setup may not change notifications") {
		t.Errorf("got %v, want an error about notifications", err)
	}
	text := strings.Join(lines, "\n")
	for _, want := range []string{`for objects below "ev" to queue other, and R2 allows one rule`,
		"npx wrangler r2 bucket notification delete b --queue other --rule 0000",
		"npx wrangler r2 bucket notification create b --event-type object-create --prefix events/ --queue penstock-events",
		"notifications ok created rule of bucket b: PutObject, CopyObject, CompleteMultipartUpload of errors/"} {
		if !strings.Contains(text, want) {
			t.Errorf("setup does not say %q:\n%s", want, text)
		}
	}
	if n := api.Notify("b", "PutObject", cloudflaretest.Object{Key: "events/x"}); n != 1 {
		t.Errorf("%d notifications of an object, want 1 by the other rule", n)
	}
}

// Setup rejects a queue whose messages go to a Worker, and a missing bucket.
func TestSetupRefused(t *testing.T) {
	t.Parallel()
	_, opts := fake(t, "other")
	q := open(t, opts)
	if _, err := provisioned(t, q, false); err == nil || !strings.Contains(err.Error(), "bucket does not exist") {
		t.Errorf("got %v, want an error about the bucket", err)
	}
	worker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"success":true,"result":[{"consumer_id":"1","type":"worker","script":"w"}]}`)
	}))
	t.Cleanup(worker.Close)
	opts.Endpoint = worker.URL
	err := open(t, opts).setupConsumer(t.Context(), queueInfo{ID: "1"}, "q", nil)
	if err == nil || !strings.Contains(err.Error(), "npx wrangler queues consumer worker remove q w") {
		t.Errorf("got %v, want an error about the Worker", err)
	}
}

// With a read-only token, setup prints commands for a person who has the rights.
func TestSetupDenied(t *testing.T) {
	t.Parallel()
	api, opts := fake(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			r.Header.Set("Authorization", "Bearer of another right")
		}
		api.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	opts.Endpoint = server.URL
	lines, err := provisioned(t, open(t, opts), false)
	if err == nil || !strings.Contains(err.Error(), "setup may not change") {
		t.Errorf("got %v, want an error about the rights", err)
	}
	text := strings.Join(lines, "\n")
	for _, want := range []string{"npx wrangler queues create penstock-events\n",
		"npx wrangler queues consumer http add penstock-events --message-retries 100 --visibility-timeout-secs 1\n",
		"npx wrangler r2 bucket notification create b --event-type object-create --prefix errors/ --queue penstock-errors"} {
		if !strings.Contains(text+"\n", want) {
			t.Errorf("setup does not say %q:\n%s", want, text)
		}
	}
}

// A dead letter queue that somebody set stays, and setup says what it does.
func TestDeadLetterQueue(t *testing.T) {
	t.Parallel()
	_, opts := fake(t)
	q := setUp(t, opts)
	info, _, err := q.find(t.Context(), "penstock-events")
	if err != nil {
		t.Fatal(err)
	}
	c, err := q.consumer(t.Context(), info)
	if err != nil {
		t.Fatal(err)
	}
	c.DeadLetter, c.Settings["max_retries"] = "penstock-errors", 3
	if err := q.api.call(t.Context(), "PUT", "/queues/"+info.ID+"/consumers/"+c.ID, c, nil); err != nil {
		t.Fatal(err)
	}
	lines, err := provisioned(t, q, false)
	text := strings.Join(lines, "\n")
	if err != nil || !strings.Contains(text, "messages go to penstock-errors after 100 retries") ||
		!strings.Contains(text, "changed the HTTP pull consumer") {
		t.Errorf("%v:\n%s", err, text)
	}
	if c, err = q.consumer(t.Context(), info); err != nil || c.DeadLetter != "penstock-errors" {
		t.Errorf("consumer %+v, %v; want its dead letter queue", c, err)
	}
}
