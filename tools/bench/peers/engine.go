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
	// quietFor is how long no merge may have run for the engine's work to count as done.
	quietFor = time.Second
	// quietWithin bounds the wait for it.
	quietWithin = 10 * time.Minute
	// poll is how often the engine is asked for rows and merges. A count() reads no rows.
	poll = 100 * time.Millisecond
)

// engine is a ClickHouse of one run alone: its peak of memory is that run's, and no merge of another run's is in it.
type engine struct {
	*devstack.ClickHouse
	db   driver.Conn
	dir  string
	from float64 // CPU seconds used when measuring began
}

// startEngine starts a ClickHouse with an empty folder, and the tables of Penstock where a peer inserts into them.
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

// begin makes what the engine has used so far not count.
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

// one is a query's single value.
func (e *engine) one(ctx context.Context, query string) (n uint64, err error) {
	if err := e.db.QueryRow(ctx, query).Scan(&n); err != nil {
		return 0, errors.Join(fmt.Errorf("%s: %w", query, err), e.Err())
	}
	return n, nil
}

// settle waits until the engine has merged what it wants to merge.
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

// finish waits for the merges, and fills in what the engine has used and what is in the table. id is the expression for
// an event's id there.
func (e *engine) finish(ctx context.Context, table, id string, f *figures) error {
	// Before the merges, for in a ReplacingMergeTree they would hide what was inserted twice; and after, for a peer may
	// send again what it could not know to be there.
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
	// The last, as it reads the table.
	distinct, err := e.one(ctx, "SELECT uniqExact("+id+") FROM "+table)
	if err != nil {
		return err
	}
	f.Rows, f.Distinct = &rows, &distinct
	f.EngineCPU, f.EngineRSS = new(used.cpu-e.from), new(used.peak)
	return nil
}

// sleep waits for d, or for the end of ctx and returns its cause.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// logs is where a peer's program writes.
func (b *bench) logs(name string) string { return filepath.Join(b.dir, name+".log") }
