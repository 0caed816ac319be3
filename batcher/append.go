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
	// A write is flushed after flushBytes or flushWait, even if no client waits for it.
	flushBytes = 256 << 10
	flushWait  = 100 * time.Millisecond
	// maxGather limits the bytes that wait to be written. Beyond it, Append blocks.
	maxGather = 8 << 20
	// keepWrites is how many buffers of writes are reused: one gathers while another is written.
	keepWrites = 2
	// keepBuffer is the largest buffer that is reused, in bytes.
	keepBuffer = 512 << 10
)

var buffers = sync.Pool{New: func() any { return new(records) }}

// Append copies all of the events, or none. After a crash before the ticket's Wait returns, only the first ones may
// exist. It sets the events' seqs. Blobs are in the order of the events, and are on disk when Append returns.
// Afterwards the caller may reuse events and blobs. Append needs the durability because a failed write drops events
// that were not acknowledged.
func (b *Batcher) Append(ctx context.Context, events []pipeline.Event, blobs []pipeline.Blob,
	d pipeline.Durability) (pipeline.Ticket, error) {
	if len(events) == 0 {
		return done{}, nil
	}
	var held *blobSegment
	var stored []storedBlob
	if len(blobs) > 0 {
		var err error
		if held, stored, err = b.keepBlobs(blobs); err != nil {
			return nil, err
		}
	}
	rs := buffers.Get().(*records)
	rs.set(events, stored)
	w, err := b.add(ctx, events, rs, held, d)
	if cap(rs.buf) <= keepBuffer {
		buffers.Put(rs)
	}
	switch {
	case err != nil:
		return nil, err
	case d == pipeline.Memory:
		return (*inMemory)(w), nil
	case d == pipeline.Disk:
		return (*onDisk)(w), nil
	}
	return (*inBucket)(w), nil
}

// inMemory, onDisk and inBucket are the tickets of the three durabilities. They point to existing values, so that a
// ticket costs no allocation. done is the ticket of no events.
type (
	done     struct{}
	inMemory write
	onDisk   write
	inBucket write
)

func (done) Wait(context.Context) (object string, err error)      { return "", nil }
func (*inMemory) Wait(context.Context) (object string, err error) { return "", nil }

func (done) Key(context.Context) string            { return "" }
func (t *onDisk) Key(ctx context.Context) string   { return (*write)(t).key(ctx, false) }
func (t *inBucket) Key(ctx context.Context) string { return (*write)(t).key(ctx, false) }
func (t *inMemory) Key(ctx context.Context) string { return (*write)(t).key(ctx, true) }

// key returns the key of the batch that the write became a part of. If the write fails, promised events go on in
// another one.
func (w *write) key(ctx context.Context, promised bool) string {
	for w != nil {
		select {
		case <-w.done:
		case <-ctx.Done():
			return ""
		}
		if w.batch != nil {
			return w.batch.text
		}
		if !promised {
			return ""
		}
		w = w.again
	}
	return ""
}

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

// accepts returns why size more bytes are not accepted now.
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

// makeRoom waits until size more bytes may be gathered. The bytes of all writes count, because each roll begins another
// write. mu is held.
func (b *Batcher) makeRoom(ctx context.Context, size int64) error {
	for {
		if err := b.accepts(size); err != nil {
			return err
		}
		if len(b.writes) == 0 || b.gathered == 0 || b.gathered+size <= maxGather {
			return nil
		}
		w := b.writes[0]
		b.mu.Unlock()
		select {
		case <-w.taken:
		case <-ctx.Done():
		}
		b.mu.Lock()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// fill counts what was appended since the last roll, and decides when the next roll is due. The segment of records is
// chosen when they are written. plan checks the limits, and add counts towards them.
type fill struct {
	rollAt time.Time
	began  time.Time // zero: nothing was appended
	rows   int64
	size   int64 // bytes of records
	blobs  int64 // bytes
}

// add counts the records of one Append. After a failed write, the kept records are counted again.
func (f *fill) add(s span) {
	f.rows += s.rows
	f.size += int64(s.to - s.from)
	f.blobs += s.blobs
}

// add puts all records into the current write, and passes on the hold on the segment of their blobs.
func (b *Batcher) add(ctx context.Context, events []pipeline.Event, rs *records, held *blobSegment,
	d pipeline.Durability) (*write, error) {
	size := int64(len(rs.buf))
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.makeRoom(ctx, size)
	if size > wal.MaxRecord {
		err = fmt.Errorf("append: %d bytes in one request, limit %d", size, wal.MaxRecord)
	}
	if err != nil {
		if held != nil {
			b.drop(held)
		}
		return nil, err
	}
	now := time.Now()
	if size >= maxGather {
		b.tail = nil // its buffer becomes a write: a copy of it is felt
	}
	w := b.gather(now)
	for i := range events {
		events[i].Seq = b.nextSeq + uint64(i)
	}
	added := w.add(rs, b.nextSeq, d == pipeline.Memory)
	if held != nil {
		w.blobs = b.hold(w.blobs, held)
	}
	b.nextSeq += uint64(len(events))
	b.newest = max(b.newest, rs.newest)
	b.gathered += size
	b.disk += size
	b.metrics.events.Add(float64(len(events)))
	b.metrics.bytes.Add(float64(size))
	b.plan(w, added, now, d)
	return w, nil
}

// plan counts what was added to w, and decides whether something is due now.
func (b *Batcher) plan(w *write, added span, now time.Time, d pipeline.Durability) {
	f := &b.fill
	if f.began.IsZero() {
		f.began, f.rollAt = now, now.Add(b.opts.RollAge)
		b.signal() // to set the timer
	}
	f.add(added)
	if at := now.Add(b.opts.ObjectWait); d == pipeline.Bucket && at.Before(f.rollAt) {
		f.rollAt = at
		b.signal()
	}
	switch {
	case f.rows >= b.opts.RollRows:
		b.roll("rows")
	case float64(f.size)*b.ratio() >= float64(b.opts.RollBytes) || f.size+f.blobs >= b.opts.SegmentBytes:
		b.roll("bytes")
	case w.waiters == 1 || b.due(w, now): // the first sets the timer anew
		b.signal()
	}
}

// add copies records, or takes over the buffer of many. It returns their position.
func (w *write) add(rs *records, seq uint64, promised bool) span {
	rs.number(seq)
	from := len(w.buf)
	if from == 0 {
		w.seq = seq
	}
	if from == 0 && len(rs.buf) >= flushBytes {
		w.buf, rs.buf = rs.buf, w.buf
	} else {
		w.buf = append(w.buf, rs.buf...)
	}
	added := span{from: from, to: len(w.buf), rows: int64(rs.events), blobs: rs.blobs}
	if promised {
		w.promised = append(w.promised, added)
	} else {
		w.sync = true
		w.waiters++
	}
	return added
}

// gather returns the write that collects appends now.
func (b *Batcher) gather(now time.Time) *write {
	if b.tail == nil {
		b.tail = newWrite(now, b.opts.ObjectTimeout)
		if last := len(b.spare) - 1; last >= 0 {
			b.tail.buf, b.spare = b.spare[last], b.spare[:last]
		}
		b.writes = append(b.writes, b.tail)
		b.signal() // to set the timer for its age
	}
	return b.tail
}

// roll ends the batch.
func (b *Batcher) roll(reason string) {
	if b.fill.began.IsZero() {
		return
	}
	b.metrics.rolls.WithLabelValues(reason).Inc()
	b.fill = fill{}
	b.retireBlobs()
	if len(b.writes) == 0 { // all of it is written
		b.gather(time.Now())
	}
	b.writes[len(b.writes)-1].roll = true
	b.tail = nil
	b.signal()
}

func (b *Batcher) signal() {
	select {
	case b.kick <- struct{}{}:
	default:
	}
}
