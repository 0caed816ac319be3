// Package dashboards builds Grafana's dashboards of Penstock. The SDK checks types. `go test ./dashboards -update`
// writes the JSON in infra/grafana.
package dashboards

import (
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// query is an expression and how its series are called.
type query struct{ expr, legend string }

// graph is a panel.
type graph struct {
	title, about, unit string
	single             bool // one number instead of curves
	queries            []query
}

// row is a row of panels.
type row struct {
	title  string
	graphs []graph
}

type board struct {
	name, title, about string
	project            bool // it shows one project, which a variable chooses
	rows               []row
}

// Dashboard is a dashboard in the format that every version of Grafana reads.
type Dashboard = dashboard.Dashboard //nolint:staticcheck // version 2 needs a later Grafana

// All are the dashboards, by the names of their files.
func All() (map[string]Dashboard, error) {
	all := map[string]Dashboard{}
	for _, b := range []board{overview(), receiver(), loader(), clickhouse(), project()} {
		d, err := b.build()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", b.name, err)
		}
		all[b.name] = d
	}
	return all, nil
}

// source is the data source that the variable chooses.
func source() common.DataSourceRef {
	return common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${datasource}")}
}

func (b board) build() (Dashboard, error) {
	d := dashboard.NewDashboardBuilder(b.title) //nolint:staticcheck // as Dashboard
	d.Uid("penstock-"+b.name).Description(b.about).
		Tags([]string{"penstock"}).Refresh("30s").Time("now-3h", "now").Timezone(common.TimeZoneBrowser).
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Link(dashboard.NewDashboardLinkBuilder("Penstock").Type(dashboard.DashboardLinkTypeDashboards).
			Tags([]string{"penstock"}).KeepTime(true).IncludeVars(true)).
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").Type("prometheus"))
	if b.project {
		d.WithVariable(dashboard.NewQueryVariableBuilder("project").Label("Project").Datasource(source()).
			Query(dashboard.StringOrMap{String: cog.ToPtr("label_values(penstock_receiver_events_total, project)")}).
			Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Sort(dashboard.VariableSortAlphabeticalAsc))
	}
	for _, r := range b.rows {
		d.WithRow(dashboard.NewRowBuilder(r.title))
		for _, g := range r.graphs {
			d.WithPanel(g.panel(len(r.graphs)))
		}
	}
	return d.Build()
}

// panel is one of so many in its row, which is 24 wide.
func (g graph) panel(beside int) cog.Builder[dashboard.Panel] {
	width := max(uint32(24/beside), 4)
	if g.single {
		p := stat.NewPanelBuilder().Title(g.title).Description(g.about).Unit(g.unit).Datasource(source()).
			Span(width).Height(4).NoValue("-").
			ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"}))
		for _, q := range g.queries {
			p.WithTarget(prometheus.NewDataqueryBuilder().Expr(q.expr).LegendFormat(q.legend).Datasource(source()))
		}
		return p
	}
	p := timeseries.NewPanelBuilder().Title(g.title).Description(g.about).Unit(g.unit).Datasource(source()).
		Span(width).Height(8).Min(0).FillOpacity(10).NoValue("-")
	for _, q := range g.queries {
		p.WithTarget(prometheus.NewDataqueryBuilder().Expr(q.expr).LegendFormat(q.legend).Datasource(source()))
	}
	return p
}

func one(title, about, unit, expr string) graph {
	return graph{title: title, about: about, unit: unit, single: true, queries: []query{{expr, ""}}}
}

func lines(title, about, unit string, queries ...query) graph {
	return graph{title: title, about: about, unit: unit, queries: queries}
}

// quantile is of a histogram's buckets.
func quantile(q float64, histogram, by string) query {
	legend := fmt.Sprintf("p%g", 100*q)
	if by != "" {
		legend += " {{" + by + "}}"
		by = ", " + by
	}
	return query{fmt.Sprintf("histogram_quantile(%g, sum by (le%s) (rate(%s_bucket[$__rate_interval])))", q, by,
		histogram), legend}
}

// perSecond is the rate of a counter, summed by a label.
func perSecond(counter, by string) query {
	return query{fmt.Sprintf("sum by (%s) (rate(%s[$__rate_interval]))", by, counter), "{{" + by + "}}"}
}

const (
	freshness = `clamp_min(max by (pipeline) (penstock_batcher_newest_event_timestamp_seconds)
  - max by (pipeline) (penstock_loader_newest_row_timestamp_seconds), 0)`
	accepted = `sum(rate(penstock_receiver_events_total[$__rate_interval]))`
	rows     = `sum(rate(penstock_loader_rows_total{pipeline="events"}[$__rate_interval]))`
)

func overview() board {
	return board{name: "overview", title: "Penstock: overview", about: "What goes in, what waits, and what comes out.",
		rows: []row{
			{"Now", []graph{
				one("Accepted", "Events that receivers accept per second.", units.EventsPerSecond, accepted),
				one("Rows", "Rows that loaders bring into the table per second.", units.RowsPerSecond, rows),
				one("Freshness", "How far the newest row is behind the newest accepted event.", units.Seconds,
					`max(`+freshness+`)`),
				one("WAL", "The fullest write-ahead log.", units.PercentUnit, `max(penstock_batcher_wal_used_ratio)`),
				one("Failing", "Objects that failed and will be tried again.", units.Short,
					`sum(max by (pipeline) (penstock_ledger_objects{state="failed"}))`),
				one("Dead letters", "Objects that loaders have given up.", units.Short,
					`sum(max by (pipeline) (penstock_ledger_objects{state="dead"}))`),
			}},
			{"The way of events", []graph{
				lines("Accepted events and rows", "Both are equal in the long run.", units.EventsPerSecond,
					query{accepted, "accepted"}, query{rows, "rows"}),
				lines("Freshness", "The SLO of the alert PenstockRowsLate is 300 s.", units.Seconds,
					query{freshness, "{{pipeline}}"}),
			}},
			{"What waits", []graph{
				lines("Write-ahead log", "Share of its limit. The alert PenstockWALFilling fires at 70 %.", units.PercentUnit,
					query{`penstock_batcher_wal_used_ratio`, "{{instance}} {{pipeline}}"}),
				lines("Batches", "Batches that wait for the bucket.", units.Short,
					query{`sum by (pipeline) (penstock_batcher_sealed_batches)`, "{{pipeline}}"}),
				lines("Queue", "Notifications in the queue.", units.Short,
					query{`max by (pipeline) (penstock_queue_pending_messages)`, "{{pipeline}} pending"},
					query{`max by (pipeline) (penstock_queue_in_flight_messages)`, "{{pipeline}} in flight"}),
			}},
			{"Rejected and failed", []graph{
				lines("Rejected share by project", "Events and requests that a retry does not help, of all.", units.PercentUnit,
					query{`sum by (project) (rate(penstock_receiver_rejected_events_total{project!=""}[$__rate_interval]))
  / (sum by (project) (rate(penstock_receiver_rejected_events_total{project!=""}[$__rate_interval]))
  + sum by (project) (rate(penstock_receiver_events_total{project!=""}[$__rate_interval])) > 0)`, "{{project}}"}),
				lines("Parts that do not answer", "1 while a part does not answer.", units.Short,
					query{`1 - penstock_bucket_available`, "bucket, from {{instance}}"},
					query{`1 - penstock_clickhouse_available`, "ClickHouse, from {{instance}}"},
					query{`1 - penstock_queue_available`, "queue, from {{instance}}"}),
			}},
			{"Checks", []graph{
				one("Last sweep", "", units.DateTimeFromNow, `1000 * max(penstock_sweep_last_success_timestamp_seconds)`),
				one("Last full sweep", "", units.DateTimeFromNow,
					`1000 * max(penstock_full_sweep_last_success_timestamp_seconds)`),
				one("Last clean verify", "", units.DateTimeFromNow, `1000 * max(penstock_verify_last_success_timestamp_seconds)`),
				{title: "Versions", unit: units.Short, single: true,
					queries: []query{{`count by (version) (penstock_build_info)`, "{{version}}"}}},
			}},
		}}
}

func receiver() board {
	return board{name: "receiver", title: "Penstock: receivers", about: "Requests, answers, and the write-ahead log.",
		rows: []row{
			{"Requests", []graph{
				lines("Requests by status", "", units.RequestsPerSecond, perSecond("penstock_receiver_requests_total", "status")),
				lines("Requests by protocol", "", units.RequestsPerSecond,
					perSecond("penstock_receiver_requests_total", "protocol")),
				lines("Time to answer", "From a request's head to its answer.", units.Seconds,
					quantile(0.5, "penstock_receiver_request_duration_seconds", ""),
					quantile(0.99, "penstock_receiver_request_duration_seconds", "")),
			}},
			{"Events", []graph{
				lines("Accepted by project", "", units.EventsPerSecond, perSecond("penstock_receiver_events_total", "project")),
				lines("Bytes by project", "Bodies, decompressed.", units.BytesPerSecondIEC,
					perSecond("penstock_receiver_body_bytes_total", "project")),
				lines("Rejected by code", "Events, and requests as a whole.", units.EventsPerSecond,
					query{`sum by (code) (rate(penstock_receiver_rejected_events_total[$__rate_interval]))`, "{{code}}"},
					query{`sum by (code) (rate(penstock_receiver_rejected_requests_total[$__rate_interval]))`,
						"{{code}} (requests)"}),
			}},
			{"Write-ahead log", []graph{
				lines("Size", "Bytes on disk.", units.BytesIEC, query{`penstock_batcher_wal_bytes`, "{{instance}} {{pipeline}}"},
					query{`penstock_batcher_wal_limit_bytes`, "limit {{instance}} {{pipeline}}"}),
				lines("Time of an fsync", "", units.Seconds,
					quantile(0.5, "penstock_batcher_fsync_duration_seconds", "pipeline"),
					quantile(0.99, "penstock_batcher_fsync_duration_seconds", "pipeline")),
				lines("Oldest batch", "Age of the active batch, and of the oldest one that waits for the bucket.", units.Seconds,
					query{`max by (pipeline) (penstock_batcher_active_age_seconds)`, "{{pipeline}} active"},
					query{`max by (pipeline) (penstock_batcher_oldest_sealed_age_seconds)`, "{{pipeline}} waiting"}),
			}},
			{"Objects", []graph{
				lines("Batches closed, by reason", "", units.Short, perSecond("penstock_batcher_rolls_total", "reason")),
				lines("Time of a PUT", "", units.Seconds, quantile(0.5, "penstock_batcher_put_duration_seconds", "pipeline"),
					quantile(0.99, "penstock_batcher_put_duration_seconds", "pipeline")),
				lines("Failed PUTs", "", units.Short, perSecond("penstock_batcher_put_errors_total", "pipeline"),
					query{`sum by (missing) (rate(penstock_batcher_refusals_total[$__rate_interval]))`, "refused: {{missing}}"}),
			}},
			{"Process", []graph{
				lines("Connections", "", units.Short, query{`penstock_receiver_connections`, "{{instance}}"}),
				lines("CPU", "Cores.", units.Short, query{`rate(process_cpu_seconds_total[$__rate_interval])`, "{{instance}}"}),
				lines("Memory", "Resident.", units.BytesIEC, query{`process_resident_memory_bytes`, "{{instance}}"}),
				lines("Clock", "How far it is ahead of the store's.", units.Seconds,
					query{`abs(penstock_clock_offset_seconds)`, "{{instance}}"}),
			}},
		}}
}

func loader() board {
	return board{name: "loader", title: "Penstock: loaders", about: "From the notification to the row.",
		rows: []row{
			{"Loading", []graph{
				lines("Rows", "", units.RowsPerSecond, perSecond("penstock_loader_rows_total", "pipeline")),
				lines("Deliveries by result", "", units.Short, perSecond("penstock_loader_objects_total", "result")),
				lines("Time to load an object", "From a delivery to the ledger.", units.Seconds,
					quantile(0.5, "penstock_loader_load_duration_seconds", "pipeline"),
					quantile(0.99, "penstock_loader_load_duration_seconds", "pipeline")),
			}},
			{"Queue and ledger", []graph{
				lines("Queue", "", units.Short,
					query{`max by (pipeline) (penstock_queue_pending_messages)`, "{{pipeline}} pending"},
					query{`max by (pipeline) (penstock_queue_in_flight_messages)`, "{{pipeline}} in flight"}),
				lines("Objects that are not loaded", "By their state in the load ledger.", units.Short,
					query{`max by (pipeline, state) (penstock_ledger_objects{state!="loaded"})`, "{{pipeline}} {{state}}"}),
				lines("Found by sweeps", "Objects whose notification was lost.", units.Short,
					query{`sum by (pipeline) (increase(penstock_sweep_enqueued_objects_total[$__rate_interval]))`, "{{pipeline}}"},
					query{`sum by (pipeline) (increase(penstock_full_sweep_found_objects_total[$__rate_interval]))`,
						"{{pipeline}}, full sweep"}),
			}},
			{"Failures", []graph{
				lines("Failed attempts", "Because of the object.", units.Short,
					perSecond("penstock_loader_failures_total", "pipeline")),
				lines("Paused", "1 while nothing is loaded.", units.Short,
					query{`penstock_loader_paused`, "{{instance}} {{pipeline}}"}),
				lines("Refused rows", "Rows that the table refused; they are in errors.", units.RowsPerSecond,
					perSecond("penstock_loader_refused_rows_total", "pipeline")),
			}},
		}}
}

func clickhouse() board {
	seconds := `sum(rate(penstock_loader_load_duration_seconds_sum{pipeline="events"}[$__rate_interval]))`
	return board{name: "clickhouse", title: "Penstock: ClickHouse cost",
		about: "What loading costs, as loaders see it. ClickHouse's own metrics are in its system tables.",
		rows: []row{
			{"Loading", []graph{
				lines("Loading time for a million rows", "Seconds of workers.", units.Seconds,
					query{`1e6 * ` + seconds + ` / (` + rows + ` > 0)`, "events"}),
				lines("Busy workers", "On average.", units.Short, query{seconds, "events"}),
				lines("Rows of an object", "Large objects load at less cost. See batcher.roll_age.", units.Short,
					query{rows + `
  / (sum(rate(penstock_loader_objects_total{pipeline="events",result="loaded"}[$__rate_interval])) > 0)`, "events"}),
			}},
			{"Storage", []graph{
				lines("Bytes of objects for a row", "As stored in the bucket, compressed.", units.BytesIEC,
					query{`sum(rate(penstock_batcher_object_bytes_total{pipeline="events"}[$__rate_interval]))
  / (sum(rate(penstock_batcher_object_rows_total{pipeline="events"}[$__rate_interval])) > 0)`, "events"}),
				lines("Bytes fetched", "By loaders.", units.BytesPerSecondIEC,
					perSecond("penstock_loader_fetched_bytes_total", "pipeline")),
				lines("Large values", "Bytes of blobs taken out of events.", units.BytesPerSecondIEC,
					perSecond("penstock_batcher_blob_bytes_total", "pipeline")),
			}},
			{"What makes it dear", []graph{
				lines("New paths of properties", "A steady rise means that clients use ids as keys.", units.Short,
					query{`sum(increase(penstock_loader_new_property_paths_total[$__rate_interval]))`, "paths"}),
				lines("Projects with too many paths", "", units.Short,
					query{`max(penstock_loader_exploding_projects)`, "projects"}),
				lines("Views that refused a chunk", "", units.Short,
					perSecond("penstock_loader_view_failures_total", "pipeline")),
			}},
		}}
}

func project() board {
	const of = `{project="$project"}`
	return board{name: "project", title: "Penstock: one project", about: "What a project sends, and what becomes of it.",
		project: true,
		rows: []row{
			{"Traffic", []graph{
				lines("Accepted events by protocol", "", units.EventsPerSecond,
					perSecond("penstock_receiver_events_total"+of, "protocol")),
				lines("Bytes by protocol", "Bodies, decompressed.", units.BytesPerSecondIEC,
					perSecond("penstock_receiver_body_bytes_total"+of, "protocol")),
				lines("Requests by status", "", units.RequestsPerSecond,
					perSecond("penstock_receiver_requests_total"+of, "status")),
			}},
			{"Rejected", []graph{
				lines("Rejected events by code", "", units.EventsPerSecond,
					perSecond("penstock_receiver_rejected_events_total"+of, "code")),
				lines("Rejected requests by code", "", units.RequestsPerSecond,
					perSecond("penstock_receiver_rejected_requests_total"+of, "code")),
			}},
			{"Limits and rules", []graph{
				lines("Quota used today", "Events.", units.Short,
					query{`sum(penstock_receiver_quota_used_events` + of + `)`, "events"}),
				lines("Limited requests", "Answered with 429.", units.RequestsPerSecond,
					perSecond("penstock_receiver_limited_requests_total"+of, "limit")),
				lines("Left out by the sample", "", units.EventsPerSecond,
					query{`sum(rate(penstock_receiver_sampled_events_total` + of + `[$__rate_interval]))`, "events"}),
				lines("Dropped and hashed values", "", units.Short,
					perSecond("penstock_receiver_redacted_values_total"+of, "path")),
			}},
		}}
}
