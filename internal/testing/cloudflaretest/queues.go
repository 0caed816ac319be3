package cloudflaretest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"
)

type queue struct {
	id, name string
	consumer *consumer // of type http_pull; nil: none
	waiting  []*message
	leases   map[string]*message // every lease that was given and is not settled
	deleted  []string            // bodies of messages that reached max_retries and have no dead letter queue
	paused   bool
}

// consumer is an HTTP pull consumer, as the API shows it.
type consumer struct {
	ID         string   `json:"consumer_id"`
	Type       string   `json:"type"`
	QueueName  string   `json:"queue_name"`
	DeadLetter string   `json:"dead_letter_queue,omitempty"`
	Settings   settings `json:"settings"`
}

type settings struct {
	BatchSize  int   `json:"batch_size"`
	MaxRetries *int  `json:"max_retries"`
	RetryDelay int64 `json:"retry_delay"`
	Visibility int64 `json:"visibility_timeout_ms"`
}

type message struct {
	id, kind string // kind is the content type
	body     []byte
	at       time.Time // published
	due      time.Time // when it can be pulled: after a delay, or when its lease ends
	lease    string    // the current one; empty: it waits
	attempts int
}

func (a *API) find(r *http.Request) (*queue, error) {
	id := r.PathValue("queue")
	for _, q := range a.queues {
		if q.id == id {
			return q, nil
		}
	}
	return nil, errQueue
}

func (a *API) named(name string) *queue {
	for _, q := range a.queues {
		if q.name == name {
			return q
		}
	}
	return nil
}

func (q *queue) show() map[string]any {
	consumers := []any{}
	if q.consumer != nil {
		consumers = append(consumers, q.consumer)
	}
	return map[string]any{"queue_id": q.id, "queue_name": q.name, "consumers": consumers,
		"consumers_total_count": len(consumers)}
}

func (a *API) listQueues(r *http.Request) (any, error) {
	a.usage.Others++
	all := []any{}
	name := r.FormValue("name")
	for _, q := range a.queues {
		if name == "" || q.name == name {
			all = append(all, q.show())
		}
	}
	page, size := 1, 20
	fmt.Sscan(r.FormValue("page"), &page)
	fmt.Sscan(r.FormValue("per_page"), &size)
	from := min(max(page-1, 0)*size, len(all))
	return all[from:min(from+size, len(all))], nil
}

func (a *API) createQueue(r *http.Request) (any, error) {
	a.usage.Others++
	var in struct {
		Name string `json:"queue_name"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if in.Name == "" {
		return nil, errBody
	}
	if a.named(in.Name) != nil {
		return nil, errTaken
	}
	q := &queue{id: a.id(), name: in.Name, leases: map[string]*message{}}
	a.queues = append(a.queues, q)
	return q.show(), nil
}

func (a *API) getQueue(r *http.Request) (any, error) {
	a.usage.Others++
	q, err := a.find(r)
	if err != nil {
		return nil, err
	}
	return q.show(), nil
}

func (a *API) metrics(r *http.Request) (any, error) {
	a.usage.Others++
	q, err := a.find(r)
	if err != nil {
		return nil, err
	}
	a.expire(q)
	bytes, oldest := 0, int64(0)
	for _, m := range q.waiting {
		bytes += len(m.body)
		if at := m.at.UnixMilli(); oldest == 0 || at < oldest {
			oldest = at
		}
	}
	return map[string]any{"backlog_count": len(q.waiting), "backlog_bytes": bytes, "oldest_message_timestamp_ms": oldest},
		nil
}

func (a *API) listConsumers(r *http.Request) (any, error) {
	a.usage.Others++
	q, err := a.find(r)
	if err != nil {
		return nil, err
	}
	return q.show()["consumers"], nil
}

func (a *API) createConsumer(r *http.Request) (any, error) {
	a.usage.Others++
	q, err := a.find(r)
	if err != nil {
		return nil, err
	}
	if q.consumer != nil {
		return nil, errConsumer
	}
	return a.setConsumer(r, q, a.id())
}

func (a *API) updateConsumer(r *http.Request) (any, error) {
	a.usage.Others++
	q, err := a.find(r)
	if err != nil {
		return nil, err
	}
	if q.consumer == nil || q.consumer.ID != r.PathValue("consumer") {
		return nil, &apiError{http.StatusNotFound, 11005, "workers.api.error.consumer_not_found"}
	}
	return a.setConsumer(r, q, q.consumer.ID)
}

func (a *API) setConsumer(r *http.Request, q *queue, id string) (any, error) {
	c := &consumer{ID: id, QueueName: q.name}
	if err := read(r, c); err != nil {
		return nil, err
	}
	s := &c.Settings
	if s.MaxRetries == nil {
		three := 3
		s.MaxRetries = &three
	}
	if c.Type != "http_pull" || *s.MaxRetries < 0 || *s.MaxRetries > MaxRetries ||
		s.Visibility < 0 || s.Visibility > MaxLease.Milliseconds() || s.BatchSize < 0 || s.BatchSize > MaxBatch {
		return nil, errBody
	}
	if c.DeadLetter != "" && a.named(c.DeadLetter) == nil {
		return nil, errQueue
	}
	c.ID, c.QueueName = id, q.name
	q.consumer = c
	return c, nil
}

func (a *API) push(r *http.Request) (any, error) {
	a.usage.Others++
	q, err := a.find(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Body  json.RawMessage `json:"body"`
		Kind  string          `json:"content_type"`
		Delay int64           `json:"delay_seconds"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if in.Delay < 0 || in.Delay > int64(MaxDelay.Seconds()) {
		return nil, errDelay
	}
	body := []byte(in.Body)
	switch in.Kind {
	case "", "json":
		in.Kind = "json"
	case "text":
		var text string
		if err := json.Unmarshal(in.Body, &text); err != nil {
			return nil, errBody
		}
		body = []byte(text)
	default:
		return nil, errDelay
	}
	if len(body) > MaxMessage {
		return nil, errSize
	}
	a.add(q, in.Kind, body, time.Duration(in.Delay)*time.Second)
	return map[string]any{}, nil
}

func (a *API) add(q *queue, kind string, body []byte, delay time.Duration) {
	now := time.Now()
	a.usage.Writes++
	q.waiting = append(q.waiting, &message{id: a.id(), kind: kind, body: body, at: now, due: now.Add(delay)})
}

// expire ends the leases whose time is over, and removes messages that have no retry left.
func (a *API) expire(q *queue) {
	now := time.Now()
	q.waiting = slices.DeleteFunc(q.waiting, func(m *message) bool {
		if m.lease != "" && !now.Before(m.due) {
			m.lease = ""
			return a.over(q, m)
		}
		return false
	})
}

// over reports whether an unacknowledged message has no retry left. It then goes to the dead letter queue if there is
// one, and is gone otherwise.
func (a *API) over(q *queue, m *message) bool {
	if m.attempts <= *q.consumer.Settings.MaxRetries {
		return false
	}
	a.usage.Deletes++
	if d := a.named(q.consumer.DeadLetter); d != nil {
		a.add(d, m.kind, m.body, 0)
	} else {
		q.deleted = append(q.deleted, string(m.body))
	}
	for lease, of := range q.leases {
		if of == m {
			delete(q.leases, lease)
		}
	}
	return true
}

func (a *API) pull(r *http.Request) (any, error) {
	a.usage.Pulls++
	q, err := a.find(r)
	if err != nil {
		return nil, err
	}
	if q.consumer == nil {
		return nil, errPull
	}
	in := struct {
		Batch      *int   `json:"batch_size"`
		Visibility *int64 `json:"visibility_timeout_ms"`
	}{}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	batch, hide := DefaultPull, DefaultHide
	if n := q.consumer.Settings.BatchSize; n > 0 {
		batch = n
	}
	if ms := q.consumer.Settings.Visibility; ms > 0 {
		hide = time.Duration(ms) * time.Millisecond
	}
	if in.Batch != nil {
		batch = *in.Batch
	}
	if in.Visibility != nil {
		hide = time.Duration(*in.Visibility) * time.Millisecond
	}
	switch {
	case batch < 1 || batch > MaxBatch:
		return nil, errBatch
	case hide <= 0 || hide > MaxLease:
		return nil, errBody
	}
	a.expire(q)
	out := []any{}
	now := time.Now()
	for _, m := range q.waiting {
		if len(out) == batch || q.paused {
			break
		}
		if m.lease != "" || now.Before(m.due) {
			continue
		}
		m.attempts++
		m.lease, m.due = a.id(), now.Add(hide)
		q.leases[m.lease] = m
		out = append(out, m.show())
	}
	a.usage.Reads += max(len(out), 1)
	return map[string]any{"messages": out, "message_backlog_count": len(q.waiting)}, nil
}

func (m *message) show() map[string]any {
	body := string(m.body)
	if m.kind != "text" {
		body = base64.StdEncoding.EncodeToString(m.body)
	}
	return map[string]any{"id": m.id, "body": body, "attempts": m.attempts, "lease_id": m.lease,
		"timestamp_ms": m.at.UnixMilli(), "metadata": map[string]string{"CF-Content-Type": m.kind}}
}

type settled struct {
	Lease string `json:"lease_id"`
	Delay *int64 `json:"delay_seconds"`
}

// ack settles messages. A lease whose time is over still acknowledges, as long as the message exists.
func (a *API) ack(r *http.Request) (any, error) {
	a.usage.Acks++
	q, err := a.find(r)
	if err != nil {
		return nil, err
	}
	if q.consumer == nil {
		return nil, errPull
	}
	var in struct {
		Acks    []settled `json:"acks"`
		Retries []settled `json:"retries"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if n := len(in.Acks) + len(in.Retries); n == 0 || n > MaxBatch {
		return nil, errBatch
	}
	for _, s := range in.Retries {
		if s.Delay != nil && (*s.Delay < 0 || *s.Delay > int64(MaxDelay.Seconds())) {
			return nil, errDelay
		}
	}
	a.expire(q)
	warnings := map[string]string{}
	acked, retried := 0, 0
	for _, s := range in.Acks {
		if m := q.leases[s.Lease]; m != nil {
			q.remove(m)
			a.usage.Deletes++
			acked++
		} else {
			warnings[s.Lease] = "the lease is unknown"
		}
	}
	for _, s := range in.Retries {
		if a.retry(q, s) {
			retried++
		} else {
			warnings[s.Lease] = "the lease is not the current one of a message"
		}
	}
	return map[string]any{"ackCount": acked, "retryCount": retried, "warnings": warnings}, nil
}

func (q *queue) remove(m *message) {
	q.waiting = slices.DeleteFunc(q.waiting, func(w *message) bool { return w == m })
	for lease, of := range q.leases {
		if of == m {
			delete(q.leases, lease)
		}
	}
}

// retry makes a message wait again, which ends its lease.
func (a *API) retry(q *queue, s settled) bool {
	m := q.leases[s.Lease]
	if m == nil || m.lease != s.Lease {
		return false
	}
	delay := q.consumer.Settings.RetryDelay
	if s.Delay != nil {
		delay = *s.Delay
	}
	delete(q.leases, s.Lease)
	m.lease, m.due = "", time.Now().Add(time.Duration(delay)*time.Second)
	if a.over(q, m) {
		q.remove(m)
	}
	return true
}

// Send adds a message to a queue as a producer does. kind is json, text or bytes.
func (a *API) Send(queue, kind, body string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.named(queue)
	if q == nil {
		return errQueue
	}
	a.add(q, kind, []byte(body), 0)
	return nil
}

// Purge deletes all messages of a queue.
func (a *API) Purge(queue string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if q := a.named(queue); q != nil {
		q.waiting, q.leases = nil, map[string]*message{}
	}
}

// Delete deletes a queue, with its consumer and the rules that send to it.
func (a *API) Delete(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queues = slices.DeleteFunc(a.queues, func(q *queue) bool { return q.name == name })
	for bucket, rules := range a.rules {
		a.rules[bucket] = slices.DeleteFunc(rules, func(r *rule) bool { return r.queue.name == name })
	}
}

// SetMaxRetries changes a queue's consumer, as somebody else might.
func (a *API) SetMaxRetries(queue string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if q := a.named(queue); q != nil && q.consumer != nil {
		q.consumer.Settings.MaxRetries = &n
	}
}

// Deleted returns the bodies of the messages that reached max_retries and went to no dead letter queue.
func (a *API) Deleted(queue string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if q := a.named(queue); q != nil {
		a.expire(q)
		return slices.Clone(q.deleted)
	}
	return nil
}

// Backlog returns how many messages of a queue wait, and how many are leased.
func (a *API) Backlog(queue string) (waiting, leased int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.named(queue)
	if q == nil {
		return 0, 0
	}
	a.expire(q)
	for _, m := range q.waiting {
		if m.lease != "" {
			leased++
		}
	}
	return len(q.waiting) - leased, leased
}
