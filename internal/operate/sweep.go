package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/loader/audit"
)

// sweepReport is what `penstock sweep` prints.
type sweepReport struct {
	Pipeline string `json:"pipeline"`
	audit.Swept
}

// SweepParams choose what a sweep compares, and say what it does with what is not loaded.
type SweepParams struct {
	Since, Until string        // see parseWhen; Until may be now
	All          bool          // the whole bucket, not a time range
	Grace        time.Duration // objects stored less than this ago are left alone
	Again        bool          // tell the queue also of what it was told within the hour
	DryRun       bool          // only count
}

// Sweep compares the bucket with the ledger and tells the queue of every object that is not loaded.
func (o *Operator) Sweep(ctx context.Context, p SweepParams, to Output) error {
	span, err := parseSpan(p.Since, p.Until)
	if err != nil {
		return err
	}
	if o.Config.Storage.Notify == "none" && !p.DryRun {
		return fmt.Errorf("storage.notify is none: there is no queue to tell, and loaders sweep by themselves every %s "+
			"(the whole bucket every %s, 0s: never); `penstock reingest KEY` loads an object at once",
			o.Config.Sweep.Every, o.Config.Sweep.FullEvery)
	}
	db, err := o.Table()
	if err != nil {
		return err
	}
	var q Queue
	if !p.DryRun {
		if q, err = o.Queue(ctx); err != nil {
			return err
		}
	}
	line := show.NewLine(to.Err)
	defer line.End()
	for _, spec := range pipeline.Specs() {
		began := time.Now()
		tell := func(ctx context.Context, n pipeline.Notification) (bool, error) {
			if p.DryRun {
				return false, nil
			}
			return q.Enqueue(ctx, spec, n, p.Again)
		}
		progress := func(sw audit.Swept) {
			line.Show("%s: %d objects, %d not loaded, %.0f/s", spec.Name, sw.Objects, sw.Enqueued,
				float64(sw.Objects)/time.Since(began).Seconds())
		}
		scope := audit.InSpan(spec, span)
		if p.All {
			scope = audit.All(spec)
		}
		swept, err := audit.Sweep(ctx, audit.SweepOptions{Scope: scope, Bucket: o.Store, Ledger: db, Grace: p.Grace,
			Enqueue: tell, Progress: progress})
		line.End()
		if err == nil {
			err = printSwept(to, sweepReport{spec.Name, swept}, p.DryRun)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func printSwept(to Output, r sweepReport, dryRun bool) error {
	if to.JSON {
		return json.NewEncoder(to.Out).Encode(r)
	}
	what := "enqueued"
	if dryRun {
		what = "to be enqueued"
	}
	_, err := fmt.Fprintf(to.Out,
		"%-7s %d objects, %d loaded, %d %s, %d told already within the hour (--again tells them again), "+
			"%d too young, %d dead letters, %d dropped\n",
		r.Pipeline, r.Objects, r.Loaded, r.Enqueued, what, r.Told, r.Young, r.Dead, r.Dropped)
	return err
}
