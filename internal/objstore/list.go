package objstore

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/penstock/penstock/internal/pipeline"
)

// List calls page with the objects whose keys begin with prefix, in the order
// of their keys, at most 1000 a call. Their Meta is not known.
func (b *Bucket) List(ctx context.Context, prefix string, page func([]pipeline.Object) error) error {
	in := &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: &prefix}
	for {
		out, err := b.client.ListObjectsV2(ctx, in)
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, class(err))
		}
		objects := make([]pipeline.Object, len(out.Contents))
		for i, c := range out.Contents {
			objects[i] = pipeline.Object{Key: aws.ToString(c.Key), ETag: unquote(c.ETag), Size: aws.ToInt64(c.Size), Modified: aws.ToTime(c.LastModified)}
		}
		if len(objects) > 0 {
			if err := page(objects); err != nil {
				return err
			}
		}
		if !aws.ToBool(out.IsTruncated) {
			return nil
		}
		in.ContinuationToken = out.NextContinuationToken
	}
}
