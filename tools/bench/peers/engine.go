package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/penstock/penstock/tools/devstack"

	tables "github.com/penstock/penstock/infra/clickhouse"
	adapter "github.com/penstock/penstock/internal/clickhouse"
)

const (
	// quietFor is how long no merge may run before the engine counts as finished.
	quietFor = time.Second
	// quietWithin is the timeout of that wait.
	quietWithin = 10 * time.Minute
	// poll is the interval of queries for rows and merges. A count() reads no rows.
	poll = 100 * time.Millisecond
)

// engine is a ClickHouse for one run, so that its peak memory and its merges belong to that run.
type engine struct {
	*devstack.ClickHouse
	db   driver.Conn
	dir  string
	from float64 // CPU seconds used before the measurement
}

// startEngine starts a ClickHouse with an empty folder. If penstockTables is set, it creates Penstock's tables.
func (b *bench) startEngine(ctx context.Context, penstockTables bool) (*engine, error) {
	dir, err := os.MkdirTemp(b.dir, "clickhouse-")
	if err != nil {
		return nil, err
	}
	server, err := devstack.StartClickHouse(ctx, devstack.ClickHouseOptions{Engine: b.clickhouse, Data: dir})
	if err != nil {
		return nil, err
	}
	e := &engine{ClickHouse: server, dir: dir}
	if penstockTables {
		options := adapter.Options{Addresses: []string{e.Addr()}, Database: "penstock", User: e.User(),
			Password: e.Password(), Timeout: time.Minute, Conns: 1}
		if _, err := adapter.Migrate(ctx, options, tables.Files, func(string) {}); err != nil {
			e.close()
			return nil, err
		}
	}
	if e.db, err = clickhouse.Open(&clickhouse.Options{Addr: []string{e.Addr()}, ReadTimeout: quietWithin,
		Auth: clickhouse.Auth{Username: e.User(), Password: e.Password()}}); err != nil {
		e.close()
		return nil, err
	}
	if err := e.begin(); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

// begin starts the measurement: earlier usage does not count.
func (e *engine) begin() error {
	used, err := groupUsage(e.Pid)
	e.from = used.cpu
	return err
}

// close ends the engine and removes its data.
func (e *engine) close() {
	if e.db != nil {
		e.db.Close()
	}
	e.Kill()
	os.RemoveAll(e.dir)
}

// one returns the single value of a query.
func (e *engine) one(ctx context.Context, query string) (n uint64, err error) {
	if err := e.db.QueryRow(ctx, query).Scan(&n); err != nil {
		return 0, errors.Join(fmt.Errorf("%s: %w", query, err), e.Err())
	}
	return n, nil
}

// settle waits until the engine has no more merges.
func (e *engine) settle(ctx context.Context) error {
	end := time.Now().Add(quietWithin)
	for quiet := time.Now(); time.Since(quiet) < quietFor; {
		merges, err := e.one(ctx, "SELECT count() FROM system.merges")
		if err != nil {
			return err
		}
		if merges > 0 {
			quiet = time.Now()
		}
		if time.Now().After(end) {
			return fmt.Errorf("merges go on for more than %s", quietWithin)
		}
		if err := sleep(ctx, poll); err != nil {
			return err
		}
	}
	return nil
}

// finish waits for the merges, and records the engine's usage and the table's content. id is the SQL expression for an
// event's id.
func (e *engine) finish(ctx context.Context, table, id string, f *figures) error {
	// Count before the merges, because a ReplacingMergeTree would hide duplicates. Count after them too, because a peer
	// may retry an insert whose success it could not see.
	before, err := e.one(ctx, "SELECT count() FROM "+table)
	if err != nil {
		return err
	}
	if err := e.settle(ctx); err != nil {
		return err
	}
	used, err := groupUsage(e.Pid)
	if err != nil {
		return err
	}
	rows, err := e.one(ctx, "SELECT count() FROM "+table)
	if err != nil {
		return err
	}
	rows = max(rows, before)
	// Last, because it reads the table.
	distinct, err := e.one(ctx, "SELECT uniqExact("+id+") FROM "+table)
	if err != nil {
		return err
	}
	f.Rows, f.Distinct = &rows, &distinct
	f.EngineCPU, f.EngineRSS = new(used.cpu-e.from), new(used.peak)
	return nil
}

// sleep waits for d. If ctx ends first, it returns the cause.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// logs is the path for a peer's output.
func (b *bench) logs(name string) string { return filepath.Join(b.dir, name+".log") }
