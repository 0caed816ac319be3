package batcher

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/show"
)

// object is an encoded batch.
type object struct {
	spool *spool
	meta  pipeline.Meta
	blobs *blobObject
}

// cpusAnEncoder is the number of processors for each batch that is encoded at the same time. An encoder holds tens of
// MiB, and one keeps up with the events that several processors receive.
const cpusAnEncoder = 4

// encode makes the object from the segment. If the disk is full, it makes the object in memory. Otherwise a full disk
// would stay full.
func (b *Batcher) encode(bt *batch) (*object, error) {
	sp, err := newSpool(b.fs, bt.segment.Path()+spoolSuffix)
	if err == nil {
		o, err := b.encodeTo(bt, sp)
		if err == nil {
			return o, nil
		}
		sp.Close()
		if sp.err == nil {
			return nil, err
		}
	}
	return b.encodeTo(bt, memorySpool())
}

// maxHeld is how many bytes of small records are encoded at once. A Parquet encoder needs 1.5 times the CPU for one
// event at a time.
const maxHeld = 32 << 10

// encoding is an object under construction.
type encoding struct {
	object
	batch   *batch
	encoder codec.Encoder
	events  []pipeline.Event
	held    []byte // payloads of events, which are views into it
	foreign int    // records that are not a batcher's
}

func (b *Batcher) encodeTo(bt *batch, sp *spool) (*object, error) {
	enc, err := b.encoders.New(sp, bt.key.Format, bt.key.Receiver)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", bt.text, err)
	}
	e := &encoding{batch: bt, encoder: enc, held: make([]byte, 0, maxHeld)}
	e.spool, e.meta.Schema, e.blobs = sp, pipeline.SchemaVersion, &blobObject{key: bt.blobKey()}
	r, err := bt.segment.Reader()
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", bt.text, err)
	}
	for {
		seq, payload, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		bad := error(nil)
		if err == nil {
			bad, err = e.add(seq, payload)
		}
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", bt.text, err)
		}
		if bad == nil {
			continue
		}
		if e.foreign++; bt.failures == 0 {
			b.report(bt.text, "unreadable_record", payload, "a record of the segment %s is not as a batcher writes it: %s",
				bt.segment.Path(), bad)
		}
	}
	if err := e.flush(); err != nil {
		return nil, fmt.Errorf("encode %s: %w", bt.text, err)
	}
	if r.Damaged() > 0 || e.foreign > 0 { // torn tails are cut before a batch is sealed
		b.noteDamage(bt, r.Damaged(), e.foreign)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("encode %s: %w", bt.text, err)
	}
	e.meta.SHA256, e.meta.BlobBytes = sp.sum(), e.blobs.size
	if bt.own != nil {
		e.meta.BlobBytes += bt.own.size
	}
	return &e.object, nil
}

// add encodes one record. bad means that no batcher wrote it.
func (e *encoding) add(seq uint64, payload []byte) (bad, err error) {
	if len(e.held)+len(payload) > maxHeld {
		if err := e.flush(); err != nil {
			return nil, err
		}
	}
	kept := len(payload) <= maxHeld/2
	if kept {
		at := len(e.held)
		e.held = append(e.held, payload...)
		payload = e.held[at:len(e.held):len(e.held)]
	}
	before := len(e.events)
	blobs, rest, bad := parseBlobs(payload)
	if bad == nil {
		e.events, bad = parseRecord(e.events, seq, rest)
	}
	if bad == nil {
		bad = e.blobs.resolve(e.events[before:], blobs)
	}
	if bad != nil {
		e.events = e.events[:before]
		return bad, nil
	}
	if !kept { // valid until the next
		return nil, e.flush()
	}
	return nil, nil
}

// flush encodes the events that are held.
func (e *encoding) flush() error {
	if err := e.encoder.Encode(e.events); err != nil {
		return err
	}
	m := &e.meta
	for i := range e.events {
		at := e.events[i].ReceivedAt
		if m.Rows == 0 {
			m.FirstSeq, m.FirstReceived, m.LastReceived = e.events[i].Seq, at, at
		}
		m.FirstReceived, m.LastReceived = min(m.FirstReceived, at), max(m.LastReceived, at)
		e.batch.nextSeq = max(e.batch.nextSeq, e.events[i].Seq+1)
		m.Rows++
	}
	e.events, e.held = e.events[:0], e.held[:0]
	return nil
}

// noteDamage marks a partly unreadable segment, so that its file is kept.
func (b *Batcher) noteDamage(bt *batch, damaged int64, foreign int) {
	if !bt.segment.Corrupt {
		b.metrics.corrupt.Inc()
		b.report(bt.text, "damaged_segment", nil, "%s and %s cannot be read; the segment is kept as %s.corrupt",
			show.Plural(damaged, "byte"), show.Plural(foreign, "record"), bt.segment.Path())
		b.mu.Lock()
		b.setAside++
		b.mu.Unlock()
	}
	bt.segment.Corrupt = true
	b.log.Error("segment is damaged; it is kept as *.corrupt", "path", bt.segment.Path(), "damaged_bytes", damaged,
		"foreign_records", foreign)
}

// blobKey is the key of the object with the batch's blobs.
func (bt *batch) blobKey() string {
	key := pipeline.BlobKey(bt.key)
	if bt.blobKeys > 0 {
		key = fmt.Sprintf("%s-%d%s", strings.TrimSuffix(key, blobSuffix), bt.blobKeys, blobSuffix)
	}
	return key
}
