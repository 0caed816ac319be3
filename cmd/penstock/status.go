package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/penstock/penstock/batcher"
	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue/jetstream"
	"github.com/penstock/penstock/internal/show"
)

// pipelineStatus is what waits where in one pipeline.
type pipelineStatus struct {
	Pipeline string `json:"pipeline"`
	batcher.Stats
	Queue     *jetstream.Stats        `json:"queue,omitempty"`
	Table     *clickhouse.TableStatus `json:"table,omitempty"`
	Freshness *float64                `json:"freshness_seconds,omitempty"` // newest accepted event against newest row
}

type statusReport struct {
	Pipelines []pipelineStatus `json:"pipelines"`
	Errors    []string         `json:"errors,omitempty"` // what could not be asked, or what a role complains of
	Warnings  []string         `json:"warnings,omitempty"`
}

func runStatus(ctx context.Context, s streams, args []string) error {
	fs := newFlags(s, "status", "Shows what waits where: in the receivers, in the queue, and how fresh the table is.")
	path := configFlag(fs)
	asJSON := fs.Bool("json", false, "as JSON")
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	cfg, err := readConfig(*path)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	report := status(ctx, cfg)
	if *asJSON {
		e := json.NewEncoder(s.out)
		e.SetIndent("", "  ")
		err = e.Encode(report)
	} else {
		err = report.print(s.out)
	}
	if err == nil && len(report.Errors) > 0 {
		err = errors.New("not everything could be asked, or something is wrong: see above")
	}
	return err
}

func status(ctx context.Context, cfg config.Config) statusReport {
	var report statusReport
	fail := func(err error) { report.Errors = append(report.Errors, err.Error()) }
	byName := map[string]*pipelineStatus{}
	specs := pipeline.Specs()
	report.Pipelines = make([]pipelineStatus, len(specs))
	for i, spec := range specs {
		report.Pipelines[i].Pipeline = spec.Name
		byName[spec.Name] = &report.Pipelines[i]
	}
	admins := cfg.Status.Admins
	if len(admins) == 0 {
		admins = []string{cfg.Admin.TLS.URL(cfg.Admin.Listen)}
	}
	client := cfg.Status.TLS.HTTPClient()
	for _, url := range admins {
		role, err := operate.AskRole(ctx, client, url)
		if err != nil {
			fail(err)
			continue
		}
		for _, warning := range role.Warnings() {
			report.Warnings = append(report.Warnings, fmt.Sprintf("%s %s %s", role.Role, url, warning))
		}
		for _, b := range role.Batchers {
			byName[b.Pipeline].add(b)
			if b.Error != "" {
				fail(fmt.Errorf("%s %s %s: %s", role.Role, url, b.Pipeline, b.Error))
			}
		}
		for _, l := range role.Loaders {
			if l.Error != "" {
				fail(fmt.Errorf("%s %s %s: %s", role.Role, url, l.Pipeline, l.Error))
			}
		}
	}
	log, _ := app.NewLogger(io.Discard, cfg.Process)
	var q *jetstream.Queue
	if cfg.Storage.Notify != "none" {
		var err error
		if q, err = app.ConnectQueue(cfg.Queue, "penstock-status", log); err != nil {
			fail(err)
		} else {
			defer q.Close() // this one, whatever q is later
			quick, cancel := context.WithTimeout(ctx, 2*time.Second)
			if err := q.Ping(quick); err != nil {
				fail(err)
				q = nil
			}
			cancel()
		}
	}
	db, err := clickhouse.Open(app.TableOptions(cfg.ClickHouse, 1))
	if err != nil {
		fail(err)
		return report
	}
	defer db.Close()
	for _, spec := range specs {
		p := byName[spec.Name]
		if q != nil {
			if st, err := q.Stats(ctx, spec); err != nil {
				fail(err)
			} else {
				p.Queue = &st
			}
		}
		st, err := db.TableStatus(ctx, spec.Name)
		if err != nil {
			fail(err)
			continue
		}
		p.Table = &st
		if p.Newest > 0 && st.Newest > 0 {
			f := max(0, float64(p.Newest-st.Newest)/1000)
			p.Freshness = &f
		}
	}
	return report
}

// add sums what several receivers hold of a pipeline.
func (p *pipelineStatus) add(b batcher.Stats) {
	p.Stats.Pipeline = p.Pipeline
	p.ActiveRows += b.ActiveRows
	p.ActiveBytes += b.ActiveBytes
	p.ActiveSeconds = max(p.ActiveSeconds, b.ActiveSeconds)
	p.Sealed += b.Sealed
	p.Disk += b.Disk
	p.MaxDisk += b.MaxDisk
	p.Newest = max(p.Newest, b.Newest)
	p.Stored += b.Stored
	p.SetAside += b.SetAside
}

func (r statusReport) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "PIPELINE\tACTIVE ROWS\tACTIVE AGE\tSEALED\tWAL\tQUEUED\tIN FLIGHT\tLOADED/MIN\tROWS/MIN\tROWS\tDEAD\tFRESHNESS\t")
	for _, p := range r.Pipelines {
		queued, flight, loaded, perMinute, rows, dead, fresh := "-", "-", "?", "?", "?", "?", "-"
		if p.Queue != nil {
			queued, flight = fmt.Sprint(p.Queue.Pending), fmt.Sprint(p.Queue.InFlight)
		}
		if p.Table != nil {
			loaded, perMinute, rows, dead = fmt.Sprint(p.Table.ObjectsLastMinute), fmt.Sprint(p.Table.RowsLastMinute), fmt.Sprint(p.Table.Rows), fmt.Sprint(p.Table.Dead)
		}
		if p.Freshness != nil {
			fresh = fmt.Sprintf("%.1fs", *p.Freshness)
		}
		fmt.Fprintf(t, "%s\t%d\t%.0fs\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", p.Pipeline, p.ActiveRows, p.ActiveSeconds, p.Sealed,
			show.Bytes(p.Disk), queued, flight, loaded, perMinute, rows, dead, fresh)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, e := range append(r.Warnings, r.Errors...) {
		fmt.Fprintln(w, "!", e)
	}
	return nil
}
