package jetstream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// DeadLetterStream has one message for each dead letter, each on its own subject below penstock.dlq.PIPELINE, so that a
// letter is stored once. The ledger is the record of dead letters. The stream is for subscribers, and can be rebuilt
// from the ledger.
const DeadLetterStream = "PENSTOCK_dlq"

func deadLetterSubject(table, key string) string {
	sum := sha256.Sum256([]byte(key))
	return "penstock.dlq." + table + "." + hex.EncodeToString(sum[:12])
}

func (q *Queue) setupDeadLetters(ctx context.Context) error {
	_, err := q.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:              DeadLetterStream,
		Subjects:          []string{"penstock.dlq.>"},
		Storage:           jetstream.FileStorage,
		Discard:           jetstream.DiscardOld,
		MaxMsgsPerSubject: 1,
		Replicas:          q.opts.Replicas,
		Duplicates:        time.Minute,
	})
	if err != nil {
		return fmt.Errorf("set up stream %s: %w", DeadLetterStream, retry.As(retry.Outage, err))
	}
	return nil
}

// DeadLetter publishes a letter, and returns once the server has stored it. It recreates a deleted stream.
func (q *Queue) DeadLetter(ctx context.Context, d pipeline.DeadLetter) error {
	text, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("publish dead letter: %w", err)
	}
	id := fmt.Sprintf("%s@%s/%d/%d", d.Key, d.ETag, d.Attempts, d.Failures)
	subject := deadLetterSubject(d.Pipeline, d.Key)
	_, err = q.js.Publish(ctx, subject, text, jetstream.WithMsgID(id))
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		if err = q.setupDeadLetters(ctx); err == nil {
			_, err = q.js.Publish(ctx, subject, text, jetstream.WithMsgID(id))
		}
	}
	if err != nil {
		return fmt.Errorf("publish dead letter of %s: %w", d.Key, retry.As(retry.Outage, err))
	}
	return nil
}

// Forget removes an object's letter, if there is one.
func (q *Queue) Forget(ctx context.Context, table, key string) error {
	s, err := q.js.Stream(ctx, DeadLetterStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err == nil {
		err = s.Purge(ctx, jetstream.WithPurgeSubject(deadLetterSubject(table, key)))
	}
	if err != nil {
		return fmt.Errorf("remove dead letter of %s: %w", key, retry.As(retry.Outage, err))
	}
	return nil
}

// Rebuild replaces all letters, and returns how many there were.
func (q *Queue) Rebuild(ctx context.Context, letters []pipeline.DeadLetter) (before uint64, err error) {
	if err := q.setupDeadLetters(ctx); err != nil {
		return 0, err
	}
	s, err := q.js.Stream(ctx, DeadLetterStream)
	if err == nil {
		before = s.CachedInfo().State.Msgs
		err = s.Purge(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("rebuild %s: %w", DeadLetterStream, retry.As(retry.Outage, err))
	}
	for _, d := range letters {
		text, err := json.Marshal(d)
		if err != nil {
			return before, fmt.Errorf("rebuild %s: %w", DeadLetterStream, err)
		}
		// Publish without a message id: the server would remember the id of the purged message.
		if _, err := q.js.Publish(ctx, deadLetterSubject(d.Pipeline, d.Key), text); err != nil {
			return before, fmt.Errorf("rebuild %s: %w", DeadLetterStream, retry.As(retry.Outage, err))
		}
	}
	return before, nil
}

// DeadLetters returns the number of letters in the stream.
func (q *Queue) DeadLetters(ctx context.Context) (uint64, error) {
	s, err := q.js.Stream(ctx, DeadLetterStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", DeadLetterStream, retry.As(retry.Outage, err))
	}
	return s.CachedInfo().State.Msgs, nil
}
