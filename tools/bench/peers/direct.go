package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/traffic"
)

// directClient is the first argument of the inserting process. It is a separate process, so that its memory and CPU are
// only the client's.
const directClient = "direct-client"

// maxSingles is how many events are inserted one by one. A few hundred a second are possible, so all of them would take
// minutes.
const maxSingles = 5_000

// tooManyParts is ClickHouse's code for a table that accepts no insert until merges have caught up.
const tooManyParts = 252

// directFigures is the client's output.
type directFigures struct {
	Seconds float64 // from the first insert to the last answer
	CPU     float64 // CPU seconds in that time, less MakeCPU
	MakeCPU float64 // CPU seconds to make the same number of events
	RSS     float64 // peak, MiB
	Retries int64   // inserts rejected for too many parts, and sent again
}

// asyncConns is the number of connections that insert asynchronously. Each waits until the server has written the rows
// of all of them.
const asyncConns = 64

// direct measures clients that insert rows events at a time and wait for each answer. async: the server gathers the
// rows.
func (b *bench) direct(ctx context.Context, rows int, async bool) (figures, error) {
	f := figures{Events: b.events}
	if rows == 1 {
		f.Events = min(f.Events, maxSingles)
	}
	e, err := b.startEngine(ctx, true)
	if err != nil {
		return f, err
	}
	defer e.close()

	conns := b.conns
	if async {
		conns = asyncConns
	}
	self, err := os.Executable()
	if err != nil {
		return f, err
	}
	cmd := exec.CommandContext(ctx, self, command, directClient, // #nosec G204 -- ourselves
		"-addr", e.Addr(), "-user", e.User(), "-password",
		e.Password(), "-events", strconv.Itoa(f.Events),
		"-rows", strconv.Itoa(rows), "-conns", strconv.Itoa(conns), "-async="+strconv.FormatBool(async),
		"-defaults="+strconv.FormatBool(b.defaults))
	cmd.Stderr, cmd.SysProcAttr = new(bytes.Buffer), withUs
	out, err := cmd.Output()
	if err != nil {
		return f, fmt.Errorf("client: %w\n%s", err, cmd.Stderr)
	}
	var d directFigures
	if err := json.Unmarshal(out, &d); err != nil {
		return f, fmt.Errorf("client printed %q: %w", out, err)
	}
	f.Seconds, f.PeerCPU, f.PeerRSS, f.Retries = d.Seconds, &d.CPU, d.RSS, d.Retries
	return f, e.finish(ctx, "penstock.events", "event_id", &f)
}

// runDirectClient is the client's process.
func runDirectClient(ctx context.Context, args []string) error {
	var c inserter
	fs := flag.NewFlagSet(directClient, flag.ContinueOnError)
	addr, user, password := fs.String("addr", "", ""), fs.String("user", "", ""), fs.String("password", "", "")
	fs.IntVar(&c.events, "events", 0, "")
	fs.IntVar(&c.rows, "rows", 1, "")
	fs.IntVar(&c.conns, "conns", 1, "")
	defaults, async := fs.Bool("defaults", false, ""), fs.Bool("async", false, "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	settings := clickhouse.Settings{"async_insert": 0}
	if *async {
		settings = clickhouse.Settings{"async_insert": 1, "wait_for_async_insert": 1}
	}
	if !*defaults {
		settings["optimize_on_insert"] = 0
	}
	db, err := clickhouse.Open(&clickhouse.Options{Addr: []string{*addr},
		Auth:         clickhouse.Auth{Database: "penstock", Username: *user, Password: *password},
		MaxOpenConns: c.conns, MaxIdleConns: c.conns, Settings: settings})
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Ping(ctx); err != nil {
		return err
	}

	// A real client already has its events. Ours makes them meanwhile, like the other peers' clients and Penstock's. That
	// cost is measured alone and subtracted.
	made, err := measured(func() error { return c.work(func([]event) error { return nil }) })
	if err != nil {
		return err
	}
	begin := time.Now()
	all, err := measured(func() error { return c.work(func(events []event) error { return c.insert(ctx, db, events) }) })
	if err != nil {
		return err
	}
	d := directFigures{Seconds: time.Since(begin).Seconds(), CPU: all - made, MakeCPU: made, Retries: c.retries.Load()}
	if d.RSS, err = peakRSS("/proc/self"); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(d)
}

// inserter inserts rows events at a time, over conns concurrent connections.
type inserter struct {
	events, rows, conns int
	retries             atomic.Int64
}

// work makes all events and calls each with the events of one insert, on conns goroutines.
func (c *inserter) work(each func([]event) error) error {
	var begun atomic.Int64
	errs := make([]error, c.conns)
	var all sync.WaitGroup
	for w := range c.conns {
		all.Go(func() {
			g := traffic.New("direct", uint64(time.Now().UnixNano())+uint64(w))
			var line []byte
			var events []event
			for {
				first := int(begun.Add(int64(c.rows))) - c.rows
				n := min(c.rows, c.events-first)
				if n <= 0 {
					return
				}
				events = events[:0]
				for range n {
					line = g.Append(line[:0])
					e, err := cutEvent(line)
					if err != nil {
						errs[w] = err
						return
					}
					events = append(events, e)
				}
				if err := each(events); err != nil {
					errs[w] = err
					return
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

const directInsert = "INSERT INTO events (event_id, project, name, timestamp, identity_time, received_at, " +
	"session_id, user_id, properties)"

// insert sends one block. It retries while the table has too many parts.
func (c *inserter) insert(ctx context.Context, db driver.Conn, events []event) error {
	for attempt := 1; ; attempt++ {
		err := insertOnce(ctx, db, events)
		var e *clickhouse.Exception
		if !errors.As(err, &e) || e.Code != tooManyParts {
			return err
		}
		c.retries.Add(1)
		if err := sleep(ctx, retry.Backoff{Min: 50 * time.Millisecond, Max: 2 * time.Second}.Delay(attempt)); err != nil {
			return err
		}
	}
}

func insertOnce(ctx context.Context, db driver.Conn, events []event) error {
	batch, err := db.PrepareBatch(ctx, directInsert)
	if err != nil {
		return err
	}
	defer batch.Close()
	now := time.Now()
	for _, e := range events {
		id, err := uuid.Parse(e.id)
		if err != nil {
			return err
		}
		if err := batch.Append(id, "bench", e.name, e.timestamp, e.timestamp, now, e.session, e.user,
			e.properties); err != nil {
			return err
		}
	}
	return batch.Send()
}

// measured runs work and returns the CPU seconds of this process meanwhile.
func measured(work func() error) (float64, error) {
	before, err := ownCPU()
	if err != nil {
		return 0, err
	}
	if err := work(); err != nil {
		return 0, err
	}
	after, err := ownCPU()
	return after - before, err
}

// ownCPU is finer than /proc/PID/stat, which counts hundredths of a second.
func ownCPU() (float64, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds(), nil
}
