package main

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"time"

	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/load"
	"github.com/penstock/penstock/tools/bench/report"
	"github.com/penstock/penstock/tools/devstack"
)

// sampleEvery is the interval of memory samples while events are sent.
const sampleEvery = 500 * time.Millisecond

// part is a kind of processes that share figures.
type part struct {
	name      string
	processes []*devstack.Process
}

// e2e measures the whole path, from the clients to the last row and its merges.
func (b *benchmark) e2e(ctx context.Context, rate int) (run report.Run, err error) {
	err = b.onStack(ctx, true, func(ctx context.Context, st *benchStack) error {
		r, err := st.role(ctx, "receive")
		if err != nil {
			return err
		}
		loaders, err := b.startLoaders(ctx, st)
		if err != nil {
			return err
		}
		parts := []part{{"receiver", []*devstack.Process{r.Process}}, {"loader", processes(loaders)},
			{"clickhouse", []*devstack.Process{st.ClickHouse.Process}},
			{"minio", []*devstack.Process{st.MinIO.Process}}, {"nats", []*devstack.Process{st.NATS.Process}}}
		db, err := clickhouse.Open(app.TableOptions(st.cfg.ClickHouse, 1))
		if err != nil {
			return err
		}
		defer db.Close()
		clients := b.clients(r.listen, st.key, "bench", rate)

		sustained, err := b.sustain(ctx, st)
		if err != nil {
			return err
		}
		before, err := readMeter()
		if err != nil {
			return err
		}
		sampled := sampleParts(ctx, parts)
		profiles := b.startProfiles(ctx, st.key, append(loaders, r)...)
		began := time.Now()
		sent, err := b.send(ctx, clients)
		run.Series = sampled()
		watched, failure := sustained()
		if err = errors.Join(err, failure); err != nil {
			return err
		}
		if err := profiles.write(); err != nil {
			return err
		}
		_, rows, err := loaded(ctx, db)
		if err != nil {
			return err
		}
		loads, err := b.awaitRows(ctx, db, sent.Accepted)
		if err != nil {
			return err
		}
		if err := b.awaitMerges(ctx, db); err != nil {
			return err
		}
		after, err := readMeter()
		if err != nil {
			return err
		}
		f := &run.Figures
		addWhole(f, sent, loads, began)
		f.Add("pending_when_sent", float64(sent.Accepted-rows))
		addFreshness(f, loads)
		addLatency(f, sent, rate)
		addCosts(f, parts, before, after, sent)
		if err := watched.add(ctx, f, sent.Accepted); err != nil {
			return err
		}
		for _, p := range parts[:2] {
			addMemoryOverTime(f, p.name, run.Series[p.name])
		}
		failed(&run, sent)
		return checkRows(ctx, db, sent)
	})
	return run, err
}

// addWhole adds what was sent, and how fast all of it became rows.
func addWhole(f *report.Figures, sent *load.Sent, loads []pipeline.Load, began time.Time) {
	addSent(f, sent)
	f.Add("unsent", float64(sent.Unsent))
	_, last := span(loads)
	f.Add("rows_per_s", float64(sent.Accepted)/last.Sub(began).Seconds())
	f.Add("objects", float64(len(loads)))
	f.Add("drain_s", max(0, last.Sub(began)-sent.Elapsed).Seconds())
}

// sampleParts samples the parts' memory until its result is called.
func sampleParts(ctx context.Context, parts []part) func() map[string][]float64 {
	groups := map[string][]int{}
	for _, p := range parts {
		for _, process := range p.processes {
			groups[p.name] = append(groups[p.name], process.Pid)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	result := make(chan map[string][]float64, 1)
	go func() { result <- report.SampleRSS(ctx, sampleEvery, groups) }()
	return func() map[string][]float64 {
		cancel()
		return <-result
	}
}

// addFreshness adds the age of events when the ledger marks their object as loaded, shortly after they are rows. Only
// an object's oldest and newest event are known; the others are assumed to be spread evenly.
func addFreshness(f *report.Figures, loads []pipeline.Load) {
	var ages []report.Ages
	for _, l := range loads {
		key, err := pipeline.ParseKey(l.Key)
		if err != nil {
			continue // not a receiver's object
		}
		ages = append(ages, report.Ages{Events: l.Rows, Newest: l.Finished.Sub(l.Received), Oldest: l.Finished.Sub(key.Time)})
	}
	f.Add("freshness_p50_s", report.AgeQuantile(ages, 0.5).Seconds())
	f.Add("freshness_p99_s", report.AgeQuantile(ages, 0.99).Seconds())
	f.Add("freshness_max_s", report.AgeQuantile(ages, 1).Seconds())
}

// addCosts adds each part's CPU up to the end of the last merge, per million events and per second of sending. The
// latter is the number of busy cores at a constant rate.
func addCosts(f *report.Figures, parts []part, before, after meter, sent *load.Sent) {
	million, seconds := float64(sent.Accepted)/1e6, sent.Elapsed.Seconds()
	var ours, all float64
	for _, p := range parts {
		cpu := after.cpu(before, p.processes...)
		f.Add(p.name+"_cpu_s_per_million", cpu/million)
		f.Add(p.name+"_cores", cpu/seconds)
		all += cpu
		if p.name != "clickhouse" && p.name != "minio" {
			ours += cpu
		}
	}
	own := after.own(before)
	f.Add("generator_cpu_s_per_million", own/million)
	f.Add("generator_cores", own/seconds)
	f.Add("stack_cpu_s_per_million", all/million)
	f.Add("stack_cores", all/seconds)
	f.Add("outside_clickhouse_and_minio_share_of_stack", ours/all)
	f.Add("outside_clickhouse_and_minio_share_of_machine", ours/seconds/float64(runtime.NumCPU()))
}

// addMemoryOverTime adds figures that show whether memory grows while events arrive.
func addMemoryOverTime(f *report.Figures, name string, mib []float64) {
	if len(mib) == 0 {
		return
	}
	quarter := max(1, len(mib)/4)
	f.Add(name+"_min_rss_mib", slices.Min(mib))
	f.Add(name+"_median_rss_mib", report.Median(mib))
	f.Add(name+"_max_rss_mib", slices.Max(mib))
	f.Add(name+"_first_quarter_rss_mib", report.Median(mib[:quarter]))
	f.Add(name+"_last_quarter_rss_mib", report.Median(mib[len(mib)-quarter:]))
}
