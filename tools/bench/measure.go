package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/penstock/penstock/internal/app/dev"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/internal/version"
	"github.com/penstock/penstock/tools/bench/peers"
	"github.com/penstock/penstock/tools/bench/report"
)

// run measures and reports.
func (o *benchOptions) run(ctx context.Context, s streams) error {
	if err := o.writable(); err != nil {
		return err
	}
	b, done, err := o.open(ctx, s)
	if err != nil {
		return err
	}
	defer done()
	r := report.Report{Command: "bench " + o.name, Version: version.Current().Version,
		Time: time.Now().UTC().Truncate(time.Second), Machine: report.ThisMachine(os.TempDir()), Flags: o.flags}
	err = b.all(ctx, &r)
	b.line.End()
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("stopped during %s; %d runs are measured", b.now, len(r.Runs))
	}
	if err != nil && len(r.Runs) == 0 {
		return err
	}
	// Keep the results from before an error or Ctrl-C.
	err = errors.Join(err, o.write(s, &r))
	if n := r.Failed(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d requests failed: the figures are not what this machine can do", n))
	}
	return err
}

// open fetches the servers' programs, and builds Penstock unless a flag names a binary. done removes what it created.
func (o *benchOptions) open(ctx context.Context, s streams) (b *benchmark, done func(), err error) {
	have, err := dev.FetchTools(ctx, s.err)
	if err != nil {
		return nil, nil, err
	}
	b = &benchmark{benchOptions: o, have: have, line: show.NewLine(s.err), program: o.penstock}
	if b.program != "" {
		return b, b.line.End, nil
	}
	dir, err := os.MkdirTemp("", "penstock-built-")
	if err != nil {
		return nil, nil, err
	}
	done = func() {
		b.line.End()
		os.RemoveAll(dir)
	}
	if b.program, err = peers.BuildPenstock(ctx, dir); err != nil {
		done()
	}
	return b, done, err
}

// writable checks in advance that the report can be written, without changing the file.
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

// write prints the report and writes it to the requested file.
func (o *benchOptions) write(s streams, r *report.Report) error {
	r.Summarize()
	if o.json != "-" {
		if err := r.Print(s.out); err != nil {
			return err
		}
	}
	if o.json == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if text = append(text, '\n'); o.json == "-" {
		_, err = s.out.Write(text)
		return err
	}
	return os.WriteFile(o.json, text, 0o644)
}

// benchmark is a running benchmark.
type benchmark struct {
	*benchOptions
	have    dev.Tools
	program string // penstock
	line    *show.Line
	now     string // current step, for the live line

	alone     bool                 // this run is without the large events
	configure func(*config.Config) // changes the stack's configuration; nil: no change

	done int // finished runs
}

// all executes the runs one after the other.
func (b *benchmark) all(ctx context.Context, r *report.Report) error {
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
				r.Runs = append(r.Runs, run)
				// Release the generator's garbage before the next run.
				debug.FreeOSMemory()
			}
		}
	}
	return nil
}

// measurement is what each run measures.
type measurement struct {
	name string
	run  func(ctx context.Context, rate int) (report.Run, error)
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
				all = append(all, measurement{fmt.Sprintf("disk %s %s", kind, format),
					func(ctx context.Context, _ int) (report.Run, error) {
						return b.disk(ctx, kind, format)
					}})
			}
		}
	}
	if b.tail {
		for _, how := range []watching{tailed, slowTail} {
			all = append(all, measurement{string(how), func(ctx context.Context, rate int) (report.Run, error) {
				return b.receiveWatched(ctx, rate, how)
			}})
		}
	}
	if b.traces {
		for _, share := range tracedShares {
			all = append(all, b.traced(share))
		}
	}
	if b.floor {
		all = append(all, measurement{"floor", b.floorRun})
	}
	if b.large > 0 {
		run := all[0].run
		all = append(all, measurement{"alone", func(ctx context.Context, rate int) (report.Run, error) {
			b.alone = true
			defer func() { b.alone = false }()
			return run(ctx, rate)
		}})
	}
	if b.before != "" {
		program, run := b.program, all[0].run
		all = append(all, measurement{"before", func(ctx context.Context, rate int) (report.Run, error) {
			b.program = b.before
			defer func() { b.program = program }()
			return run(ctx, rate)
		}})
	}
	return all
}
