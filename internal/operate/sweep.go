package operate

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/loader/audit"
)

// sweepReport is the output of `penstock sweep`.
type sweepReport struct {
	Pipeline string `json:"pipeline"`
	DryRun   bool   `json:"dry_run,omitempty"`
	audit.Swept
}

// sweepParams are a sweep's scope, and what to do with objects that are not loaded.
type sweepParams struct {
	Since  string `json:"since" param:"since" default:"168h" usage:"start of the time range: 2026-11-22, 2026-11-22T03:00:00Z, or a duration ago, such as 24h or 7d"`
	Until  string `json:"until" param:"until" default:"now" usage:"end of the time range"`
	All    bool   `json:"all,omitempty" param:"all" usage:"list the whole bucket, also files outside the folders of days; one list request per 1000 objects"`
	Grace  string `json:"grace" param:"grace" default:"0s" usage:"skip objects stored less than this duration ago"`
	Again  bool   `json:"again,omitempty" param:"again" usage:"also enqueue objects enqueued within the hour: after messages were purged, or rows deleted"`
	DryRun bool   `json:"dry_run,omitempty" param:"dry-run" usage:"only count"`
}

func sweepOperation() Operation {
	return Operation{
		Name: "sweep", method: http.MethodPost, path: "/v1/sweep", params: &sweepParams{}, item: sweepReport{},
		Short: "find objects that were never loaded, and enqueue them",
		About: "Compares the bucket with the load ledger. You can run it at any time:\n" +
			"objects that are loaded or enqueued already are left alone.",
		header: []string{"PIPELINE", ">OBJECTS", ">LOADED", ">ENQUEUED", ">IN QUEUE", ">TOO YOUNG", ">DEAD", ">DROPPED"},
		row: rows(func(r *sweepReport) []string {
			row := []string{r.Pipeline}
			for _, n := range []int{r.Objects, r.Loaded, r.Enqueued, r.Told, r.Young, r.Dead, r.Dropped} {
				row = append(row, strconv.Itoa(n))
			}
			return row
		}),
		kind: func(item any) string { return map[bool]string{true: "dry"}[item.(*sweepReport).DryRun] },
		sum: func(w io.Writer, _ any, n map[string]int) {
			if n["dry"] > 0 {
				fmt.Fprintln(w, "Dry run: nothing was enqueued. Run without --dry-run to enqueue.")
			}
		},
		run: runs(sweep),
	}
}

func (p *sweepParams) check(*Operator) error {
	if _, err := parseSpan(p.Since, p.Until); err != nil {
		return err
	}
	_, err := parseDuration("--grace", p.Grace)
	return err
}

// sweep compares the bucket with the ledger and enqueues every object that is not loaded.
func sweep(ctx context.Context, o *Operator, p *sweepParams, out sink) error {
	span, err := parseSpan(p.Since, p.Until)
	if err != nil {
		return err
	}
	grace, err := parseDuration("--grace", p.Grace)
	if err != nil {
		return err
	}
	if o.Config.QueueType() == config.NoQueue && !p.DryRun {
		return fmt.Errorf("queue.type or storage.notify is none: there is no queue. Loaders sweep every %s (sweep.every), "+
			"the whole bucket every %s (sweep.full_every); load an object now with \"penstock reingest KEY\"",
			o.Config.Sweep.Every, o.Config.Sweep.FullEvery)
	}
	var q Queue
	if !p.DryRun {
		if q, err = o.Queue(ctx); err != nil {
			return err
		}
	}
	for _, spec := range pipeline.Specs() {
		began := time.Now()
		enqueue := func(ctx context.Context, n pipeline.Notification) (bool, error) {
			if p.DryRun {
				return false, nil
			}
			return q.Enqueue(ctx, spec, n, p.Again)
		}
		seen := func(sw audit.Swept) {
			out.progress(progress{Text: fmt.Sprintf("%s: %s, %d not loaded, %.0f/s", spec.Name,
				show.Plural(sw.Objects, "object"), sw.Enqueued, float64(sw.Objects)/time.Since(began).Seconds())})
		}
		scope := audit.InSpan(spec, span)
		if p.All {
			scope = audit.All(spec)
		}
		swept, err := audit.Sweep(ctx, audit.SweepOptions{Scope: scope, Bucket: o.Store, Ledger: o.Table, Grace: grace,
			Enqueue: enqueue, Progress: seen})
		if err == nil {
			err = out.item(sweepReport{spec.Name, p.DryRun, swept})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
