package main

import (
	"context"
	"fmt"
	"time"

	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/load"
	"github.com/penstock/penstock/tools/bench/report"
	"github.com/penstock/penstock/tools/devstack"
)

// rowsPatience is how long a run waits without a new loaded object before it gives up.
const rowsPatience = 2 * time.Minute

// load measures loaders and ClickHouse on a full bucket.
func (b *benchmark) load(ctx context.Context, _ int) (run report.Run, err error) {
	err = b.onStack(ctx, true, func(ctx context.Context, st *benchStack) error {
		r, err := st.role(ctx, "receive")
		if err != nil {
			return err
		}
		sent, err := b.send(ctx, b.clients(r.listen, st.key, "bench", 0))
		if err != nil {
			return err
		}
		if n := sent.Failed(); n > 0 {
			return fmt.Errorf("the bucket cannot be filled: %d requests failed; the first: %w", n, sent.FirstFailure)
		}
		if err := b.flush(ctx, r, st.key); err != nil {
			return err
		}
		run.Figures.Add("sent_mib", mib(sent.Bytes))
		if err := b.addStored(ctx, &run.Figures, r, sent); err != nil {
			return err
		}
		r.Kill()
		db, err := clickhouse.Open(app.TableOptions(st.cfg.ClickHouse, 1))
		if err != nil {
			return err
		}
		defer db.Close()

		before, err := readMeter()
		if err != nil {
			return err
		}
		loaders, err := b.startLoaders(ctx, st)
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
		first, last := span(loads)
		f, rows := &run.Figures, float64(sent.Accepted)
		f.Add("rows", rows)
		f.Add("rows_per_s", rows/last.Sub(first).Seconds())
		f.Add("loader_cpu_s_per_million", after.cpu(before, processes(loaders)...)*1e6/rows)
		f.Add("clickhouse_cpu_s_per_million", after.cpu(before, st.ClickHouse.Process)*1e6/rows)
		f.Add("minio_cpu_s_per_million", after.cpu(before, st.MinIO.Process)*1e6/rows)
		for i, l := range loaders {
			if err := addMemory(f, partName("loader", i), l.Process, after); err != nil {
				return err
			}
		}
		if b.name == "disk" {
			if err := addDisk(ctx, f, db, sent); err != nil {
				return err
			}
		}
		return checkRows(ctx, db, sent)
	})
	return run, err
}

func partName(name string, i int) string {
	if i == 0 {
		return name
	}
	return fmt.Sprintf("%s%d", name, i+1)
}

func (b *benchmark) startLoaders(ctx context.Context, st *benchStack) (all []*roleProcess, err error) {
	for range b.loaders {
		l, err := st.role(ctx, "load")
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

func processes(roles []*roleProcess) (all []*devstack.Process) {
	for _, r := range roles {
		all = append(all, r.Process)
	}
	return all
}

// loaded returns the ledger's loaded objects of events, and their rows.
func loaded(ctx context.Context, db *clickhouse.DB) (loads []pipeline.Load, rows int64, err error) {
	prefix := pipeline.Events.Prefix
	err = db.Loads(ctx, prefix, prefix+"\xff", func(l pipeline.Load) error {
		if l.State == pipeline.Loaded {
			loads = append(loads, l)
			rows += int64(l.Rows)
		}
		return nil
	})
	return loads, rows, err
}

// awaitRows waits until want rows are loaded.
func (b *benchmark) awaitRows(ctx context.Context, db *clickhouse.DB, want int64) (loads []pipeline.Load, err error) {
	err = b.await(ctx, "rows", 250*time.Millisecond, rowsPatience, func() (rows int64, done bool, err error) {
		loads, rows, err = loaded(ctx, db)
		return rows, rows >= want, err
	})
	return loads, err
}

// awaitMerges waits until ClickHouse has had no merges for a second.
func (b *benchmark) awaitMerges(ctx context.Context, db *clickhouse.DB) error {
	quiet := 0
	return b.await(ctx, "merges to end", 200*time.Millisecond, 10*time.Minute, func() (int64, bool, error) {
		n, err := db.Merges(ctx)
		if quiet++; n > 0 {
			quiet = 0
		}
		return int64(n), quiet == 5, err
	})
}

// span returns the start of the first load and the end of the last.
func span(loads []pipeline.Load) (first, last time.Time) {
	for _, l := range loads {
		if first.IsZero() || l.Started.Before(first) {
			first = l.Started
		}
		if l.Finished.After(last) {
			last = l.Finished
		}
	}
	return first, last
}

// checkRows fails unless the table has each accepted event exactly once.
func checkRows(ctx context.Context, db *clickhouse.DB, sent *load.Sent) error {
	got, err := db.RunStatus(ctx, pipeline.Events.Name, "bench", 0)
	if err != nil {
		return err
	}
	if rows := int64(got.Rows); got.Rows != got.Distinct || rows < sent.Accepted || rows > sent.Accepted+sent.Unknown {
		return fmt.Errorf("%d events were accepted (and %d may have been), %d are rows, of %d different ids", sent.Accepted,
			sent.Unknown, rows, got.Distinct)
	}
	return nil
}
