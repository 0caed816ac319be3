package cloudflaretest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// rule is an event notification rule of a bucket.
type rule struct {
	ID          string   `json:"ruleId"`
	Created     string   `json:"createdAt"`
	Actions     []string `json:"actions"`
	Prefix      string   `json:"prefix"`
	Suffix      string   `json:"suffix"`
	Description string   `json:"description,omitempty"`

	queue *queue
}

// actions are those that a rule may name.
var actions = []string{"PutObject", "CopyObject", "DeleteObject", "CompleteMultipartUpload", "LifecycleDeletion"}

func (a *API) bucket(r *http.Request) (string, error) {
	a.usage.Others++
	name := r.PathValue("bucket")
	if a.buckets != nil && !a.buckets[name] {
		return "", errBucket
	}
	return name, nil
}

func (a *API) listRules(r *http.Request) (any, error) {
	bucket, err := a.bucket(r)
	if err != nil {
		return nil, err
	}
	queues := []any{}
	for _, q := range a.queues {
		var of []*rule
		for _, have := range a.rules[bucket] {
			if have.queue == q {
				of = append(of, have)
			}
		}
		if len(of) > 0 {
			queues = append(queues, map[string]any{"queueId": q.id, "queueName": q.name, "rules": of})
		}
	}
	return map[string]any{"bucketName": bucket, "queues": queues}, nil
}

func (a *API) createRules(r *http.Request) (any, error) {
	bucket, err := a.bucket(r)
	if err != nil {
		return nil, err
	}
	q, err := a.find(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Rules []*rule `json:"rules"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	for _, n := range in.Rules {
		unknown := func(action string) bool { return !slices.Contains(actions, action) }
		if len(n.Actions) == 0 || slices.ContainsFunc(n.Actions, unknown) {
			return nil, errBody
		}
		for _, have := range a.rules[bucket] {
			if n.overlaps(have) {
				return nil, errRule
			}
		}
	}
	for _, n := range in.Rules {
		n.ID, n.Created, n.queue = a.id(), time.Now().UTC().Format(time.RFC3339), q
		a.rules[bucket] = append(a.rules[bucket], n)
	}
	return map[string]any{}, nil
}

// overlaps reports whether one request could trigger both rules, which R2 refuses.
func (r *rule) overlaps(other *rule) bool {
	shared := slices.ContainsFunc(r.Actions, func(s string) bool { return slices.Contains(other.Actions, s) })
	prefix := strings.HasPrefix(r.Prefix, other.Prefix) || strings.HasPrefix(other.Prefix, r.Prefix)
	suffix := strings.HasSuffix(r.Suffix, other.Suffix) || strings.HasSuffix(other.Suffix, r.Suffix)
	return shared && prefix && suffix
}

// Object is what a bucket tells of an object.
type Object struct {
	Key  string `json:"key"`
	Size int64  `json:"size"`
	ETag string `json:"eTag"`
}

// Notify sends the notifications that a bucket's rules ask for, and returns how many. action is PutObject,
// CompleteMultipartUpload and so on.
func (a *API) Notify(bucket, action string, o Object) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, r := range a.rules[bucket] {
		if !slices.Contains(r.Actions, action) || !strings.HasPrefix(o.Key, r.Prefix) ||
			!strings.HasSuffix(o.Key, r.Suffix) {
			continue
		}
		body, _ := json.Marshal(map[string]any{"account": a.account, "action": action, "bucket": bucket, "object": o,
			"eventTime": time.Now().UTC().Format("2006-01-02T15:04:05.000Z")}) // texts and a number: it cannot fail
		a.add(r.queue, "json", body, 0)
		n++
	}
	return n
}
