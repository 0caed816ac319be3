package batcher

import (
	"context"
	"errors"
	"time"
)

// write is what one system call brings to disk: the records that came while
// the write before it was under way. One fsync serves all that wait for it.
type write struct {
	batch    *batch
	began    time.Time
	buf      []byte
	promised []span // of buf: acknowledged from memory, so a failed write must not lose them
	sync     bool   // somebody waits for the disk
	waiters  int    // how many do
	seal     bool   // the batch's last write

	timeout time.Duration // of who waits for the object

	taken chan struct{} // closed when the committer takes it
	done  chan struct{} // closed when written, and fsynced if sync
	err   error         // set before done is closed
}

type span struct{ from, to int }

func newWrite(bt *batch, timeout time.Duration) *write {
	return &write{batch: bt, timeout: timeout, began: time.Now(), taken: make(chan struct{}), done: make(chan struct{})}
}

// syncHold bounds how long a write is held for more who wait for the disk.
const syncHold = 4 * time.Millisecond

// due tells whether to write now rather than to gather on. An fsync costs the
// same for one as for many, so it is not begun for the first who comes behind
// the last one: as many as waited then are awaited, but for twice the time that
// it took at most. A straggler among many is not, and who is alone finds nobody
// to be awaited.
func (b *Batcher) due(w *write, now time.Time) bool {
	if w.seal || len(w.buf) >= flushBytes || now.Sub(w.began) >= flushWait {
		return true
	}
	return w.sync && (16*w.waiters >= 15*b.expect || !now.Before(b.hold))
}

// expectMore tells due of an fsync that ended.
func (b *Batcher) expectMore(w *write, now time.Time, took time.Duration) {
	b.hold = now.Add(min(2*took, syncHold))
	b.expect = w.waiters
	for _, next := range b.writes {
		b.expect += next.waiters
	}
}

// probeWait is the pause between attempts to write again after a failure.
const probeWait = time.Second

// commits is the one goroutine that writes to segments. After ctx ends it
// seals the active batch and returns.
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
			// Twice: what a failing write carries over may go into another segment.
			for range 2 {
				b.close()
				for b.commit() {
				}
			}
			for wait := true; wait; { // until the blobs are written that are begun
				wait = b.pinned() // asked first: what the last unpin adds is committed below
				for b.commit() {
				}
				if wait {
					<-b.kick
				}
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			b.finished = true
			return
		}
		b.onTime(time.Now())
	}
}

// close refuses what comes from now on and rolls what is there.
func (b *Batcher) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.rescue()
	b.roll("stop")
}

// idle is how long nothing has to be done, unless somebody kicks.
func (b *Batcher) idle(now time.Time) time.Duration {
	wait := time.Hour
	switch {
	case b.failing != nil:
		wait = b.probed.Add(probeWait).Sub(now)
	case len(b.carry) > 0:
		wait = 0
	}
	if b.active != nil {
		wait = min(wait, b.active.rollAt.Sub(now))
	}
	if b.tail != nil {
		wait = min(wait, b.tail.began.Add(flushWait).Sub(now))
		if b.tail.sync {
			wait = min(wait, b.hold.Sub(now))
		}
	}
	return max(wait, 0)
}

func (b *Batcher) onTime(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// Another batch's write may have ended the failure with the carry still here.
	if b.failing == nil && len(b.carry) > 0 || b.failing != nil && now.Sub(b.probed) >= probeWait {
		b.probed = now
		b.rescue()
	}
	if b.active != nil && !now.Before(b.active.rollAt) {
		if now.Sub(b.active.began) >= b.opts.RollAge {
			b.roll("age")
		} else {
			b.roll("asked")
		}
	}
}

// commit does the oldest write that is due, and tells whether there was one.
// Only the tail gathers more: what stands before another waits for nothing.
func (b *Batcher) commit() bool {
	b.mu.Lock()
	if len(b.writes) == 0 || b.writes[0] == b.tail && !b.due(b.tail, time.Now()) {
		b.mu.Unlock()
		return false
	}
	w := b.writes[0]
	b.writes[0] = nil
	b.writes = b.writes[1:]
	b.gathered -= int64(len(w.buf))
	if b.tail == w {
		b.tail = nil
	}
	close(w.taken)
	blobs := w.batch.blobs // another's may come meanwhile, but not this write's
	b.mu.Unlock()

	seg := w.batch.segment
	start := seg.Size()
	err := seg.Write(w.buf)
	var took time.Duration
	// A sealed batch may wait long for the bucket: a crash must cost no more than
	// the active one.
	if err == nil && (w.sync || w.seal) {
		began := time.Now()
		// A record is never more durable than the blobs that it refers to.
		if blobs != nil {
			err = blobs.sync()
		}
		if err == nil {
			err = seg.Sync()
		}
		if err != nil {
			// After a failed fsync nobody knows what the disk holds. Those who
			// wait are refused, so their records must not come back.
			err = errors.Join(err, seg.Truncate(start))
		}
		took = time.Since(began)
		b.metrics.fsync.Observe(took.Seconds())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if w.sync {
		b.expectMore(w, time.Now(), took)
	}
	if err != nil {
		b.spoil(w, err)
	} else {
		b.failing = nil
		close(w.done)
		if len(b.spare) < keepWrites && cap(w.buf) <= 2*maxGather { // append grows by steps
			b.spare = append(b.spare, w.buf[:0])
		}
		w.buf = nil // who waited may hold the write for long
	}
	if w.seal {
		b.seal(w.batch)
	}
	return true
}

// seal hands a batch to the uploaders.
func (b *Batcher) seal(bt *batch) {
	b.disk += bt.segment.Size() - bt.size // what a failed write did not bring
	bt.size = bt.segment.Size()
	if bt.blobs != nil {
		bt.blobs.close()
	}
	if bt.segment.Empty() && (bt.blobs == nil || !bt.carried) {
		b.waiting--
		b.disk -= bt.size + bt.blobBytes
		b.full = false
		close(bt.stored)
		if err := bt.segment.Discard(); err != nil {
			b.log.Error("empty segment stays", "error", err)
		}
		if bt.blobs != nil {
			bt.blobs.remove()
		}
		return
	}
	bt.segment.Close()
	b.sealed = append(b.sealed, bt)
	b.wake()
}

// spoil deals with a write that failed: who waits is refused; what was
// acknowledged from memory is carried over to the next segment; this one gets
// no further write.
func (b *Batcher) spoil(w *write, err error) {
	b.fail(err)
	b.refuse(w, err)
	w.batch.spoiled = true
	if b.active == w.batch {
		b.roll("error")
	}
	// Appends that came meanwhile for the same segment share its fate.
	var rest []*write
	for _, later := range b.writes {
		if later.batch != w.batch {
			rest = append(rest, later)
			continue
		}
		close(later.taken)
		b.gathered -= int64(len(later.buf))
		b.refuse(later, err)
		w.seal = w.seal || later.seal
	}
	b.writes = rest
	if b.tail != nil && b.tail.batch == w.batch {
		b.tail = nil // it was refused with the others
	}
}

func (b *Batcher) refuse(w *write, err error) {
	for _, s := range w.promised {
		b.carry = append(b.carry, w.buf[s.from:s.to]...)
		if w.batch.carried = true; w.batch.blobs != nil {
			b.from = append(b.from, w.batch)
		}
		b.from = append(b.from, w.batch.after...) // they may have been carried before
	}
	w.err = errors.Join(ErrUnavailable, err)
	close(w.done)
}

// fail makes Append refuse until a write succeeds.
func (b *Batcher) fail(err error) {
	if b.failing == nil {
		b.log.Error("the write-ahead log cannot be written; events are refused until it can", "error", err)
		b.probed = time.Now()
	}
	b.failing = err
	b.metrics.writeErrors.Inc()
	b.signal()
}

// rescue tries to write again after a failure, first what is carried over.
func (b *Batcher) rescue() {
	if b.failing == nil && len(b.carry) == 0 {
		return
	}
	if b.active == nil {
		if err := b.begin(time.Now()); err != nil {
			b.failing = err
			return
		}
	}
	w := b.gather(b.active)
	if n := len(b.carry); n > 0 {
		w.promised = append(w.promised, span{len(w.buf), len(w.buf) + n})
		w.buf = append(w.buf, b.carry...)
		w.batch.size += int64(n)
		b.disk += int64(n)
		b.gathered += int64(n)
		b.carry = nil
		w.batch.after, b.from = append(w.batch.after, b.from...), nil
	}
	w.sync = true // the disk's own word that it works again
}
