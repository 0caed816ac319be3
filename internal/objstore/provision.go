package objstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/provision"
)

// Name is the bucket's.
func (b *Bucket) Name() string { return b.name }

// Setup creates the bucket if it is missing.
func (b *Bucket) Setup(ctx context.Context, plan *provision.Plan) error {
	err := b.Ping(ctx)
	if err == nil {
		plan.Found("bucket", "%s", b.name)
		return nil
	}
	if CodeOf(err) != "NoSuchBucket" {
		return err
	}
	byHand := "  aws s3api create-bucket --bucket " + b.name
	if r := b.location(); r != "" {
		byHand += " --region " + r + " --create-bucket-configuration LocationConstraint=" + r
	}
	return plan.Make(provision.Change{Subject: "bucket", What: "created " + b.name, ByHand: byHand,
		Do: func() error { return b.Create(ctx) }})
}

// location is the region that AWS wants to be told of a new bucket; empty: none.
func (b *Bucket) location() string {
	if b.region == "us-east-1" { // there it is an error to name it
		return ""
	}
	return b.region
}

// Create makes the bucket where it is missing.
func (b *Bucket) Create(ctx context.Context) error {
	in := &s3.CreateBucketInput{Bucket: &b.name}
	if r := b.location(); r != "" {
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{
			LocationConstraint: types.BucketLocationConstraint(r)}
	}
	_, err := b.client.CreateBucket(ctx, in)
	var owned *types.BucketAlreadyOwnedByYou
	if err != nil && !errors.As(err, &owned) {
		if status(err) == http.StatusConflict && b.Ping(ctx) == nil {
			return nil
		}
		return denied(fmt.Errorf("create bucket %s: %w", b.name, class(err)))
	}
	return nil
}

// denied marks an error of missing rights.
func denied(err error) error {
	if code := CodeOf(err); code == "AccessDenied" || code == "Forbidden" {
		return provision.Denied{Err: err}
	}
	return err
}

// rulePrefix begins the names of the notification rules that are ours.
const rulePrefix = "penstock-"

// Notify makes the store send object-created notifications of each pipeline to a queue; arns are by pipeline name.
// Rules of others stay.
func (b *Bucket) Notify(ctx context.Context, specs []pipeline.Spec, arns map[string]string,
	plan *provision.Plan) error {
	have, err := b.client.GetBucketNotificationConfiguration(ctx,
		&s3.GetBucketNotificationConfigurationInput{Bucket: &b.name})
	if err != nil {
		err = denied(fmt.Errorf("read notification rules of %s: %w", b.name, class(err)))
		if _, unknown := errors.AsType[provision.Denied](err); !unknown && (plan == nil || !plan.DryRun) {
			return err
		}
		have = &s3.GetBucketNotificationConfigurationOutput{} // a dry run has no bucket yet
	}
	ours := rules(specs, arns)
	kept, old := others(have.QueueConfigurations)
	if err == nil && slices.Equal(targets(ours), targets(old)) {
		plan.Found("notifications", "%s", strings.Join(targets(ours), ", "))
		return nil
	}
	reading := err
	return plan.Make(provision.Change{Subject: "notifications",
		What: fmt.Sprintf("set rules of bucket %s: %s", b.name, strings.Join(targets(ours), ", ")),
		ByHand: fmt.Sprintf("  aws s3api get-bucket-notification-configuration --bucket %[1]s\n  # add its rules to these:\n"+
			"  aws s3api put-bucket-notification-configuration --bucket %[1]s --notification-configuration '%[2]s'",
			b.name, rulesJSON(ours)),
		Do: func() error {
			if reading != nil {
				return reading // what cannot be read must not be replaced
			}
			_, err := b.client.PutBucketNotificationConfiguration(ctx, &s3.PutBucketNotificationConfigurationInput{
				Bucket: &b.name,
				NotificationConfiguration: &types.NotificationConfiguration{
					QueueConfigurations: append(kept, ours...), TopicConfigurations: have.TopicConfigurations,
					LambdaFunctionConfigurations: have.LambdaFunctionConfigurations,
					EventBridgeConfiguration:     have.EventBridgeConfiguration,
				},
			})
			if err != nil {
				return denied(fmt.Errorf("set notification rules of %s: %w", b.name, class(err)))
			}
			return nil
		}})
}

// created are all ways to create an object: a large one comes by multipart.
const created types.Event = "s3:ObjectCreated:*"

// rules are those of the pipelines.
func rules(specs []pipeline.Spec, arns map[string]string) (all []types.QueueConfiguration) {
	for _, s := range specs {
		all = append(all, types.QueueConfiguration{
			Id:       aws.String(rulePrefix + s.Name),
			QueueArn: aws.String(arns[s.Name]),
			Events:   []types.Event{created},
			Filter: &types.NotificationConfigurationFilter{Key: &types.S3KeyFilter{FilterRules: []types.FilterRule{
				{Name: types.FilterRuleNamePrefix, Value: aws.String(s.Prefix)}}}},
		})
	}
	return all
}

// others splits rules into those of others and ours.
func others(all []types.QueueConfiguration) (kept, ours []types.QueueConfiguration) {
	for _, q := range all {
		if strings.HasPrefix(aws.ToString(q.Id), rulePrefix) {
			ours = append(ours, q)
		} else {
			kept = append(kept, q)
		}
	}
	return kept, ours
}

// targets are rules for people, as "events/ -> ARN", in their order. Rules that are alike have the same text.
func targets(all []types.QueueConfiguration) (texts []string) {
	for _, q := range all {
		text := ""
		if q.Filter != nil && q.Filter.Key != nil {
			for _, f := range q.Filter.Key.FilterRules {
				if !strings.EqualFold(string(f.Name), string(types.FilterRuleNamePrefix)) {
					text += string(f.Name) + " "
				}
				text += aws.ToString(f.Value)
			}
		}
		text += " -> " + aws.ToString(q.QueueArn)
		if len(q.Events) != 1 || q.Events[0] != created {
			text += fmt.Sprint(" for ", q.Events)
		}
		texts = append(texts, text)
	}
	slices.Sort(texts)
	return texts
}

// rulesJSON are rules as the AWS CLI reads them.
func rulesJSON(all []types.QueueConfiguration) string {
	type (
		filterRule struct{ Name, Value string }
		rule       struct {
			ID       string `json:"Id"`
			QueueArn string
			Events   []types.Event
			Filter   struct {
				Key struct{ FilterRules []filterRule }
			}
		}
		configuration struct{ QueueConfigurations []rule }
	)
	var c configuration
	for _, q := range all {
		r := rule{ID: aws.ToString(q.Id), QueueArn: aws.ToString(q.QueueArn), Events: q.Events}
		for _, f := range q.Filter.Key.FilterRules {
			r.Filter.Key.FilterRules = append(r.Filter.Key.FilterRules, filterRule{string(f.Name), aws.ToString(f.Value)})
		}
		c.QueueConfigurations = append(c.QueueConfigurations, r)
	}
	text, _ := json.Marshal(c) // only texts: it cannot fail
	return string(text)
}
