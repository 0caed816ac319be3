// Package objstore is the adapter to S3-compatible stores: MinIO, R2, S3.
package objstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsretry "github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/penstock/penstock/internal/awsclient"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// Options are how to reach a bucket.
type Options struct {
	Endpoint  string // URL; empty: AWS
	Region    string // "auto" for R2
	Bucket    string
	AccessKey string // empty: AWS's default chain
	SecretKey string
	PathStyle bool // bucket in the path, not in the host's name: MinIO

	SessionToken string // of temporary keys
	Profile      string // of AWS's shared files, if there are no keys
	RoleARN      string // assumed with these credentials; empty: none

	TLS *tls.Config // of an https endpoint; nil: the system's CAs
}

// Bucket is one bucket.
type Bucket struct {
	client *s3.Client
	name   string
	region string // for a new bucket; empty: the store has none
	etag   etags

	unconditional atomic.Bool // the store ignores If-None-Match

	http     s3.HTTPClient
	endpoint string // as it is asked for its time
}

// ErrNotFound says that there is no such object.
var ErrNotFound = errors.New("no such object")

// Open makes a client; it does not connect.
func Open(opts Options) *Bucket {
	cfg := awsclient.Options{Region: opts.Region, AccessKey: opts.AccessKey, SecretKey: opts.SecretKey,
		SessionToken: opts.SessionToken, Profile: opts.Profile, RoleARN: opts.RoleARN, TLS: opts.TLS}.Config()
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		if opts.Endpoint != "" {
			o.BaseEndpoint = aws.String(opts.Endpoint)
		}
		o.UsePathStyle = opts.PathStyle
		o.Retryer = politeRetryer{awsretry.NewStandard()}
	})
	endpoint := opts.Endpoint
	if endpoint == "" {
		endpoint = "https://s3." + opts.Region + ".amazonaws.com"
	}
	b := &Bucket{client: client, name: opts.Bucket, http: cfg.HTTPClient, endpoint: endpoint}
	if opts.Endpoint == "" {
		b.region = opts.Region
	}
	return b
}

// perKey is the time between two writes of one key that R2 accepts, and a little more.
const perKey = 1100 * time.Millisecond

// politeRetryer waits for perKey after a 429. Claims and probes write a key twice within a second.
type politeRetryer struct{ *awsretry.Standard }

func (p politeRetryer) RetryDelay(attempt int, err error) (time.Duration, error) {
	if status(err) == http.StatusTooManyRequests {
		return perKey, nil
	}
	return p.Standard.RetryDelay(attempt, err)
}

// Put stores an object under a free key. If the key is taken, Put compares the sha256. It succeeds if the object is the
// same (an earlier attempt whose answer was lost), and returns a pipeline.ConflictError otherwise.
func (b *Bucket) Put(ctx context.Context, key string, body io.ReadSeeker, size int64,
	meta pipeline.Meta) (pipeline.Object, error) {
	contentType := "application/octet-stream"
	if f, _ := pipeline.FormatOf(key); f == pipeline.Parquet {
		contentType = "application/vnd.apache.parquet"
	} else if f == pipeline.NDJSON {
		contentType = "application/zstd"
	}
	if found, taken, err := b.taken(ctx, key); err != nil {
		return pipeline.Object{}, fmt.Errorf("put object %s: %w", key, err)
	} else if taken {
		return same(found, meta)
	}
	out, err := b.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &b.name, Key: &key, Body: body, ContentLength: &size,
		ContentType: &contentType, Metadata: meta.Map(), IfNoneMatch: aws.String("*"),
	})
	if status(err) == http.StatusPreconditionFailed {
		found, err := b.stored(ctx, key)
		if err != nil {
			return pipeline.Object{}, fmt.Errorf("put object %s: %w", key, err)
		}
		return same(found, meta)
	}
	if err != nil {
		return pipeline.Object{}, fmt.Errorf("put object %s: %w", key, class(refusedPut(err)))
	}
	o := pipeline.Object{Key: key, ETag: unquote(out.ETag), Size: size, Modified: time.Now(), Meta: meta}
	o.ETag = b.etag.settle(ctx, o, b.Head)
	return o, nil
}

// same is the object under a key that is taken, if it is the one that was to be put.
func same(found pipeline.Object, meta pipeline.Meta) (pipeline.Object, error) {
	if found.Meta.SHA256 != meta.SHA256 {
		return pipeline.Object{}, fmt.Errorf("put object: %w", pipeline.ConflictError{Found: found})
	}
	return found, nil
}

// Head asks for an object's size, ETag and metadata. Broken metadata is empty here, so that one object cannot stop a
// listing. Get reports it.
func (b *Bucket) Head(ctx context.Context, key string) (pipeline.Object, error) {
	out, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.name, Key: &key})
	if err != nil {
		return pipeline.Object{}, fmt.Errorf("head object %s: %w", key, class(err))
	}
	o, _ := object(key, out.ETag, out.ContentLength, out.LastModified, out.Metadata)
	return o, nil
}

// stored is the object under a key that a PUT has found taken.
func (b *Bucket) stored(ctx context.Context, key string) (pipeline.Object, error) {
	o, err := b.Head(ctx, key)
	if code := status(err); refuses(code, err) {
		return o, pipeline.RefusedError{Missing: pipeline.MissingGet,
			Err: fmt.Errorf("an object is there, and the store refuses HEAD (status %d): give the access key the right %s, "+
				"which is needed to compare the two: %w", code, pipeline.MissingGet, awsclient.Brief{Err: err})}
	}
	return o, err
}

// refusedPut says what is missing if the store understands a PUT and refuses it.
func refusedPut(err error) error {
	code := status(err)
	if !refuses(code, err) {
		return err
	}
	switch code {
	case http.StatusForbidden:
		return pipeline.RefusedError{Missing: pipeline.MissingPut,
			Err: fmt.Errorf("the store refuses PUT (status 403): give the access key the right %s for this prefix: %w",
				pipeline.MissingPut, awsclient.Brief{Err: err})}
	case http.StatusBadRequest, http.StatusNotImplemented:
		return pipeline.RefusedError{Missing: pipeline.MissingConditional,
			Err: fmt.Errorf("the store refuses PUT with If-None-Match (status %d): it has to support conditional PUT, "+
				"which keeps an object from being written twice: %w", code, awsclient.Brief{Err: err})}
	}
	return pipeline.RefusedError{Missing: pipeline.MissingOther,
		Err: fmt.Errorf("the store refuses PUT (status %d): %w", code, awsclient.Brief{Err: err})}
}

// passing are the codes of 4xx answers that do not speak of rights or features: wrong keys, regions and clocks, which
// nothing gets past, and what a broken connection leaves.
var passing = []string{
	"InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "ExpiredToken", "InvalidToken",
	"TokenRefreshRequired", "AuthorizationHeaderMalformed", "RequestTimeout", "IncompleteBody", "BadDigest",
	"InvalidDigest", "XAmzContentSHA256Mismatch", "SlowDown", "NoSuchBucket", "InvalidRegionName",
}

// refuses reports whether an answer means that the store will not do this, however often it is asked.
func refuses(code int, err error) bool {
	if _, unsigned := errors.AsType[awsclient.CredentialsError](err); unsigned {
		return false // another service answered
	}
	switch code {
	case http.StatusNotFound, http.StatusRequestTimeout, http.StatusConflict, http.StatusPreconditionFailed,
		http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	if slices.Contains(passing, CodeOf(err)) {
		return false
	}
	return code >= 400 && code < 500 || code == http.StatusNotImplemented
}

// Get opens an object for reading; the caller closes the body.
func (b *Bucket) Get(ctx context.Context, key string) (pipeline.Object, io.ReadCloser, error) {
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.name, Key: &key})
	if err != nil {
		return pipeline.Object{}, nil, fmt.Errorf("get object %s: %w", key, class(err))
	}
	o, err := object(key, out.ETag, out.ContentLength, out.LastModified, out.Metadata)
	if err != nil {
		out.Body.Close()
		return o, nil, err
	}
	o.Encoding = aws.ToString(out.ContentEncoding)
	return o, out.Body, nil
}

// GetRange reads the bytes from first to last, both included. The object
// must have them.
func (b *Bucket) GetRange(ctx context.Context, key string, first, last int64) (io.ReadCloser, error) {
	part := fmt.Sprintf("bytes=%d-%d", first, last)
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.name, Key: &key, Range: &part})
	if err != nil {
		return nil, fmt.Errorf("get %s of %s: %w", part, key, class(err))
	}
	if n := aws.ToInt64(out.ContentLength); n != last-first+1 {
		out.Body.Close()
		return nil, retry.As(retry.Permanent, fmt.Errorf("get %s of %s: it has only %d of these bytes", part, key, n))
	}
	return out.Body, nil
}

// object is what the store says of an object. If its metadata is broken, it has none, and the error says so.
func object(key string, etag *string, size *int64, modified *time.Time,
	meta map[string]string) (pipeline.Object, error) {
	m, err := pipeline.ParseMeta(meta)
	if err != nil {
		err = &pipeline.FileError{Code: "invalid_metadata", Final: true,
			Err: retry.As(retry.Permanent, fmt.Errorf("object %s: %w", key, err))}
	}
	return pipeline.Object{Key: key, ETag: unquote(etag), Size: aws.ToInt64(size), Modified: aws.ToTime(modified),
		Meta: m}, err
}

func unquote(etag *string) string { return strings.Trim(aws.ToString(etag), `"`) }

func status(err error) int { return awsclient.StatusOf(err) }
