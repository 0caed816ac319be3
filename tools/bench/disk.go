package main

import (
	"context"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/load"
	"github.com/penstock/penstock/internal/traffic"
	"github.com/penstock/penstock/tools/bench/report"
)

// largestColumns is the number of a table's columns that are listed singly.
const largestColumns = 8

// disk measures load, and the size of a kind of events in the bucket and in ClickHouse.
func (b *benchmark) disk(ctx context.Context, kind traffic.Kind, format pipeline.Format) (report.Run, error) {
	one, o := *b, *b.benchOptions
	o.kinds, o.formats = []traffic.Kind{kind}, []pipeline.Format{format}
	if kind == traffic.LLM {
		o.events /= 10 // for a similar number of bytes
	}
	one.benchOptions = &o
	return one.load(ctx, 0)
}

// addDisk adds the events' sizes relative to their request bodies.
func addDisk(ctx context.Context, f *report.Figures, db *clickhouse.DB, sent *load.Sent) error {
	use, err := db.DiskUse(ctx, pipeline.Events.Name)
	if err != nil {
		return err
	}
	objects, _ := f.Get("objects_mib")
	f.Add("sent_by_objects", mib(sent.Bytes)/objects)
	f.Add("parts", float64(use.Parts))
	f.Add("clickhouse_mib", mib(use.Bytes))
	f.Add("sent_by_clickhouse", float64(sent.Bytes)/float64(use.Bytes))
	perEvent := 1 / float64(sent.Accepted)
	f.Add("sent_bytes_per_event", float64(sent.Bytes)*perEvent)
	f.Add("object_bytes_per_event", objects*(1<<20)*perEvent)
	f.Add("clickhouse_bytes_per_event", float64(use.Bytes)*perEvent)
	for _, c := range use.Columns[:min(largestColumns, len(use.Columns))] {
		if c.Bytes > 0 { // 0: a compact part, whose columns have no separate size
			f.Add("of_these_"+c.Name, float64(c.Bytes)*perEvent)
		}
	}
	return nil
}
