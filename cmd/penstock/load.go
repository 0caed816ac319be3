package main

import (
	"context"
	"os"

	"github.com/penstock/penstock/internal/app"
)

func runLoad(ctx context.Context, s streams, args []string) error {
	fs := newFlags(s, "load", "Takes notifications from the queue and loads the objects that they name into ClickHouse.\n"+
		"SIGTERM: takes no more, finishes what it has begun, leaves.")
	path := configFlag(fs)
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	cfg, log, err := readConfig(*path, s)
	if err != nil {
		return err
	}
	load, err := app.NewLoad(cfg, app.Isolation(*path, app.LoaderName(cfg), s.err), log)
	if err != nil {
		return err
	}
	return load.Run(ctx)
}

// runLoadOne loads the object of the notification on standard input, and prints
// the verdict.
func runLoadOne(ctx context.Context, s streams, args []string) error {
	fs := newFlags(s, app.AloneCommand,
		"Loads one object under a memory limit, for a loader that found that its attempts never ended.")
	path := configFlag(fs)
	name := fs.String("pipeline", "", "`name` of the object's pipeline")
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	cfg, log, err := readConfig(*path, s)
	if err != nil {
		return err
	}
	return app.LoadAlone(ctx, cfg, *name, os.Stdin, s.out, log)
}
