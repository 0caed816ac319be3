package objstore

import (
	"context"
	"fmt"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/penstock/penstock/internal/pipeline"
)

// List calls page with the objects whose keys begin with prefix and are greater
// than after and less than before, in the order of their keys, at most 1000 a
// call. An empty after or before is no bound. Their Meta is not known.
//
// Keys are asked for in URL encoding: XML has no place for control characters, so one such key would make every listing
// that meets it unreadable.
func (b *Bucket) List(ctx context.Context, prefix, after, before string, page func([]pipeline.Object) error) error {
	in := &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: &prefix, EncodingType: types.EncodingTypeUrl}
	if after != "" {
		in.StartAfter = &after
	}
	for {
		out, err := b.client.ListObjectsV2(ctx, in)
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, class(err))
		}
		objects := make([]pipeline.Object, 0, len(out.Contents))
		end := !aws.ToBool(out.IsTruncated)
		for _, c := range out.Contents {
			key := aws.ToString(c.Key)
			if out.EncodingType == types.EncodingTypeUrl { // else the store does not know of it
				if key, err = url.QueryUnescape(key); err != nil {
					return fmt.Errorf("list %s: key %q in the store's answer: %w", prefix, aws.ToString(c.Key), err)
				}
			}
			if before != "" && key >= before {
				end = true
				break
			}
			objects = append(objects, pipeline.Object{Key: key, ETag: unquote(c.ETag), Size: aws.ToInt64(c.Size),
				Modified: aws.ToTime(c.LastModified)})
		}
		if len(objects) > 0 {
			if err := page(objects); err != nil {
				return err
			}
		}
		if end {
			return nil
		}
		in.ContinuationToken = out.NextContinuationToken
	}
}
