package objstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/penstock/penstock/internal/pipeline"
)

// probeKey is an object that is written once and never read.
const probeKey = claimPrefix + "conditional-put"

// ErrUnconditional says that a store ignores If-None-Match.
var ErrUnconditional = errors.New("the store ignores If-None-Match, so a PUT may overwrite an object; " +
	"Penstock asks by HEAD before each PUT, which two writers at the same moment can get past: " +
	"use a store with conditional PUT")

// Probe finds out whether the store honours If-None-Match. If it does not, it returns ErrUnconditional, and from then
// on each Put asks whether the key is free. That the probe itself is refused is another error.
func (b *Bucket) Probe(ctx context.Context) error {
	for range 2 { // the first finds the object of an earlier probe, or creates it
		_, err := b.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &b.name, Key: aws.String(probeKey),
			Body: strings.NewReader("{}"), IfNoneMatch: aws.String("*")})
		switch code := status(err); {
		case code == http.StatusPreconditionFailed || code == http.StatusConflict:
			return nil
		case err != nil:
			return fmt.Errorf("probe conditional PUT: %w", class(refusedPut(err)))
		}
	}
	b.unconditional.Store(true)
	return ErrUnconditional
}

// taken is the object under a key, if the store does not look itself.
func (b *Bucket) taken(ctx context.Context, key string) (found pipeline.Object, taken bool, err error) {
	if !b.unconditional.Load() {
		return found, false, nil
	}
	found, err = b.Head(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return found, false, nil
	}
	return found, err == nil, err
}
