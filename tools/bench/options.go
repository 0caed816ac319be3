package main

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/traffic"
)

// benchOptions are the flags of all benchmarks. Each benchmark uses a part.
type benchOptions struct {
	name       string
	events     int
	batch      int
	conns      int
	rate       int // events/s, 0: closed loop
	duration   time.Duration
	durability string
	formats    []pipeline.Format // disk: all; other benchmarks: one
	kinds      []traffic.Kind    // disk: all; other benchmarks: one
	roll       time.Duration
	runs       int
	properties int
	paths      int
	loaders    int
	curve      []int
	traces     bool
	floor      bool
	tail       bool
	askEvery   time.Duration // 0: no questions
	mergeBase  int           // 0: what setup sets
	large      int           // events of 90 MiB beside the others
	json       string
	penstock   string            // binary to measure; empty: build this checkout
	before     string            // binary to compare with; empty: none
	profile    string            // file for a CPU profile; empty: none
	flags      map[string]string // effective values, for the report
}

// benchCommand is one benchmark.
type benchCommand struct{ name, short, about string }

var benchCommands = []benchCommand{
	{"receive", "what a receiver takes, and what it costs to bring it to the bucket",
		"Posts events to a receiver, to their objects in MinIO, in a stack of its own under $TMPDIR that is gone " +
			"afterwards.\nExit status 1 where requests failed."},
	{"load", "what it costs to bring objects into ClickHouse",
		"Fills a bucket, starts the loaders on it and waits for all rows and merges, in a stack of its own under $TMPDIR " +
			"that is gone afterwards."},
	{"disk", "what events take in the bucket and in ClickHouse",
		"Does what load does with events of which none comes twice, and tells what they take on disk: for each kind of " +
			"events and each format\nof objects, in a stack of its own under $TMPDIR that is gone afterwards. All events are " +
			"in memory before they are sent."},
	{"e2e", "the whole way from the POST to the row, and its cost at each of many rates",
		"Posts events to a receiver while loaders bring them into ClickHouse, in a stack of its own under $TMPDIR that is " +
			"gone afterwards.\nExit status 1 unless every accepted event is a row, once, and no request failed."},
	{"ask", "what an analyst's questions cost, and whether the answers are right", ""},
	{"plot", "the cost curve of e2e as a PNG", ""},
	{"peers", "other ways into ClickHouse, with the same events", ""},
}

func (c benchCommand) parse(s streams, args []string) (*benchOptions, error) {
	o := &benchOptions{name: c.name}
	fs := newFlags(s, c.name, c.about)
	fs.IntVar(&o.batch, "batch", 100, "`events` a request")
	fs.IntVar(&o.conns, "connections", 64, "`number` of connections that send at once")
	format, kind, several := "parquet", "game", ""
	if c.name == "disk" {
		format, kind, several = "parquet,ndjson", "game,llm", "; several with commas between them"
	}
	fs.StringVar(&format, "format", format, "`format` of objects: parquet or ndjson"+several)
	fs.StringVar(&kind, "events-kind", kind,
		"`kind` of events: game (an LLM call among 50, 412 bytes on average) or llm (calls with messages, 5.5 KB)"+several)
	fs.DurationVar(&o.roll, "roll", 5*time.Second, "`age` at which a batch becomes an object")
	fs.IntVar(&o.properties, "properties", 0,
		"`number` of properties of each event; 0: events as games and LLM products send them, 14 on the average")
	fs.IntVar(&o.paths, "paths", 0,
		"`number` of different keys that the properties of all events have; 0: those of --properties")
	fs.StringVar(&o.json, "json", "",
		"write every run's figures as JSON to this `file`; - is standard output, in place of the table")
	fs.StringVar(&o.penstock, "penstock", "", "`binary` to measure; by default this checkout's, which is built")
	fs.StringVar(&o.before, "before", "", "`binary` to compare with, measured run by run in turn")
	runs := o.ownFlags(fs)
	fs.IntVar(&o.runs, "runs", runs, "`number` of runs, of which the medians are printed")
	if err := parseFlags(fs, args); err != nil {
		return nil, err
	}
	if o.durability == "" {
		o.durability = "memory" // load, disk: filling the bucket is not measured
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

// ownFlags adds the flags of some benchmarks, and returns this one's default number of runs.
func (o *benchOptions) ownFlags(fs *flag.FlagSet) int {
	runs := 1
	switch o.name {
	case "receive":
		runs = 5
		fs.BoolVar(&o.traces, "traces", false,
			"measure, run by run in turn, with traces of 1 % and of all requests as well")
		fs.BoolVar(&o.floor, "floor", false,
			"measure, run by run in turn, an HTTP handler that does nothing but read the body, as well")
		fs.BoolVar(&o.tail, "tail", false,
			"measure, run by run in turn, with one reader of the live events as well, then with one that reads nothing")
		fs.IntVar(&o.large, "large", 0,
			"`number` of events of 90 MiB that another process sends beside, and the same without them in turn; with --rate")
		fallthrough
	case "load":
		runs = max(runs, 3)
		fs.IntVar(&o.events, "events", 1_000_000, "`number` of events to send, a multiple of --batch")
	case "disk":
		fs.IntVar(&o.events, "events", 1_000_000,
			"`number` of events to send, a multiple of ten --batch; a tenth of it where they are LLM calls")
	}
	if o.name == "receive" || o.name == "e2e" {
		fs.IntVar(&o.rate, "rate", 0,
			"send at this `rate` of events a second; 0: each connection sends as soon as it was answered")
		fs.StringVar(&o.durability, "durability", "disk", "what the receiver's answers `promise`: memory, disk or object")
	}
	if o.name != "receive" {
		fs.IntVar(&o.loaders, "loaders", 1, "`number` of loader processes, 1 to 4")
	}
	if o.name == "e2e" {
		fs.DurationVar(&o.duration, "duration", 30*time.Second, "`time` of sending, at each rate")
		fs.StringVar(&o.profile, "profile", "",
			"write a CPU profile of receiver and loaders to this `file`, for go build -pgo")
		fs.DurationVar(&o.askEvery, "ask-every", 0,
			"ask usual questions at this `interval` while events are sent, and report the table's parts and merges")
		fs.IntVar(&o.mergeBase, "merge-base", 0, "`merge_selector_base` of the table; 0: the one of setup")
		fs.Func("curve", "measure at each of these `rates`, as 1000,2000,5000, each in a stack of its own",
			func(list string) (err error) {
				o.curve, err = parseRates(list)
				return err
			})
	}
	return runs
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

// parseList parses names separated by commas.
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
		return errors.New("--format and --events-kind take several only in disk")
	case o.name != "e2e" && o.events < 1:
		return fmt.Errorf("--events %d: 1 or more", o.events)
	case o.name == "disk" && o.events%(10*o.batch) != 0:
		return fmt.Errorf("--events %d: it has to be a multiple of ten times --batch (%d)", o.events, o.batch)
	case o.name != "e2e" && o.events%o.batch != 0:
		return fmt.Errorf("--events %d: it has to be a multiple of --batch (%d)", o.events, o.batch)
	case o.name == "e2e" && o.duration < time.Second:
		return fmt.Errorf("--duration %s: at least 1s", o.duration)
	case o.before != "" && (o.floor || o.tail || o.traces || o.name == "disk"):
		return errors.New("--before goes neither with --floor, --tail or --traces nor with disk")
	case o.large > 0 && o.rate == 0:
		return errors.New("--large goes with --rate")
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
