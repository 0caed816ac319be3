package main

import (
	"context"
	"errors"
	"flag"
	"time"

	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/loader"
)

func runSweep(ctx context.Context, s streams, args []string) error {
	fs := newFlags(s, "sweep",
		"Compares the bucket with the ledger and tells the queue of every object that is not loaded.\n"+
			"It can be run at any time: an object that is loaded, or told of already, is left alone.")
	path := configFlag(fs)
	var p operate.SweepParams
	sinceFlag(fs, &p.Since, "168h")
	untilFlag(fs, &p.Until)
	fs.BoolVar(&p.All, "all", false, "list the whole bucket, not a time range: also files outside the folders of days; "+
		"a list request for every 1000 objects")
	fs.DurationVar(&p.Grace, "grace", 0, "leave objects alone that were stored less than this `age` ago")
	fs.BoolVar(&p.Again, "again", false, "tell the queue also of what it was told within the hour: "+
		"after its messages were purged, or rows deleted")
	fs.BoolVar(&p.DryRun, "dry-run", false, "only count")
	asJSON := fs.Bool("json", false, "as JSON, a line a pipeline")
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	return withOperator(*path, s, func(o *operate.Operator) error {
		return o.Sweep(ctx, p, operate.Output{Out: s.out, Err: s.err, JSON: *asJSON})
	})
}

func runVerify(ctx context.Context, s streams, args []string) error {
	fs := newFlags(s, "verify", "Holds bucket, ledger and table against each other, object by object and in sum.\n"+
		"Exit status 1 and a list where they differ: missing, dead, short, double, gone, changed, extra, blobs.")
	path := configFlag(fs)
	var p operate.VerifyParams
	sinceFlag(fs, &p.Since, "24h")
	untilFlag(fs, &p.Until)
	fs.DurationVar(&p.Grace, "grace", 5*time.Minute,
		"objects stored less than this `age` ago may still be waiting to be loaded")
	asJSON := fs.Bool("json", false, "as JSON, a line a pipeline")
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	return withOperator(*path, s, func(o *operate.Operator) error {
		return o.Verify(ctx, p, operate.Output{Out: s.out, Err: s.err, JSON: *asJSON})
	})
}

func runStatus(ctx context.Context, s streams, args []string) error {
	fs := newFlags(s, "status", "Shows what waits where: in the receivers, in the queue, and how fresh the table is.")
	path := configFlag(fs)
	asJSON := fs.Bool("json", false, "as JSON")
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	return withOperator(*path, s, func(o *operate.Operator) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		return o.Status(ctx, operate.Output{Out: s.out, Err: s.err, JSON: *asJSON})
	})
}

func sinceFlag(fs *flag.FlagSet, since *string, def string) {
	fs.StringVar(since, "since", def,
		"begin of the `time` range: 2026-11-22, 2026-11-22T03:00:00Z, or a duration ago, as 24h")
}

func untilFlag(fs *flag.FlagSet, until *string) {
	fs.StringVar(until, "until", "now", "end of the `time` range")
}

// withOperator lets do work on what the configuration names.
func withOperator(path string, s streams, do func(*operate.Operator) error) error {
	cfg, log, err := readConfig(path, s)
	if err != nil {
		return err
	}
	o, closeOperator := app.NewOperator(cfg, loader.NewIsolation(nil), log)
	return errors.Join(do(o), closeOperator())
}
