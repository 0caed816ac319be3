// Package peers measures peers of Penstock on this machine, with the events of Penstock's own benchmarks. So anybody
// can reproduce the comparison. tools/bench/README.md says what each peer does.
package peers

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/penstock/penstock/tools/devstack"
)

// bench is the state that peers share.
type bench struct {
	events   int  // in each run
	conns    int  // connections of a peer's client
	defaults bool // keep the server's defaults that are bad for the peers, see peers
	progress io.Writer

	dir        string // for all files of servers and clients; removed at the end
	fetcher    *devstack.Fetcher
	clickhouse devstack.ClickHouseEngine

	// Created by the first peer that needs them.
	store    *store
	penstock string   // path of the binary
	posts    [][]byte // OTLP requests
}

// peer is a line of the table.
type peer struct {
	group string // name for --only
	name  string
	run   func(ctx context.Context, b *bench) (figures, error)
}

func peers() []peer {
	direct := func(rows int, async bool) func(context.Context, *bench) (figures, error) {
		return func(ctx context.Context, b *bench) (figures, error) { return b.direct(ctx, rows, async) }
	}
	pull := func(format string) func(context.Context, *bench) (figures, error) {
		return func(ctx context.Context, b *bench) (figures, error) { return b.pull(ctx, format) }
	}
	otel := func(s otelSetup) func(context.Context, *bench) (figures, error) {
		return func(ctx context.Context, b *bench) (figures, error) { return b.otel(ctx, s) }
	}
	server := func(name string, events int) peer {
		return peer{"http", fmt.Sprintf("empty %s, POSTs of %d", name, events),
			func(ctx context.Context, b *bench) (figures, error) { return b.serve(ctx, name, events) }}
	}
	return []peer{
		{"direct", "direct, 1 row an insert", direct(1, false)},
		{"direct", "direct, 100 rows an insert", direct(100, false)},
		{"direct", "direct, 1000 rows an insert", direct(1000, false)},
		{"async", "direct, 1 row, async_insert", direct(1, true)},
		{"async", "direct, 100 rows, async_insert", direct(100, true)},
		{"s3", "s3(), NDJSON.zst", pull("ndjson")},
		{"otel", "otelcol, map columns", otel(otelSetup{})},
		{"otel", "otelcol, JSON columns", otel(otelSetup{json: true})},
		{"otel", "otelcol, JSON, batch processor", otel(otelSetup{json: true, batch: true})},
		{"otel", "otelcol, nothing exported", otel(otelSetup{nop: true})},
		server("net/http", 1), server("fasthttp", 1), server("fasthttp, streamed", 1),
		server("net/http", 100), server("fasthttp", 100), server("fasthttp, streamed", 100),
	}
}

// command is the first argument on which the program calls Run.
const command = "peers"

// Run measures peers. The clients and servers under test are processes of the same program, which also start here.
func Run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == directClient {
		return runDirectClient(ctx, args[1:])
	} else if len(args) > 0 && args[0] == httpServer {
		return runHTTPServer(args[1:])
	}
	return runBench(ctx, args)
}

func runBench(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("peers", flag.ContinueOnError)
	b := &bench{progress: os.Stderr}
	fs.IntVar(&b.events, "events", 200_000, "events a run")
	fs.IntVar(&b.conns, "conns", 4, "connections of each peer's client")
	fs.BoolVar(&b.defaults, "defaults", false,
		"leave optimize_on_insert at the server's default, 1, which costs direct and s3 more")
	rounds := fs.Int("runs", 3, "runs of each peer; the table shows medians")
	only := fs.String("only", "direct,async,s3,otel,http", "which `peers`, by commas")
	file := fs.String("json", "", "`file` for all runs and medians")
	if err := fs.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	if b.events < 1 || b.conns < 1 || *rounds < 1 || fs.NArg() > 0 {
		return errors.New("--events, --conns and --runs have to be at least 1, and there are no arguments beside the flags")
	}
	runs, err := b.run(ctx, chosen, *rounds)
	if err != nil {
		return err
	}
	r := b.report(runs)
	fmt.Printf("%d connections (http: %d), %d cores (%s), ClickHouse %s, OpenTelemetry Collector %s\n\n", b.conns,
		httpConns, r.Machine.Cores, r.Machine.CPU, r.Versions.ClickHouse, r.Versions.Collector)
	writeTable(os.Stdout, r.Peers)
	if *file != "" {
		if err := writeJSON(*file, r); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(runs, func(r run) bool { return r.Error != "" }) {
		return errors.New("not all runs came to their end, see above")
	}
	return nil
}

// choose returns the peers of the named groups, separated by commas.
func choose(only string) ([]peer, error) {
	var chosen []peer
	for _, group := range strings.Split(only, ",") {
		before := len(chosen)
		for _, p := range peers() {
			if p.group == group {
				chosen = append(chosen, p)
			}
		}
		if len(chosen) == before {
			return nil, fmt.Errorf("--only %q: there is no peer %q: want some of direct, async, s3, otel, http", only, group)
		}
	}
	return chosen, nil
}

// run runs all peers in each round, so that other load on the machine affects all of them. The other peers run even if
// one fails.
func (b *bench) run(ctx context.Context, chosen []peer, rounds int) ([]run, error) {
	cache, err := devstack.CacheDir()
	if err != nil {
		return nil, err
	}
	b.fetcher = &devstack.Fetcher{Cache: cache, Progress: b.progress}
	if b.clickhouse, err = b.fetcher.ClickHouse(ctx); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "penstock-peers-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(b.dir)
	defer func() {
		if b.store != nil {
			b.store.Kill()
		}
	}()
	var runs []run
	for round := 1; round <= rounds; round++ {
		for _, p := range chosen {
			b.say("%s: run %d of %d", p.name, round, rounds)
			f, err := p.run(ctx, b)
			if cause := context.Cause(ctx); cause != nil {
				return nil, cause
			}
			r := run{Peer: p.name, Run: round, figures: f}
			if err != nil {
				r.Error = err.Error()
				b.say("%s: %v", p.name, err)
			} else {
				b.say("%s: %.1f s", p.name, f.Seconds)
			}
			runs = append(runs, r)
		}
	}
	return runs, nil
}

// say prints a line of progress.
func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.progress, format+"\n", args...) }
