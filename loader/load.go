package loader

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/faultpoint"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// day in milliseconds: the table's partitions are days of received_at, UTC.
const day = 24 * 60 * 60 * 1000

// load brings one object into the table, unless it is there.
func (l *Loader) load(ctx context.Context, n pipeline.Notification) error {
	if !strings.HasPrefix(n.Key, l.spec.Prefix) {
		l.log.Warn("notification of an object that is not of this pipeline", "key", n.Key)
		l.metrics.ignored.WithLabelValues("foreign").Inc()
		return nil
	}
	entry, begun, err := l.ledger.Load(ctx, n.Key)
	if err != nil {
		return err
	}
	if begun && entry.Loaded {
		if n.ETag != "" && n.ETag != entry.ETag {
			l.log.Error("object was overwritten after it was loaded; its rows stay as they are", "key", n.Key, "etag", n.ETag, "loaded_etag", entry.ETag)
		}
		l.metrics.results.WithLabelValues("already").Inc()
		return nil
	}
	began := time.Now()
	object, file, err := fetch(ctx, l.store, n, l.opts.Dir)
	if err != nil {
		return err
	}
	defer file.Close()
	l.metrics.bytes.Add(float64(object.Size))
	fetched := time.Since(began)
	ask := begun
	if !begun {
		entry = pipeline.Load{Key: n.Key, ETag: object.ETag, Pipeline: l.spec.Name,
			ChunkRows: uint32(l.opts.ChunkRows), ChunkBytes: uint32(l.opts.ChunkBytes)}
		// A ledger that was lost or restored must not make rows double. Usually
		// nothing is there, and one question is all that it costs.
		if ask, err = l.table.Present(ctx, l.spec.Name, n.Key, 0, maxRows, received(object.Meta)); err != nil {
			return err
		}
	}
	entry.Attempts++
	entry.Bytes, entry.Loader, entry.Started = uint64(object.Size), l.opts.Name, began.UTC()
	if err := l.ledger.SaveLoad(ctx, entry); err != nil {
		return err
	}
	faultpoint.Hit("loader.begun")
	done, err := l.insert(ctx, object, file, entry, ask)
	if err != nil {
		return fmt.Errorf("load %s: %w", n.Key, err)
	}
	faultpoint.Hit("loader.inserted")
	entry.Loaded, entry.Rows, entry.Received, entry.Finished = true, uint64(done.rows), pipeline.Millis(done.newest), time.Now().UTC()
	if err := l.ledger.SaveLoad(ctx, entry); err != nil {
		return err
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
	l.log.Info("loaded", "key", n.Key, "rows", done.rows, "bytes", object.Size, "inserts", done.inserts, "found", done.found,
		"fetch_ms", fetched.Milliseconds(), "load_ms", (took - fetched).Milliseconds(),
		"lag_ms", time.Since(pipeline.Millis(done.newest)).Milliseconds())
	return nil
}

// maxRows is more than an object can hold: object_row has 32 bits.
const maxRows = 1 << 32

// received bounds the received_at of an object's rows, in ms. A foreign object
// has no metadata to say it.
func received(m pipeline.Meta) [2]int64 {
	if m.SHA256 == "" {
		return [2]int64{0, 1<<42 - 1} // to the year 2109
	}
	return [2]int64{m.FirstReceived, m.LastReceived}
}

// fetch brings the object to the disk, whole and checked. The file has no
// name any more.
func fetch(ctx context.Context, store Store, n pipeline.Notification, dir string) (pipeline.Object, *os.File, error) {
	object, body, err := store.Get(ctx, n.Key)
	if err != nil {
		return object, nil, err
	}
	defer body.Close()
	file, err := os.CreateTemp(dir, "load-*.tmp")
	if err != nil {
		return object, nil, fmt.Errorf("fetch %s: %w", n.Key, retry.As(retry.Outage, err))
	}
	os.Remove(file.Name())
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(file, sum), body)
	if err == nil {
		err = check(object, n, size, hex.EncodeToString(sum.Sum(nil)))
	} else {
		err = retry.As(retry.Outage, err) // a cut connection or a full disk says nothing about the object
	}
	if err != nil {
		file.Close()
		return object, nil, fmt.Errorf("fetch %s: %w", n.Key, err)
	}
	return object, file, nil
}

// check holds what came against what the store and our metadata say.
func check(object pipeline.Object, n pipeline.Notification, size int64, sum string) error {
	switch {
	case size != object.Size:
		return retry.As(retry.Outage, fmt.Errorf("%d bytes came of %d", size, object.Size))
	case n.ETag != "" && object.ETag != n.ETag:
		return retry.As(retry.Permanent, fmt.Errorf("its ETag is %s, the notification's %s: it was overwritten", object.ETag, n.ETag))
	case object.Meta.SHA256 != "" && object.Meta.SHA256 != sum:
		return retry.As(retry.Permanent, fmt.Errorf("its sha256 is %s, its metadata says %s: it is damaged", sum, object.Meta.SHA256))
	}
	return nil
}

// outcome is what an insert of an object did.
type outcome struct {
	rows    int64 // in the object
	inserts int   // blocks sent
	found   int   // chunks that an earlier attempt had brought
	newest  int64 // received_at, ms
}

// insert sends the object's events in chunks. Where an earlier attempt may have
// come some way, the table is asked before each.
func (l *Loader) insert(ctx context.Context, object pipeline.Object, file io.ReaderAt, entry pipeline.Load, ask bool) (outcome, error) {
	var out outcome
	format, ok := pipeline.FormatOf(object.Key)
	if !ok {
		return out, retry.As(retry.Permanent, fmt.Errorf("its name ends in no known format"))
	}
	dec, err := codec.NewDecoder(file, object.Size, format)
	if err != nil {
		return out, retry.As(retry.Permanent, err)
	}
	defer dec.Close()
	limit := codec.Limit{Rows: int(entry.ChunkRows), Bytes: int(entry.ChunkBytes)}
	var events []pipeline.Event
	for {
		events, err = dec.Decode(events[:0], limit)
		if err == io.EOF {
			break
		}
		if err != nil {
			return out, retry.As(retry.Permanent, err)
		}
		for rest := events; len(rest) > 0; {
			chunk := sameDay(rest)
			rest = rest[len(chunk):]
			if err := l.insertChunk(ctx, object.Key, entry, &out, chunk, ask); err != nil {
				return out, err
			}
		}
	}
	if object.Meta.SHA256 != "" && object.Meta.Rows != out.rows {
		return out, retry.As(retry.Permanent, fmt.Errorf("it holds %d rows, its metadata says %d", out.rows, object.Meta.Rows))
	}
	return out, nil
}

// sameDay is the longest start of events that goes into one partition.
func sameDay(events []pipeline.Event) []pipeline.Event {
	for i := range events {
		if events[i].ReceivedAt/day != events[0].ReceivedAt/day {
			return events[:i]
		}
	}
	return events
}

func (l *Loader) insertChunk(ctx context.Context, key string, entry pipeline.Load, out *outcome, chunk []pipeline.Event, ask bool) error {
	first := out.rows
	received := [2]int64{chunk[0].ReceivedAt, chunk[0].ReceivedAt}
	for i := range chunk {
		received[0] = min(received[0], chunk[i].ReceivedAt)
		received[1] = max(received[1], chunk[i].ReceivedAt)
	}
	end := first + int64(len(chunk))
	present := func() (bool, error) { return l.table.Present(ctx, l.spec.Name, key, first, end, received) }
	if ask {
		there, err := present()
		if err != nil {
			return err
		}
		if there {
			out.found++
			out.add(chunk, received[1])
			return nil
		}
	}
	token := fmt.Sprintf("%s@%s/%s/%d/%d-%d", key, entry.ETag, l.spec.Name, entry.Generation, first, end)
	if err := l.table.Insert(ctx, l.spec.Name, token, key, chunk); err != nil {
		return err
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
		return fmt.Errorf("the table took rows %d to %d and does not have them: they were deleted by hand less than a deduplication window ago", first, end)
	}
	out.add(chunk, received[1])
	return nil
}

func (o *outcome) add(chunk []pipeline.Event, newest int64) {
	o.rows += int64(len(chunk))
	o.newest = max(o.newest, newest)
}
