package cloudflare

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/provision"
	"github.com/penstock/penstock/internal/queue"
)

// maxRetries is Cloudflare's maximum. The loader counts attempts itself.
const maxRetries = 100

// httpPull is the type of consumers outside of Cloudflare.
const httpPull = "http_pull"

// consumerInfo is a queue's consumer in the API.
type consumerInfo struct {
	ID         string         `json:"consumer_id,omitempty"`
	Type       string         `json:"type"`
	Script     string         `json:"script,omitempty"` // of a Worker
	DeadLetter string         `json:"dead_letter_queue,omitempty"`
	Settings   map[string]any `json:"settings"`
}

// Setup creates the pipelines' queues, and lets loaders pull from them.
func (q *Queue) Setup(ctx context.Context, specs []pipeline.Spec, plan *provision.Plan) error {
	for _, s := range specs {
		name := q.name(s)
		info, found, err := q.find(ctx, name)
		if err != nil {
			return fmt.Errorf("find queue %s: %w", name, err)
		}
		if !found {
			err = plan.Make(provision.Change{Subject: "queue", What: "created " + name,
				ByHand: "  npx wrangler queues create " + name,
				Do: func() error {
					info, err = q.create(ctx, name)
					return err
				}})
			if err != nil {
				return err
			}
		} else {
			plan.Found("queue", "%s", name)
		}
		if info.ID != "" { // empty in a dry run, or if creation was denied
			q.remember(name, info.ID)
		}
		if err := q.setupConsumer(ctx, info, name, plan); err != nil {
			return err
		}
	}
	return nil
}

func (q *Queue) create(ctx context.Context, name string) (info queueInfo, err error) {
	err = q.api.call(ctx, http.MethodPost, "/queues", map[string]string{"queue_name": name}, &info)
	if as(err).code == codeTaken { // another process created it meanwhile
		info, _, err = q.find(ctx, name)
	}
	if err != nil {
		return queueInfo{}, denied(fmt.Errorf("create queue %s: %w", name, err))
	}
	return info, nil
}

// setupConsumer adds the HTTP pull consumer, or sets its lease and retries. Other settings stay.
func (q *Queue) setupConsumer(ctx context.Context, info queueInfo, name string, plan *provision.Plan) error {
	have, err := q.consumer(ctx, info)
	if err != nil {
		return fmt.Errorf("read the consumer of queue %s: %w", name, err)
	}
	if have.Type != httpPull {
		return fmt.Errorf("queue %s has the consumer %q of type %s, which takes the notifications: remove it by "+
			"\"npx wrangler queues consumer worker remove %[1]s %[2]s\", or set queue.cloudflare.queue to another name",
			name, have.Script, have.Type)
	}
	want := map[string]any{"max_retries": float64(maxRetries), "visibility_timeout_ms": float64(q.lease().Milliseconds())}
	if have.DeadLetter != "" {
		plan.Warn("queue", "%s: messages go to %s after %d retries, where nobody reads them; sweeps find their objects",
			name, have.DeadLetter, maxRetries)
	}
	what, method := "added the HTTP pull consumer of", http.MethodPost
	path := "/queues/" + url.PathEscape(info.ID) + "/consumers"
	set := consumerInfo{Type: httpPull, DeadLetter: have.DeadLetter, Settings: map[string]any{}}
	for field, value := range have.Settings {
		set.Settings[field] = value
	}
	if have.ID != "" {
		if have.Settings["max_retries"] == want["max_retries"] &&
			have.Settings["visibility_timeout_ms"] == want["visibility_timeout_ms"] {
			plan.Found("queue", "%s: HTTP pull consumer", name)
			return nil
		}
		what, method, path = "changed the HTTP pull consumer of", http.MethodPut, path+"/"+url.PathEscape(have.ID)
	}
	for field, value := range want {
		set.Settings[field] = value
	}
	return plan.Make(provision.Change{Subject: "queue",
		What: fmt.Sprintf("%s %s: %d retries, a lease of %s", what, name, maxRetries, q.lease()),
		ByHand: fmt.Sprintf("  npx wrangler queues consumer http add %s --message-retries %d --visibility-timeout-secs %d",
			name, maxRetries, int(q.lease().Seconds())),
		Do: func() error {
			if info.ID == "" {
				return provision.Denied{Err: fmt.Errorf("the queue %s is missing", name)}
			}
			err := q.api.call(ctx, method, path, set, nil)
			if err != nil && as(err).code != codeConsumer { // unless another process has added it
				return denied(fmt.Errorf("set up the consumer of queue %s: %w", name, err))
			}
			return nil
		}})
}

// consumer returns a queue's consumer, or one without an ID. A queue has at most one.
func (q *Queue) consumer(ctx context.Context, info queueInfo) (consumerInfo, error) {
	if info.ID == "" {
		return consumerInfo{Type: httpPull}, nil
	}
	var all []consumerInfo
	err := q.api.call(ctx, http.MethodGet, "/queues/"+url.PathEscape(info.ID)+"/consumers", nil, &all)
	if err != nil || len(all) == 0 {
		return consumerInfo{Type: httpPull}, err
	}
	return all[0], nil
}

// denied marks an error of missing permissions.
func denied(err error) error {
	if as(err).rejected() {
		return provision.Denied{Err: err}
	}
	return err
}

// created are the R2 actions that create an object.
var created = []string{"PutObject", "CopyObject", "CompleteMultipartUpload"}

// bucketRule is an event notification rule of a bucket.
type bucketRule struct {
	ID          string   `json:"ruleId,omitempty"`
	Actions     []string `json:"actions"`
	Prefix      string   `json:"prefix"`
	Suffix      string   `json:"suffix,omitempty"`
	Description string   `json:"description,omitempty"`
	queue       string   // the name
}

// Subscribe creates the notification rules of the R2 bucket. Other rules stay.
func (q *Queue) Subscribe(ctx context.Context, store queue.Store, specs []pipeline.Spec, plan *provision.Plan) error {
	have, err := q.rules(ctx, store.Name())
	dry := plan != nil && plan.DryRun && as(err).code == codeBucket // in a dry run the bucket may not exist yet
	if err != nil && !as(err).rejected() && !dry {
		return fmt.Errorf("read notification rules of bucket %s: %w", store.Name(), err)
	}
	for _, s := range specs {
		if err := q.subscribe(ctx, store.Name(), s, have, plan); err != nil {
			return err
		}
	}
	return nil
}

// subscribe creates the rule of one pipeline. R2 rejects two rules for the same action that match the same object.
func (q *Queue) subscribe(ctx context.Context, bucket string, s pipeline.Spec, have []bucketRule,
	plan *provision.Plan) error {
	name, missing := q.name(s), slices.Clone(created)
	for _, r := range have {
		if r.queue == name && r.Prefix == s.Prefix && r.Suffix == "" {
			missing = slices.DeleteFunc(missing, func(action string) bool { return slices.Contains(r.Actions, action) })
		}
	}
	if len(missing) == 0 {
		plan.Found("notifications", "bucket %s, %s -> queue %s", bucket, s.Prefix, name)
		return nil
	}
	byHand := fmt.Sprintf("  npx wrangler r2 bucket notification create %s --event-type object-create --prefix %s "+
		"--queue %s", bucket, s.Prefix, name)
	other, conflict := overlapping(have, s, missing)
	if conflict {
		byHand = fmt.Sprintf("  npx wrangler r2 bucket notification delete %s --queue %s --rule %s\n", bucket, other.queue,
			other.ID) + byHand
	}
	return plan.Make(provision.Change{Subject: "notifications", ByHand: byHand,
		What: fmt.Sprintf("created rule of bucket %s: %s of %s -> queue %s", bucket, strings.Join(missing, ", "), s.Prefix,
			name),
		Do: func() error {
			if conflict {
				return provision.Denied{Err: fmt.Errorf("the bucket has the rule %q for objects below %q to queue %s, "+
					"and R2 allows one rule for an object", other.ID, other.Prefix, other.queue)}
			}
			path, err := q.path(ctx, s)
			if err != nil {
				return denied(err)
			}
			rule := bucketRule{Actions: missing, Prefix: s.Prefix, Description: "penstock " + s.Name}
			err = q.r2(ctx, http.MethodPut, bucket, path, map[string]any{"rules": []bucketRule{rule}}, nil)
			if err != nil {
				return denied(fmt.Errorf("create notification rule of bucket %s: %w", bucket, err))
			}
			return nil
		}})
}

// overlapping returns another rule that matches objects of the pipeline for one of the actions.
func overlapping(have []bucketRule, s pipeline.Spec, actions []string) (bucketRule, bool) {
	i := slices.IndexFunc(have, func(r bucketRule) bool {
		shared := slices.ContainsFunc(actions, func(action string) bool { return slices.Contains(r.Actions, action) })
		return shared && (strings.HasPrefix(r.Prefix, s.Prefix) || strings.HasPrefix(s.Prefix, r.Prefix))
	})
	if i < 0 {
		return bucketRule{}, false
	}
	return have[i], true
}

// rules lists a bucket's rules.
func (q *Queue) rules(ctx context.Context, bucket string) ([]bucketRule, error) {
	var out struct {
		Queues []struct {
			Name  string       `json:"queueName"`
			Rules []bucketRule `json:"rules"`
		} `json:"queues"`
	}
	err := q.r2(ctx, http.MethodGet, bucket, "", nil, &out)
	if e := as(err); e.status == http.StatusNotFound && e.code != codeBucket {
		return nil, nil // it never had rules
	}
	if err != nil {
		return nil, err
	}
	var all []bucketRule
	for _, of := range out.Queues {
		for _, r := range of.Rules {
			r.queue = of.Name
			all = append(all, r)
		}
	}
	return all, nil
}

// r2 calls the API of event notifications.
func (q *Queue) r2(ctx context.Context, method, bucket, path string, in, out any) error {
	a := q.api
	a.jurisdiction = q.opts.Jurisdiction
	return a.call(ctx, method, "/event_notifications/r2/"+url.PathEscape(bucket)+"/configuration"+path, in, out)
}
