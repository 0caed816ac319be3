package loader

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/faultpoint"
)

// day in milliseconds: the table's partitions are days of received_at, UTC.
const day = 24 * 60 * 60 * 1000

// load brings one object into the table, unless it is there. The entry that it
// returns with an error is that of the attempt that failed.
func (l *Loader) load(ctx context.Context, n pipeline.Notification) (pipeline.Load, error) {
	return l.loadBy(ctx, n, l.attempt)
}

// attempter makes an attempt at an object that is not loaded.
type attempter func(ctx context.Context, n pipeline.Notification, entry pipeline.Load,
	begun bool) (pipeline.Load, error)

func (l *Loader) loadBy(ctx context.Context, n pipeline.Notification, attempt attempter) (pipeline.Load, error) {
	if !strings.HasPrefix(n.Key, l.spec.Prefix) {
		l.log.Warn("notification of an object that is not of this pipeline", "key", n.Key)
		l.metrics.ignored.WithLabelValues("foreign").Inc()
		return pipeline.Load{}, nil
	}
	if !pipeline.IsData(l.spec.Prefix, n.Key) {
		l.metrics.ignored.WithLabelValues("not_data").Inc()
		return pipeline.Load{}, nil
	}
	entry, begun, err := l.ledger.Load(ctx, n.Key)
	if err != nil {
		return pipeline.Load{Key: n.Key, Pipeline: l.spec.Name}, err
	}
	if !begun {
		entry = pipeline.Load{Key: n.Key, ETag: n.ETag, Pipeline: l.spec.Name}
	}
	switch entry.State {
	case pipeline.Loaded:
		if n.ETag != "" && n.ETag != entry.ETag {
			l.log.Error("object was overwritten after it was loaded; its rows stay as they are (`penstock reingest --replace` loads it anew)", "key", n.Key, "etag", n.ETag, "loaded_etag", entry.ETag)
		}
		l.metrics.results.WithLabelValues("already").Inc()
		if entry.Generation == 0 {
			return entry, nil
		}
		// Who brought this notification may have died just after it added rows to
		// a generation that was replaced meanwhile.
		return entry, l.table.DeleteOlder(ctx, l.spec.Name, n.Key, entry.Generation)
	case pipeline.Dead:
		return entry, l.bury(ctx, entry)
	case pipeline.Dropped:
		l.metrics.results.WithLabelValues("dropped").Inc()
		return entry, nil
	}
	return attempt(ctx, n, entry, begun)
}

// bring is an attempt at an object that is not loaded.
func (l *Loader) bring(ctx context.Context, n pipeline.Notification, entry pipeline.Load, begun bool) (pipeline.Load, error) {
	began := time.Now()
	entry.State, entry.Loader, entry.Started, entry.Finished = pipeline.Loading, l.opts.Name, began.UTC(), time.Time{}
	entry.Attempts++
	c, err := l.source.fetch(ctx, n)
	if err != nil {
		return entry, err
	}
	defer c.Close()
	object := c.object
	l.metrics.bytes.Add(float64(object.Size))
	fetched := time.Since(began)
	entry.Bytes = uint64(object.Size)
	ask := begun
	switch {
	case !begun || entry.ChunkRows == 0:
		entry.ETag = object.ETag
		// A ledger that was lost or restored must not make rows double. Usually
		// nothing is there, and one question is all that it costs.
		newest, there, err := l.table.Newest(ctx, l.spec.Name, n.Key, received(object.Meta))
		if err != nil {
			return entry, err
		}
		entry.Generation, ask = max(entry.Generation, newest), there
	case entry.ETag != object.ETag:
		// What is there of it may be of other content, cut at other rows.
		there, err := l.table.Present(ctx, l.spec.Name, n.Key, entry.Generation, 0, maxRows, [2]int64{0, maxTime})
		if err != nil {
			return entry, err
		}
		if there {
			return entry, fault("object_overwritten", "load %s: its ETag is %s, a part of it was loaded as %s; `penstock reingest --replace` loads it anew", n.Key, object.ETag, entry.ETag)
		}
		// Who is late with the old content finds a newer generation, and deletes what
		// it brings.
		entry.ETag, entry.Refused = object.ETag, nil
		entry.Generation++
	}
	if err := l.decide(ctx, c, &entry); err != nil {
		return entry, err
	}
	faultpoint.Hit("loader.begun")
	done, err := l.insert(ctx, c, &entry, ask)
	if err != nil {
		return entry, fmt.Errorf("load %s: %w", n.Key, err)
	}
	if c.foreign && done.rows == 0 && len(entry.Refused) > 0 {
		return entry, faultFinal("no_valid_rows", "load %s: none of its %d rows is valid; `penstock errors list` has them", n.Key, len(entry.Refused))
	}
	faultpoint.Hit("loader.inserted")
	replaced, err := l.replaced(ctx, entry)
	if err != nil || replaced {
		return entry, err
	}
	faultpoint.Hit("loader.replaced")
	entry.State, entry.Rows, entry.Received, entry.Finished = pipeline.Loaded, uint64(done.rows), pipeline.Millis(done.newest), time.Now().UTC()
	entry.Unfinished = 0
	if err := l.ledger.SaveLoad(ctx, entry); err != nil {
		return entry, err
	}
	faultpoint.Hit("loader.recorded")
	l.mu.Lock()
	l.stats.Objects++
	l.trips = 0
	l.stats.Rows += done.rows
	l.mu.Unlock()
	took := time.Since(began)
	l.metrics.results.WithLabelValues("loaded").Inc()
	l.metrics.rows.Add(float64(done.rows))
	l.metrics.seconds.Observe(took.Seconds())
	l.log.Info("loaded", "key", n.Key, "rows", done.rows, "refused", len(entry.Refused), "expired", done.expired,
		"bytes", object.Size, "inserts", done.inserts, "found", done.found,
		"generation", entry.Generation, "fetch_ms", fetched.Milliseconds(), "load_ms", (took - fetched).Milliseconds(),
		"lag_ms", time.Since(pipeline.Millis(done.newest)).Milliseconds())
	return entry, nil
}

// decide settles where the object is cut and writes `loading` into the ledger,
// before anything of the object is decoded: if that kills the process, the
// ledger knows.
func (l *Loader) decide(ctx context.Context, c *content, entry *pipeline.Load) error {
	if c.foreign || entry.ChunkRows == 0 && l.hasToMeasure(c) {
		if err := l.ledger.SaveLoad(ctx, *entry); err != nil {
			return err
		}
		faultpoint.Hit("loader.decoding")
	}
	if err := l.source.prepare(ctx, c); err != nil {
		return fmt.Errorf("read %s: %w", entry.Key, err)
	}
	if entry.Reading != c.reading && entry.ChunkRows > 0 {
		// What an earlier attempt brought was cut at other rows. All of it comes in
		// anew, and then what is older goes.
		entry.Refused, entry.ChunkRows = nil, 0
		entry.Generation++
	}
	entry.Reading = c.reading
	if entry.ChunkRows == 0 {
		if err := l.measure(c, entry); err != nil {
			return fmt.Errorf("load %s: %w", entry.Key, err)
		}
	}
	return l.ledger.SaveLoad(ctx, *entry)
}

// replaced deletes the rows of the generations before this one, or its own
// where another has come after it. It is asked when all rows are in, so
// that whoever is late cleans up: nobody else knows of its last insert.
func (l *Loader) replaced(ctx context.Context, entry pipeline.Load) (bool, error) {
	now, _, err := l.ledger.Load(ctx, entry.Key)
	if err != nil {
		return false, err
	}
	newest := max(now.Generation, entry.Generation)
	if newest > 0 {
		if err := l.table.DeleteOlder(ctx, l.spec.Name, entry.Key, newest); err != nil {
			return false, err
		}
	}
	return newest > entry.Generation, nil
}

// maxRows is more than an object can hold: object_row has 32 bits.
const maxRows = 1 << 32

// maxTime is the year 2109, in ms.
const maxTime = 1<<42 - 1

// received bounds the received_at of an object's rows, in ms. A foreign object
// has no metadata to say it.
func received(m pipeline.Meta) [2]int64 {
	if m.SHA256 == "" {
		return [2]int64{0, maxTime}
	}
	return [2]int64{m.FirstReceived, m.LastReceived}
}

// outcome is what an insert of an object did.
type outcome struct {
	rows    int64 // in the table
	inserts int   // blocks sent
	found   int   // chunks that an earlier attempt had brought
	expired int64 // rows that the table has deleted already, for their age
	newest  int64 // received_at, ms
}

// piece is how much is decoded at once.
var piece = codec.Limit{Rows: 4 << 10, Bytes: 1 << 20}

// measure decides where the object is cut, by its first events. It stands in the
// ledger from then on.
func (l *Loader) measure(c *content, entry *pipeline.Load) error {
	entry.ChunkRows, entry.ChunkBytes = uint32(l.opts.ChunkRows), uint32(l.opts.ChunkBytes)
	if !l.hasToMeasure(c) {
		return nil
	}
	dec, err := c.decoder()
	if err != nil {
		return err
	}
	defer dec.Close()
	sample, err := dec.Decode(nil, piece)
	if err != nil && err != io.EOF {
		return fault("unreadable_object", "%w", err)
	}
	entry.ChunkRows = uint32(l.table.ChunkRows(sample, l.opts.ChunkRows))
	return nil
}

// hasToMeasure is false for small objects, which are not opened twice: wherever a
// chunk may end, they are one.
func (l *Loader) hasToMeasure(c *content) bool {
	return c.foreign || c.object.Meta.Rows > int64(l.opts.MinChunk)
}

// chunk is the rows of one insert, of one day.
type chunk struct {
	day        int64
	block      Block
	first, end int64    // its rows in the object; those of other days lie between them
	received   [2]int64 // the first and the last received_at, ms
	rows       int64    // but for the refused ones
}

// insert sends the object's events in chunks. Where an earlier attempt may have
// come some way, the table is asked before each.
func (l *Loader) insert(ctx context.Context, of *content, entry *pipeline.Load, ask bool) (outcome, error) {
	var out outcome
	dec, err := of.decoder()
	if err != nil {
		return out, err
	}
	defer dec.Close()
	var events []pipeline.Event
	total := int64(0)
	lines := rejections{l: l, entry: entry, any: len(entry.Refused) > 0}
	for end := false; !end; {
		var chunks []*chunk // a day each, in the order in which the days come first; mostly there is one
		left := codec.Limit{Rows: int(entry.ChunkRows), Bytes: int(entry.ChunkBytes)}
		for left.Rows > 0 && left.Bytes > 0 {
			var typed []*pipeline.Typed
			var bytes int
			events, typed, bytes, err = decodeTyped(dec, events[:0], codec.Limit{Rows: min(left.Rows, piece.Rows), Bytes: min(left.Bytes, piece.Bytes)})
			if end = err == io.EOF; end {
				break
			}
			if err != nil {
				return out, fault("unreadable_object", "%w", err)
			}
			if err := ctx.Err(); err != nil {
				return out, err
			}
			if err := lines.take(ctx, dec, len(events)); err != nil {
				return out, err
			}
			total += int64(len(events))
			left.Rows -= len(events)
			left.Bytes -= bytes
			if chunks, err = l.gather(ctx, of.object.Key, entry, chunks, events, typed); err != nil {
				return out, err
			}
		}
		for _, c := range chunks {
			if err := l.insertChunk(ctx, of, entry, &out, c, ask); err != nil {
				return out, err
			}
		}
	}
	if err := lines.end(); err != nil {
		return out, err
	}
	if meta := of.object.Meta; !of.foreign && meta.Rows != total {
		return out, fault("row_count", "it holds %d rows, its metadata says %d", total, meta.Rows)
	}
	return out, nil
}

// decodeTyped leaves values in columns where the object has them so.
func decodeTyped(dec codec.Decoder, dst []pipeline.Event, limit codec.Limit) (events []pipeline.Event, typed []*pipeline.Typed, bytes int, err error) {
	if d, ok := dec.(codec.TypedDecoder); ok {
		return d.DecodeTyped(dst, limit)
	}
	events, err = dec.Decode(dst, limit)
	for i := range events {
		bytes += events[i].Size()
	}
	return events, nil, bytes, err
}

// dayOf counts days since 1970; received_at is never before that.
func dayOf(e *pipeline.Event) int64 { return e.ReceivedAt / day }

// gather adds events to the chunks of their days: a chunk goes into one
// partition. Usually all of them are of one day, and none is refused.
func (l *Loader) gather(ctx context.Context, key string, entry *pipeline.Load, chunks []*chunk, events []pipeline.Event, typed []*pipeline.Typed) ([]*chunk, error) {
	for from := 0; from < len(events); {
		d := dayOf(&events[from])
		i := slices.IndexFunc(chunks, func(c *chunk) bool { return c.day == d })
		if i < 0 {
			block, err := l.table.NewBlock(ctx, l.spec.Name, key, entry.Generation)
			if err != nil {
				return nil, err
			}
			i = len(chunks)
			chunks = append(chunks, &chunk{day: d, block: block, first: int64(events[from].Row), received: [2]int64{events[from].ReceivedAt, events[from].ReceivedAt}})
		}
		c := chunks[i]
		to := from
		for ; to < len(events) && dayOf(&events[to]) == d; to++ {
			c.received[0], c.received[1] = min(c.received[0], events[to].ReceivedAt), max(c.received[1], events[to].ReceivedAt)
			if _, refused := slices.BinarySearch(entry.Refused, events[to].Row); refused {
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

// add appends events that stand at a place of the batch that typed is of.
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

// again reads the events of a chunk once more, but for those refused by now.
func (c *chunk) again(of *content, entry *pipeline.Load) iter.Seq2[[]pipeline.Event, error] {
	return func(yield func([]pipeline.Event, error) bool) {
		dec, err := of.decoder()
		if err != nil {
			yield(nil, err)
			return
		}
		defer dec.Close()
		var events []pipeline.Event
		for {
			events, err = dec.Decode(events[:0], piece)
			if err == io.EOF || err == nil && len(events) > 0 && int64(events[0].Row) >= c.end {
				return
			}
			if err != nil {
				yield(nil, fault("unreadable_object", "%w", err))
				return
			}
			mine := slices.DeleteFunc(without(events, entry.Refused), func(e pipeline.Event) bool {
				return int64(e.Row) < c.first || int64(e.Row) >= c.end || dayOf(&e) != c.day
			})
			if len(mine) > 0 && !yield(mine, nil) {
				return
			}
		}
	}
}

func (l *Loader) insertChunk(ctx context.Context, of *content, entry *pipeline.Load, out *outcome, c *chunk, ask bool) error {
	object := of.object
	present := func() (bool, error) {
		return l.table.Present(ctx, l.spec.Name, object.Key, entry.Generation, c.first, c.end, c.received)
	}
	if c.rows == 0 {
		return nil
	}
	if ask {
		there, err := present()
		if err != nil {
			return err
		}
		if there {
			out.found++
			out.add(c)
			return nil
		}
	}
	again := c.again(of, entry)
	token := fmt.Sprintf("%s/%d-%d", entry.Token(), c.first, c.end)
	for c.rows > 0 {
		err := c.block.Insert(ctx, token, again)
		if err == nil {
			break
		}
		if retry.CodeOf(err) == 0 {
			return err
		}
		// A materialized view that throws does so behind the rows.
		there, asked := present()
		if asked != nil {
			return asked
		}
		if there {
			l.log.Error("the table has the rows, a materialized view behind it has not taken them all; `penstock reingest --replace` brings them again", "key", object.Key, "error", err)
			l.tell(*entry, codedError{code: "view_failed", error: err})
			l.metrics.views.Inc()
			break
		}
		if retry.ClassOf(err) == retry.Outage {
			return err
		}
		if err := l.refuse(ctx, entry, c, again, err); err != nil {
			return err
		}
		if err := l.rebuild(ctx, object.Key, entry, c, again); err != nil {
			return err
		}
	}
	if c.rows == 0 {
		return nil
	}
	out.inserts++
	faultpoint.Hit("loader.chunk")
	// Where somebody has deleted rows by hand, the table still knows the token
	// and takes the insert without a word: only its rows prove it.
	there, err := present()
	if err != nil {
		return err
	}
	if !there {
		// The table's TTL deletes old rows whenever it merges.
		before, err := l.table.Expired(ctx, l.spec.Name)
		if err != nil {
			return err
		}
		if pipeline.Millis(c.received[1]).Before(before) {
			out.expired += c.rows
			there = true
		}
	}
	if !there {
		return codedError{code: "rows_swallowed", error: fmt.Errorf("the table took rows %d to %d and does not have them: they were deleted by hand less than a deduplication window ago", c.first, c.end)}
	}
	out.add(c)
	return nil
}

// rebuild makes a chunk's block anew, without the rows that are refused by now.
func (l *Loader) rebuild(ctx context.Context, key string, entry *pipeline.Load, c *chunk, again iter.Seq2[[]pipeline.Event, error]) (err error) {
	if c.block, err = l.table.NewBlock(ctx, l.spec.Name, key, entry.Generation); err != nil {
		return err
	}
	c.rows = 0
	for events, err := range again {
		if err != nil {
			return err
		}
		c.add(events, nil, 0)
	}
	return nil
}

func (o *outcome) add(c *chunk) {
	o.rows += c.rows
	o.newest = max(o.newest, c.received[1])
}
