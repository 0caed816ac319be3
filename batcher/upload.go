package batcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// uploads takes sealed batches, oldest first, until none will come or ctx ends.
func (b *Batcher) uploads(ctx context.Context) {
	for {
		bt, more := b.takeSealed()
		if bt != nil {
			if err := b.upload(ctx, bt); err != nil && ctx.Err() == nil {
				b.log.Error("batch is not stored; its segment stays", "key", bt.text, "segment", bt.segment.Path(), "error", err)
			}
			continue
		}
		if !more {
			return
		}
		select {
		case <-b.ready:
		case <-ctx.Done():
			return
		}
	}
}

func (b *Batcher) takeSealed() (bt *batch, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.sealed) > 0 {
		bt, b.sealed = b.sealed[0], b.sealed[1:]
		return bt, true
	}
	return nil, !b.finished
}

func (b *Batcher) wake() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// upload encodes a sealed batch, puts it, and releases its segment.
func (b *Batcher) upload(ctx context.Context, bt *batch) (err error) {
	began := time.Now()
	defer func() {
		if err != nil {
			bt.storeErr = fmt.Errorf("%w (%w)", pipeline.ErrPending, err)
			close(bt.stored)
		}
	}()
	sp, meta, err := b.encode(bt)
	if err != nil {
		b.metrics.encodeErrors.Inc()
		return err
	}
	defer sp.Close()
	encoded := time.Since(began)
	if err := b.put(ctx, bt, sp, meta); err != nil {
		return err
	}
	took := time.Since(began)
	b.metrics.objects.Inc()
	b.metrics.objectBytes.Add(float64(sp.size))
	b.metrics.rows.Add(float64(meta.Rows))
	b.metrics.encode.Observe(encoded.Seconds())
	b.log.Info("stored", "key", bt.text, "rows", meta.Rows, "bytes", sp.size, "segment_bytes", bt.size,
		"encode_ms", encoded.Milliseconds(), "put_ms", (took - encoded).Milliseconds(), "age_ms", time.Since(bt.began).Milliseconds())
	close(bt.stored)
	if err := bt.segment.Release(bt.nextSeq); err != nil {
		// The next start puts it again, under the same key: no harm.
		b.log.Error("stored segment stays", "error", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.disk -= bt.size
	b.waiting--
	b.released++
	// A moving average over about eight objects foresees the next one's size.
	b.ratio += (float64(sp.size)/float64(bt.size) - b.ratio) / 8
	if b.released == 1 {
		b.ratio = float64(sp.size) / float64(bt.size)
	}
	return nil
}

// encode makes the object from the segment. Where the disk has no room for
// the object it is made in memory: a full disk must not keep itself full.
func (b *Batcher) encode(bt *batch) (*spool, pipeline.Meta, error) {
	sp, err := newSpool(b.opts.Dir)
	if err == nil {
		meta, err := b.encodeTo(bt, sp)
		if err == nil || !errors.Is(err, syscall.ENOSPC) {
			return sp, meta, err
		}
		sp.Close()
	}
	sp = memorySpool()
	meta, err := b.encodeTo(bt, sp)
	return sp, meta, err
}

func (b *Batcher) encodeTo(bt *batch, sp *spool) (pipeline.Meta, error) {
	meta := pipeline.Meta{Schema: pipeline.SchemaVersion}
	enc, err := codec.NewEncoder(sp, bt.key.Format, b.opts.Receiver)
	if err != nil {
		return meta, fmt.Errorf("encode %s: %w", bt.text, err)
	}
	r, err := bt.segment.Reader()
	if err != nil {
		return meta, fmt.Errorf("encode %s: %w", bt.text, err)
	}
	var events []pipeline.Event
	for {
		seq, payload, err := r.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			events, err = parseRecord(events[:0], seq, payload)
		}
		if err == nil {
			err = enc.Encode(events)
		}
		if err != nil {
			return meta, fmt.Errorf("encode %s: %w", bt.text, err)
		}
		for i := range events {
			at := events[i].ReceivedAt
			if meta.Rows == 0 {
				meta.FirstSeq, meta.FirstReceived, meta.LastReceived = events[i].Seq, at, at
			}
			meta.FirstReceived, meta.LastReceived = min(meta.FirstReceived, at), max(meta.LastReceived, at)
			bt.nextSeq = max(bt.nextSeq, events[i].Seq+1)
			meta.Rows++
		}
	}
	if r.Damaged() > 0 {
		bt.segment.Corrupt = true
	}
	if err := enc.Close(); err != nil {
		return meta, fmt.Errorf("encode %s: %w", bt.text, err)
	}
	meta.SHA256 = sp.sum()
	return meta, nil
}

// put tries until the object is in the bucket or ctx ends. Only a foreign
// object under our key ends it sooner.
func (b *Batcher) put(ctx context.Context, bt *batch, sp *spool, meta pipeline.Meta) error {
	key := bt.text
	for attempt := 1; ; attempt++ {
		try, cancel := context.WithTimeout(ctx, b.opts.PutTimeout)
		began := time.Now()
		_, err := b.store.Put(try, key, sp.reader(), sp.size, meta)
		cancel()
		if err == nil {
			b.metrics.put.Observe(time.Since(began).Seconds())
			b.setError("")
			return nil
		}
		if c, ok := errors.AsType[pipeline.ConflictError](err); ok {
			// The same batch, encoded by another version before a crash: the
			// object that is there holds these events.
			if c.Found.Meta.FirstSeq == meta.FirstSeq && c.Found.Meta.Rows >= meta.Rows {
				return nil
			}
			return err
		}
		if ctx.Err() != nil {
			return err
		}
		b.metrics.putErrors.Inc()
		wait := b.opts.Backoff.Delay(attempt)
		b.setError(err.Error())
		b.log.Warn("put failed; trying again", "key", key, "attempt", attempt, "wait", wait.Round(time.Millisecond), "error", err)
		if retry.Sleep(ctx, wait) != nil {
			return err
		}
	}
}

func (b *Batcher) setError(s string) {
	b.mu.Lock()
	b.lastErr = s
	b.mu.Unlock()
}
