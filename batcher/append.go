package batcher

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/penstock/penstock/batcher/wal"
	"github.com/penstock/penstock/internal/pipeline"
)

const (
	// flushBytes is how much is gathered before it is written although nobody
	// waits, flushWait how long.
	flushBytes = 256 << 10
	flushWait  = 100 * time.Millisecond
	// maxGather bounds what waits to be written; Append waits beyond it.
	maxGather = 8 << 20
)

// keepWrites is how many writes' buffers are used again: one is gathered while
// another is written.
const keepWrites = 2

// keepBuffer is the largest buffer, in bytes, that is used again.
const keepBuffer = 512 << 10

var buffers = sync.Pool{New: func() any { return new(records) }}

// Append copies all of the events or none of them; a crash before the ticket's
// Wait returns may leave the first ones. It sets the events' seqs, and the
// references to their blobs, which come in the events' order. It returns once
// it needs nothing more of events and blobs. The durability belongs to Append:
// a write that fails drops the events that nobody was promised.
func (b *Batcher) Append(ctx context.Context, events []pipeline.Event, blobs []pipeline.Blob, d pipeline.Durability) (pipeline.Ticket, error) {
	if len(events) == 0 {
		return done{}, nil
	}
	var pinned *batch
	if len(blobs) > 0 {
		var err error
		if pinned, err = b.pin(blobs); err != nil {
			return nil, err
		}
		if err := b.keepBlobs(pinned, events, blobs); err != nil {
			b.giveUp(pinned)
			b.unpin(pinned)
			b.log.Error("blobs cannot be written", "segment", pinned.segment.Path(), "error", err)
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	rs := buffers.Get().(*records)
	rs.set(events)
	w, err := b.add(ctx, pinned, events, rs, d)
	if pinned != nil {
		b.unpin(pinned)
	}
	if cap(rs.buf) <= keepBuffer {
		buffers.Put(rs)
	}
	switch {
	case err != nil:
		return nil, err
	case d == pipeline.Memory:
		return done{}, nil
	case d == pipeline.Disk:
		return (*onDisk)(w), nil
	}
	return (*inBucket)(w), nil
}

// done, onDisk and inBucket are the tickets of the three durabilities. They
// are pointers to what exists already, so that a ticket costs no allocation.
type (
	done     struct{}
	onDisk   write
	inBucket write
)

func (done) Wait(context.Context) (object string, err error) { return "", nil }

func (t *onDisk) Wait(ctx context.Context) (object string, err error) {
	select {
	case <-t.done:
		return "", t.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (t *inBucket) Wait(ctx context.Context) (object string, err error) {
	if _, err := (*onDisk)(t).Wait(ctx); err != nil {
		return "", err
	}
	timeout := time.NewTimer(t.timeout)
	defer timeout.Stop()
	select {
	case <-t.batch.stored:
		return t.batch.text, t.batch.storeErr
	case <-timeout.C:
		return "", pipeline.ErrPending
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// accepts tells why size bytes more are not taken now.
func (b *Batcher) accepts(size int64) error {
	switch {
	case b.closed:
		return ErrClosed
	case b.failing != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, b.failing)
	case b.disk+size > b.opts.MaxDisk:
		b.metrics.full.Inc()
		b.full = true
		return ErrFull
	}
	return nil
}

// current is the active batch.
func (b *Batcher) current() (*batch, error) {
	if b.active == nil {
		if err := b.begin(time.Now()); err != nil {
			b.fail(err)
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return b.active, nil
}

// add puts records into the write that is being gathered, all into one, of the
// active batch or of one that is pinned.
func (b *Batcher) add(ctx context.Context, bt *batch, events []pipeline.Event, rs *records, d pipeline.Durability) (*write, error) {
	if len(rs.buf) > wal.MaxRecord {
		return nil, fmt.Errorf("append: %d bytes in one request, limit %d", len(rs.buf), wal.MaxRecord)
	}
	size := int64(len(rs.buf))
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		if err := b.accepts(size); err != nil {
			return nil, err
		}
		// All writes count, not the last alone: each roll begins another.
		if len(b.writes) > 0 && b.gathered > 0 && b.gathered+size > maxGather {
			w := b.writes[0]
			b.mu.Unlock()
			select {
			case <-w.taken:
			case <-ctx.Done():
			}
			b.mu.Lock()
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			continue
		}
		break
	}
	now := time.Now()
	if bt == nil {
		var err error
		if bt, err = b.current(); err != nil {
			return nil, err
		}
	} else if bt.spoiled {
		return nil, fmt.Errorf("%w: the batch's segment failed", ErrUnavailable)
	}
	b.newest = max(b.newest, rs.newest)
	if size >= maxGather && bt == b.active {
		b.tail = nil // its buffer is a write of its own: a copy is felt
	}
	w := b.gather(bt)
	from := len(w.buf)
	for i := range events {
		events[i].Seq = b.nextSeq + uint64(i)
	}
	b.nextSeq = rs.number(b.nextSeq)
	if from == 0 && size >= flushBytes {
		w.buf, rs.buf = rs.buf, w.buf
	} else {
		w.buf = append(w.buf, rs.buf...)
	}
	b.gathered += size
	if d == pipeline.Memory {
		w.promised = append(w.promised, span{from, len(w.buf)})
	} else {
		w.sync = true
		w.waiters++
	}
	bt.rows += int64(len(events))
	bt.size += size
	b.disk += size
	b.metrics.events.Add(float64(len(events)))
	b.metrics.bytes.Add(float64(size))

	if bt != b.active { // it was rolled while its blobs were written
		b.signal()
		return w, nil
	}
	if d == pipeline.Bucket {
		if at := now.Add(b.opts.ObjectWait); at.Before(bt.rollAt) {
			bt.rollAt = at
			b.signal() // to set the timer anew
		}
	}
	switch {
	case bt.rows >= b.opts.RollRows:
		b.roll("rows")
	case float64(bt.size)*b.ratio() >= float64(b.opts.RollBytes) || bt.size+bt.blobBytes >= b.opts.SegmentBytes:
		b.roll("bytes")
	case w.waiters == 1 || b.due(w, now): // the first sets the timer anew
		b.signal()
	}
	return w, nil
}

// begin opens the next batch. Its key is fixed here for good.
func (b *Batcher) begin(now time.Time) error {
	key := pipeline.Key{Prefix: b.spec.Prefix, Time: now.UTC().Truncate(time.Millisecond),
		Receiver: b.opts.Receiver, Seq: b.nextSeq, Format: b.opts.Format}
	seg, err := b.wal.Create(wal.Header{Key: key.String(), FirstSeq: key.Seq, Time: key.Time.UnixMilli()})
	if err != nil {
		return err
	}
	b.active = &batch{key: key, text: key.String(), segment: seg, began: now, rollAt: now.Add(b.opts.RollAge),
		size: seg.Size(), stored: make(chan struct{})}
	b.disk += seg.Size()
	return nil
}

// gather is the write that takes appends to bt now.
func (b *Batcher) gather(bt *batch) *write {
	if b.tail == nil || b.tail.batch != bt {
		b.tail = newWrite(bt, b.opts.ObjectTimeout)
		if last := len(b.spare) - 1; last >= 0 {
			b.tail.buf, b.spare = b.spare[last], b.spare[:last]
		}
		b.writes = append(b.writes, b.tail)
		b.signal() // to set the timer for its age
	}
	return b.tail
}

// roll closes the active batch to further events. The committer hands it to
// the uploaders once its last write is done.
func (b *Batcher) roll(reason string) {
	if b.active == nil {
		return
	}
	bt := b.active
	b.active = nil
	b.waiting++
	b.metrics.rolls.WithLabelValues(reason).Inc()
	if bt.rolled = true; bt.pins == 0 {
		b.sealNext(bt)
	}
}

// sealNext makes the batch's next write its last.
func (b *Batcher) sealNext(bt *batch) {
	b.gather(bt).seal = true
	b.tail = nil
	b.signal()
}

func (b *Batcher) signal() {
	select {
	case b.kick <- struct{}{}:
	default:
	}
}
