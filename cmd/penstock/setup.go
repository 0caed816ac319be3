package main

import (
	"context"

	"github.com/penstock/penstock/internal/app"
)

func runSetup(ctx context.Context, s streams, args []string) error {
	fs := newFlags(s, "setup", "Creates bucket, streams, notification rules and tables, or brings them up to date.\n"+
		"It can be run at any time, again and again.")
	path := configFlag(fs)
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	cfg, _, err := readConfig(*path, s)
	if err != nil {
		return err
	}
	return app.Setup(ctx, cfg, s.out)
}
