package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/loader/audit"
)

// sweep finds what the queue has lost, again and again, while this loader is
// the one that holds the claim to do so.
func (o *outlet) sweep(ctx context.Context, cfg config.Sweep, spec pipeline.Spec, owner string, store *objstore.Bucket, log *slog.Logger) {
	log = log.With("pipeline", spec.Name)
	every := time.Duration(cfg.Every)
	var claim *objstore.Claim
	for retry.Sleep(ctx, every/2+time.Duration(time.Now().UnixNano())%(every/2+1)) == nil {
		held := false
		var err error
		if claim != nil {
			held, err = claim.Renew(ctx)
		}
		if err == nil && !held {
			claim, held, err = store.Claim(ctx, "sweep-"+spec.Name, owner, 3*every)
		}
		if err != nil || !held {
			claim = nil
			if err != nil && ctx.Err() == nil {
				log.Warn("sweep: the claim cannot be had", "error", err)
			}
			continue
		}
		now := time.Now()
		swept, err := audit.Sweep(ctx, audit.SweepOptions{
			Scope:  audit.InSpan(spec, audit.Span{From: now.Add(-time.Duration(cfg.Span)), To: now.Add(time.Hour)}),
			Bucket: store, Ledger: o.db, Grace: time.Duration(cfg.Grace),
			Enqueue: func(ctx context.Context, n pipeline.Notification) (bool, error) {
				return o.queue.Enqueue(ctx, spec, n, false)
			},
		})
		switch {
		case ctx.Err() != nil:
		case err != nil:
			log.Warn("sweep failed; the next one begins anew", "error", err)
		case swept.Enqueued > 0:
			log.Warn("sweep found objects that were not loaded", "enqueued", swept.Enqueued, "objects", swept.Objects)
		}
	}
	if claim != nil {
		quick, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		claim.Release(quick)
	}
}

// fullSweepTTL is how long another loader waits before it continues the pass of one that was killed.
const fullSweepTTL = 2 * time.Minute

// fullSweep adds the sweep of what is outside sweep.span, if the configuration wants one.
func (o *outlet) fullSweep(cfg config.Sweep, spec pipeline.Spec, owner string, store *objstore.Bucket,
	enqueue func(context.Context, pipeline.Notification) (bool, error), log *slog.Logger, reg prometheus.Registerer) {
	if cfg.FullEvery == 0 {
		return
	}
	claim := func(ctx context.Context) (audit.Notebook, bool, error) {
		c, held, err := store.Claim(ctx, "full-sweep-"+spec.Name, owner, fullSweepTTL)
		return c, held, err
	}
	f := audit.NewFullSweep(spec, audit.FullSweepOptions{
		Bucket: store, Ledger: o.db, Claim: claim, Enqueue: enqueue,
		Every: time.Duration(cfg.FullEvery), Retry: time.Duration(cfg.Every), Rate: cfg.FullRate,
		Span: time.Duration(cfg.Span), Grace: time.Duration(cfg.Grace), TTL: fullSweepTTL,
	}, log, reg)
	o.sweeps = append(o.sweeps, f.Run)
}

// sweepReport is what `penstock sweep` prints.
type sweepReport struct {
	Pipeline string `json:"pipeline"`
	audit.Swept
}

func runSweep(ctx context.Context, s streams, args []string) error {
	fs := newFlags(s, "sweep", "Compares the bucket with the ledger and tells the queue of every object that is not loaded.\nIt can be run at any time: an object that is loaded, or told of already, is left alone.")
	path := configFlag(fs)
	since := fs.String("since", "168h", "begin of the `time` range: 2026-11-22, 2026-11-22T03:00:00Z, or a duration ago, as 24h")
	until := fs.String("until", "now", "end of the `time` range")
	all := fs.Bool("all", false, "list the whole bucket, not a time range: also files outside the folders of days; "+
		"a list request for every 1000 objects")
	grace := fs.Duration("grace", 0, "leave objects alone that were stored less than this `age` ago")
	again := fs.Bool("again", false, "tell the queue also of what it was told within the hour: after its messages were purged, or rows deleted")
	dry := fs.Bool("dry-run", false, "only count")
	asJSON := fs.Bool("json", false, "as JSON, a line a pipeline")
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	span, err := parseSpan(*since, *until)
	if err != nil {
		return err
	}
	cfg, err := readConfig(*path)
	if err != nil {
		return err
	}
	if cfg.Storage.Notify == "none" && !*dry {
		return fmt.Errorf("storage.notify is none: there is no queue to tell, and loaders sweep by themselves every %s "+
			"(the whole bucket every %s, 0s: never); `penstock reingest KEY` loads an object at once", cfg.Sweep.Every, cfg.Sweep.FullEvery)
	}
	log, err := app.NewLogger(s.err, cfg.Process)
	if err != nil {
		return err
	}
	db, err := clickhouse.Open(app.TableOptions(cfg.ClickHouse, 2))
	if err != nil {
		return err
	}
	defer db.Close()
	enqueue := func(context.Context, pipeline.Spec, pipeline.Notification, bool) (bool, error) { return false, nil }
	if !*dry {
		q, err := app.ConnectQueue(cfg.Queue, "penstock-sweep", log)
		if err != nil {
			return err
		}
		defer q.Close()
		if err := q.Setup(ctx, pipeline.Specs()); err != nil {
			return err
		}
		enqueue = q.Enqueue
	}
	line := show.NewLine(s.err)
	defer line.End()
	for _, spec := range pipeline.Specs() {
		began := time.Now()
		tell := func(ctx context.Context, n pipeline.Notification) (bool, error) { return enqueue(ctx, spec, n, *again) }
		progress := func(sw audit.Swept) {
			line.Show("%s: %d objects, %d not loaded, %.0f/s", spec.Name, sw.Objects, sw.Enqueued,
				float64(sw.Objects)/time.Since(began).Seconds())
		}
		scope := audit.InSpan(spec, span)
		if *all {
			scope = audit.All(spec)
		}
		swept, err := audit.Sweep(ctx, audit.SweepOptions{Scope: scope, Bucket: app.OpenBucket(cfg.Storage), Ledger: db, Grace: *grace,
			Enqueue: tell, Progress: progress})
		line.End()
		if err != nil {
			return err
		}
		if *asJSON {
			if err := json.NewEncoder(s.out).Encode(sweepReport{spec.Name, swept}); err != nil {
				return err
			}
			continue
		}
		what := "enqueued"
		if *dry {
			what = "to be enqueued"
		}
		fmt.Fprintf(s.out, "%-7s %d objects, %d loaded, %d %s, %d told already within the hour (--again tells them again), %d too young, %d dead letters, %d dropped\n",
			spec.Name, swept.Objects, swept.Loaded, swept.Enqueued, what, swept.Told, swept.Young, swept.Dead, swept.Dropped)
	}
	return nil
}

// parseSpan reads --since and --until.
func parseSpan(since, until string) (audit.Span, error) {
	return parseSpanAt(since, until, time.Now().UTC())
}

// parseSpanAt is parseSpan with another now.
func parseSpanAt(since, until string, now time.Time) (audit.Span, error) {
	from, err := parseWhen(since, now)
	if err != nil {
		return audit.Span{}, fmt.Errorf("--since %w", err)
	}
	// "now" includes what a receiver whose clock is ahead of ours has stored.
	to := now.Add(time.Hour)
	if until != "now" {
		if to, err = parseWhen(until, now); err != nil {
			return audit.Span{}, fmt.Errorf("--until %w", err)
		}
	}
	if !from.Before(to) {
		return audit.Span{}, fmt.Errorf("--since %s is not before --until %s", since, until)
	}
	return audit.Span{From: from, To: to}, nil
}

func parseWhen(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q: want 2026-11-22, 2026-11-22T03:00:00Z, or a duration ago, as 24h", text)
}
