package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/version"
)

func receiveCommand() *cobra.Command {
	return service("receive", "Receive events over HTTP and store them as objects",
		"Receive events over HTTP (POST /v1/events and the routes of other SDKs), and store each batch as\n"+
			"an object. On SIGTERM it rejects new events, stores the events that it has, and exits.",
		func(cmd *cobra.Command, _ string, cfg config.Config, log *slog.Logger) error {
			receive, err := app.NewReceive(cfg, log)
			if err != nil {
				return err
			}
			return receive.Run(cmd.Context())
		})
}

func loadCommand() *cobra.Command {
	return service("load", "Load objects into ClickHouse as notifications arrive",
		"Receive notifications from the queue and load the objects that they name into ClickHouse.\n"+
			"On SIGTERM it finishes the loads that it has begun, and exits.",
		func(cmd *cobra.Command, path string, cfg config.Config, log *slog.Logger) error {
			load, err := app.NewLoad(cfg, app.Isolation(path, app.LoaderName(cfg), cmd.ErrOrStderr()), log)
			if err != nil {
				return err
			}
			return load.Run(cmd.Context())
		})
}

func setupCommand() *cobra.Command {
	var analyst clickhouse.Analyst
	dryRun := false
	cmd := role("setup", "Create or update bucket, queue, notification rules and tables",
		"Create bucket, queue, notification rules and tables, or bring them up to date.\n"+
			"You can run it at any time, and again. It prints what it changed. If it lacks a right, it prints the\n"+
			"commands for somebody who has the right, and exits with an error.\n\n"+
			"--analyst also makes a role of ClickHouse that reads the views for people, and nothing else.\n"+
			"With --project it sees only rows of these projects.",
		func(cmd *cobra.Command, _ string, cfg config.Config, _ *slog.Logger) error {
			if dryRun && analyst.Role != "" {
				return operate.Usagef("--analyst cannot be used with --dry-run")
			}
			if analyst.Role == "" && len(analyst.Projects) > 0 {
				return operate.Usagef("--project needs --analyst")
			}
			if err := app.Setup(cmd.Context(), cfg, dryRun, cmd.OutOrStdout()); err != nil || analyst.Role == "" {
				return err
			}
			return app.SetupAnalyst(cmd.Context(), cfg, analyst, cmd.OutOrStdout())
		})
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only print what would change")
	cmd.Flags().StringVar(&analyst.Role, "analyst", "", "also make a read-only `role` for people and BI tools")
	cmd.Flags().StringSliceVar(&analyst.Projects, "project", nil,
		"`project` whose rows that role sees; repeatable (default: all)")
	return cmd
}

// loadAloneCommand loads the object of the notification on standard input, and prints the verdict. A loader runs it.
func loadAloneCommand() *cobra.Command {
	name := ""
	cmd := role(app.AloneCommand, "",
		"Loads one object under a memory limit. A loader runs it after attempts that never ended.",
		func(cmd *cobra.Command, _ string, cfg config.Config, log *slog.Logger) error {
			return app.LoadAlone(cmd.Context(), cfg, name, os.Stdin, cmd.OutOrStdout(), log)
		})
	cmd.Flags().StringVar(&name, "pipeline", "", "`name` of the object's pipeline")
	cmd.Hidden = true
	return cmd
}

// service makes the command of a role that runs until it is stopped.
func service(name, short, long string,
	run func(cmd *cobra.Command, path string, cfg config.Config, log *slog.Logger) error) *cobra.Command {
	cmd := role(name, short, long,
		func(cmd *cobra.Command, path string, cfg config.Config, log *slog.Logger) error {
			defer logHangups(log)()
			return run(cmd, path, cfg, log)
		})
	cmd.Annotations = map[string]string{"service": ""}
	return cmd
}

func isService(cmd *cobra.Command) bool { _, ok := cmd.Annotations["service"]; return ok }

// logHangups keeps SIGHUP, which asks a service to reload, from stopping one: what can be reloaded is anyway.
func logHangups(log *slog.Logger) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for range hangups {
			log.Info("SIGHUP ignored: the projects file and certificates are re-read whenever they change; " +
				"other changes need a restart")
		}
	}()
	return func() { signal.Stop(hangups); close(hangups) }
}

// role makes a command that works with a configuration and has no other flags.
func role(name, short, long string,
	run func(cmd *cobra.Command, path string, cfg config.Config, log *slog.Logger) error) *cobra.Command {
	path := new(string)
	cmd := leaf(&cobra.Command{Use: name, Short: short, Long: long,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, sources, err := findConfig(*path)
			if err != nil {
				return err
			}
			log, err := cfg.Process.Logger(cmd.ErrOrStderr(), sources)
			if err != nil {
				return err
			}
			log = log.With("role", name, "version", version.Current().Version)
			return sources.Explain(run(cmd, *path, cfg, log))
		}})
	configFlag(cmd.Flags(), path)
	return cmd
}

// configFlag is --config of every command that works with a configuration.
func configFlag(fs *pflag.FlagSet, path *string) {
	fs.StringVar(path, "config", "", "configuration `file` (default: ./penstock.yaml, or that of a dev stack here)")
}

// findConfig reads the file that --config names, or else the one here. Without a file, variables must set some field.
func findConfig(path string) (config.Config, config.Sources, error) {
	path, err := configPath(path)
	if err != nil {
		return config.Config{}, nil, err
	}
	if path == "" && !config.InEnvironment(os.Environ()) {
		dir, _ := os.Getwd()
		return config.Config{}, nil, fmt.Errorf("no configuration: %s has no penstock.yaml, and no variable "+
			"PENSTOCK_SECTION_FIELD is set. Copy penstock.example.yaml there, or name a file with --config", dir)
	}
	return config.LoadSources(path, os.Environ())
}

// configPath is the file that a command reads; empty: there is none.
func configPath(path string) (string, error) {
	if path != "" {
		return path, nil
	}
	path = config.Find()
	if dir := filepath.Dir(path); dir == config.DevFolder {
		if _, err := os.Stat(filepath.Join(dir, "dev.json")); err != nil {
			return "", fmt.Errorf("no dev stack runs in %s: start it with \"penstock dev\", "+
				"or name a configuration with --config", dir)
		}
	}
	return path, nil
}
