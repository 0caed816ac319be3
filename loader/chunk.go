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
	"github.com/penstock/penstock/internal/testing/faultpoint"
)

// day in milliseconds: the table's partitions are days of received_at, UTC.
const day = 24 * 60 * 60 * 1000

// dayOf counts days since 1970; received_at is never before that.
func dayOf(e *pipeline.Event) int64 { return e.ReceivedAt / day }

// piece is how much is decoded at once.
var piece = codec.Limit{Rows: 4 << 10, Bytes: 1 << 20}

// chunk is the rows of one insert, of one day.
type chunk struct {
	day        int64
	block      Block
	first, end int64    // its rows in the object; those of other days lie between them
	received   [2]int64 // the first and the last received_at, ms
	rows       int64    // without the refused ones
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
		chunks, err := c.cut(ctx)
		if err != nil {
			return err
		}
		for _, chunk := range chunks {
			if err := a.insertChunk(ctx, chunk); err != nil {
				return err
			}
		}
	}
	if err := c.rejected.end(); err != nil {
		return err
	}
	meta := a.content.object.Meta
	switch {
	case !a.content.foreign && meta.Rows != c.total:
		return fault("row_count", "it holds %d rows, its metadata says %d", c.total, meta.Rows)
	case a.content.foreign && a.out.rows == 0 && len(a.entry.Refused) > 0:
		return faultFinal("no_valid_rows", "none of its %d rows is valid; `penstock errors list` has them",
			len(a.entry.Refused))
	}
	return nil
}

// cutter decodes an object and cuts it into chunks.
type cutter struct {
	*attempt
	dec      codec.Decoder
	events   []pipeline.Event // reused
	rejected rejections
	total    int64 // events decoded
	end      bool
}

// cut decodes as many events as a chunk may have, into a chunk for each of their
// days, in the order in which the days come first. Mostly there is one.
func (c *cutter) cut(ctx context.Context) ([]*chunk, error) {
	var chunks []*chunk
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
		if chunks, err = c.gather(ctx, chunks, c.events, typed); err != nil {
			return nil, err
		}
	}
	return chunks, nil
}

// decode leaves values in columns if the object has them so.
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

// gather adds events to the chunks of their days: a chunk goes into one
// partition. Usually all of them are of one day, and none is refused.
func (a *attempt) gather(ctx context.Context, chunks []*chunk, events []pipeline.Event,
	typed []*pipeline.Typed) ([]*chunk, error) {
	for from := 0; from < len(events); {
		d := dayOf(&events[from])
		i := slices.IndexFunc(chunks, func(c *chunk) bool { return c.day == d })
		if i < 0 {
			block, err := a.newBlock(ctx)
			if err != nil {
				return nil, err
			}
			i = len(chunks)
			at := events[from].ReceivedAt
			chunks = append(chunks, &chunk{day: d, block: block, first: int64(events[from].Row), received: [2]int64{at, at}})
		}
		c := chunks[i]
		to := from
		for ; to < len(events) && dayOf(&events[to]) == d; to++ {
			at := events[to].ReceivedAt
			c.received[0], c.received[1] = min(c.received[0], at), max(c.received[1], at)
			if _, refused := slices.BinarySearch(a.entry.Refused, events[to].Row); refused {
				c.add(events[from:to], typed, from)
				from = to + 1
			}
		}
		c.end = int64(events[to-1].Row) + 1
		c.add(events[from:to], typed, from)
		from = to
	}
	return chunks, nil
}

func (a *attempt) newBlock(ctx context.Context) (Block, error) {
	return a.parts.Table.NewBlock(ctx, a.spec.Name, a.entry.Key, a.entry.Generation)
}

// add appends events from a place of the batch that typed belongs to.
func (c *chunk) add(events []pipeline.Event, typed []*pipeline.Typed, at int) {
	if len(events) == 0 {
		return
	}
	c.rows += int64(len(events))
	part := make([]*pipeline.Typed, len(typed))
	for i, t := range typed {
		part[i] = t.Slice(uint32(at), uint32(at+len(events)))
	}
	c.block.Append(events, part)
}

// again decodes the events of a chunk once more, without those refused by now.
func (a *attempt) again(c *chunk) iter.Seq2[[]pipeline.Event, error] {
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
			if errors.Is(err, io.EOF) || err == nil && len(events) > 0 && int64(events[0].Row) >= c.end {
				return
			}
			if err != nil {
				yield(nil, fileFault(err))
				return
			}
			mine := slices.DeleteFunc(without(events, a.entry.Refused), func(e pipeline.Event) bool {
				return int64(e.Row) < c.first || int64(e.Row) >= c.end || dayOf(&e) != c.day
			})
			if len(mine) > 0 && !yield(mine, nil) {
				return
			}
		}
	}
}

// insertChunk brings a chunk into the table, unless an earlier attempt has.
func (a *attempt) insertChunk(ctx context.Context, c *chunk) error {
	if c.rows == 0 {
		return nil
	}
	if a.ask {
		there, err := a.present(ctx, c)
		if err != nil {
			return err
		}
		if there {
			a.out.found++
			a.out.add(c)
			return nil
		}
	}
	if err := a.send(ctx, c); err != nil || c.rows == 0 {
		return err
	}
	a.out.inserts++
	faultpoint.Hit("loader.chunk")
	if err := a.prove(ctx, c); err != nil {
		return err
	}
	a.out.add(c)
	return nil
}

func (a *attempt) present(ctx context.Context, c *chunk) (bool, error) {
	return a.parts.Table.Present(ctx, a.spec.Name, a.entry.Key, a.entry.Generation, c.first, c.end, c.received)
}

// send inserts a chunk. It leaves rows out that the table refuses, and sends the
// others; at the end there may be none.
func (a *attempt) send(ctx context.Context, c *chunk) error {
	token := fmt.Sprintf("%s/%d-%d", a.entry.Token(), c.first, c.end)
	for c.rows > 0 {
		err := c.block.Insert(ctx, token, a.again(c))
		if err == nil || retry.CodeOf(err) == 0 {
			return err
		}
		// If a materialized view throws, the rows are in the table already.
		there, asked := a.present(ctx, c)
		if asked != nil {
			return asked
		}
		if there {
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
		if err := a.rebuild(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// rebuild makes a chunk's block anew, without the rows that are refused by now.
func (a *attempt) rebuild(ctx context.Context, c *chunk) (err error) {
	if c.block, err = a.newBlock(ctx); err != nil {
		return err
	}
	c.rows = 0
	for events, err := range a.again(c) {
		if err != nil {
			return err
		}
		c.add(events, nil, 0)
	}
	return nil
}

// prove checks that an inserted chunk is in the table. If somebody has deleted rows
// by hand, the table still knows the token and silently drops the insert: only its
// rows prove it.
func (a *attempt) prove(ctx context.Context, c *chunk) error {
	there, err := a.present(ctx, c)
	if err != nil || there {
		return err
	}
	// The table's TTL deletes old rows whenever it merges.
	before, err := a.parts.Table.Expired(ctx, a.spec.Name)
	if err != nil {
		return err
	}
	if pipeline.Millis(c.received[1]).Before(before) {
		a.out.expired += c.rows
		return nil
	}
	return codedError{code: "rows_swallowed", error: fmt.Errorf("the table took rows %d to %d and does not have them: "+
		"they were deleted by hand less than a deduplication window ago", c.first, c.end)}
}
