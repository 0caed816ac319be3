package objstore

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

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
func CodeOf(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

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
		return retry.As(retry.Permanent, brief{err})
	}
	if _, ok := errors.AsType[pipeline.RefusedError](err); ok {
		return retry.As(retry.Outage, err) // it has a text that helps
	}
	return retry.As(retry.Outage, brief{err})
}

// brief is an error of the SDK without the names of its requests, which take hundreds of characters.
type brief struct{ err error }

func (e brief) Unwrap() error { return e.err }

func (e brief) Error() string {
	if api, ok := errors.AsType[smithy.APIError](e.err); ok {
		text := fmt.Sprintf("%s (status %d)", api.ErrorCode(), status(e.err))
		if message := api.ErrorMessage(); message != "" && message != "UnknownError" {
			text += ": " + message
		}
		return text
	}
	if sent, ok := errors.AsType[*url.Error](e.err); ok {
		return sent.Err.Error()
	}
	if op, ok := errors.AsType[*smithy.OperationError](e.err); ok {
		return op.Err.Error()
	}
	return e.err.Error()
}
