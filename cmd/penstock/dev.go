package main

import (
	"context"
	"time"

	"github.com/penstock/penstock/internal/app/dev"
	"github.com/penstock/penstock/internal/config"
)

func runDev(ctx context.Context, s streams, args []string) error {
	fs := newFlags(s, "dev",
		"Runs MinIO, NATS, ClickHouse, a receiver and a loader on this machine, on 127.0.0.1 only.\nWhat is missing is "+
			"fetched first, once. Ctrl-C stops everything.")
	o := dev.Options{Out: s.out, Err: s.err}
	fetch := false
	fs.StringVar(&o.Data, "data", config.DevFolder, "`folder` for all data, logs, and the configuration that it writes")
	fs.StringVar(&o.Config, "config", "",
		"`file` to begin with; a ClickHouse that it names is used instead of one of our own")
	fs.IntVar(&o.PortBase, "port-base", 0,
		"`port` of the receiver; admin, MinIO, its console, NATS, ClickHouse, its HTTP, OTLP over gRPC take the next "+
			"seven (default 8080, 8081, 9100, 9101, 4222, 9000, 8123, 4317)")
	fs.DurationVar(&o.Roll, "roll", 5*time.Second, "`age` at which a batch becomes an object")
	fs.StringVar(&o.Format, "format", "parquet", "`format` of objects: parquet or ndjson")
	fs.IntVar(&o.Demo, "demo", 0,
		"send generated game and LLM events at this `rate` a second, with a live line; with --events, until so many are sent")
	fs.IntVar(&o.Events, "events", 0, "send this `number` of generated events, wait until all are rows, print a summary")
	fs.BoolVar(&o.Exit, "exit", false, "stop everything then; exit status 1 unless every event is a row")
	fs.BoolVar(&fetch, "fetch", false, "only fetch what is missing")
	fs.BoolVar(&o.JSON, "json", false, "the summary as JSON")
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	if err := o.Check(); err != nil {
		return err
	}
	if fetch {
		_, err := dev.FetchTools(ctx, s.err)
		return err
	}
	return dev.Run(ctx, o)
}
