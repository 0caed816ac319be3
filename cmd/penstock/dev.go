package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/internal/app/dev"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/operate"
)

func devCommand() *cobra.Command {
	var o dev.Options
	fetch, formats := false, []string{"parquet", "ndjson"}
	cmd := leaf(&cobra.Command{
		Use: "dev", Short: "Run the whole stack on this machine, to try it or to develop",
		Long: "Run MinIO, NATS, ClickHouse, a receiver and a loader on 127.0.0.1.\n" +
			"It downloads missing servers once. Ctrl-C stops everything.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out, o.Err = cmd.OutOrStdout(), cmd.ErrOrStderr()
			if err := operate.CheckChoice("--format", o.Format, formats); err != nil {
				return err
			}
			if err := o.Check(); err != nil {
				return operate.Usagef("%w", err)
			}
			if fetch {
				_, err := dev.FetchTools(cmd.Context(), o.Err)
				return err
			}
			return dev.Run(cmd.Context(), o)
		}})
	fs := cmd.Flags()
	fs.StringVar(&o.Data, "data", config.DevFolder, "`folder` for all data, logs, and the configuration that it writes")
	fs.StringVar(&o.Config, "config", "", "configuration `file` to start from; if it names a ClickHouse, that one is used")
	fs.IntVar(&o.PortBase, "port-base", 0, "`port` of the receiver; admin, MinIO, its console, NATS, ClickHouse, its "+
		"HTTP and OTLP over gRPC get the next seven (default 8080, 8081, 9100, 9101, 4222, 9000, 8123, 4317)")
	fs.DurationVar(&o.Roll, "roll", 5*time.Second, "`age` at which a batch becomes an object")
	fs.StringVar(&o.Format, "format", "parquet", "`format` of objects: parquet or ndjson")
	fs.IntVar(&o.Demo, "demo", 0, "send generated game and LLM events at this `rate` a second, and show a live line")
	fs.IntVar(&o.Events, "events", 0, "send this `number` of generated events, wait until all are rows, print a summary")
	fs.BoolVar(&o.Exit, "exit", false, "then stop everything; exit status 1 unless every event is a row")
	fs.BoolVar(&fetch, "fetch", false, "only download missing servers")
	fs.BoolVar(&o.JSON, "json", false, "print the summary as JSON")
	// An error means that the flag has a completion already. It has just been created.
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
