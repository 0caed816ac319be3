package loader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/faultpoint"
)

// attempt is one attempt to load one object. run is the usual way; perform chooses what happens before or instead.
type attempt struct {
	*Loader
	notified pipeline.Notification
	entry    pipeline.Load // in the ledger, as updated by this attempt
	ask      bool          // earlier attempts may have inserted rows, so ask the table before each chunk
	content  *content
	began    time.Time
	fetched  time.Duration // since began
	out      outcome
}

// outcome is the result of an attempt.
type outcome struct {
	rows    int64 // in the table
	inserts int   // blocks sent
	found   int   // chunks inserted by an earlier attempt
	expired int64 // rows already deleted by the table's TTL
	newest  int64 // received_at, ms
}

func (o *outcome) add(c *chunk) {
	o.rows += c.rows
	o.newest = max(o.newest, c.received[1])
}

// load handles a notification. If it returns an error, the attempt is the failed one.
func (l *Loader) load(ctx context.Context, n pipeline.Notification) (*attempt, error) {
	return l.loadBy(ctx, n, notified, (*attempt).make)
}

// Alone loads one object in the process that an Isolation starts. It ignores earlier attempts.
func (l *Loader) Alone(ctx context.Context, n pipeline.Notification) error {
	ctx, span := l.traceAttempt(ctx, n.Key, "alone", true)
	a, err := l.loadBy(ctx, n, assigned, (*attempt).run)
	a.endSpan(span, err)
	return err
}

func (l *Loader) loadBy(ctx context.Context, n pipeline.Notification, ev event,
	attempted func(*attempt, context.Context) error) (*attempt, error) {
	a := &attempt{Loader: l, notified: n}
	if !l.concerns(n) {
		return a, nil
	}
	do, err := a.open(ctx, happening{event: ev})
	if err != nil {
		return a, err
	}
	switch do {
	case tidy:
		return a, a.leaveLoaded(ctx)
	case bury:
		return a, l.bury(ctx, a.entry)
	case leave:
		l.metrics.results.WithLabelValues("dropped").Inc()
		return a, nil
	}
	return a, attempted(a, ctx)
}

// concerns reports whether a notification names an object that this loader loads.
func (l *Loader) concerns(n pipeline.Notification) bool {
	switch {
	case !strings.HasPrefix(n.Key, l.spec.Prefix):
		l.log.Warn("notification of another pipeline's object", "key", n.Key)
		l.metrics.ignored.WithLabelValues("foreign").Inc()
		return false
	case !pipeline.IsData(l.spec.Prefix, n.Key):
		l.metrics.ignored.WithLabelValues("not_data").Inc()
		return false
	}
	return true
}

// open reads the ledger, and decides what to do.
func (a *attempt) open(ctx context.Context, h happening) (action, error) {
	a.entry = pipeline.Load{Key: a.notified.Key, ETag: a.notified.ETag, Pipeline: a.spec.Name}
	var known bool
	err := a.step(ctx, "read ledger", func(ctx context.Context) (err error) {
		entry, found, err := a.parts.Ledger.Load(ctx, a.notified.Key)
		if found && err == nil {
			a.entry, known = entry, true
		}
		return err
	})
	if err != nil {
		return leave, err
	}
	if !known && (h.event == missed || h.event == replaced) {
		// If the ledger was lost, only the table knows the generation.
		a.entry.Generation, _, err = a.parts.Table.Newest(ctx, a.spec.Name, a.entry.Key, [2]int64{0, maxTime})
		if err != nil {
			return leave, err
		}
	}
	return a.happens(h, known), nil
}

// happens applies the rules to the entry.
func (a *attempt) happens(h happening, known bool) action {
	h.at = time.Now().UTC()
	e, do := a.rules().next(a.entry, known, h)
	if e.Unfinished > a.entry.Unfinished {
		a.metrics.unfinished.Inc()
		a.traceUnfinished(h.at)
	}
	a.entry = e
	return do
}

// leaveLoaded handles a notification of a loaded object.
func (a *attempt) leaveLoaded(ctx context.Context) error {
	if etag := a.notified.ETag; etag != "" && etag != a.entry.ETag {
		if err := a.compareLoaded(ctx); err != nil {
			return err
		}
	}
	a.metrics.results.WithLabelValues("already").Inc()
	if a.entry.Generation == 0 {
		return nil
	}
	// The loader that had this notification may have died right after it added rows to a generation that was replaced
	// meanwhile.
	return a.parts.Table.DeleteOlder(ctx, a.spec.Name, a.entry.Key, a.entry.Generation)
}

// compareLoaded reports a loaded object that was overwritten. The notification alone proves nothing: it may be for
// earlier content that was replaced before the object was loaded.
func (a *attempt) compareLoaded(ctx context.Context) error {
	object, body, err := a.parts.Source.Store.Get(ctx, a.entry.Key)
	switch {
	case err == nil:
		body.Close()
	case retry.ClassOf(err) == retry.Outage:
		return err
	default:
		return nil // the object is gone, which verify reports
	}
	if object.ETag != a.entry.ETag {
		a.log.Error("object was overwritten after it was loaded; its rows stay as they are "+
			"(`penstock reingest --replace` loads it anew)", "key", a.entry.Key, "etag", object.ETag,
			"loaded_etag", a.entry.ETag)
	}
	return nil
}

// make runs the attempt: beside others, or alone if the object may have killed its loaders.
func (a *attempt) make(ctx context.Context) error {
	if a.rules().alone(a.entry) {
		return a.isolate(ctx)
	}
	leave, err := a.opts.Isolation.enter(ctx, 1)
	if err != nil {
		return err
	}
	defer leave()
	return a.run(ctx)
}

// run loads the object into the table. If it is interrupted, the next attempt continues: the ledger knows where the
// object is cut, and the table knows which chunks it has.
func (a *attempt) run(ctx context.Context) error {
	a.start()
	if err := a.step(ctx, "fetch", a.fetch); err != nil {
		return err
	}
	defer a.content.Close()
	a.traceNotification()
	if err := a.step(ctx, "compare", a.compare); err != nil {
		return err
	}
	if err := a.step(ctx, "claim", a.claim); err != nil {
		return err
	}
	faultpoint.Hit("loader.begun")
	if err := a.step(ctx, "insert", a.insert); err != nil {
		return fmt.Errorf("load %s: %w", a.entry.Key, err)
	}
	faultpoint.Hit("loader.inserted")
	superseded, err := a.deleteOlder(ctx)
	if err != nil || superseded {
		return err
	}
	faultpoint.Hit("loader.replaced")
	return a.step(ctx, "write ledger", a.record)
}

func (a *attempt) start() {
	a.began = time.Now()
	a.happens(happening{event: started}, true)
}

// fetch copies the object to the disk, and decodes nothing.
func (a *attempt) fetch(ctx context.Context) (err error) {
	a.content, err = a.parts.Source.fetch(ctx, a.notified)
	if last := a.content.object.Meta.LastReceived; last > 0 {
		a.entry.Received = pipeline.Millis(last) // so that the ledger has it if the object becomes a dead letter
	}
	if err != nil {
		return err
	}
	a.fetched = time.Since(a.began)
	a.entry.Bytes = uint64(a.content.object.Size)
	a.metrics.bytes.Add(float64(a.content.object.Size))
	return nil
}

// compare decides the generation of the rows, by what earlier attempts may have inserted.
func (a *attempt) compare(ctx context.Context) error {
	object := a.content.object
	a.ask = true
	if a.entry.ChunkRows == 0 { // no attempt got as far as inserting
		a.entry.ETag = object.ETag
		// If the ledger was lost or restored, there must be no duplicates. Usually the table has no rows, and one query shows
		// that.
		newest, there, err := a.parts.Table.Newest(ctx, a.spec.Name, a.entry.Key, received(object.Meta))
		if err != nil {
			return err
		}
		a.entry.Generation, a.ask = max(a.entry.Generation, newest), there
		return nil
	}
	if a.entry.ETag == object.ETag {
		return nil
	}
	// Its rows in the table may be of other content, cut at other rows.
	there, err := a.parts.Table.Present(ctx, a.spec.Name, pipeline.Rows{Object: a.entry.Key,
		Generation: a.entry.Generation, End: maxRows, Received: [2]int64{0, maxTime}})
	if err != nil {
		return err
	}
	if len(there) > 0 {
		return fault("object_overwritten", "load %s: its ETag is %s, a part of it was loaded as %s; "+
			"`penstock reingest --replace` loads it anew", a.entry.Key, object.ETag, a.entry.ETag)
	}
	// A late loader of the old content finds a newer generation, and deletes what it inserted.
	a.entry.ETag, a.entry.Refused = object.ETag, nil
	a.entry.Generation++
	return nil
}

// claim decides where the object is cut, and writes `loading` into the ledger before it decodes anything. If decoding
// kills the process, the ledger knows.
func (a *attempt) claim(ctx context.Context) error {
	if a.content.foreign || a.entry.ChunkRows == 0 && a.hasToMeasure() {
		if err := a.parts.Ledger.SaveLoad(ctx, a.entry); err != nil {
			return err
		}
		faultpoint.Hit("loader.decoding")
	}
	if err := a.parts.Source.prepare(ctx, a.content); err != nil {
		return fmt.Errorf("read %s: %w", a.entry.Key, err)
	}
	if reading := a.content.reading; reading != a.entry.Reading {
		if a.entry.ChunkRows > 0 {
			// An earlier attempt cut at other rows. Insert all rows again, then delete the older ones.
			a.entry.Refused, a.entry.ChunkRows = nil, 0
			a.entry.Generation++
		}
		a.entry.Reading = reading
	}
	if a.entry.ChunkRows == 0 {
		if err := a.measure(); err != nil {
			return fmt.Errorf("load %s: %w", a.entry.Key, err)
		}
	}
	return a.parts.Ledger.SaveLoad(ctx, a.entry)
}

// hasToMeasure is false for small objects, which then need not be opened twice: they are always a single chunk.
func (a *attempt) hasToMeasure() bool {
	return a.content.foreign || a.content.object.Meta.Rows > int64(a.opts.MinChunk)
}

// measure decides from a sample of events where the object is cut. The ledger keeps the decision.
func (a *attempt) measure() error {
	a.entry.ChunkRows, a.entry.ChunkBytes = uint32(a.opts.ChunkRows), uint32(a.opts.ChunkBytes)
	if !a.hasToMeasure() {
		return nil
	}
	sample, err := a.content.sample(piece)
	if err != nil && !errors.Is(err, io.EOF) {
		return fileFault(err)
	}
	a.entry.ChunkRows = uint32(a.parts.Table.ChunkRows(sample, a.opts.ChunkRows))
	return nil
}

// deleteOlder deletes the rows of earlier generations. If a later generation exists, it deletes its own. All rows have
// been inserted by then, so a late loader cleans up: no other loader knows of its last insert.
func (a *attempt) deleteOlder(ctx context.Context) (superseded bool, err error) {
	now, _, err := a.parts.Ledger.Load(ctx, a.entry.Key)
	if err != nil {
		return false, err
	}
	newest := max(now.Generation, a.entry.Generation)
	if newest > 0 {
		if err := a.parts.Table.DeleteOlder(ctx, a.spec.Name, a.entry.Key, newest); err != nil {
			return false, err
		}
	}
	return newest > a.entry.Generation, nil
}

// record writes `loaded` into the ledger.
func (a *attempt) record(ctx context.Context) error {
	a.happens(happening{event: finished, rows: a.out}, true)
	if err := a.parts.Ledger.SaveLoad(ctx, a.entry); err != nil {
		return err
	}
	faultpoint.Hit("loader.recorded")
	a.count(a.out.rows, a.out.newest)
	took := time.Since(a.began)
	a.metrics.seconds.Observe(took.Seconds())
	if first := a.content.object.Meta.FirstReceived; first > 0 && a.entry.Generation == 0 {
		a.metrics.freshness.Observe(max(0, time.Since(pipeline.Millis(first)).Seconds()))
	}
	a.log.Info("loaded", "key", a.entry.Key, "rows", a.out.rows, "refused", len(a.entry.Refused),
		"expired", a.out.expired, "bytes", a.entry.Bytes, "inserts", a.out.inserts, "found", a.out.found,
		"generation", a.entry.Generation, "fetch_ms", a.fetched.Milliseconds(), "load_ms", (took - a.fetched).Milliseconds(),
		"lag_ms", time.Since(pipeline.Millis(a.out.newest)).Milliseconds())
	return nil
}

// count adds a loaded object to the statistics.
func (l *Loader) count(rows, newest int64) {
	l.mu.Lock()
	l.stats.Objects++
	l.stats.Rows += rows
	l.stats.Newest = max(l.stats.Newest, newest)
	l.trips = 0
	l.mu.Unlock()
	l.metrics.results.WithLabelValues("loaded").Inc()
	l.metrics.rows.Add(float64(rows))
	l.metrics.lastInsert.SetToCurrentTime()
}

// maxRows is more than an object can have: object_row has 32 bits.
const maxRows = 1 << 32

// maxTime is the year 2109, in ms.
const maxTime = 1<<42 - 1

// received bounds the received_at of an object's rows, in ms. A foreign object has no metadata about it.
func received(m pipeline.Meta) [2]int64 {
	if m.SHA256 == "" {
		return [2]int64{0, maxTime}
	}
	return [2]int64{m.FirstReceived, m.LastReceived}
}
