package cloudflaretest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/bubble"
)

// client calls an API without a network, so that time can be fake.
type client struct {
	t     *testing.T
	api   *API
	queue string // id
}

func open(t *testing.T) *client {
	t.Helper()
	c := &client{t: t, api: New("acc", "tok", "bucket")}
	var made struct {
		ID string `json:"queue_id"`
	}
	c.ok("POST", "/queues", `{"queue_name":"q"}`, &made)
	c.queue = "/queues/" + made.ID
	return c
}

// call returns the status, and the code of an error.
func (c *client) call(method, path, body string, into any) (status, code int) {
	c.t.Helper()
	req := httptest.NewRequest(method, "/accounts/acc"+path, strings.NewReader(body))
	req.Header.Set("Authorization", "Bearer tok")
	return c.do(req, into)
}

func (c *client) do(req *http.Request, into any) (status, code int) {
	c.t.Helper()
	w := httptest.NewRecorder()
	c.api.ServeHTTP(w, req)
	var answer struct {
		Success bool
		Result  json.RawMessage
		Errors  []struct{ Code int }
	}
	if err := json.NewDecoder(bytes.NewReader(w.Body.Bytes())).Decode(&answer); err != nil {
		c.t.Fatalf("%q: %v", w.Body, err)
	}
	if answer.Success != (w.Code == http.StatusOK) {
		c.t.Errorf("status %d with success %t", w.Code, answer.Success)
	}
	if len(answer.Errors) > 0 {
		return w.Code, answer.Errors[0].Code
	}
	if into != nil {
		if err := json.Unmarshal(answer.Result, into); err != nil {
			c.t.Fatal(err)
		}
	}
	return w.Code, 0
}

func (c *client) ok(method, path, body string, into any) {
	c.t.Helper()
	if status, code := c.call(method, path, body, into); status != http.StatusOK {
		c.t.Fatalf("%s %s: status %d, code %d", method, path, status, code)
	}
}

// wants calls and compares status and code.
func (c *client) wants(method, path, body string, status, code int) {
	c.t.Helper()
	if s, got := c.call(method, path, body, nil); s != status || got != code {
		c.t.Errorf("%s %s %s: status %d, code %d; want %d, %d", method, path, body, s, got, status, code)
	}
}

// pull returns texts "body attempt", and the leases.
func (c *client) pull(n int, lease time.Duration) (texts, leases []string) {
	c.t.Helper()
	var out struct {
		Messages []struct {
			Body     string
			Lease    string `json:"lease_id"`
			Attempts int
			Metadata map[string]string
		}
	}
	c.ok("POST", c.queue+"/messages/pull", fmt.Sprintf(`{"batch_size":%d,"visibility_timeout_ms":%d}`, n,
		lease.Milliseconds()), &out)
	for _, m := range out.Messages {
		body := m.Body
		if m.Metadata["CF-Content-Type"] != "text" {
			text, err := base64.StdEncoding.DecodeString(body)
			if err != nil {
				c.t.Fatal(err)
			}
			body = string(text)
		}
		texts = append(texts, fmt.Sprint(body, " ", m.Attempts))
		leases = append(leases, m.Lease)
	}
	return texts, leases
}

func (c *client) wantPull(lease time.Duration, want ...string) []string {
	c.t.Helper()
	texts, leases := c.pull(10, lease)
	if !slices.Equal(texts, want) {
		c.t.Errorf("pulled %q, want %q", texts, want)
	}
	return leases
}

func puller(retries int, more string) string {
	return fmt.Sprintf(`{"type":"http_pull","settings":{"max_retries":%d}%s}`, retries, more)
}

// A message comes again when its lease is over or its delay is, and is deleted after its retries.
func TestLeases(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := open(t)
		c.wants("POST", c.queue+"/messages/pull", `{}`, 405, 10405)
		c.ok("POST", c.queue+"/consumers", puller(3, ""), nil)
		c.ok("POST", c.queue+"/messages", `{"body":"a","content_type":"text"}`, nil)
		c.ok("POST", c.queue+"/messages", `{"body":{"b":1},"delay_seconds":60}`, nil)
		c.wantPull(time.Minute, "a 1")
		time.Sleep(59 * time.Second)
		c.wantPull(time.Minute)
		time.Sleep(time.Second)
		leases := c.wantPull(time.Minute, "a 2", `{"b":1} 1`)
		c.ok("POST", c.queue+"/messages/ack", fmt.Sprintf(`{"acks":[{"lease_id":%q}],"retries":[{"lease_id":%q,"delay_seconds":5}]}`,
			leases[1], leases[0]), nil)
		c.wantPull(time.Minute)
		time.Sleep(5 * time.Second)
		c.wantPull(time.Minute, "a 3")
		time.Sleep(time.Minute)
		c.wantPull(time.Minute, "a 4")
		if got := c.api.Deleted("q"); len(got) > 0 {
			t.Errorf("deleted %q while it is leased", got)
		}
		time.Sleep(time.Minute)
		c.wantPull(time.Minute)
		if got := c.api.Deleted("q"); !slices.Equal(got, []string{"a"}) {
			t.Errorf("deleted %q after 3 retries, want a", got)
		}
		want := Usage{Writes: 2, Reads: 8, Deletes: 2, Pulls: 8, Acks: 1, Others: 4}
		if got := c.api.Usage(); got != want {
			t.Errorf("usage %+v, want %+v", got, want)
		}
	})
}

// After its retries, a message goes to the dead letter queue if there is one.
func TestDeadLetterQueue(t *testing.T) {
	c := open(t)
	c.wants("POST", c.queue+"/consumers", puller(0, `,"dead_letter_queue":"dlq"`), 404, 11000)
	c.ok("POST", "/queues", `{"queue_name":"dlq"}`, nil)
	c.ok("POST", c.queue+"/consumers", puller(0, `,"dead_letter_queue":"dlq"`), nil)
	c.ok("POST", c.queue+"/messages", `{"body":"a","content_type":"text"}`, nil)
	leases := c.wantPull(time.Minute, "a 1")
	c.ok("POST", c.queue+"/messages/ack", fmt.Sprintf(`{"retries":[{"lease_id":%q}]}`, leases[0]), nil)
	c.wantPull(time.Minute)
	if waiting, _ := c.api.Backlog("dlq"); waiting != 1 || len(c.api.Deleted("q")) > 0 {
		t.Errorf("%d messages in the dead letter queue, %q deleted; want 1, none", waiting, c.api.Deleted("q"))
	}
}

// An acknowledgement with a lease that is over counts. A retry with it does not: another consumer has the message.
func TestLateAck(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := open(t)
		c.ok("POST", c.queue+"/consumers", puller(3, ""), nil)
		c.ok("POST", c.queue+"/messages", `{"body":"a","content_type":"text"}`, nil)
		first := c.wantPull(time.Second, "a 1")
		time.Sleep(time.Second)
		second := c.wantPull(time.Second, "a 2")
		for _, tt := range []struct {
			body                    string
			acked, retried, warning int
		}{
			{fmt.Sprintf(`{"retries":[{"lease_id":%q}]}`, first[0]), 0, 0, 1},
			{fmt.Sprintf(`{"acks":[{"lease_id":%q}]}`, first[0]), 1, 0, 0},
			{fmt.Sprintf(`{"acks":[{"lease_id":%q}]}`, second[0]), 0, 0, 1},
		} {
			var got struct {
				Acked    int `json:"ackCount"`
				Retried  int `json:"retryCount"`
				Warnings map[string]string
			}
			c.ok("POST", c.queue+"/messages/ack", tt.body, &got)
			if got.Acked != tt.acked || got.Retried != tt.retried || len(got.Warnings) != tt.warning {
				t.Errorf("%s: %+v, want %+v", tt.body, got, tt)
			}
		}
		time.Sleep(time.Hour)
		c.wantPull(time.Second)
	})
}

// What is beyond a limit is refused.
func TestLimits(t *testing.T) {
	c := open(t)
	c.ok("POST", c.queue+"/consumers", puller(3, ""), nil)
	leases := `{"lease_id":"x"}` + strings.Repeat(`,{"lease_id":"x"}`, 100)
	for _, tt := range []struct {
		method, path, body string
		status, code       int
	}{
		{"POST", c.queue + "/messages/pull", `{"batch_size":101}`, 400, 10206},
		{"POST", c.queue + "/messages/pull", `{"batch_size":0}`, 400, 10206},
		{"POST", c.queue + "/messages/pull", `{"visibility_timeout_ms":43200001}`, 400, 10207},
		{"POST", c.queue + "/messages/pull", `{"batch_size":"1"}`, 400, 10207},
		{"POST", c.queue + "/messages/pull", `{`, 400, 10208},
		{"POST", c.queue + "/messages/ack", `{"acks":[` + leases + `]}`, 400, 10206},
		{"POST", c.queue + "/messages/ack", `{"retries":[{"lease_id":"x","delay_seconds":86401}]}`, 400, 10203},
		{"POST", c.queue + "/messages", `{"body":"` + strings.Repeat("x", MaxMessage+1) + `","content_type":"text"}`, 400, 10204},
		{"POST", c.queue + "/messages", `{"body":1,"content_type":"text"}`, 400, 10207},
		{"POST", c.queue + "/messages", `{"body":"a","content_type":"v9"}`, 400, 10203},
		{"POST", c.queue + "/consumers", puller(3, ""), 400, 11004},
		{"PUT", c.queue + "/consumers/x", puller(3, ""), 404, 11005},
		{"POST", "/queues", `{"queue_name":"q"}`, 409, 11009},
		{"POST", "/queues/unknown/messages/pull", `{}`, 404, 11000},
		{"GET", "/unknown", ``, 404, 7003},
	} {
		c.wants(tt.method, tt.path, tt.body, tt.status, tt.code)
	}
}

// Another token, or another account, is rejected. Beyond the rate limit the answer names a wait.
func TestRejected(t *testing.T) {
	c := open(t)
	for _, tt := range []struct{ account, token string }{{"acc", "other"}, {"other", "tok"}} {
		req := httptest.NewRequest("GET", "/accounts/"+tt.account+"/queues", nil)
		req.Header.Set("Authorization", "Bearer "+tt.token)
		if status, code := c.do(req, nil); status != 403 || code != 10000 {
			t.Errorf("account %s, token %s: status %d, code %d; want 403, 10000", tt.account, tt.token, status, code)
		}
	}
	c.api.Throttle(1, 7*time.Second)
	req := httptest.NewRequest("GET", "/accounts/acc/queues", nil)
	req.Header.Set("Authorization", "Bearer tok")
	w := httptest.NewRecorder()
	c.api.ServeHTTP(w, req)
	if w.Code != 429 || w.Header().Get("Retry-After") != "7" {
		t.Errorf("status %d, Retry-After %q; want 429, 7", w.Code, w.Header().Get("Retry-After"))
	}
	c.ok("GET", "/queues", "", nil)
}

// Rules send what they name. Two that one object could match for one action are refused.
func TestRules(t *testing.T) {
	c := open(t)
	c.ok("POST", c.queue+"/consumers", puller(3, ""), nil)
	path := "/event_notifications/r2/bucket/configuration" + c.queue
	c.wants("PUT", strings.Replace(path, "bucket", "other", 1), `{"rules":[]}`, 404, 10006)
	c.wants("PUT", path, `{"rules":[{"actions":["Put"]}]}`, 400, 10207)
	c.ok("PUT", path, `{"rules":[{"actions":["PutObject"],"prefix":"events/"}]}`, nil)
	for _, rule := range []string{`"prefix":""`, `"prefix":"events/"`, `"prefix":"events/a"`, `"suffix":"x"`} {
		c.wants("PUT", path, `{"rules":[{"actions":["CopyObject","PutObject"],`+rule+`}]}`, 409, 11020)
	}
	c.ok("PUT", path, `{"rules":[{"actions":["CopyObject"],"prefix":"events/"}]}`, nil)
	c.ok("PUT", path, `{"rules":[{"actions":["PutObject"],"prefix":"errors/"}]}`, nil)
	var list struct {
		Queues []struct {
			Rules []struct{ Prefix string }
		}
	}
	c.ok("GET", "/event_notifications/r2/bucket/configuration", "", &list)
	if len(list.Queues) != 1 || len(list.Queues[0].Rules) != 3 {
		t.Errorf("listed %+v, want 3 rules of one queue", list)
	}
	for _, tt := range []struct {
		bucket, action, key string
		want                int
	}{{"bucket", "PutObject", "events/a", 1}, {"bucket", "PutObject", "blobs/a", 0}, {"other", "PutObject", "events/a", 0},
		{"bucket", "DeleteObject", "events/a", 0}} {
		if got := c.api.Notify(tt.bucket, tt.action, Object{Key: tt.key, Size: 3, ETag: "e"}); got != tt.want {
			t.Errorf("%s of %s in %s: %d notifications, want %d", tt.action, tt.key, tt.bucket, got, tt.want)
		}
	}
	texts, _ := c.pull(10, time.Minute)
	if len(texts) != 1 || !strings.Contains(texts[0], `"object":{"key":"events/a","size":3,"eTag":"e"}`) {
		t.Errorf("pulled %q", texts)
	}
}
