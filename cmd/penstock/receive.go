package main

import (
	"context"

	"github.com/penstock/penstock/internal/app"
)

func runReceive(ctx context.Context, s streams, args []string) error {
	fs := newFlags(s, "receive",
		"Takes events over HTTP (POST /v1/events), gathers them and stores each batch as an object.\n"+
			"SIGTERM: refuses new events, stores what it has, leaves.")
	path := configFlag(fs)
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	cfg, log, err := readConfig(*path, s)
	if err != nil {
		return err
	}
	receive, err := app.NewReceive(cfg, log)
	if err != nil {
		return err
	}
	return receive.Run(ctx)
}
