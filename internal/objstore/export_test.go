package objstore

import (
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func (b *Bucket) ruleNames(ctx context.Context) ([]string, error) {
	have, err := b.client.GetBucketNotificationConfiguration(ctx,
		&s3.GetBucketNotificationConfigurationInput{Bucket: &b.name})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, q := range have.QueueConfigurations {
		names = append(names, aws.ToString(q.Id))
	}
	slices.Sort(names)
	return names, nil
}

func (b *Bucket) renameRule(ctx context.Context, from, to string) error {
	have, err := b.client.GetBucketNotificationConfiguration(ctx,
		&s3.GetBucketNotificationConfigurationInput{Bucket: &b.name})
	if err != nil {
		return err
	}
	for i, q := range have.QueueConfigurations {
		if aws.ToString(q.Id) == from {
			have.QueueConfigurations[i].Id = aws.String(to)
		}
	}
	_, err = b.client.PutBucketNotificationConfiguration(ctx, &s3.PutBucketNotificationConfigurationInput{Bucket: &b.name,
		NotificationConfiguration: &types.NotificationConfiguration{QueueConfigurations: have.QueueConfigurations}})
	return err
}
