package loader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/internal/testing/faultpoint"
)

// piece is the amount that is decoded at once.
var piece = codec.Limit{Rows: 4 << 10, Bytes: 1 << 20}

// maxOpen is how many blocks of an object are filled at once. If an object has rows of more partitions, it is decoded
// again for each further maxOpen partitions. So random times cost time rather than unbounded memory.
const maxOpen = 64

// chunk is the rows of one insert into one partition.
type chunk struct {
	partition  int64
	block      Block    // nil: not yet filled
	first, end int64    // range of its rows in the object, with other partitions' rows between them
	received   [2]int64 // first and last received_at, ms
	latest     int64    // latest timestamp, ms
	rows       int64    // without rejected ones
	pick       []uint32 // its indexes in the current events, reused
}

// insert sends the object's events in chunks.
func (a *attempt) insert(ctx context.Context) error {
	dec, err := a.content.decoder()
	if err != nil {
		return err
	}
	defer dec.Close()
	c := cutter{attempt: a, dec: dec, rejected: rejections{attempt: a, any: len(a.entry.Refused) > 0}}
	for !c.end {
		cut, err := c.cut(ctx)
		if err != nil {
			return err
		}
		if err := a.insertCut(ctx, cut.chunks); err != nil {
			return err
		}
	}
	if err := c.rejected.end(); err != nil {
		return err
	}
	meta := a.content.object.Meta
	switch {
	case !a.content.foreign && meta.Rows != c.total:
		return faultFinal("row_count", "it holds %s, its metadata says %d", show.Plural(c.total, "row"), meta.Rows)
	case a.content.foreign && a.out.rows == 0 && len(a.entry.Refused) > 0:
		return faultFinal("no_valid_rows", "it has no valid row; `penstock errors list` has %s",
			show.Plural(len(a.entry.Refused), "row"))
	}
	return nil
}

// insertCut inserts chunks that were cut together, except those inserted by an earlier attempt. At most maxOpen of them
// are filled at any time. One query covers all of them: a late client's object may have chunks of thousands of weeks.
func (a *attempt) insertCut(ctx context.Context, chunks []*chunk) error {
	chunks, err := a.lacking(ctx, chunks)
	if err != nil {
		return err
	}
	for now := range slices.Chunk(chunks, maxOpen) {
		filled := func(c *chunk) bool { return c.block != nil }
		if left := slices.DeleteFunc(slices.Clone(now), filled); len(left) > 0 {
			if err := a.fill(ctx, left...); err != nil {
				return err
			}
		}
		for _, c := range now {
			if err := a.traceChunk(ctx, c, a.send); err != nil {
				return err
			}
			if c.block = nil; c.rows > 0 {
				a.out.inserts++
				faultpoint.Hit("loader.chunk")
			}
		}
	}
	return a.prove(ctx, chunks)
}

// lacking returns the chunks that must be inserted.
func (a *attempt) lacking(ctx context.Context, chunks []*chunk) ([]*chunk, error) {
	chunks = slices.DeleteFunc(chunks, empty)
	if !a.ask || len(chunks) == 0 {
		return chunks, nil
	}
	there, err := a.present(ctx, chunks...)
	return slices.DeleteFunc(chunks, func(c *chunk) bool {
		if there[c.partition] {
			a.out.found++
			a.out.add(c)
			if c.block != nil {
				c.block.Found()
			}
		}
		return there[c.partition]
	}), err
}

func empty(c *chunk) bool { return c.rows == 0 }

// cutter decodes an object and cuts it into chunks.
type cutter struct {
	*attempt
	dec      codec.Decoder
	events   []pipeline.Event // reused
	rejected rejections
	total    int64 // events decoded so far
	end      bool
}

// cut decodes as many events as a chunk may have. It makes a chunk for each of their partitions, in the order of first
// appearance. Usually there are few.
func (c *cutter) cut(ctx context.Context) (*cut, error) {
	cut := newCut(c.attempt)
	left := codec.Limit{Rows: int(c.entry.ChunkRows), Bytes: int(c.entry.ChunkBytes)}
	for left.Rows > 0 && left.Bytes > 0 {
		limit := codec.Limit{Rows: min(left.Rows, piece.Rows), Bytes: min(left.Bytes, piece.Bytes)}
		typed, bytes, err := c.decode(limit)
		if c.end = errors.Is(err, io.EOF); c.end {
			break
		}
		if err != nil {
			return nil, fileFault(err)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := c.rejected.take(ctx, c.dec, len(c.events)); err != nil {
			return nil, err
		}
		c.total += int64(len(c.events))
		left.Rows -= len(c.events)
		left.Bytes -= bytes
		if err := cut.gather(ctx, c.events, typed); err != nil {
			return nil, err
		}
	}
	return cut, nil
}

// decode keeps typed values in columns if the object has them.
func (c *cutter) decode(limit codec.Limit) (typed []*pipeline.Typed, bytes int, err error) {
	if d, ok := c.dec.(codec.TypedDecoder); ok {
		c.events, typed, bytes, err = d.DecodeTyped(c.events[:0], limit)
		return typed, bytes, err
	}
	c.events, err = c.dec.Decode(c.events[:0], limit)
	for i := range c.events {
		bytes += c.events[i].Size()
	}
	return nil, bytes, err
}

// cut is a group of events by partition.
type cut struct {
	*attempt
	chunks []*chunk // in the order of first appearance
	by     map[int64]*chunk
}

func newCut(a *attempt) *cut { return &cut{attempt: a, by: map[int64]*chunk{}} }

// gather adds events to their partitions' chunks, except those that the table rejects.
func (c *cut) gather(ctx context.Context, events []pipeline.Event, typed []*pipeline.Typed) error {
	var at *chunk
	for i := range events {
		e := &events[i]
		if p := pipeline.Partition(e.IdentityTime()); at == nil || at.partition != p {
			if at = c.by[p]; at == nil {
				var err error
				if at, err = c.begin(ctx, p, e); err != nil {
					return err
				}
			}
		}
		at.end = max(at.end, int64(e.Row)+1)
		at.received[0], at.received[1] = min(at.received[0], e.ReceivedAt), max(at.received[1], e.ReceivedAt)
		at.latest = max(at.latest, e.Time())
		if _, refused := slices.BinarySearch(c.entry.Refused, e.Row); !refused {
			at.pick = append(at.pick, uint32(i))
		}
	}
	for _, at := range c.chunks {
		if at.block != nil && len(at.pick) > 0 {
			at.block.Append(events, typed, at.pick)
		}
		at.rows += int64(len(at.pick))
		at.pick = at.pick[:0]
	}
	return nil
}

// begin creates a partition's chunk; e is its first event.
func (c *cut) begin(ctx context.Context, partition int64, e *pipeline.Event) (at *chunk, err error) {
	at = &chunk{partition: partition, first: int64(e.Row), received: [2]int64{e.ReceivedAt, e.ReceivedAt}}
	if len(c.chunks) < maxOpen {
		at.block, err = c.newBlock(ctx)
	}
	c.chunks = append(c.chunks, at)
	c.by[partition] = at
	return at, err
}

func (a *attempt) newBlock(ctx context.Context) (Block, error) {
	return a.parts.Table.NewBlock(ctx, a.spec.Name, a.entry.Key, a.entry.Generation)
}

// fill decodes the rows of chunks again into new blocks, without the rows rejected so far.
func (a *attempt) fill(ctx context.Context, chunks ...*chunk) (err error) {
	c := newCut(a)
	c.chunks = chunks
	for _, at := range chunks {
		c.by[at.partition] = at
		at.rows = 0
		if at.block, err = a.newBlock(ctx); err != nil {
			return err
		}
	}
	for events, err := range a.again(chunks...) {
		if err == nil {
			err = c.gather(ctx, events, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// again decodes the events of a cut's chunks again, without the rows rejected so far.
func (a *attempt) again(chunks ...*chunk) iter.Seq2[[]pipeline.Event, error] {
	first, end := chunks[0].first, chunks[0].end
	partitions := map[int64]bool{}
	for _, c := range chunks {
		first, end = min(first, c.first), max(end, c.end)
		partitions[c.partition] = true
	}
	return func(yield func([]pipeline.Event, error) bool) {
		dec, err := a.content.decoder()
		if err != nil {
			yield(nil, err)
			return
		}
		defer dec.Close()
		var events []pipeline.Event
		for {
			events, err = dec.Decode(events[:0], piece)
			if errors.Is(err, io.EOF) || err == nil && len(events) > 0 && int64(events[0].Row) >= end {
				return
			}
			if err != nil {
				yield(nil, fileFault(err))
				return
			}
			mine := slices.DeleteFunc(without(events, a.entry.Refused), func(e pipeline.Event) bool {
				row := int64(e.Row)
				return row < first || row >= end || !partitions[pipeline.Partition(e.IdentityTime())]
			})
			if len(mine) > 0 && !yield(mine, nil) {
				return
			}
		}
	}
}

// present returns the partitions of a cut's chunks that the table has.
func (a *attempt) present(ctx context.Context, chunks ...*chunk) (map[int64]bool, error) {
	rows := pipeline.Rows{Object: a.entry.Key, Generation: a.entry.Generation, First: chunks[0].first, End: chunks[0].end,
		Received: chunks[0].received}
	for _, c := range chunks {
		rows.First, rows.End = min(rows.First, c.first), max(rows.End, c.end)
		rows.Received = [2]int64{min(rows.Received[0], c.received[0]), max(rows.Received[1], c.received[1])}
		rows.Partitions = append(rows.Partitions, c.partition)
	}
	return a.parts.Table.Present(ctx, a.spec.Name, rows)
}

// send inserts a chunk. It omits rows that the table rejects, perhaps all of them.
func (a *attempt) send(ctx context.Context, c *chunk) error {
	token := fmt.Sprintf("%s/%d-%d", a.entry.Token(), c.first, c.end)
	for c.rows > 0 {
		err := c.block.Insert(ctx, token, a.again(c))
		if err == nil || retry.CodeOf(err) == 0 {
			return err
		}
		// If a materialized view throws, the rows are already in the table.
		there, asked := a.present(ctx, c)
		if asked != nil {
			return asked
		}
		if there[c.partition] {
			a.log.Error("the table has the rows, a materialized view behind it has not taken them all; "+
				"`penstock reingest --replace` brings them again", "key", a.entry.Key, "error", err)
			a.tell(codedError{code: "view_failed", error: err})
			a.metrics.views.Inc()
			return nil
		}
		if retry.ClassOf(err) == retry.Outage {
			return err
		}
		if err := a.refuse(ctx, c, err); err != nil {
			return err
		}
		if err := a.fill(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// prove checks that inserted chunks are in the table. If somebody deleted rows by hand, the table still knows the token
// and silently drops the insert. Only rows prove the insert.
func (a *attempt) prove(ctx context.Context, chunks []*chunk) error {
	chunks = slices.DeleteFunc(chunks, empty)
	if len(chunks) == 0 {
		return nil
	}
	there, err := a.present(ctx, chunks...)
	if err != nil {
		return err
	}
	for _, c := range chunks {
		if !there[c.partition] {
			if err := a.excuse(ctx, c); err != nil {
				return err
			}
		}
		a.out.add(c)
	}
	return nil
}

// excuse returns an error unless there is a reason why an inserted chunk is not in the table.
func (a *attempt) excuse(ctx context.Context, c *chunk) error {
	// The table's TTL deletes old rows at each merge.
	expiry, err := a.parts.Table.Expired(ctx, a.spec.Name)
	if err != nil {
		return err
	}
	if expiry.Covers(c.received[1], c.latest) {
		a.out.expired += c.rows
		return nil
	}
	collapsed, err := a.collapsed(ctx, c)
	if err != nil || collapsed {
		return err
	}
	return codedError{code: "rows_swallowed", error: fmt.Errorf("the table took rows %d to %d and does not have them: "+
		"they were deleted by hand less than a deduplication window ago", c.first, c.end)}
}

// maxAsked is the most events in one query, which contains their ids.
const maxAsked = 1000

// collapsed reports whether rows of other objects replaced all of a chunk's: a client sent its events again, and a
// merge kept the others. That is usual for a few late events of a week.
func (a *attempt) collapsed(ctx context.Context, c *chunk) (bool, error) {
	var events []pipeline.Identity
	for part, err := range a.again(c) {
		if err != nil {
			return false, err
		}
		for some := range slices.Chunk(part, maxAsked) {
			events = events[:0]
			for i := range some {
				events = append(events, some[i].Identity())
			}
			n, err := a.parts.Table.Known(ctx, a.spec.Name, events)
			if err != nil || n < uint64(len(events)) {
				return false, err
			}
		}
	}
	return true, nil
}
