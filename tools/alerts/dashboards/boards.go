package dashboards

import "github.com/grafana/grafana-foundation-sdk/go/units"

const (
	// batches is a time in which a few batches are rolled: batcher.roll_age is 90 s.
	batches = "5m"

	// freshness is the recording rule penstock:freshness_seconds, for a Prometheus without our rules.
	newest    = `max by (pipeline) (penstock_batcher_newest_event_timestamp_seconds)`
	earlier   = `max by (pipeline) (penstock_batcher_newest_event_timestamp_seconds offset 2m)`
	settled   = `max by (pipeline) (penstock_loader_newest_settled_timestamp_seconds)`
	freshness = `clamp_min(
  clamp_max(` + newest + ` - ` + settled + `, 120)
    unless on (pipeline) (` + earlier + ` > on (pipeline) ` + settled + `)
  or ` + newest + ` - (` + settled + ` > 0), 0)`

	accepted = `sum(rate(penstock_receiver_events_total[$__rate_interval]))`
	rows     = `sum(rate(penstock_loader_rows_total{pipeline="events"}[` + batches + `]))`

	ofReceivers = ` and on (instance) penstock_receiver_connections`
	ofLoaders   = ` and on (instance) penstock_loader_paused`

	// rejections is each project's share. A project without rejections has no series of them.
	projectEvents   = `sum by (project) (rate(penstock_receiver_events_total{project!=""}[$__rate_interval]))`
	projectRejected = `(sum by (project) (rate(penstock_receiver_rejected_events_total{project!=""}[$__rate_interval]))
  or 0 * ` + projectEvents + `)`
	rejections = projectRejected + ` / (` + projectRejected + ` + ` + projectEvents + ` > 0)`
)

func overview() board {
	return board{name: "overview", title: "Penstock: overview", about: "What goes in, what waits, and what comes out.",
		rows: []row{
			{"Now", []graph{
				one("Accepted", "Events that receivers accept per second.", units.EventsPerSecond, accepted),
				one("Rows", "Rows that loaders bring into the table per second, over 5 minutes.", units.RowsPerSecond, rows),
				one("Freshness", "How far the newest row is behind the newest accepted event.", units.Seconds,
					`max(`+freshness+`)`, step{180, "orange"}, step{300, "red"}),
				one("Rejected", "The highest share of a project.", units.PercentUnit, `max(`+rejections+`)`,
					step{0.05, "orange"}, step{0.2, "red"}),
				one("Write-ahead log", "The fullest one, as a share of its limit.", units.PercentUnit,
					`max(penstock_batcher_wal_used_ratio)`, step{0.5, "orange"}, step{0.7, "red"}),
				one("Dead letters", "Objects that loaders have given up.", units.Short,
					`sum(max by (pipeline) (penstock_ledger_objects{state="dead"}))`, step{1, "red"}),
			}},
			{"The way of events", []graph{
				lines("Accepted events and rows", "Both are equal in the long run.", units.EventsPerSecond,
					query{accepted, "accepted"}, query{rows, "rows (5 minutes)"}),
				lines("Freshness", "How far the newest row is behind the newest accepted event. The SLO of the alert "+
					"PenstockRowsLate is 300 s.", units.Seconds, query{freshness, "{{pipeline}}"}).line(300, "red"),
				lines("From event to row", "Of the first event of each object, as loaders measure it.", units.Seconds,
					times("penstock_loader_freshness_seconds", "pipeline", batches)...),
			}},
			{"What waits", []graph{
				{title: "Write-ahead log", about: "Share of its limit. The alert PenstockWALFilling fires at 70 %.",
					unit: units.PercentUnit, most: 0.1,
					queries: []query{{`penstock_batcher_wal_used_ratio`, "{{instance}} {{pipeline}}"}}},
				counts("Batches", "Batches that wait for the bucket.",
					query{`sum by (pipeline) (penstock_batcher_sealed_batches)`, "{{pipeline}}"}),
				counts("Objects", "Notifications in the queue, and objects that failed and will be tried again.",
					query{`max by (pipeline) (penstock_queue_pending_messages)`, "{{pipeline}} pending"},
					query{`max by (pipeline) (penstock_queue_in_flight_messages)`, "{{pipeline}} in flight"},
					query{`max by (pipeline) (penstock_ledger_objects{state="failed"})`, "{{pipeline}} failed"}),
			}},
			{"What is wrong", []graph{
				lines("Rejected share by project", "Events that a retry does not help, of all.", units.PercentUnit,
					query{rejections, "{{project}}"}).line(0.05, "orange"),
				{title: "Unreachable", about: "Red while a part does not answer.", kind: states, queries: []query{
					{`1 - penstock_bucket_available`, "bucket, from {{instance}}"},
					{`1 - penstock_clickhouse_available`, "ClickHouse, from {{instance}}"},
					{`1 - penstock_queue_available`, "queue, from {{instance}}"}}},
				{title: "Alert", about: "Red while an alert fires; empty if none did. Needs the rules in infra/prometheus.",
					kind: states, queries: []query{
						{`max by (alertname) (ALERTS{alertname=~"Penstock.+",alertstate="firing"})`, "{{alertname}}"}}},
			}},
			{"Checks", []graph{
				check("Last sweep", `1000 * max(penstock_sweep_last_success_timestamp_seconds > 0)`),
				check("Last full sweep", `1000 * max(penstock_full_sweep_last_success_timestamp_seconds > 0)`),
				check("Last clean verify", `1000 * max(penstock_verify_last_success_timestamp_seconds > 0)`),
				{title: "Versions", unit: units.Short, kind: text,
					queries: []query{{`count by (version) (penstock_build_info)`, "{{version}}"}}},
			}},
		}}
}

// check is when something last succeeded.
func check(title, expr string) graph {
	return graph{title: title, unit: units.DateTimeFromNow, kind: text, queries: []query{{expr, ""}}}
}

func receiver() board {
	return board{name: "receiver", title: "Penstock: receivers", about: "Requests, answers, and the write-ahead log.",
		rows: []row{
			{"Requests", []graph{
				stack("Requests by status", "", units.RequestsPerSecond, perSecond("penstock_receiver_requests_total", "status")),
				stack("Requests by protocol", "", units.RequestsPerSecond,
					perSecond(`penstock_receiver_requests_total{protocol!=""}`, "protocol")),
				lines("Time to answer", "From a request's head to its answer.", units.Seconds,
					times("penstock_receiver_request_duration_seconds", "", "$__rate_interval")...),
			}},
			{"Events", []graph{
				stack("Accepted by project", "", units.EventsPerSecond, perSecond("penstock_receiver_events_total", "project")),
				stack("Bytes by project", "Bodies, decompressed.", units.BytesPerSecondIEC,
					perSecond(`penstock_receiver_body_bytes_total{project!=""}`, "project")),
				stack("Rejected by code", "Events, and requests as a whole. Codes without rejections are left out.",
					units.EventsPerSecond,
					query{`sum by (code) (rate(penstock_receiver_rejected_events_total[$__rate_interval]))`, "{{code}}"},
					query{`sum by (code) (rate(penstock_receiver_rejected_requests_total[$__rate_interval]))`,
						"{{code}} (requests)"}),
			}},
			{"Write-ahead log", []graph{
				lines("Size", "Bytes on disk.", units.BytesIEC, query{`penstock_batcher_wal_bytes` + ofReceivers,
					"{{instance}} {{pipeline}}"}),
				lines("Time of an fsync", "", units.Seconds,
					times(`penstock_batcher_fsync_duration_seconds`, "pipeline", "$__rate_interval")...),
				lines("Oldest batch", "Age of the active batch, and of the oldest one that waits for the bucket.", units.Seconds,
					query{`max by (pipeline) (penstock_batcher_active_age_seconds)`, "{{pipeline}} active"},
					query{`max by (pipeline) (penstock_batcher_oldest_sealed_age_seconds)`, "{{pipeline}} waiting"}),
			}},
			{"Objects", []graph{
				stack("Batches closed, by reason", "Per 5 minutes.", units.Short,
					query{`sum by (reason) (increase(penstock_batcher_rolls_total[` + batches + `]))`, "{{reason}}"}),
				lines("Time of a PUT", "", units.Seconds, times("penstock_batcher_put_duration_seconds", "pipeline", batches)...),
				counts("Failed PUTs", "Per 5 minutes. They are tried again.",
					query{`sum by (pipeline) (increase(penstock_batcher_put_errors_total[` + batches + `]))`, "{{pipeline}}"},
					query{`sum by (missing) (increase(penstock_batcher_refusals_total[` + batches + `])) > 0`,
						"refused: {{missing}}"}),
			}},
			{"Process", []graph{
				counts("Connections", "", query{`penstock_receiver_connections`, "{{instance}}"}),
				lines("CPU", "Cores.", units.Short, query{`rate(process_cpu_seconds_total[$__rate_interval])` + ofReceivers,
					"{{instance}}"}),
				lines("Memory", "Resident.", units.BytesIEC, query{`process_resident_memory_bytes` + ofReceivers, "{{instance}}"}),
				lines("Clock", "How far it is off the store's. The alert PenstockClockOff fires at 60 s.", units.Seconds,
					query{`abs(penstock_clock_offset_seconds)`, "{{instance}}"}),
			}},
		}}
}

func loader() board {
	return board{name: "loader", title: "Penstock: loaders", about: "From the notification to the row.",
		rows: []row{
			{"Loading", []graph{
				stack("Rows", "Over 5 minutes.", units.RowsPerSecond, smooth("penstock_loader_rows_total", "pipeline")),
				stack("Deliveries by result", "Per 5 minutes.", units.Short,
					query{`sum by (result) (increase(penstock_loader_objects_total[` + batches + `]))`, "{{result}}"}),
				lines("Time to load an object", "From a delivery to the ledger.", units.Seconds,
					times("penstock_loader_load_duration_seconds", "pipeline", batches)...),
			}},
			{"Queue and ledger", []graph{
				counts("Queue", "Notifications.",
					query{`max by (pipeline) (penstock_queue_pending_messages)`, "{{pipeline}} pending"},
					query{`max by (pipeline) (penstock_queue_in_flight_messages)`, "{{pipeline}} in flight"}),
				counts("Objects that are not loaded", "By their state in the load ledger.",
					query{`max by (pipeline, state) (penstock_ledger_objects{state!="loaded"})`, "{{pipeline}} {{state}}"}),
				lines("From event to row", "Of the first event of each object.", units.Seconds,
					times("penstock_loader_freshness_seconds", "pipeline", batches)...),
			}},
			{"Failures", []graph{
				counts("Failed attempts", "Because of the object. Per 5 minutes.",
					query{`sum by (pipeline) (increase(penstock_loader_failures_total[` + batches + `]))`, "{{pipeline}}"}),
				{title: "Paused", about: "Red while nothing is loaded, because the table or the store is away.", kind: states,
					queries: []query{{`penstock_loader_paused`, "{{instance}} {{pipeline}}"}}},
				counts("Refused rows", "Rows that the table refused; they are in errors. Per 5 minutes.",
					query{`sum by (pipeline) (increase(penstock_loader_refused_rows_total[` + batches + `]))`, "{{pipeline}}"}),
				counts("Found by sweeps", "Objects whose notification was lost. Per hour.",
					query{`sum by (pipeline) (increase(penstock_sweep_enqueued_objects_total[1h]))`, "{{pipeline}}"},
					query{`sum by (pipeline) (increase(penstock_full_sweep_found_objects_total[1h]))`, "{{pipeline}}, full sweep"}),
			}},
			{"Process", []graph{
				lines("Bytes fetched", "From the bucket, over 5 minutes.", units.BytesPerSecondIEC,
					smooth("penstock_loader_fetched_bytes_total", "pipeline")),
				lines("CPU", "Cores.", units.Short,
					query{`rate(process_cpu_seconds_total[$__rate_interval])` + ofLoaders, "{{instance}}"}),
				lines("Memory", "Resident.", units.BytesIEC,
					query{`process_resident_memory_bytes` + ofLoaders, "{{instance}}"}),
			}},
		}}
}

func clickhouse() board {
	const (
		cpu    = `sum(rate(ClickHouseProfileEvents_OSCPUVirtualTimeMicroseconds[` + batches + `])) / 1e6`
		loads  = `sum(rate(penstock_loader_load_duration_seconds_sum{pipeline="events"}[` + batches + `]))`
		inward = `(sum(rate(ClickHouseProfileEvents_InsertedRows[` + batches + `])) > 1)`
	)
	return board{name: "clickhouse", title: "Penstock: ClickHouse cost",
		about: "What loading costs ClickHouse. The panels of the server need its Prometheus endpoint: see infra/prometheus.",
		rows: []row{
			{"Now", []graph{
				one("CPU for a million rows", "Seconds of ClickHouse's CPU, with its merges and queries, for a million events.",
					units.Seconds, `1e6 * `+cpu+` / (`+rows+` > 1)`),
				one("CPU", "Cores, over 5 minutes.", units.Short, cpu),
				one("Memory", "That the server tracks.", units.BytesIEC, `sum(ClickHouseMetrics_MemoryTracking)`),
				one("Parts", "Active parts of all tables.", units.Short, `sum(ClickHouseMetrics_PartsActive)`),
				one("Rows merged for one inserted", "How often merges rewrite a row.", units.Short,
					`sum(rate(ClickHouseProfileEvents_MergedRows[30m])) / (sum(rate(ClickHouseProfileEvents_InsertedRows[30m])) > 0)`),
				one("Inserts delayed or rejected", "Per 5 minutes. Too many parts: raise batcher.roll_age.", units.Short,
					`sum(increase(ClickHouseProfileEvents_DelayedInserts[`+batches+`])) +
  sum(increase(ClickHouseProfileEvents_RejectedInserts[`+batches+`]))`, step{1, "red"}),
			}},
			{"The server", []graph{
				lines("CPU", "Cores.", units.Short,
					query{`sum by (instance) (rate(ClickHouseProfileEvents_OSCPUVirtualTimeMicroseconds[$__rate_interval])) / 1e6`,
						"{{instance}}"}),
				lines("Bytes written", "By inserts and merges, before they reach the disk; and as compressed data of new parts.",
					units.BytesPerSecondIEC,
					query{`sum(rate(ClickHouseProfileEvents_WriteBufferFromFileDescriptorWriteBytes[$__rate_interval]))`, "files"},
					query{`sum(rate(ClickHouseProfileEvents_MergeTreeDataWriterCompressedBytes[$__rate_interval]))`, "inserts"}),
				lines("Memory", "", units.BytesIEC,
					query{`sum by (instance) (ClickHouseMetrics_MemoryTracking)`, "{{instance}}"},
					query{`sum by (instance) (ClickHouseMetrics_MergesMutationsMemoryTracking)`, "{{instance}} merges"}),
			}},
			{"Parts and merges", []graph{
				counts("Parts", "Active parts of all tables. A steady rise means that merges cannot keep up.",
					query{`sum by (instance) (ClickHouseMetrics_PartsActive)`, "{{instance}}"}),
				counts("Merges", "That run now, mutations apart.",
					query{`sum by (instance) (ClickHouseMetrics_Merge)`, "{{instance}} merges"},
					query{`sum by (instance) (ClickHouseMetrics_PartMutation)`, "{{instance}} mutations"}),
				lines("Rows", "Merges rewrite rows. Over 5 minutes.", units.RowsPerSecond,
					query{`sum(rate(ClickHouseProfileEvents_InsertedRows[` + batches + `]))`, "inserted"},
					query{`sum(rate(ClickHouseProfileEvents_MergedRows[` + batches + `]))`, "merged"}),
			}},
			{"Loading", []graph{
				lines("For a million rows", "Seconds of loaders' workers, and of ClickHouse's CPU.", units.Seconds,
					query{`1e6 * ` + loads + ` / (` + rows + ` > 1)`, "workers"},
					query{`1e6 * ` + cpu + ` / ` + inward, "ClickHouse, for all tables"}),
				lines("Rows of an object", "Large objects load at less cost. See batcher.roll_age.", units.Short,
					query{rows + `
  / (sum(rate(penstock_loader_objects_total{pipeline="events",result="loaded"}[` + batches + `])) > 0)`, "events"}),
				lines("Bytes of objects for a row", "As stored in the bucket, compressed.", units.BytesIEC,
					query{`sum(rate(penstock_batcher_object_bytes_total{pipeline="events"}[` + batches + `]))
  / (sum(rate(penstock_batcher_object_rows_total{pipeline="events"}[` + batches + `])) > 0)`, "events"}),
			}},
			{"What makes it dear", []graph{
				counts("New paths of properties", "Per 5 minutes. A steady rise means that clients use ids as keys.",
					query{`sum(increase(penstock_loader_new_property_paths_total[` + batches + `]))`, "paths"}),
				counts("Projects with too many paths", "",
					query{`max(penstock_loader_exploding_projects)`, "projects"}),
				lines("Large values", "Bytes of blobs taken out of events, over 5 minutes.", units.BytesPerSecondIEC,
					smooth("penstock_batcher_blob_bytes_total", "pipeline")),
				counts("Views that refused a chunk", "Per 5 minutes.",
					query{`sum by (pipeline) (increase(penstock_loader_view_failures_total[` + batches + `]))`, "{{pipeline}}"}),
			}},
		}}
}

func project() board {
	const of = `{project="$project"}`
	events := `sum(rate(penstock_receiver_events_total` + of + `[$__rate_interval]))`
	rejected := `(sum(rate(penstock_receiver_rejected_events_total` + of + `[$__rate_interval])) or 0 * ` + events + `)`
	return board{name: "project", title: "Penstock: one project", about: "What a project sends, and what becomes of it.",
		project: true,
		rows: []row{
			{"Now", []graph{
				one("Accepted", "Events per second.", units.EventsPerSecond, events),
				one("Bytes", "Of bodies, decompressed.", units.BytesPerSecondIEC,
					`sum(rate(penstock_receiver_body_bytes_total`+of+`[$__rate_interval]))`),
				one("Rejected", "Share of its events.", units.PercentUnit, rejected+` / (`+rejected+` + `+events+` > 0)`,
					step{0.05, "orange"}, step{0.2, "red"}),
				one("Limited requests", "Answered with 429, per second.", units.RequestsPerSecond,
					`sum(rate(penstock_receiver_limited_requests_total`+of+`[$__rate_interval])) or vector(0)`),
			}},
			{"Traffic", []graph{
				stack("Accepted events by protocol", "", units.EventsPerSecond,
					perSecond("penstock_receiver_events_total"+of, "protocol")),
				stack("Bytes by protocol", "Bodies, decompressed.", units.BytesPerSecondIEC,
					perSecond("penstock_receiver_body_bytes_total"+of, "protocol")),
				stack("Requests by status", "", units.RequestsPerSecond,
					perSecond("penstock_receiver_requests_total"+of, "status")),
			}},
			{"Rejected", []graph{
				stack("Rejected events by code", "", units.EventsPerSecond,
					perSecond("penstock_receiver_rejected_events_total"+of, "code")),
				stack("Rejected requests by code", "", units.RequestsPerSecond,
					perSecond("penstock_receiver_rejected_requests_total"+of, "code")),
			}},
			{"Limits and rules", []graph{
				lines("Quota used today", "Events, of all receivers.", units.Short,
					query{`sum(penstock_receiver_quota_used_events` + of + `)`, "events"}),
				stack("Limited requests", "Answered with 429.", units.RequestsPerSecond,
					perSecond("penstock_receiver_limited_requests_total"+of, "limit")),
				lines("Left out by the sample", "", units.EventsPerSecond,
					query{`sum(rate(penstock_receiver_sampled_events_total` + of + `[$__rate_interval]))`, "events"}),
				stack("Dropped and hashed values", "Per second.", units.Short,
					perSecond("penstock_receiver_redacted_values_total"+of, "path")),
			}},
		}}
}
