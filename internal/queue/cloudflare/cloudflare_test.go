package cloudflare

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/penstock/penstock/internal/testing/cloudflaretest"
)

// direct calls a handler without a network, so that tests can use fake time.
type direct struct{ http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w.Result(), nil
}

// inBubble opens a queue in fake time.
func inBubble(t *testing.T, opts Options) (*cloudflaretest.API, *Queue) {
	t.Helper()
	api := cloudflaretest.New(account, token)
	opts.Endpoint, opts.Account, opts.Token = "http://api", account, func() string { return token }
	opts.Queue = "penstock-{PIPELINE}"
	q := open(t, opts)
	q.api.client.Transport = direct{api}
	if err := q.Setup(t.Context(), pipeline.Specs(), nil); err != nil {
		t.Fatal(err)
	}
	return api, q
}

func send(t *testing.T, api *cloudflaretest.API, key string) {
	t.Helper()
	if err := api.Send("penstock-events", "text", string(queue.Format(pipeline.Notification{Key: key}))); err != nil {
		t.Fatal(err)
	}
}

// docs/deploy/cloudflare.md states the number and the cost of pulls from idle queues.
func TestIdleQueueCostsFewCalls(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		api, q := inBubble(t, Options{Lease: time.Minute, Poll: 15 * time.Second})
		c := q.Consumer(pipeline.Events)
		receive := func(d time.Duration) (n int) {
			for end := time.Now().Add(d); time.Now().Before(end); {
				all, err := c.Receive(t.Context(), 2)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range all {
					n++
					if err := d.Ack(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			return n
		}
		receive(24 * time.Hour)
		if got, want := api.Usage(), 24*60*4+10; got.Pulls > want || got.Pulls < want-20 || got.Reads != got.Pulls {
			t.Errorf("%d pulls and %d reads of an idle queue in a day, want about %d", got.Pulls, got.Reads, want)
		}
		// A message is received within the longest wait. Further messages do not wait.
		send(t, api, "events/a")
		began := time.Now()
		for receive(0) == 0 && time.Since(began) < time.Minute {
			receive(time.Millisecond)
			if waiting, _ := api.Backlog("penstock-events"); waiting == 0 {
				break
			}
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("received after %s, want 15s at most", took)
		}
		before := api.Usage().Pulls
		for i := range 10 {
			send(t, api, fmt.Sprint("events/", i))
		}
		if n := receive(time.Second); n != 10 || api.Usage().Pulls-before > 10 {
			t.Errorf("received %d of 10 with %d pulls, want 10 at most", n, api.Usage().Pulls-before)
		}
	})
}

// Cloudflare's rate limit is an outage. The next pull waits as long as the answer says, and an acknowledgement is
// repeated.
func TestThrottled(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		api, q := inBubble(t, Options{Lease: time.Hour, Poll: time.Second})
		c := q.Consumer(pipeline.Events)
		send(t, api, "events/a")
		api.Throttle(1, 7*time.Second)
		_, err := c.Receive(t.Context(), 1)
		if retry.ClassOf(err) != retry.Outage || !strings.Contains(fmt.Sprint(err), "rate limit is reached: 429") {
			t.Errorf("got %v, want an outage by the rate limit", err)
		}
		began := time.Now()
		var all []pipeline.Delivery
		for len(all) == 0 && time.Since(began) < time.Minute {
			if all, err = c.Receive(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 7*time.Second || len(all) != 1 {
			t.Fatalf("received %d after %s, want 1 after 7s", len(all), took)
		}
		api.Throttle(2, 3*time.Second)
		began = time.Now()
		if err := all[0].Ack(t.Context()); err != nil || time.Since(began) < 6*time.Second {
			t.Errorf("ack after %s: %v; want none after twice 3s", time.Since(began), err)
		}
		if waiting, leased := api.Backlog("penstock-events"); waiting+leased > 0 {
			t.Errorf("%d messages are left", waiting+leased)
		}
	})
}

// A drain does not wait until the next pull is due.
func TestReceiveEndsWithItsContext(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		_, q := inBubble(t, Options{Lease: time.Hour, Poll: time.Minute})
		c := q.Consumer(pipeline.Events)
		for range 12 {
			if _, err := c.Receive(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := c.Receive(ctx, 1); err == nil || time.Since(began) != time.Second {
			t.Errorf("received after %s: %v; want the context's error after 1s", time.Since(began), err)
		}
	})
}

// A token that Cloudflare rejects is an outage. The message says so without the token. A new token in the file is used
// without a restart.
func TestWrongToken(t *testing.T) {
	t.Parallel()
	api, opts := fake(t)
	now := token
	opts.Token = func() string { return now }
	q := setUp(t, opts)
	send(t, api, "events/a")
	c := q.Consumer(pipeline.Events)
	now = "an-expired-token"
	for name, err := range map[string]error{"receive": second(c.Receive(t.Context(), 1)), "ping": q.Ping(t.Context()),
		"stats": second(q.Stats(t.Context(), pipeline.Events))} {
		if retry.ClassOf(err) != retry.Outage || retry.CodeOf(err) != 10000 ||
			!strings.Contains(fmt.Sprint(err), "rejects the API token: it is wrong or expired") {
			t.Errorf("%s: got %v, class %s, code %d; want an outage that names the token", name, err, retry.ClassOf(err),
				retry.CodeOf(err))
		}
		if strings.Contains(fmt.Sprint(err), now) {
			t.Errorf("%s: the token is in %v", name, err)
		}
	}
	now = token
	if all, err := c.Receive(t.Context(), 1); err != nil || len(all) != 1 {
		t.Errorf("with the right token: received %d, %v; want 1", len(all), err)
	}
}

func second[T any](_ T, err error) error { return err }

// An unacknowledged message is deleted after exactly the deliveries in Limits.
func TestDeletedAtMaxRetries(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		api, q := inBubble(t, Options{Lease: time.Second, Poll: time.Second})
		c := q.Consumer(pipeline.Events)
		send(t, api, "events/a")
		n := 0
		for range 3 * maxRetries {
			all, err := c.Receive(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range all {
				if n++; d.Attempt() != n {
					t.Errorf("attempt %d, want %d", d.Attempt(), n)
				}
				if err := d.Nak(0); err != nil {
					t.Fatal(err)
				}
			}
		}
		if n != q.Limits().MaxDeliveries || len(api.Deleted("penstock-events")) != 1 {
			t.Errorf("%d deliveries, %d deleted; want %d, 1", n, len(api.Deleted("penstock-events")), q.Limits().MaxDeliveries)
		}
	})
}

// Errors quote answers that do not come from Cloudflare.
func TestForeignAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status     int
		body, want string
	}{
		{502, "<html>bad gateway</html>", "Cloudflare answers 502 Bad Gateway: <html>bad gateway</html>"},
		{200, "hello", "Cloudflare answers 200 OK: hello"},
		{200, `{"success":true,"result":5}`, "decode the answer"},
		{400, `{"success":false,"errors":[{"code":7003,"message":"no route"}]}`, "400 Bad Request: no route (code 7003)"},
		{405, `{"success":false,"errors":[]}`, `the queue has no HTTP pull consumer; run "penstock setup": 405`},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tt.status)
			fmt.Fprint(w, tt.body)
		}))
		t.Cleanup(server.Close)
		q := open(t, Options{Endpoint: server.URL, Account: account, Token: func() string { return token }, Queue: "q"})
		if err := q.Ping(t.Context()); retry.ClassOf(err) != retry.Outage || !strings.Contains(fmt.Sprint(err), tt.want) {
			t.Errorf("%d %s: got %v, want an outage with %q", tt.status, tt.body, err, tt.want)
		}
	}
}

// Bodies arrive as text, or as JSON or bytes in base64.
func TestMessageBodies(t *testing.T) {
	t.Parallel()
	want := pipeline.Notification{Key: "events/a", ETag: "e", Size: 5}
	text := string(queue.Format(want))
	for name, m := range map[string]message{
		"text":                {Body: text, Metadata: map[string]any{"CF-Content-Type": "text"}},
		"JSON":                {Body: b64(text), Metadata: map[string]any{"CF-Content-Type": "json"}},
		"JSON without base64": {Body: text, Metadata: map[string]any{"CF-Content-Type": "json"}},
		"of no type":          {Body: text},
		"base64 of no type":   {Body: b64(text)},
	} {
		if got, err := m.Notifications(); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %v, %v; want %v", name, got, err, want)
		}
	}
}
