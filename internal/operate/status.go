package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/penstock/penstock/batcher"
	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/receiver"
)

// pipelineStatus shows what is waiting in one pipeline, and where.
type pipelineStatus struct {
	Pipeline string `json:"pipeline"`
	batcher.Stats
	Queue     *queue.Stats            `json:"queue,omitempty"`
	Table     *clickhouse.TableStatus `json:"table,omitempty"`
	Freshness *float64                `json:"freshness_seconds,omitempty"` // newest event accepted minus newest settled
}

type statusReport struct {
	Pipelines []pipelineStatus `json:"pipelines"`
	Intake    receiver.Counts  `json:"intake"`           // of all receivers, each since its start
	Errors    []string         `json:"errors,omitempty"` // of queries and of roles
	Warnings  []string         `json:"warnings,omitempty"`
}

// statusWait is the timeout of a status.
const statusWait = 10 * time.Second

func statusOperation() Operation {
	return Operation{
		Name: "status", method: http.MethodGet, path: "/v1/status", params: &struct{}{}, item: statusReport{},
		Short: "show what waits where, and how fresh the table is",
		About: "Asks the admin listeners in status.admins, the queue and ClickHouse.\n" +
			"Exits with status 1 if one does not answer, or if a role reports an error.",
		print: prints(printStatus),
		run: func(ctx context.Context, o *Operator, _ any, out sink) error {
			ctx, cancel := context.WithTimeout(ctx, statusWait)
			defer cancel()
			report := o.status(ctx)
			if err := out.item(*report); err != nil {
				return err
			}
			if len(report.Errors) > 0 {
				return errors.New("status is incomplete, or a role reports an error: see above")
			}
			return nil
		},
	}
}

func (o *Operator) status(ctx context.Context) *statusReport {
	report := &statusReport{}
	for _, spec := range pipeline.Specs() {
		report.Pipelines = append(report.Pipelines, pipelineStatus{Pipeline: spec.Name})
	}
	client := o.Config.Status.TLS.HTTPClient()
	for _, url := range o.admins() {
		role := report.addRole(ctx, client, url)
		if len(o.Config.Status.Admins) > 0 || role != "receive" {
			continue
		}
		report.Warnings = append(report.Warnings, "no loader was asked, because status.admins is empty; "+
			"list the admin URLs of all receivers and loaders there")
	}
	if err := o.Ping(ctx); err != nil {
		report.fail(err)
	}
	q, err := o.Peek(ctx)
	if err != nil {
		report.fail(o.Explain(err))
	}
	tables, err := o.Table.TableStatus(ctx)
	if err != nil {
		report.fail(o.Explain(err))
	}
	for i, spec := range pipeline.Specs() {
		p := &report.Pipelines[i]
		if q != nil {
			if st, err := q.Stats(ctx, spec); err != nil {
				report.fail(err)
			} else {
				p.Queue = &st
			}
		}
		st, ok := tables[spec.Name]
		if !ok {
			continue
		}
		p.Table = &st
		report.addFailing(ctx, o, spec, &st)
		report.addExplosions(ctx, o.Table, spec)
		if p.Newest > 0 && st.Settled > 0 {
			f := max(0, float64(p.Newest-st.Settled)/1000)
			p.Freshness = &f
		}
	}
	return report
}

// admins returns the addresses of the roles' admin listeners.
func (o *Operator) admins() []string {
	if admins := o.Config.Status.Admins; len(admins) > 0 {
		return admins
	}
	return []string{o.Config.Admin.TLS.URL(o.Config.Admin.Listen)}
}

// fail records an error once, because several pipelines may have the same.
func (r *statusReport) fail(err error) {
	if text := err.Error(); !slices.Contains(r.Errors, text) {
		r.Errors = append(r.Errors, text)
	}
}

// mostNamed is how many failing objects, and how many dead letters, a status names.
const mostNamed = 3

// addFailing names objects that failed and will be retried, and dead letters.
func (r *statusReport) addFailing(ctx context.Context, o *Operator, spec pipeline.Spec, st *clickhouse.TableStatus) {
	failing := func(l pipeline.Load) string {
		return fmt.Sprintf("is failing: %d of %d attempts, the last at %s", l.Failures, o.Config.Loader.MaxAttempts,
			l.Finished.Format(time.RFC3339))
	}
	dead := func(l pipeline.Load) string {
		return fmt.Sprintf("is a dead letter since %s, %s", l.Finished.Format(time.RFC3339), l.Code)
	}
	for _, kind := range []struct {
		list    func(context.Context, string, func(pipeline.Load) error) error
		total   uint64
		say     func(pipeline.Load) string
		command string
	}{
		{o.Table.Failing, st.Failing, failing, "penstock dlq list --failing"},
		{o.Table.Dead, st.Dead, dead, "penstock dlq list"},
	} {
		if kind.total == 0 {
			continue
		}
		named := uint64(0)
		err := kind.list(ctx, spec.Name, func(l pipeline.Load) error {
			if named == mostNamed {
				return errEnough
			}
			named++
			r.Warnings = append(r.Warnings, l.Key+" "+kind.say(l)+": "+l.Error)
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			r.fail(o.Explain(err))
		}
		if named == mostNamed && kind.total > named {
			r.Warnings = append(r.Warnings, fmt.Sprintf("%s of %s; run %q",
				show.Plural(kind.total-named, "more such object"), spec.Name, kind.command))
		}
	}
}

// addExplosions warns of projects with so many paths of properties that queries become slow.
func (r *statusReport) addExplosions(ctx context.Context, db Catalogue, spec pipeline.Spec) {
	if spec != pipeline.Events {
		return
	}
	all, err := db.Explosions(ctx, spec.Name)
	if err != nil {
		r.fail(err)
	}
	for _, e := range all {
		var most []string
		for _, k := range e.Most {
			most = append(most, fmt.Sprintf("%s (%s)", k.Pattern, show.Plural(k.Keys, "key")))
		}
		r.Warnings = append(r.Warnings, fmt.Sprintf("project %s has sent %d paths of properties in 7 days; a part of %s "+
			"keeps %d in columns, and queries of the others are slow. Do not use ids as keys. Most paths: %s",
			e.Project, e.Paths, spec.Name, e.Limit, strings.Join(most, ", ")))
	}
}

// addRole adds a role's status, and returns its name.
func (r *statusReport) addRole(ctx context.Context, client *http.Client, url string) string {
	role, err := AskRole(ctx, client, url)
	if err != nil {
		r.fail(err)
		return ""
	}
	if role.Error != "" {
		r.fail(fmt.Errorf("%s %s: %s", role.Role, url, role.Error))
	}
	if role.Bucket != "" {
		r.fail(fmt.Errorf("%s %s: %s", role.Role, url, role.Bucket))
	}
	for _, warning := range role.files() {
		r.Warnings = append(r.Warnings, fmt.Sprintf("%s %s %s", role.Role, url, warning))
	}
	if in := role.Intake; in != nil {
		r.Intake.Accepted += in.Accepted
		r.Intake.Rejected += in.Rejected
		r.Intake.Refused += in.Refused
	}
	for _, b := range role.Batchers {
		for i := range r.Pipelines {
			if r.Pipelines[i].Pipeline == b.Pipeline {
				r.Pipelines[i].add(b)
			}
		}
		if b.Error != "" {
			r.fail(fmt.Errorf("%s %s %s: %s", role.Role, url, b.Pipeline, b.Error))
		}
	}
	for _, l := range role.Loaders {
		if l.Error != "" {
			r.fail(fmt.Errorf("%s %s %s: %s", role.Role, url, l.Pipeline, l.Error))
		}
	}
	return role.Role
}

// add sums a pipeline's figures over several receivers.
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

func printStatus(w io.Writer, r *statusReport) error {
	t := show.NewTable(w, "PIPELINE", ">ACTIVE ROWS", ">ACTIVE AGE", ">SEALED", ">WAL", ">QUEUED", ">IN FLIGHT",
		">LOADED/MIN", ">ROWS/MIN", ">ROWS", ">FAILING", ">DEAD", ">FRESHNESS")
	for _, p := range r.Pipelines {
		queued, flight, loaded, perMinute, rows, failing, dead, fresh := "-", "-", "?", "?", "?", "?", "?", "-"
		if p.Queue != nil {
			queued, flight = fmt.Sprint(p.Queue.Pending), fmt.Sprint(p.Queue.InFlight)
		}
		if p.Table != nil {
			loaded, perMinute, rows, failing, dead = fmt.Sprint(p.Table.ObjectsLastMinute), fmt.Sprint(p.Table.RowsLastMinute),
				fmt.Sprint(p.Table.Rows), fmt.Sprint(p.Table.Failing), fmt.Sprint(p.Table.Dead)
		}
		if p.Freshness != nil {
			fresh = fmt.Sprintf("%.1fs", *p.Freshness)
		}
		t.Row(p.Pipeline, fmt.Sprint(p.ActiveRows), fmt.Sprintf("%.0fs", p.ActiveSeconds), fmt.Sprint(p.Sealed),
			show.Bytes(p.Disk), queued, flight, loaded, perMinute, rows, failing, dead, fresh)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, text := range r.Warnings {
		if err := show.Print(w, show.Yellow, "warning: "+text+"\n"); err != nil {
			return err
		}
	}
	for _, text := range r.Errors {
		if err := show.Print(w, show.Red, "error: "+text+"\n"); err != nil {
			return err
		}
	}
	return nil
}
