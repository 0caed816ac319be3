package batcher

import (
	"context"
	"errors"
	"time"

	"github.com/penstock/penstock/batcher/wal"
	"github.com/penstock/penstock/internal/pipeline"
)

// write is what one system call writes to disk: the records that arrived during the previous write. One fsync serves
// all tickets that wait for it.
type write struct {
	began    time.Time
	seq      uint64 // of the first event; 0: it has none
	buf      []byte
	promised []span         // of buf: acknowledged from memory, so a failed write must not lose them
	blobs    []*blobSegment // that records refer to; each is held
	sync     bool           // a ticket waits for the disk, or a probe
	waiters  int            // tickets that wait for it
	roll     bool           // the batch ends with it
	timeout  time.Duration  // of a ticket that waits for the object

	taken chan struct{} // closed when the committer takes it
	done  chan struct{} // closed when written, and fsynced if sync
	err   error         // set before done is closed
	batch *batch        // that it became a part of; set before done is closed
	again *write        // if it failed: the one with its events that were acknowledged from memory; set as batch is
}

// span is a part of a write's buffer: the records of one Append.
type span struct {
	from, to int
	rows     int64
	blobs    int64 // bytes
}

func newWrite(began time.Time, timeout time.Duration) *write {
	return &write{began: began, timeout: timeout, taken: make(chan struct{}), done: make(chan struct{})}
}

// syncHold limits how long a write waits for more tickets that need the disk.
const syncHold = 4 * time.Millisecond

// due reports whether to write now rather than to gather more. An fsync costs the same for one ticket as for many. So a
// write waits until as many tickets wait as at the end of the last fsync, but at most twice the duration of that fsync.
// It does not wait for one straggler among many, and never for a lone client.
func (b *Batcher) due(w *write, now time.Time) bool {
	if w.roll || len(w.buf) >= flushBytes || now.Sub(w.began) >= flushWait {
		return true
	}
	return w.sync && (16*w.waiters >= 15*b.expect || !now.Before(b.holdUntil))
}

// expectMore records an fsync that ended, for due.
func (b *Batcher) expectMore(w *write, now time.Time, took time.Duration) {
	b.holdUntil = now.Add(min(2*took, syncHold))
	b.expect = w.waiters
	for _, next := range b.writes {
		b.expect += next.waiters
	}
}

// probeWait is the pause between attempts to write after a failure.
const probeWait = time.Second

// commits is the only goroutine that writes to segments. After ctx ends it seals the active batch and returns.
func (b *Batcher) commits(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		for b.commit() {
		}
		b.mu.Lock()
		timer.Reset(b.idle(time.Now()))
		b.mu.Unlock()
		select {
		case <-b.kick:
		case <-timer.C:
		case <-ctx.Done():
			b.finish()
			return
		}
		b.onTime(time.Now())
	}
}

// finish rejects new appends and writes the accepted ones.
func (b *Batcher) finish() {
	b.mu.Lock()
	b.closed = true
	b.roll("stop")
	b.retireBlobs()
	b.mu.Unlock()
	for range 3 { // a write that fails is tried again, in another segment
		for b.commit() {
		}
		b.mu.Lock()
		b.probed = time.Time{}
		b.mu.Unlock()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finished = true
}

// idle is how long the goroutine may sleep if nothing wakes it.
func (b *Batcher) idle(now time.Time) time.Duration {
	wait := time.Hour
	if b.failing != nil {
		wait = b.probed.Add(probeWait).Sub(now)
	}
	if !b.fill.began.IsZero() {
		wait = min(wait, b.fill.rollAt.Sub(now))
	}
	if b.tail != nil {
		wait = min(wait, b.tail.began.Add(flushWait).Sub(now))
		if b.tail.sync {
			wait = min(wait, b.holdUntil.Sub(now))
		}
	}
	return max(wait, 0)
}

func (b *Batcher) onTime(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failing != nil && len(b.writes) == 0 && b.probes(now) {
		b.gather(now).sync = true // the disk's own word that it works again
		b.tail = nil
	}
	if f := b.fill; !f.began.IsZero() && !now.Before(f.rollAt) {
		if now.Sub(f.began) >= b.opts.RollAge {
			b.roll("age")
		} else {
			b.roll("asked")
		}
	}
}

// probes reports whether to try to write.
func (b *Batcher) probes(now time.Time) bool {
	return b.failing == nil || now.Sub(b.probed) >= probeWait
}

// next returns the oldest write if it is due. Only the last write gathers more, so a write with another behind it does
// not wait.
func (b *Batcher) next(now time.Time) *write {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.writes) == 0 || !b.probes(now) || b.writes[0] == b.tail && !b.due(b.tail, now) {
		return nil
	}
	w := b.writes[0]
	b.writes[0] = nil
	b.writes = b.writes[1:]
	b.gathered -= int64(len(w.buf))
	if b.tail == w {
		b.tail = nil
	}
	close(w.taken)
	return w
}

// commit performs the oldest write that is due, and reports whether there was one.
func (b *Batcher) commit() bool {
	w := b.next(time.Now())
	if w == nil {
		return false
	}
	took, err := b.bring(w)
	b.mu.Lock()
	defer b.mu.Unlock()
	if w.sync {
		b.expectMore(w, time.Now(), took)
	}
	if err != nil {
		b.retreat(w, err)
		return true
	}
	b.failing = nil
	w.batch = b.active
	b.active.blobs = b.hold(b.active.blobs, w.blobs...)
	w.blobs = nil
	close(w.done)
	if len(b.spare) < keepWrites && cap(w.buf) <= 2*maxGather { // append grows by steps
		b.spare = append(b.spare, w.buf[:0])
	}
	w.buf = nil // a ticket may hold the write for long
	if w.roll || b.active.segment.Empty() {
		b.seal()
	}
	return true
}

// bring writes to the segment of the active batch. If there is none, it starts one.
func (b *Batcher) bring(w *write) (took time.Duration, err error) {
	if b.active == nil {
		if err := b.begin(w); err != nil {
			return 0, err
		}
	}
	seg := b.active.segment
	start := seg.Size()
	if err := seg.Write(w.buf); err != nil || !w.sync && !w.roll {
		return 0, err
	}
	// Also at a roll: a sealed batch may wait long for the bucket, and a crash must not cost more than the active batch.
	began := time.Now()
	if w.roll {
		err = seg.Finish()
	} else {
		err = seg.Sync()
	}
	if err != nil {
		// After a failed fsync the content of the disk is unknown. The waiting appends are rejected, so their records must
		// not come back.
		err = errors.Join(err, seg.Truncate(start))
	}
	took = time.Since(began)
	b.metrics.fsync.Observe(took.Seconds())
	return took, err
}

// begin opens the next batch. Its key is fixed here. No two batches have the same key, even if the first write of the
// previous batch was undone.
func (b *Batcher) begin(w *write) error {
	b.mu.Lock()
	seq := w.seq
	if seq == 0 {
		seq = b.nextSeq
	}
	b.mu.Unlock()
	at := w.began.UTC().Truncate(time.Millisecond)
	if seq == b.last.Seq && !at.After(b.last.Time) {
		at = b.last.Time.Add(time.Millisecond)
	}
	key := pipeline.Key{Prefix: b.spec.Prefix, Time: at, Receiver: b.opts.Receiver, Seq: seq, Format: b.opts.Format}
	seg, err := b.wal.Create(wal.Header{Key: key.String(), FirstSeq: seq, Time: at.UnixMilli()})
	if err != nil {
		return err
	}
	b.last = key
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active = newBatch(key, seg)
	b.disk += seg.Size()
	return nil
}

// seal hands the active batch to the uploaders, unless it has no record.
func (b *Batcher) seal() {
	bt := b.active
	b.active = nil
	bt.size, bt.sealed = bt.segment.Size(), time.Now()
	bt.segment.Close()
	if bt.segment.Empty() {
		b.discard(bt.segment.Path(), bt.size)
		return
	}
	b.waiting = append(b.waiting, bt)
	b.sealed = append(b.sealed, bt)
	b.wake()
}

// retreat handles a failed write. Tickets that wait for the disk get the error. Events that were acknowledged from
// memory, here and in later writes, become the next write. It goes into another segment; this one gets no more.
func (b *Batcher) retreat(w *write, err error) {
	b.fail(err)
	if b.active != nil {
		b.metrics.rolls.WithLabelValues("error").Inc()
		b.seal()
	}
	again := newWrite(time.Now(), b.opts.ObjectTimeout)
	again.sync = true
	for _, failed := range append([]*write{w}, b.writes...) {
		b.keepPromised(again, failed)
		failed.err, failed.again = errors.Join(ErrUnavailable, err), again
		close(failed.done)
		if failed != w {
			close(failed.taken)
		}
	}
	b.tail = nil
	b.writes, b.gathered = nil, int64(len(again.buf))
	rollAt := b.fill.rollAt
	b.fill = fill{}
	if len(again.buf) == 0 {
		return
	}
	b.writes = []*write{again}
	if !again.roll {
		b.fill = fill{began: again.began, rollAt: rollAt}
		for _, s := range again.promised {
			b.fill.add(s)
		}
	}
}

// keepPromised moves events acknowledged from memory from one write to another.
func (b *Batcher) keepPromised(to, from *write) {
	before := len(to.buf)
	for _, s := range from.promised {
		at := len(to.buf)
		to.buf = append(to.buf, from.buf[s.from:s.to]...)
		s.from, s.to = at, len(to.buf)
		to.promised = append(to.promised, s)
	}
	b.disk -= int64(len(from.buf) - (len(to.buf) - before))
	if len(to.buf) > before {
		if before == 0 {
			to.seq = from.seq
		}
		to.blobs = b.hold(to.blobs, from.blobs...)
	} else {
		for _, s := range from.blobs {
			b.drop(s)
		}
	}
	to.roll = to.roll || from.roll
	from.blobs, from.buf = nil, nil
}

// fail makes Append reject events until a write succeeds.
func (b *Batcher) fail(err error) {
	if b.failing == nil {
		b.log.Error("the write-ahead log cannot be written; events are refused until it can", "error", err)
	}
	b.failing, b.probed = err, time.Now()
	b.metrics.writeErrors.Inc()
	b.signal()
}
