package objstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/penstock/penstock/internal/awsclient"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// Ping reports whether the bucket can be listed. It asks by GET: only answers to that say why not.
func (b *Bucket) Ping(ctx context.Context) error {
	if _, err := b.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &b.name, MaxKeys: aws.Int32(1)}); err != nil {
		return fmt.Errorf("list bucket %s: %w", b.name, class(err))
	}
	return nil
}

// CodeOf is the store's own code of an error, as NoSuchBucket; empty: the store did not answer.
func CodeOf(err error) string { return awsclient.CodeOf(err) }

// class decides what kind of failure an error is. Only a missing object is the
// object's own; all else says that the store cannot serve now.
func class(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	switch CodeOf(err) {
	case "NoSuchKey", "NotFound":
		return retry.As(retry.Permanent, ErrNotFound) // the store's own words name only its request
	case "InvalidRange":
		return retry.As(retry.Permanent, awsclient.Brief{Err: err})
	}
	if _, ok := errors.AsType[pipeline.RefusedError](err); ok {
		return retry.As(retry.Outage, err) // it has a text that helps
	}
	return retry.As(retry.Outage, awsclient.Brief{Err: err})
}
