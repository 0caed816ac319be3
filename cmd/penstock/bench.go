package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/app/dev"
	"github.com/penstock/penstock/internal/bench"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/internal/traffic"
	"github.com/penstock/penstock/internal/version"
)

// benchOptions are the flags of all benchmarks; each has those that concern it.
type benchOptions struct {
	name       string
	events     int
	batch      int
	conns      int
	rate       int // events/s, 0: closed loop
	duration   time.Duration
	durability string
	formats    []pipeline.Format // disk: all; the others: one
	kinds      []traffic.Kind    // disk: all; the others: one
	roll       time.Duration
	runs       int
	properties int
	paths      int
	loaders    int
	curve      []int
	floor      bool
	json       string
	flags      map[string]string // as they hold
}

// benchCommand is one benchmark.
type benchCommand struct{ name, short, about string }

var benchCommands = []benchCommand{
	{"receive", "what a receiver takes, and what it costs to bring it to the bucket",
		"Posts events to a receiver, to their objects in MinIO, in a stack of its own under $TMPDIR that is gone afterwards.\nExit status 1 where requests failed."},
	{"load", "what it costs to bring objects into ClickHouse",
		"Fills a bucket, starts the loaders on it and waits for all rows and merges, in a stack of its own under $TMPDIR that is gone afterwards."},
	{"disk", "what events take in the bucket and in ClickHouse",
		"Does what load does with events of which none comes twice, and tells what they take on disk: for each kind of events and each format\nof objects, in a stack of its own under $TMPDIR that is gone afterwards. All events are in memory before they are sent."},
	{"e2e", "the whole way from the POST to the row, and its cost at each of many rates",
		"Posts events to a receiver while loaders bring them into ClickHouse, in a stack of its own under $TMPDIR that is gone afterwards.\nExit status 1 unless every accepted event is a row, once, and no request failed."},
	{"plot", "the cost curve of e2e as a PNG", ""},
}

func runBench(ctx context.Context, s streams, args []string) error {
	sub := ""
	if len(args) > 0 {
		sub = args[0]
	}
	if sub == "floor" { // what --floor runs beside the receiver
		return runFloor(ctx, s, args[1:])
	}
	for _, c := range benchCommands {
		if c.name != sub {
			continue
		}
		if sub == "plot" {
			return runPlot(s, args[1:])
		}
		o, err := c.parse(s, args[1:])
		if err != nil {
			return err
		}
		return o.run(ctx, s)
	}
	w := s.err
	if sub == "-h" || sub == "--help" || sub == "help" {
		w = s.out
	} else if sub != "" {
		fmt.Fprintf(w, "penstock bench: there is no %q\n\n", sub)
	}
	fmt.Fprint(w, "Usage: penstock bench COMMAND [FLAGS]\n\n")
	for _, c := range benchCommands {
		fmt.Fprintf(w, "  %-9s %s\n", c.name, c.short)
	}
	if w == s.out {
		return nil
	}
	return errUsage
}

func (c benchCommand) parse(s streams, args []string) (*benchOptions, error) {
	o := &benchOptions{name: c.name}
	fs := newFlags(s, "bench "+c.name, c.about)
	fs.IntVar(&o.batch, "batch", 100, "`events` a request")
	fs.IntVar(&o.conns, "connections", 64, "`number` of connections that send at once")
	format, kind, several := "parquet", "game", ""
	if c.name == "disk" {
		format, kind, several = "parquet,ndjson", "game,llm", "; several with commas between them"
	}
	fs.StringVar(&format, "format", format, "`format` of objects: parquet or ndjson"+several)
	fs.StringVar(&kind, "events-kind", kind, "`kind` of events: game (an LLM call among 50, 412 bytes on the average) or llm (calls with their messages, 5.5 KB)"+several)
	fs.DurationVar(&o.roll, "roll", 5*time.Second, "`age` at which a batch becomes an object")
	fs.IntVar(&o.properties, "properties", 0, "`number` of properties of each event; 0: events as games and LLM products send them, 14 on the average")
	fs.IntVar(&o.paths, "paths", 0, "`number` of different keys that the properties of all events have; 0: those of --properties")
	fs.StringVar(&o.json, "json", "", "write every run's figures as JSON to this `file`; - is standard output, in place of the table")
	runs := 1
	switch c.name {
	case "receive":
		runs = 5
		fs.BoolVar(&o.floor, "floor", false, "measure, run by run in turn, an HTTP handler that does nothing but read the body, as well")
		fallthrough
	case "load":
		runs = max(runs, 3)
		fs.IntVar(&o.events, "events", 1_000_000, "`number` of events to send, a multiple of --batch")
	case "disk":
		fs.IntVar(&o.events, "events", 1_000_000, "`number` of events to send, a multiple of ten --batch; a tenth of it where they are LLM calls")
	}
	if c.name == "receive" || c.name == "e2e" {
		fs.IntVar(&o.rate, "rate", 0, "send at this `rate` of events a second; 0: each connection sends as soon as it was answered")
		fs.StringVar(&o.durability, "durability", "disk", "what the receiver's answers `promise`: memory, disk or object")
	}
	if c.name != "receive" {
		fs.IntVar(&o.loaders, "loaders", 1, "`number` of loader processes, 1 to 4")
	}
	if c.name == "e2e" {
		fs.DurationVar(&o.duration, "duration", 30*time.Second, "`time` of sending, at each rate")
		fs.Func("curve", "measure at each of these `rates`, as 1000,2000,5000, each in a stack of its own", func(list string) (err error) {
			o.curve, err = parseRates(list)
			return err
		})
	}
	fs.IntVar(&o.runs, "runs", runs, "`number` of runs, of which the medians are told")
	if err := parseFlags(fs, args); err != nil {
		return nil, err
	}
	if o.durability == "" {
		o.durability = "memory" // load, disk: how the bucket is filled is not measured
	}
	var err error
	if o.formats, err = parseList(format, pipeline.ParseFormat); err != nil {
		return nil, fmt.Errorf("--format: %w", err)
	}
	if o.kinds, err = parseList(kind, traffic.ParseKind); err != nil {
		return nil, fmt.Errorf("--events-kind: %w", err)
	}
	o.flags = map[string]string{}
	fs.VisitAll(func(f *flag.Flag) {
		if f.Name != "json" {
			o.flags[f.Name] = f.Value.String()
		}
	})
	if o.curve != nil {
		o.flags["curve"] = strings.Trim(fmt.Sprint(o.curve), "[]")
	}
	return o, o.check()
}

func parseRates(list string) (rates []int, err error) {
	for text := range strings.SplitSeq(list, ",") {
		rate, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || rate < 1 {
			return nil, fmt.Errorf("%q is no rate: events a second", text)
		}
		rates = append(rates, rate)
	}
	return rates, nil
}

// parseList reads names with commas between them.
func parseList[T comparable](list string, parse func(string) (T, error)) (all []T, err error) {
	for name := range strings.SplitSeq(list, ",") {
		v, err := parse(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		if !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	return all, nil
}

func (o *benchOptions) check() error {
	if _, ok := pipeline.ParseDurability(o.durability); !ok {
		return fmt.Errorf("--durability %q: memory, disk or object", o.durability)
	}
	switch most := config.Default().Receiver.MaxEvents; {
	case o.batch < 1 || o.batch > most:
		return fmt.Errorf("--batch %d: between 1 and %d", o.batch, most)
	case o.conns < 1 || o.conns > 10_000:
		return fmt.Errorf("--connections %d: between 1 and 10000", o.conns)
	case o.name != "disk" && len(o.formats)*len(o.kinds) > 1:
		return errors.New("--format and --events-kind take several only in bench disk")
	case o.name != "e2e" && o.events < 1:
		return fmt.Errorf("--events %d: 1 or more", o.events)
	case o.name == "disk" && o.events%(10*o.batch) != 0:
		return fmt.Errorf("--events %d: it has to be a multiple of ten times --batch (%d)", o.events, o.batch)
	case o.name != "e2e" && o.events%o.batch != 0:
		return fmt.Errorf("--events %d: it has to be a multiple of --batch (%d)", o.events, o.batch)
	case o.name == "e2e" && o.duration < time.Second:
		return fmt.Errorf("--duration %s: at least 1s", o.duration)
	case o.rate < 0:
		return fmt.Errorf("--rate %d: 0 or more events a second", o.rate)
	case o.rate > 0 && o.curve != nil:
		return errors.New("--rate does not go with --curve, which names the rates")
	case o.roll < 10*time.Millisecond:
		return fmt.Errorf("--roll %s: at least 10ms", o.roll)
	case o.runs < 1:
		return fmt.Errorf("--runs %d: 1 or more", o.runs)
	case o.properties < 0 || o.properties > 100_000 || o.paths < 0:
		return errors.New("--properties takes 0 to 100000, --paths 0 or more")
	case o.properties > 0 && slices.Contains(o.kinds, traffic.LLM):
		return errors.New("--properties goes with --events-kind game only")
	case o.paths > 0 && (o.properties == 0 || o.paths < o.properties):
		return errors.New("--paths goes with --properties, and is not less: an event has no key twice")
	case o.name != "receive" && (o.loaders < 1 || o.loaders > 4):
		return fmt.Errorf("--loaders %d: between 1 and 4", o.loaders)
	}
	return nil
}

// run measures and reports.
func (o *benchOptions) run(ctx context.Context, s streams) error {
	if err := o.writable(); err != nil {
		return err
	}
	have, err := dev.FetchTools(ctx, s.err)
	if err != nil {
		return err
	}
	report := bench.Report{Command: "bench " + o.name, Version: version.Current().Version, Time: time.Now().UTC().Truncate(time.Second),
		Machine: bench.ThisMachine(os.TempDir()), Flags: o.flags}
	line := show.NewLine(s.err)
	defer line.End()
	b := &benchmark{benchOptions: o, have: have, line: line}
	err = b.all(ctx, &report)
	line.End()
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("stopped during %s; %d runs are measured", b.now, len(report.Runs))
	}
	if err != nil && len(report.Runs) == 0 {
		return err
	}
	// What was measured before an error, or before Ctrl-C, is worth as much as it was.
	err = errors.Join(err, o.write(s, &report))
	if n := report.Failed(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d requests failed: the figures are not what this machine can do", n))
	}
	return err
}

// writable tells before minutes of measuring that their figures could not be
// written. It leaves what the file holds as it is.
func (o *benchOptions) writable() error {
	if o.json == "" || o.json == "-" {
		return nil
	}
	_, missing := os.Stat(o.json)
	file, err := os.OpenFile(o.json, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("--json: %w", err)
	}
	if missing != nil {
		os.Remove(o.json)
	}
	return file.Close()
}

// write prints the report and writes it to the file that was asked for.
func (o *benchOptions) write(s streams, report *bench.Report) error {
	report.Summarize()
	if o.json != "-" {
		if err := report.Print(s.out); err != nil {
			return err
		}
	}
	if o.json == "" {
		return nil
	}
	text, err := json.MarshalIndent(report, "", " ")
	if err != nil {
		return err
	}
	if text = append(text, '\n'); o.json == "-" {
		_, err = s.out.Write(text)
		return err
	}
	return os.WriteFile(o.json, text, 0o644)
}

// benchmark is one that runs.
type benchmark struct {
	*benchOptions
	have dev.Tools
	line *show.Line
	now  string // what runs now, for the live line
	done int    // runs
}

// all does the runs, one after the other.
func (b *benchmark) all(ctx context.Context, report *bench.Report) error {
	rates := b.curve
	if rates == nil {
		rates = []int{b.rate}
	}
	kinds := b.measurements()
	total := b.runs * len(rates) * len(kinds)
	for range b.runs {
		for _, rate := range rates {
			for _, kind := range kinds {
				b.done++
				b.now = fmt.Sprintf("%s, run %d of %d", kind.name, b.done, total)
				if rate > 0 {
					b.now += fmt.Sprintf(" at %d/s", rate)
				}
				b.line.Show("%s: starting", b.now)
				run, err := kind.run(ctx, rate)
				if err != nil {
					return fmt.Errorf("%s: %w", b.now, err)
				}
				run.What, run.Rate = kind.name, rate
				report.Runs = append(report.Runs, run)
				// The generator's garbage is not the next run's.
				debug.FreeOSMemory()
			}
		}
	}
	return nil
}

// measurement is one that all runs are of.
type measurement struct {
	name string
	run  func(ctx context.Context, rate int) (bench.Run, error)
}

func (b *benchmark) measurements() (all []measurement) {
	switch b.name {
	case "receive":
		all = append(all, measurement{b.name, b.receive})
	case "load":
		all = append(all, measurement{b.name, b.load})
	case "e2e":
		all = append(all, measurement{b.name, b.e2e})
	case "disk":
		for _, kind := range b.kinds {
			for _, format := range b.formats {
				all = append(all, measurement{fmt.Sprintf("disk %s %s", kind, format), func(ctx context.Context, _ int) (bench.Run, error) {
					return b.disk(ctx, kind, format)
				}})
			}
		}
	}
	if b.floor {
		all = append(all, measurement{"floor", b.floorRun})
	}
	return all
}

// runFloor serves what --floor compares with: the least that an HTTP server in
// Go can do with a request.
func runFloor(ctx context.Context, s streams, args []string) error {
	fs := newFlags(s, "bench floor", "An HTTP server that reads bodies and gives all the same answer; `bench receive --floor` runs it.")
	listen := fs.String("listen", "127.0.0.1:0", "`address`")
	answer := fs.String("answer", "{}", "`text` of every answer")
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	text := []byte(*answer)
	server := &http.Server{Addr: *listen, ReadHeaderTimeout: headerTimeout, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Write(text)
	})}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func runPlot(s streams, args []string) error {
	fs := newFlags(s, "bench plot FILE.json", "Draws the cost curve, CPU cores over events a second, from the JSON of `penstock bench e2e --curve`.")
	out := fs.String("out", "curve.png", "`file` to write")
	files, err := parseWithArgs(fs, args)
	if err != nil {
		return err
	}
	if len(files) != 1 {
		fmt.Fprintf(s.err, "penstock bench plot: name one file that `penstock bench e2e --curve RATES --json FILE` wrote; these are %d\n\n", len(files))
		fs.Usage()
		return errUsage
	}
	if !strings.HasSuffix(strings.ToLower(*out), ".png") {
		return fmt.Errorf("--out %s: the picture is a PNG, so its name has to end in .png", *out)
	}
	file := files[0]
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var report bench.Report
	if err := json.Unmarshal(text, &report); err != nil {
		return fmt.Errorf("%s is not what `penstock bench e2e --json FILE` writes: %w", file, err)
	}
	png, err := bench.Plot(report)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(*out, png, 0o644)
}
