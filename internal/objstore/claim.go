package objstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// claimPrefix is where claims are in the bucket.
const claimPrefix = "claims/"

// Claim is the right to do something alone, until it expires. It is an object
// that is written under a condition; its age is by the store's clock, so that
// the claimants' clocks do not matter.
type Claim struct {
	bucket *Bucket
	key    string
	body   claimBody
	etag   string
	until  time.Time // of another's claim: when it expires unless it is renewed
}

type claimBody struct {
	Owner   string    `json:"owner"`
	Since   time.Time `json:"since,omitzero"` // by the owner's clock
	Seconds int       `json:"seconds"`        // of its life after it was last written
	Writes  int       `json:"writes"`         // so that each writing has an ETag of its own
	Note    string    `json:"note,omitempty"`
}

// maxClaim bounds a claim that is read, in bytes. A note may hold a key, which
// JSON makes up to six times as long.
const maxClaim = 16 << 10

// Claim takes the claim of that name for ttl, in whole seconds. While somebody else holds it, ok is false, and only
// Holder of the claim has a meaning.
func (b *Bucket) Claim(ctx context.Context, name, owner string, ttl time.Duration) (c *Claim, ok bool, err error) {
	c = &Claim{bucket: b, key: claimPrefix + name, body: claimBody{Owner: owner,
		Since: time.Now().UTC().Truncate(time.Second), Seconds: int(ttl.Seconds())}}
	ok, err = c.write(ctx, &s3.PutObjectInput{IfNoneMatch: aws.String("*")})
	if ok || err != nil {
		return c, ok, err
	}
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.name, Key: &c.key})
	if err != nil {
		if err = class(err); errors.Is(err, ErrNotFound) {
			return &Claim{}, false, nil // it was given back this moment; the next try gets it
		}
		return nil, false, fmt.Errorf("read claim %s: %w", name, err)
	}
	defer out.Body.Close()
	text, err := io.ReadAll(io.LimitReader(out.Body, maxClaim))
	if err != nil {
		return nil, false, fmt.Errorf("read claim %s: %w", name, class(err))
	}
	var held claimBody
	if err := json.Unmarshal(text, &held); err != nil {
		return nil, false, fmt.Errorf("read claim %s: %w", name, err)
	}
	now, known := awsmiddleware.GetServerTime(out.ResultMetadata)
	if !known {
		now = time.Now()
	}
	// Both times are in whole seconds, so one more may have to pass.
	life := time.Duration(held.Seconds+1) * time.Second
	if written := aws.ToTime(out.LastModified); now.Sub(written) <= life {
		return &Claim{body: held, until: written.Add(life).UTC()}, false, nil
	}
	c.body.Note = held.Note
	ok, err = c.write(ctx, &s3.PutObjectInput{IfMatch: out.ETag})
	return c, ok, err
}

// Holder says who has the claim, since when, and until when it lasts if its holder was killed.
func (c *Claim) Holder() string {
	if c.until.IsZero() {
		return "a process that has just ended"
	}
	text := c.body.Owner
	if !c.body.Since.IsZero() {
		text += ", since " + c.body.Since.Format(time.RFC3339)
	}
	return text + "; if it was killed, its claim expires at " + c.until.Format(time.RFC3339)
}

// Note is what the last holder wrote down for the next one; empty: nothing.
func (c *Claim) Note() string { return c.body.Note }

// SetNote changes the note. Renew and Expire write it.
func (c *Claim) SetNote(note string) { c.body.Note = note }

// Expire gives the claim back and keeps its note; anybody can have it two seconds later.
func (c *Claim) Expire(ctx context.Context) error {
	c.body.Seconds = 0
	if _, err := c.Renew(ctx); err != nil {
		return fmt.Errorf("expire claim: %w", err)
	}
	return nil
}

// Renew lets the claim live for another ttl; false: it was lost.
func (c *Claim) Renew(ctx context.Context) (bool, error) {
	return c.write(ctx, &s3.PutObjectInput{IfMatch: &c.etag})
}

// Release gives the claim back.
func (c *Claim) Release(ctx context.Context) error {
	// Release only a claim that is still ours; renewing it checks that.
	if ok, err := c.Renew(ctx); !ok || err != nil {
		return err
	}
	if _, err := c.bucket.client.DeleteObject(ctx,
		&s3.DeleteObjectInput{Bucket: &c.bucket.name, Key: &c.key}); err != nil {
		return fmt.Errorf("release claim: %w", class(err))
	}
	return nil
}

// write puts the claim under in's condition; false: the condition did not hold.
func (c *Claim) write(ctx context.Context, in *s3.PutObjectInput) (bool, error) {
	c.body.Writes++
	body, err := json.Marshal(c.body)
	if err != nil {
		return false, err
	}
	in.Bucket, in.Key, in.Body = &c.bucket.name, &c.key, bytes.NewReader(body)
	out, err := c.bucket.client.PutObject(ctx, in)
	switch status(err) {
	case http.StatusPreconditionFailed, http.StatusConflict, http.StatusNotFound:
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("write claim %s: %w", c.key, class(err))
	}
	c.etag = aws.ToString(out.ETag)
	return true, nil
}
