package sqs

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/penstock/penstock/internal/awsclient"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/provision"
	"github.com/penstock/penstock/internal/queue"
)

// Setup creates missing queues. With a plan, it also updates attributes and warns of harmful ones. A plan means that a
// person ran setup.
func (q *Queue) Setup(ctx context.Context, specs []pipeline.Spec, plan *provision.Plan) error {
	for _, s := range specs {
		have, err := q.attributes(ctx, s)
		switch {
		case missing(err):
			err = q.create(ctx, s, plan)
		case err == nil && plan != nil:
			err = q.update(ctx, s, have, plan)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// wanted are the attributes of our queues. The lease is only for other consumers: ours set it in each request.
func (q *Queue) wanted() map[string]string {
	return map[string]string{
		string(types.QueueAttributeNameVisibilityTimeout):             fmt.Sprint(seconds(q.opts.AckWait)),
		string(types.QueueAttributeNameMessageRetentionPeriod):        fmt.Sprint(seconds(min(q.opts.MaxAge, maxAge))),
		string(types.QueueAttributeNameReceiveMessageWaitTimeSeconds): fmt.Sprint(seconds(maxWait)),
	}
}

func (q *Queue) create(ctx context.Context, s pipeline.Spec, plan *provision.Plan) error {
	name, want := q.name(s), q.wanted()
	return plan.Make(provision.Change{Subject: "queue", What: "created " + name,
		ByHand: "  aws sqs create-queue --queue-name " + name + " --attributes " + shorthand(want),
		Do: func() error {
			_, err := q.client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name, Attributes: want})
			return denied(err, q.failed("create queue "+name, err))
		}})
}

func (q *Queue) update(ctx context.Context, s pipeline.Spec, have map[string]string, plan *provision.Plan) error {
	name := q.name(s)
	change := map[string]string{}
	for k, v := range q.wanted() {
		if have[k] != v {
			change[k] = v
		}
	}
	if len(change) == 0 {
		plan.Found("queue", "%s", name)
	} else if err := plan.Make(provision.Change{Subject: "queue",
		What:   fmt.Sprintf("set attributes of %s: %s", name, shorthand(change)),
		ByHand: q.attributesByHand(s, change),
		Do:     func() error { return q.setAttributes(ctx, s, change) }}); err != nil {
		return err
	}
	for _, text := range warnings(have) {
		plan.Warn("queue", "%s: %s", name, text)
	}
	return nil
}

func (q *Queue) setAttributes(ctx context.Context, s pipeline.Spec, change map[string]string) error {
	to, err := q.open(ctx, s)
	if err != nil {
		return err
	}
	_, err = q.client.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{QueueUrl: &to.url, Attributes: change})
	return denied(err, q.failed("set attributes of queue "+q.name(s), err))
}

// attributesByHand returns the command for a person who has the rights.
func (q *Queue) attributesByHand(s pipeline.Spec, change map[string]string) string {
	text, _ := json.Marshal(change) // only strings: cannot fail
	return fmt.Sprintf("  aws sqs set-queue-attributes \\\n    --queue-url \"$(aws sqs get-queue-url --queue-name %s "+
		"--query QueueUrl --output text)\" \\\n    --attributes '%s'", q.name(s), text)
}

// shorthand formats attributes for the AWS CLI.
func shorthand(attributes map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(attributes)) {
		all = append(all, k+"="+attributes[k])
	}
	return strings.Join(all, ",")
}

// denied marks an error of missing rights; nil stays nil.
func denied(err, failed error) error {
	switch code := awsclient.CodeOf(err); {
	case err == nil:
		return nil
	case code == "AccessDenied", code == "AccessDeniedException":
		return provision.Denied{Err: failed}
	}
	return failed
}

// warnings describes harmful attributes of a queue.
func warnings(have map[string]string) (all []string) {
	var redrive struct {
		Target string          `json:"deadLetterTargetArn"`
		Max    json.RawMessage `json:"maxReceiveCount"` // a number or a string
	}
	policy := have[string(types.QueueAttributeNameRedrivePolicy)]
	if policy != "" && json.Unmarshal([]byte(policy), &redrive) == nil {
		all = append(all, fmt.Sprintf("it has a redrive policy: after %s deliveries SQS moves a notification to %s, "+
			"although "+
			"Penstock has not given its object up (an outage of ClickHouse uses deliveries up). A sweep then finds the "+
			"object. Penstock's dead letters are in the load ledger (penstock dlq list): remove the policy, or set "+
			"maxReceiveCount to 1000", strings.Trim(string(redrive.Max), `"`),
			redrive.Target))
	}
	if key := have[string(types.QueueAttributeNameKmsMasterKeyId)]; strings.HasSuffix(key, "alias/aws/sqs") {
		all = append(all, "it is encrypted with the key alias/aws/sqs, which S3 may not use, so no notification "+
			"arrives: use "+
			"SSE-SQS (SqsManagedSseEnabled=true), or a key whose policy allows s3.amazonaws.com")
	}
	if have[string(types.QueueAttributeNameFifoQueue)] == "true" {
		all = append(all, "it is a FIFO queue, to which S3 sends no notifications: use a standard queue")
	}
	if delay, _ := strconv.Atoi(have[string(types.QueueAttributeNameDelaySeconds)]); delay > 0 {
		all = append(all, fmt.Sprintf("it delays each notification by %d s (DelaySeconds), and so do the rows arrive", delay))
	}
	return all
}

// Subscribe allows the bucket to send to the queues, and sets its notification rules.
func (q *Queue) Subscribe(ctx context.Context, store queue.Store, specs []pipeline.Spec, plan *provision.Plan) error {
	arns := map[string]string{}
	for _, s := range specs {
		have, err := q.attributes(ctx, s)
		if missing(err) && (plan == nil || !plan.DryRun) { // Setup was not allowed to create it
			plan.Warn("notifications", "queue %s does not exist: create it, then run \"penstock setup\" again to set "+
				"its policy "+
				"and the rules of bucket %s", q.name(s), store.Name())
			return nil
		}
		if missing(err) {
			arns[s.Name] = fmt.Sprintf("arn:aws:sqs:%s:ACCOUNT:%s", q.opts.AWS.Region, q.name(s))
			have, err = map[string]string{}, nil
		} else if err == nil {
			arns[s.Name] = have[string(types.QueueAttributeNameQueueArn)]
		}
		if err == nil {
			err = q.allow(ctx, s, store.Name(), arns[s.Name], have[string(types.QueueAttributeNamePolicy)], plan)
		}
		if err != nil {
			return err
		}
	}
	return store.Notify(ctx, specs, arns, plan)
}

// policySid is the name of our statement in a queue's policy.
const policySid = "PenstockNotifications"

// allow lets the bucket send to a queue. Other statements in the queue's policy stay.
func (q *Queue) allow(ctx context.Context, s pipeline.Spec, bucket, arn, policy string, plan *provision.Plan) error {
	merged, ok, err := allowed(policy, bucket, arn)
	if err != nil {
		return fmt.Errorf("policy of queue %s: %w", q.name(s), err)
	}
	if ok {
		plan.Found("queue policy", "bucket %s may send to %s", bucket, q.name(s))
		return nil
	}
	change := map[string]string{string(types.QueueAttributeNamePolicy): merged}
	return plan.Make(provision.Change{Subject: "queue policy",
		What:   fmt.Sprintf("let bucket %s send to %s", bucket, q.name(s)),
		ByHand: q.attributesByHand(s, change),
		Do:     func() error { return q.setAttributes(ctx, s, change) }})
}

// allowed returns a queue's policy with our statement added; ok: the policy already had it.
func allowed(policy, bucket, arn string) (merged string, ok bool, err error) {
	parts := strings.Split(arn, ":") // arn:aws:sqs:REGION:ACCOUNT:NAME
	if len(parts) != 6 {
		return "", false, fmt.Errorf("the ARN %q of the queue has not six parts", arn)
	}
	statement := map[string]any{
		"Sid": policySid, "Effect": "Allow", "Principal": map[string]any{"Service": "s3.amazonaws.com"},
		"Action": "sqs:SendMessage", "Resource": arn,
		"Condition": map[string]any{
			"ArnEquals":    map[string]any{"aws:SourceArn": "arn:" + parts[1] + ":s3:::" + bucket},
			"StringEquals": map[string]any{"aws:SourceAccount": parts[4]},
		},
	}
	doc := map[string]any{"Version": "2012-10-17"}
	if policy != "" {
		if err := json.Unmarshal([]byte(policy), &doc); err != nil {
			return "", false, fmt.Errorf("read %s: %w", policy, err)
		}
	}
	statements, isList := doc["Statement"].([]any)
	if !isList && doc["Statement"] != nil {
		statements = []any{doc["Statement"]}
	}
	kept := slices.DeleteFunc(slices.Clone(statements), func(s any) bool {
		m, _ := s.(map[string]any)
		return m["Sid"] == policySid
	})
	ok = slices.ContainsFunc(statements, func(s any) bool { return reflect.DeepEqual(s, any(statement)) })
	doc["Statement"] = append(kept, statement)
	text, err := json.Marshal(doc)
	return string(text), ok, err
}
