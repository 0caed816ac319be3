package batcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/penstock/penstock/internal/pace"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/faultpoint"
)

// uploads uploads sealed batches, oldest first, until no more can come or ctx ends.
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

// upload encodes a sealed batch, uploads it, and releases its segment.
func (b *Batcher) upload(ctx context.Context, bt *batch) {
	ctx = b.opts.Tracer.Object(ctx, bt.text)
	if err := b.turn(ctx); err != nil {
		b.putFailed(ctx, bt, err)
		return
	}
	began := time.Now()
	b.traceBatch(ctx, bt, began)
	o, err := b.encode(bt)
	<-b.encoding
	b.opts.Tracer.Record(ctx, "encode", began, time.Now(), err, "segment_bytes", bt.size)
	bt.segment.Close()
	if err != nil {
		b.encodeLater(bt, err)
		return
	}
	defer o.spool.Close()
	encoded := time.Since(began)
	if err = b.putEarlier(ctx, bt); err == nil {
		err = b.putBlobs(ctx, bt, o.blobs)
	}
	if errors.Is(err, errBlobs) || errors.Is(err, errTaken) {
		b.encodeLater(bt, err)
		return
	}
	if o.meta.Rows > 0 && err == nil {
		err = b.put(ctx, bt, o)
	}
	if err != nil {
		b.putFailed(ctx, bt, err)
		return
	}
	took := time.Since(began)
	close(bt.stored)
	b.mu.Lock()
	b.waiting = slices.DeleteFunc(b.waiting, func(w *batch) bool { return w == bt })
	b.taken(bt)
	if o.meta.Rows > 0 {
		b.released++
		b.encoded += float64(o.spool.size) - b.encoded/8
		b.framed += float64(bt.size) - b.framed/8
	}
	b.mu.Unlock()
	b.release(bt)
	if o.meta.Rows == 0 {
		return // no object: nothing of the segment could be read, and it was set aside, or only its blobs were needed
	}
	b.metrics.objects.Inc()
	b.metrics.objectBytes.Add(float64(o.spool.size))
	b.metrics.rows.Add(float64(o.meta.Rows))
	b.metrics.encode.Observe(encoded.Seconds())
	b.opts.Tracer.Root(bt.text, bt.key.Time, time.Now(), "pipeline", b.spec.Name, "rows", o.meta.Rows,
		"bytes", o.spool.size, "blob_bytes", o.meta.BlobBytes)
	b.log.Info("stored", "key", bt.text, "rows", o.meta.Rows, "bytes", o.spool.size, "segment_bytes", bt.size,
		"blob_bytes", o.meta.BlobBytes, "encode_ms", encoded.Milliseconds(), "put_ms", (took - encoded).Milliseconds(),
		"age_ms", time.Since(bt.key.Time).Milliseconds())
}

// turn waits until a batch may be encoded. After the drain's end none may: a long outage leaves more batches than can
// be encoded in the time that a supervisor allows.
func (b *Batcher) turn(ctx context.Context) error {
	select {
	case b.encoding <- struct{}{}:
		if ctx.Err() == nil {
			return nil
		}
		<-b.encoding
	case <-ctx.Done():
	}
	return ctx.Err()
}

// traceBatch makes the span of a batch that is uploaded for the first time: from its first event to its roll. Of a
// replayed batch, it is the wait since the replay.
func (b *Batcher) traceBatch(ctx context.Context, bt *batch, now time.Time) {
	if bt.traced {
		return
	}
	bt.traced = true
	if bt.sealed.IsZero() {
		b.opts.Tracer.Record(ctx, "replay", b.opened, now, nil, "segment_bytes", bt.size)
		return
	}
	b.opts.Tracer.Record(ctx, "batch", bt.key.Time, bt.sealed, nil, "segment_bytes", bt.size)
}

// putFailed handles a batch that was not stored. Its segment stays.
func (b *Batcher) putFailed(ctx context.Context, bt *batch, err error) {
	if refusal, ok := errors.AsType[pipeline.RefusedError](err); ok && ctx.Err() == nil {
		b.putLater(bt, refusal.Missing, err)
		return
	}
	bt.storeErr = fmt.Errorf("%w (%w)", pipeline.ErrPending, err)
	close(bt.stored)
	if ctx.Err() != nil {
		return
	}
	b.mu.Lock()
	b.lastErr = err.Error()
	b.taken(bt)
	b.mu.Unlock()
	b.log.Error("batch is not stored; its segment stays", "key", bt.text, "segment", bt.segment.Path(), "error", err)
}

// ratio estimates the bytes of an object for each byte of its segment, by about the last eight objects, weighted by
// size. Small objects are mostly footer.
func (b *Batcher) ratio() float64 {
	if b.framed == 0 {
		return 1 // nothing known: as if nothing could be compressed
	}
	return min(b.encoded/b.framed, 1)
}

// leftover is a file that is no longer needed.
type leftover struct {
	path  string
	bytes int64 // counted in Batcher.disk
}

// discard lets an uploader remove a file. mu is held.
func (b *Batcher) discard(path string, bytes int64) {
	b.unused = append(b.unused, leftover{path, bytes})
	b.wake()
}

// release releases the segments of stored batches, then removes unneeded files. It reports whether some are left. These
// count as used disk, and are tried again.
func (b *Batcher) release(stored ...*batch) (left bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	batches := append(b.stuck, stored...)
	b.stuck = nil
	for _, bt := range batches {
		b.mu.Unlock()
		err := bt.segment.Release(bt.nextSeq)
		b.mu.Lock()
		if err != nil {
			b.log.Error("stored segment cannot be released", "error", err)
			b.stuck = append(b.stuck, bt)
			continue
		}
		b.disk -= bt.size
		b.full = false
		for _, s := range bt.blobs {
			b.drop(s)
		}
		if bt.own != nil {
			b.discard(bt.own.path, bt.own.size)
		}
	}
	unused := b.unused
	b.unused = nil
	for _, f := range unused {
		b.mu.Unlock()
		err := b.fs.Remove(f.path)
		b.mu.Lock()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			b.log.Error("file that is not needed any more cannot be removed", "error", err)
			b.unused = append(b.unused, f)
			continue
		}
		b.disk -= f.bytes
		b.full = false
	}
	return len(b.stuck)+len(b.unused) > 0
}

// encodeLater lets later batches go first, so that an unreadable one does not block them.
func (b *Batcher) encodeLater(bt *batch, err error) {
	b.metrics.encodeErrors.Inc()
	bt.failures++
	wait := b.opts.Backoff.Delay(bt.failures)
	b.log.Error("batch cannot be encoded; trying again", "key", bt.text, "segment", bt.segment.Path(), "wait", wait,
		"error", err)
	if bt.failures == 1 { // the next ones say nothing new
		b.report(bt.text, "encode_failed", nil,
			"the batch cannot be encoded; its events are in the segment %s and are tried again: %s", bt.segment.Path(), err)
	}
	b.setError(err.Error())
	b.again(bt, wait)
}

// refusedFor multiplies the pauses between PUTs that the store refuses. Each attempt encodes the batch again, and a
// missing right is seldom granted within seconds.
const refusedFor = 15

// putLater gives the upload slot of a refused batch to others. They may succeed: the missing right may concern one
// prefix, or an object that exists already.
func (b *Batcher) putLater(bt *batch, missing string, err error) {
	b.metrics.refusals.WithLabelValues(missing).Inc()
	bt.refused++
	wait := retry.Backoff{Min: b.opts.Backoff.Max, Max: refusedFor * b.opts.Backoff.Max}.Delay(bt.refused)
	b.refusal.Failed(err, append(b.waitingFields(), "missing", missing, "key", bt.text)...)
	b.mu.Lock()
	if bt.refusal == nil {
		b.refusals = append(b.refusals, bt)
	}
	bt.refusal = err
	b.mu.Unlock()
	b.again(bt, wait)
}

// taken notes that the store no longer refuses a batch. mu is held.
func (b *Batcher) taken(bt *batch) {
	bt.refusal = nil
	b.refusals = slices.DeleteFunc(b.refusals, func(other *batch) bool { return other == bt })
	if len(b.refusals) == 0 {
		b.refusal.Works()
	}
}

// waitingFields are the log fields for what waits on disk.
func (b *Batcher) waitingFields() []any {
	b.mu.Lock()
	defer b.mu.Unlock()
	return []any{"waiting_batches", len(b.waiting), "waiting_bytes", b.disk}
}

// again puts a batch after the sealed ones, after a pause.
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

// report makes a failure record of data that cannot become part of an object.
func (b *Batcher) report(object, code string, raw []byte, format string, args ...any) {
	if b.opts.Failed != nil {
		b.opts.Failed(pipeline.Failure{Time: time.Now().UTC(), Stage: "batcher", Code: code,
			Message: fmt.Sprintf(format, args...), Raw: raw, Index: -1, Object: object, Row: -1})
	}
}

// put uploads the batch's object, and announces it.
func (b *Batcher) put(ctx context.Context, bt *batch, o *object) error {
	meta := o.meta
	object, err := b.putObject(ctx, bt.text, o.spool.reader, o.spool.size, meta)
	// Another version encoded the same batch before a crash: that object has these events.
	c, ok := errors.AsType[pipeline.ConflictError](err)
	if ok && c.Found.Meta.FirstSeq == meta.FirstSeq && c.Found.Meta.Rows >= meta.Rows {
		object, err = c.Found, nil
	}
	if err == nil {
		b.announce(ctx, object)
	}
	return err
}

// putObject tries until the object is stored or ctx ends. It gives up earlier only if another object has the key, or if
// the store refuses it.
func (b *Batcher) putObject(ctx context.Context, key string, body func() io.ReadSeeker, size int64,
	meta pipeline.Meta) (pipeline.Object, error) {
	for attempt := 1; ; attempt++ {
		try, cancel := context.WithTimeout(ctx, b.putTimeout(size))
		began := time.Now()
		_, span := b.opts.Tracer.Start(ctx, "put", "key", key, "bytes", size, "attempt", attempt)
		object, err := b.store.Put(try, key, body(), size, meta)
		span.End(err)
		cancel()
		if err == nil {
			b.metrics.put.Observe(time.Since(began).Seconds())
			b.metrics.lastPut.SetToCurrentTime()
			b.setError("")
			b.outage.Works()
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
		b.outage.Failed(err, b.waitingFields()...)
		if retry.Sleep(ctx, wait) != nil {
			return object, err
		}
	}
}

// putBytes uploads the bytes of blobs.
func (b *Batcher) putBytes(ctx context.Context, key string, from io.ReaderAt, size int64, sum string) error {
	body := func() io.ReadSeeker { return pace.NewReader(from, size) }
	_, err := b.putObject(ctx, key, body, size, pipeline.Meta{Schema: pipeline.SchemaVersion, SHA256: sum})
	return err
}

// slowPut is the lowest rate of a PUT, in bytes a second. Blobs can be much larger than Options.PutTimeout allows for.
const slowPut = 1 << 20

func (b *Batcher) putTimeout(size int64) time.Duration {
	return b.opts.PutTimeout + time.Duration(size/slowPut)*time.Second
}

// announce calls Options.Stored. After a crash before the segment is released it is called again, so no object is left
// out.
func (b *Batcher) announce(ctx context.Context, o pipeline.Object) {
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
