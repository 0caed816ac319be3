package batcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/faultpoint"
)

// uploads takes sealed batches, oldest first, until none will come or ctx ends.
func (b *Batcher) uploads(ctx context.Context) {
	for {
		bt, more := b.takeSealed()
		if bt != nil {
			b.upload(ctx, bt)
			continue
		}
		if !more {
			b.wake() // the next one has nothing to wait for either
			return
		}
		var again <-chan time.Time
		if b.release() {
			again = time.After(probeWait)
		}
		select {
		case <-b.ready:
		case <-again:
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
	return nil, !b.finished || b.later > 0
}

func (b *Batcher) wake() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// upload encodes a sealed batch, puts it, and releases its segment.
func (b *Batcher) upload(ctx context.Context, bt *batch) {
	began := time.Now()
	sp, meta, err := b.encode(bt)
	bt.segment.Close()
	if err != nil {
		b.encodeLater(bt, err)
		return
	}
	defer sp.Close()
	encoded := time.Since(began)
	// Its own without rows as well: records that were carried over, or cannot be read, refer to them.
	for _, with := range append(bt.after, bt) {
		err = b.putBlobs(ctx, with)
		if with != bt && bt.replayed && !with.segment.Empty() && errors.Is(err, errBlobs) {
			err = nil // most likely nothing here refers to them: what cannot be read holds up itself
		}
		if err != nil {
			break
		}
	}
	if errors.Is(err, errBlobs) {
		b.encodeLater(bt, err)
		return
	}
	if meta.Rows > 0 && err == nil {
		err = b.put(ctx, bt, sp, meta)
	}
	if refusal, ok := errors.AsType[pipeline.RefusedError](err); ok && ctx.Err() == nil {
		b.putLater(bt, refusal.Missing, err)
		return
	}
	if err != nil {
		bt.storeErr = fmt.Errorf("%w (%w)", pipeline.ErrPending, err)
		close(bt.stored)
		if ctx.Err() == nil {
			b.mu.Lock()
			b.lastErr = err.Error()
			b.taken(bt)
			b.mu.Unlock()
			b.log.Error("batch is not stored; its segment stays", "key", bt.text, "segment", bt.segment.Path(), "error", err)
		}
		return
	}
	took := time.Since(began)
	close(bt.stored)
	b.mu.Lock()
	b.waiting--
	b.taken(bt)
	if meta.Rows > 0 {
		b.released++
		b.encoded += float64(sp.size) - b.encoded/8
		b.framed += float64(bt.size) - b.framed/8
	}
	b.mu.Unlock()
	b.release(bt)
	if meta.Rows == 0 {
		return // no object: nothing of it could be read, and the segment was set aside, or all of it was carried over
	}
	b.metrics.objects.Inc()
	b.metrics.objectBytes.Add(float64(sp.size))
	b.metrics.rows.Add(float64(meta.Rows))
	b.metrics.encode.Observe(encoded.Seconds())
	b.log.Info("stored", "key", bt.text, "rows", meta.Rows, "bytes", sp.size, "segment_bytes", bt.size,
		"blob_bytes", bt.blobBytes, "encode_ms", encoded.Milliseconds(), "put_ms", (took - encoded).Milliseconds(), "age_ms", time.Since(bt.began).Milliseconds())
}

// ratio is how many bytes of object to expect for a byte of segment, by the
// last eight objects or so, each by its size: small ones are mostly footer.
func (b *Batcher) ratio() float64 {
	if b.framed == 0 {
		return 1 // nothing known: as if nothing could be compressed
	}
	return min(b.encoded/b.framed, 1)
}

// release frees the segments of stored batches, and tells whether some could
// not be freed. They count as disk in use and are tried again.
func (b *Batcher) release(stored ...*batch) (left bool) {
	b.mu.Lock()
	all := append(b.stuck, stored...)
	b.stuck = nil
	b.mu.Unlock()
	for _, bt := range all {
		err := bt.segment.Release(bt.nextSeq)
		if err == nil && bt.blobs != nil {
			err = bt.blobs.remove() // behind the segment: what is left then belongs to nobody
		}
		b.mu.Lock()
		if err == nil {
			b.disk -= bt.size + bt.blobBytes
			b.full = false
		} else {
			b.log.Error("stored segment cannot be released", "error", err)
			b.stuck = append(b.stuck, bt)
		}
		b.mu.Unlock()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.stuck) > 0
}

// encodeLater lets the batches behind this one go first: what cannot be read
// now must not block them.
func (b *Batcher) encodeLater(bt *batch, err error) {
	b.metrics.encodeErrors.Inc()
	bt.failures++
	wait := b.opts.Backoff.Delay(bt.failures)
	b.log.Error("batch cannot be encoded; trying again", "key", bt.text, "segment", bt.segment.Path(), "wait", wait, "error", err)
	if bt.failures == 1 { // the next ones say nothing new
		b.report(bt.text, "encode_failed", nil, "the batch cannot be encoded; its events are in the segment %s and are tried again: %s", bt.segment.Path(), err)
	}
	b.setError(err.Error())
	b.again(bt, wait)
}

// refusedFor is how many times longer the pauses are between PUTs that the store refuses: each encodes the batch once
// more, and what the store refuses is seldom changed within seconds.
const refusedFor = 15

// putLater lets other batches have the slot of one that the store refuses. They may fare better: what is missing may
// concern a prefix, or an object that is there already.
func (b *Batcher) putLater(bt *batch, missing string, err error) {
	b.metrics.refusals.WithLabelValues(missing).Inc()
	bt.refused++
	wait := retry.Backoff{Min: b.opts.Backoff.Max, Max: refusedFor * b.opts.Backoff.Max}.Delay(bt.refused)
	b.log.Error("store refuses an object; trying again", "missing", missing, "key", bt.text, "segment", bt.segment.Path(),
		"attempt", bt.refused, "wait", wait.Round(time.Millisecond), "error", err)
	b.mu.Lock()
	if bt.refusal == nil {
		b.refusals = append(b.refusals, bt)
	}
	bt.refusal = err
	b.mu.Unlock()
	b.again(bt, wait)
}

// taken notes that the store refuses a batch no more. It is called with mu held.
func (b *Batcher) taken(bt *batch) {
	bt.refusal = nil
	b.refusals = slices.DeleteFunc(b.refusals, func(other *batch) bool { return other == bt })
}

// again puts a batch behind the sealed ones after a pause.
func (b *Batcher) again(bt *batch, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.later++
	time.AfterFunc(wait, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.later--
		b.sealed = append(b.sealed, bt)
		b.wake()
	})
}

// report tells of what cannot become part of an object.
func (b *Batcher) report(object, code string, raw []byte, format string, args ...any) {
	if b.opts.Failed != nil {
		b.opts.Failed(pipeline.Failure{Time: time.Now().UTC(), Stage: "batcher", Code: code, Message: fmt.Sprintf(format, args...), Raw: raw, Index: -1,
			Object: object, Row: -1})
	}
}

// encode makes the object from the segment. Where the disk does not take the
// object it is made in memory: a full disk must not keep itself full.
func (b *Batcher) encode(bt *batch) (*spool, pipeline.Meta, error) {
	sp, err := newSpool(b.fs, bt.segment.Path()+spoolSuffix)
	if err == nil {
		meta, err := b.encodeTo(bt, sp)
		if err == nil {
			return sp, meta, nil
		}
		sp.Close()
		if sp.err == nil {
			return nil, meta, err
		}
	}
	sp = memorySpool()
	meta, err := b.encodeTo(bt, sp)
	return sp, meta, err
}

// maxHeld is how many bytes of small records are encoded at once. One event at
// a time costs a Parquet encoder half as much again as many do.
const maxHeld = 32 << 10

func (b *Batcher) encodeTo(bt *batch, sp *spool) (pipeline.Meta, error) {
	meta := pipeline.Meta{Schema: pipeline.SchemaVersion, BlobBytes: bt.blobBytes}
	enc, err := b.encoders.New(sp, bt.key.Format, bt.key.Receiver)
	if err != nil {
		return meta, fmt.Errorf("encode %s: %w", bt.text, err)
	}
	r, err := bt.segment.Reader()
	if err != nil {
		return meta, fmt.Errorf("encode %s: %w", bt.text, err)
	}
	var (
		events  []pipeline.Event
		held    = make([]byte, 0, maxHeld) // payloads of events, which are views into it
		foreign int
	)
	flush := func() error {
		if err := enc.Encode(events); err != nil {
			return fmt.Errorf("encode %s: %w", bt.text, err)
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
		events, held = events[:0], held[:0]
		return nil
	}
	for {
		seq, payload, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return meta, fmt.Errorf("encode %s: %w", bt.text, err)
		}
		if len(held)+len(payload) > maxHeld {
			if err := flush(); err != nil {
				return meta, err
			}
		}
		kept := len(payload) <= maxHeld/2
		if kept {
			at := len(held)
			held = append(held, payload...)
			payload = held[at:len(held):len(held)]
		}
		before := len(events)
		if events, err = parseRecord(events, seq, payload); err != nil {
			events = events[:before]
			foreign++
			if bt.failures == 0 {
				b.report(bt.text, "unreadable_record", payload, "a record of the segment %s is not as a batcher writes it: %s", bt.segment.Path(), err)
			}
			continue
		}
		if !kept { // valid until the next
			if err := flush(); err != nil {
				return meta, err
			}
		}
	}
	if err := flush(); err != nil {
		return meta, err
	}
	// Torn tails are cut before a batch is sealed: whatever is missing now is damage.
	if r.Damaged() > 0 || foreign > 0 {
		if !bt.segment.Corrupt {
			b.metrics.corrupt.Inc()
			b.report(bt.text, "damaged_segment", nil, "%d bytes and %d records cannot be read; the segment is kept as %s.corrupt", r.Damaged(), foreign, bt.segment.Path())
		}
		if !bt.segment.Corrupt {
			b.mu.Lock()
			b.setAside++
			b.mu.Unlock()
		}
		bt.segment.Corrupt = true
		b.log.Error("segment is damaged; it is kept as *.corrupt", "path", bt.segment.Path(), "damaged_bytes", r.Damaged(), "foreign_records", foreign)
	}
	if err := enc.Close(); err != nil {
		return meta, fmt.Errorf("encode %s: %w", bt.text, err)
	}
	meta.SHA256 = sp.sum()
	return meta, nil
}

// put brings the batch's object to the bucket, and tells of it.
func (b *Batcher) put(ctx context.Context, bt *batch, sp *spool, meta pipeline.Meta) error {
	object, err := b.putObject(ctx, bt.text, sp.reader, sp.size, meta)
	// The same batch, encoded by another version before a crash: the object that
	// is there holds these events.
	if c, ok := errors.AsType[pipeline.ConflictError](err); ok && c.Found.Meta.FirstSeq == meta.FirstSeq && c.Found.Meta.Rows >= meta.Rows {
		object, err = c.Found, nil
	}
	if err == nil {
		b.tell(ctx, object)
	}
	return err
}

// putObject tries until the object is in the bucket or ctx ends. Only another object under its key ends it sooner, and
// a store that refuses it.
func (b *Batcher) putObject(ctx context.Context, key string, body func() io.ReadSeeker, size int64, meta pipeline.Meta) (pipeline.Object, error) {
	for attempt := 1; ; attempt++ {
		try, cancel := context.WithTimeout(ctx, b.putTimeout(size))
		began := time.Now()
		object, err := b.store.Put(try, key, body(), size, meta)
		cancel()
		if err == nil {
			b.metrics.put.Observe(time.Since(began).Seconds())
			b.setError("")
			return object, nil
		}
		if _, conflict := errors.AsType[pipeline.ConflictError](err); conflict || ctx.Err() != nil {
			b.metrics.putErrors.Inc()
			return object, err
		}
		b.metrics.putErrors.Inc()
		if _, refused := errors.AsType[pipeline.RefusedError](err); refused {
			return object, err
		}
		wait := b.opts.Backoff.Delay(attempt)
		b.setError(err.Error())
		b.log.Warn("put failed; trying again", "key", key, "attempt", attempt, "wait", wait.Round(time.Millisecond), "error", err)
		if retry.Sleep(ctx, wait) != nil {
			return object, err
		}
	}
}

// slowPut is the least that a PUT has to bring in a second, in bytes: blobs can be
// much larger than what Options.PutTimeout is meant for.
const slowPut = 1 << 20

func (b *Batcher) putTimeout(size int64) time.Duration {
	return b.opts.PutTimeout + time.Duration(size/slowPut)*time.Second
}

// tell lets whoever wants to know of an object hear of it. A crash before its
// segment is released leads here again, so that nobody misses one.
func (b *Batcher) tell(ctx context.Context, o pipeline.Object) {
	if b.opts.Stored != nil {
		b.opts.Stored(ctx, o)
	}
	faultpoint.Hit("batcher.stored")
}

func (b *Batcher) setError(s string) {
	b.mu.Lock()
	b.lastErr = s
	b.mu.Unlock()
}
