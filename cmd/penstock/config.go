package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/show"
)

func configCommand() *cobra.Command {
	cmd := group("config", "Check the configuration, and print its JSON Schema")
	cmd.AddCommand(configCheckCommand(), configSchemaCommand())
	return cmd
}

func configCheckCommand() *cobra.Command {
	path, changed, asJSON := "", false, false
	cmd := leaf(&cobra.Command{
		Use: "check", Short: "Print the effective configuration and the source of each value",
		Long: "Check the configuration, and print each effective value with its source: default, file and\n" +
			"line, or environment variable. Secrets are hidden. The exit status is 1 if a value is wrong.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, err := configPath(path)
			if err != nil {
				return err
			}
			cfg, sources, err := config.LoadSources(file, os.Environ())
			if err != nil {
				return err
			}
			return printConfig(cmd, cmp.Or(file, "no file"), sources.Values(cfg), changed, asJSON)
		}})
	configFlag(cmd.Flags(), &path)
	cmd.Flags().BoolVar(&changed, "changed", false, "print only values that the file or a variable sets")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one line per value")
	return cmd
}

func printConfig(cmd *cobra.Command, file string, values []config.Value, changed, asJSON bool) error {
	out := show.NewBuffer(cmd.OutOrStdout())
	table, enc, n := show.NewTable(out, "FIELD", "VALUE", "SOURCE"), json.NewEncoder(out), 0
	for _, v := range values {
		if v.Source != "default" {
			n++
		} else if changed {
			continue
		}
		if !asJSON {
			table.Row(v.Field, v.Value, v.Source)
		} else if err := enc.Encode(v); err != nil {
			return err
		}
	}
	if !asJSON {
		if err := table.Flush(); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: valid, %s set\n", file, show.Plural(n, "value"))
	}
	return out.Flush()
}

func configSchemaCommand() *cobra.Command {
	return leaf(&cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of the configuration, for editors",
		Long: "Print the JSON Schema of the configuration. Editors complete and check a file that begins with:\n\n" +
			"  # yaml-language-server: $schema=penstock.schema.json",
		Example: "  penstock config schema > penstock.schema.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			enc.SetEscapeHTML(false)
			return enc.Encode(config.Schema())
		}})
}
